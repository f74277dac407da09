"""Reading the archive by the sightings of one relay after another: lists in events of the kinds
that have them, and hints in events of any kind.

The position in a relay's sightings, the candidates and the counts are committed together. An event
is read with the first of its sightings. Sightings are read some minutes after their time, when no
writer can be about to add an older one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from bigbrotr import BigBrotr
from discovery.archive import read_row
from discovery.harvest import Harvest, store
from discovery.mentions import CONTENT_KINDS, LIST_KINDS, mentions
from discovery.naming import Occasion
from discovery.sieve import Sieve, Sifted
from errors import MessageMalformed
from functions import chunkify
from nostr.events import decode_json

LAG_SECONDS = 300
SIGHTINGS_PER_BATCH = 1_000
_EVENTS_AT_ONCE = 20

_LISTS = ", ".join(map(str, LIST_KINDS))
_CONTENTS = ", ".join(map(str, CONTENT_KINDS))
_RELAYS_WITH_NEWS = """
    SELECT relays.url
    FROM relays
    LEFT JOIN finder_positions AS position
        ON position.relay_url = relays.url AND position.stream = $1
    WHERE EXISTS (
        SELECT FROM {table} AS seen
        WHERE seen.relay_url = relays.url
          AND seen.seen_at >= coalesce(position.seen_at, 0)
          AND seen.seen_at <= $2
          AND (seen.seen_at, seen.{id})
              > (coalesce(position.seen_at, 0), coalesce(position.event_id, ''))
    )
    ORDER BY relays.url
"""
_ADD_POSITION = """
    INSERT INTO finder_positions (stream, relay_url, seen_at, event_id)
    SELECT $1, url, 0, '' FROM relays WHERE url = $2
    ON CONFLICT (relay_url, stream) DO NOTHING
"""
_LOCK_POSITION = """
    SELECT seen_at, event_id FROM finder_positions WHERE stream = $1 AND relay_url = $2 FOR UPDATE
"""
_MOVE_POSITION = """
    UPDATE finder_positions SET seen_at = $3, event_id = $4 WHERE stream = $1 AND relay_url = $2
"""
_NEXT = """
    SELECT seen_at, {id} AS id
    FROM {table}
    WHERE relay_url = $1
      AND seen_at BETWEEN $2 AND $4
      AND (seen_at, {id}) > ($2, $3)
    ORDER BY seen_at, {id}
    LIMIT $5
"""
# Which of these events this relay was the first to show, and may name a relay at all.
_FIRST_SEEN_HERE = """
    SELECT given.id
    FROM unnest($1::text[], $2::bigint[]) AS given (id, seen_at)
    WHERE NOT EXISTS (
        SELECT FROM {table} AS other
        WHERE other.{id} = given.id COLLATE "C"
          AND other.relay_url IS NOT NULL
          AND (other.seen_at, other.relay_url) < (given.seen_at, $3)
    )
"""
# Lists are marked as read; `discovery.archive` may have been faster.
_EVENTS = f"""
    WITH marked AS (
        INSERT INTO finder_events_read (event_id)
        SELECT id FROM events WHERE id = ANY ($1::text[]) AND kind IN ({_LISTS}) ORDER BY id
        ON CONFLICT (event_id) DO NOTHING
        RETURNING event_id
    )
    SELECT id, pubkey, kind, tags::text AS tags,
           CASE WHEN kind IN ({_CONTENTS}) THEN content ELSE '' END AS content
    FROM events
    WHERE id = ANY ($1::text[])
      AND CASE WHEN kind IN ({_LISTS})
          THEN id IN (SELECT event_id FROM marked)
          ELSE tags::text LIKE '%://%'
      END
"""
_RAW_EVENTS = "SELECT DISTINCT ON (id) id, raw FROM events_raw WHERE id = ANY ($1::text[])"


@dataclass(frozen=True, slots=True)
class Stream:
    """A table of sightings: the name of its position, its own, that of its column of event ids;
    the query for some of its events, and what one of the rows names."""

    name: str
    table: str
    id: str
    events: str
    read: Callable[[asyncpg.Record], Occasion | None]

    def sql(self, statement: str) -> str:
        """The statement for this table."""
        return statement.format(table=self.table, id=self.id)


def _read_raw(row: asyncpg.Record) -> Occasion | None:
    try:
        match decode_json(row["raw"]):
            case {"pubkey": str() as pubkey, "kind": int() as kind, "tags": tags, "content": text}:
                return mentions(row["id"], pubkey, kind, tags, str(text))
    except MessageMalformed:
        pass
    return None


STREAMS = (
    Stream("hints", "events_relays", "event_id", _EVENTS, read_row),
    Stream("raw", "events_raw", "id", _RAW_EVENTS, _read_raw),
)


async def read_sightings(
    db: BigBrotr, sieve: Sieve, stop: asyncio.Event, *, until: float = float("inf")
) -> Harvest:
    """Read the sightings that are new since the last time, a batch of each relay in turn; ends
    early when `stop` is set or the time `until` (of time.monotonic) has come."""
    harvest = Harvest()
    horizon = int(time.time()) - LAG_SECONDS
    for stream in STREAMS:
        rows = await db.fetch(stream.sql(_RELAYS_WITH_NEWS), stream.name, horizon)
        relays = deque(row["url"] for row in rows)
        while relays and not stop.is_set() and time.monotonic() < until:
            relay = relays.popleft()
            sightings, events, sifted, new = await _read_batch(db, sieve, stream, relay, horizon)
            sieve.admit(sifted.fresh)
            harvest.add(events, sifted, new)
            if sightings == SIGHTINGS_PER_BATCH:
                relays.append(relay)
    return harvest


async def _read_batch(
    db: BigBrotr, sieve: Sieve, stream: Stream, relay: str, horizon: int
) -> tuple[int, int, Sifted, int]:
    async def work(conn: asyncpg.Connection) -> tuple[int, int, Sifted, int]:
        await conn.execute(_ADD_POSITION, stream.name, relay)
        position = await conn.fetchrow(_LOCK_POSITION, stream.name, relay)
        if position is None:  # the relay was deleted meanwhile
            return 0, 0, Sifted(), 0
        seen = await conn.fetch(stream.sql(_NEXT), relay, *position, horizon, SIGHTINGS_PER_BATCH)
        if not seen:
            return 0, 0, Sifted(), 0
        occasions = await _read_events(conn, stream, relay, seen)
        sifted, new = await store(conn, sieve, occasions)
        await conn.execute(_MOVE_POSITION, stream.name, relay, *seen[-1])
        return len(seen), len(occasions), sifted, new

    return await db.run_in_transaction(work)


async def _read_events(
    conn: asyncpg.Connection, stream: Stream, relay: str, seen: Sequence[asyncpg.Record]
) -> list[Occasion]:
    ids, times = [row["id"] for row in seen], [row["seen_at"] for row in seen]
    first = await conn.fetch(stream.sql(_FIRST_SEEN_HERE), ids, times, relay)
    occasions: list[Occasion] = []
    # In the order in which every finder marks events.
    for some in chunkify(sorted(row["id"] for row in first), _EVENTS_AT_ONCE):
        rows = await conn.fetch(stream.events, some)
        occasions += await asyncio.to_thread(_read_all, stream, rows)
    return occasions


def _read_all(stream: Stream, rows: Sequence[asyncpg.Record]) -> list[Occasion]:
    """What the events name that name something."""
    occasions = (stream.read(row) for row in rows)
    return [occasion for occasion in occasions if occasion is not None and occasion.named]
