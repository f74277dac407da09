"""A simulated Nostr network with a seeded fault model and exact ground truth.

    make simnet SEEDS=200       every fault alone, one big relay, 200 random networks
    make simnet SEED=123        one random network again
    make simnet FAULT=drip      one fault again
    make simnet REPLAY='...'    one relay again, as a failure was printed

Each relay is real (a WebSocket on loopback, see `relay`), misbehaves as its seed says (`faults`)
and knows all it holds. The real service program synchronizes a batch of them into a real
PostgreSQL through a real PgBouncer, several cycles long (`bed`); then the archive and its ledger
are held against the relays' own lists by code that shares nothing with src (`truth`).
"""
