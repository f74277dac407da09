"""Reading the archive for relays: every event whose purpose it is to name some, once, in batches.

What a batch gave and the note that its events were read are committed together, so that nothing
is read or counted twice and nothing is left out, whenever the process ends.
"""

import asyncio
import time

import asyncpg

from bigbrotr import BigBrotr
from discovery.harvest import Harvest, store
from discovery.mentions import CONTENT_KINDS, LIST_KINDS, mentions
from discovery.naming import Occasion
from discovery.sieve import Sieve, Sifted
from functions import chunkify
from nostr.events import decode_json

EVENTS_PER_BATCH = 200
# An event can be as large as a message, some megabytes; so few of them are in memory at once.
_EVENTS_AT_ONCE = 20
_IDS_PER_LOOK = 20_000

_UNREAD = """
    SELECT events.id
    FROM events
    WHERE kind = ANY ($1::integer[])
      AND NOT EXISTS (SELECT FROM finder_events_read WHERE event_id = events.id)
    LIMIT $2
"""
_EVENTS = """
    SELECT id, pubkey, kind, tags::text AS tags,
           CASE WHEN kind = ANY ($2::integer[]) THEN content ELSE '' END AS content
    FROM events
    WHERE id = ANY ($1::text[])
"""
# Another finder that marks the same events is waited for, and has them then.
_MARK_READ = """
    INSERT INTO finder_events_read (event_id, read_at)
    SELECT id, $2 FROM events WHERE id = ANY ($1::text[]) ORDER BY id
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_id
"""


async def read_lists(
    db: BigBrotr, sieve: Sieve, stop: asyncio.Event, *, until: float = float("inf")
) -> Harvest:
    """Read every event of LIST_KINDS not read yet; ends early, between two batches, when `stop`
    is set or the time `until` (of time.monotonic) has come."""
    harvest = Harvest()
    while not stop.is_set():
        rows = await db.fetch(_UNREAD, list(LIST_KINDS), _IDS_PER_LOOK)
        for ids in chunkify([row["id"] for row in rows], EVENTS_PER_BATCH):
            if stop.is_set() or time.monotonic() >= until:
                return harvest
            sifted, events, new = await _read_batch(db, sieve, ids)
            sieve.admit(sifted.fresh)
            harvest.add(events, sifted, new)
        if len(rows) < _IDS_PER_LOOK:
            break
    return harvest


async def _read_batch(db: BigBrotr, sieve: Sieve, ids: list[str]) -> tuple[Sifted, int, int]:
    async def work(conn: asyncpg.Connection) -> tuple[Sifted, int, int]:
        ours = [row["event_id"] for row in await conn.fetch(_MARK_READ, ids, int(time.time()))]
        occasions: list[Occasion] = []
        for some in chunkify(ours, _EVENTS_AT_ONCE):
            rows = await conn.fetch(_EVENTS, some, list(CONTENT_KINDS))
            occasions += await asyncio.to_thread(lambda found: list(map(_read, found)), rows)
        sifted, new = await store(conn, sieve, occasions)
        return sifted, len(ours), new

    return await db.run_in_transaction(work)


def _read(row: asyncpg.Record) -> Occasion:
    tags = decode_json(row["tags"].encode())
    return mentions(row["id"], row["pubkey"], row["kind"], tags, row["content"])
