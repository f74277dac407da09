"""Reading the archive for relays: every event of the right kinds once, in batches.

A batch's new relays and the note that its events were read are committed together, so that
nothing is read twice and nothing is left out, whenever the process ends.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from bigbrotr import BigBrotr
from discovery.mentions import CONTENT_KINDS, MENTION_KINDS, mentions
from discovery.sieve import TOO_MANY_IN_EVENT, Sieve, Sifted
from functions import chunkify
from nostr.events import decode_json
from nostr.urls import RelayUrl

# A follow list can be 100 kB long.
EVENTS_PER_BATCH = 200
_IDS_PER_LOOK = 20_000

_UNREAD = """
    SELECT events.id
    FROM events
    WHERE kind = ANY ($1::integer[])
      AND NOT EXISTS (SELECT FROM finder_events_read WHERE event_id = events.id)
    LIMIT $2
"""
_BATCH = """
    SELECT kind, tags::text AS tags,
           CASE WHEN kind = ANY ($2::integer[]) THEN content END AS content
    FROM events
    WHERE id = ANY ($1::text[])
"""
_MARK_READ = """
    INSERT INTO finder_events_read (event_id, read_at)
    SELECT id, $2 FROM events WHERE id = ANY ($1::text[]) ORDER BY id
    ON CONFLICT (event_id) DO NOTHING
"""
_INSERT_RELAYS = "SELECT insert_relays($1::text[], $2::text[], $3)"


@dataclass(slots=True)
class Harvest:
    """What sources gave, added up.

    Attributes:
        sources: events or aggregators that were read.
        named: texts in the place of relay URLs.
        new: relays that the archive did not have.
        refused: texts that are no usable relay URL, by reason.
    """

    sources: int = 0
    named: int = 0
    new: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, sources: int, sifted: Sifted, new: int) -> None:
        """Count some sources and what came of them."""
        self.sources += sources
        self.named += len(sifted.fresh) + sifted.known + sifted.refused.total()
        self.new += new
        self.refused += sifted.refused


async def known_relays(db: BigBrotr) -> list[str]:
    """The URLs of all relays of the archive."""
    return [row["url"] for row in await db.fetch("SELECT url FROM relays")]


async def insert_found(db: BigBrotr, relays: Sequence[RelayUrl]) -> int:
    """Add relays that the sieve let through; returns how many were new."""

    async def work(conn: asyncpg.Connection) -> int:
        return await _insert_relays(conn, relays)

    return await db.run_in_transaction(work)


async def read_archive(db: BigBrotr, sieve: Sieve, stop: asyncio.Event) -> Harvest:
    """Read every event not read yet and insert the relays that they name; ends early, between
    two batches, when `stop` is set."""
    harvest = Harvest()
    while not stop.is_set():
        rows = await db.fetch(_UNREAD, list(MENTION_KINDS), _IDS_PER_LOOK)
        for ids in chunkify([row["id"] for row in rows], EVENTS_PER_BATCH):
            if stop.is_set():
                break
            sifted, new = await _read_batch(db, sieve, ids)
            sieve.admit(sifted.fresh)
            harvest.add(len(ids), sifted, new)
        if len(rows) < _IDS_PER_LOOK:
            break
    return harvest


async def _read_batch(db: BigBrotr, sieve: Sieve, ids: list[str]) -> tuple[Sifted, int]:
    async def work(conn: asyncpg.Connection) -> tuple[Sifted, int]:
        rows = await conn.fetch(_BATCH, ids, list(CONTENT_KINDS))
        sifted = await asyncio.to_thread(_sift, sieve, rows)
        new = await _insert_relays(conn, sifted.fresh)
        await conn.execute(_MARK_READ, ids, int(time.time()))
        return sifted, new

    return await db.run_in_transaction(work)


async def _insert_relays(conn: asyncpg.Connection, relays: Sequence[RelayUrl]) -> int:
    if not relays:
        return 0
    new: int = await conn.fetchval(
        _INSERT_RELAYS,
        [relay.url for relay in relays],
        [relay.network for relay in relays],
        int(time.time()),
    )
    return new


def _sift(sieve: Sieve, rows: Sequence[asyncpg.Record]) -> Sifted:
    texts: list[str] = []
    beyond = 0
    for row in rows:
        found = mentions(row["kind"], decode_json(row["tags"].encode()), row["content"] or "")
        texts.extend(found.texts)
        beyond += found.beyond_limit
    sifted = sieve.sift(texts)
    sifted.refused.update({TOO_MANY_IN_EVENT: beyond} if beyond else {})
    return sifted
