"""Events as rows: the SQL side of the write path.

Everything that two writers may both want is written in one order (relay, events by id,
sightings by id and relay), a set at a time, so concurrent writers wait for each other and never
deadlock.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import asyncpg
import orjson

from database_errors import is_about_a_row
from nostr.events import SignedEvent, encode_event
from nostr.urls import RelayUrl

ROWS_PER_STATEMENT = 1_000

# A server connection keeps its plans of foreign key checks: one made while the events were few
# must not go on scanning them when they are many.
_BY_INDEX_ONLY = "SET LOCAL enable_seqscan = off"
_INSERT_RELAYS = "SELECT insert_relays($1, $2, $3)"
# Says which of the events were new. Unlike insert_events it does not look for known ones first:
# sessions have asked for them already, and few have become known since.
_INSERT_EVENTS = """
    INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig)
    SELECT given.*
    FROM unnest(
        $1::text[], $2::text[], $3::bigint[], $4::integer[], $5::jsonb[], $6::text[], $7::text[]
    ) AS given (id, pubkey, created_at, kind, tags, content, sig)
    ORDER BY given.id COLLATE "C"
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""
_INSERT_SIGHTINGS = """
    INSERT INTO events_relays (event_id, relay_url, seen_at)
    SELECT given.id, given.url, given.seen_at
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (id, url, seen_at)
    ORDER BY given.id COLLATE "C", given.url COLLATE "C"
"""
_INSERT_MISSING_SIGHTINGS = f"{_INSERT_SIGHTINGS} ON CONFLICT (event_id, relay_url) DO NOTHING"
_INSERT_RAW = """
    INSERT INTO events_raw (id, relay_url, raw, reason, seen_at)
    SELECT event.id, given.url, event.raw, event.reason, coalesce(given.seen_at, $7)
    FROM unnest($4::text[], $5::bytea[], $6::text[]) AS event (id, raw, reason)
    LEFT JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS given (id, url, seen_at)
        ON given.id = event.id
    ORDER BY event.id COLLATE "C", given.url COLLATE "C"
    ON CONFLICT (id, relay_url) DO NOTHING
    RETURNING relay_url
"""
_COPY_RAW = """
    INSERT INTO events_raw (id, relay_url, raw, reason, seen_at)
    SELECT DISTINCT ON (known.id, given.url COLLATE "C")
        known.id, given.url, known.raw, known.reason, given.seen_at
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (id, url, seen_at)
    JOIN events_raw AS known ON known.id = given.id COLLATE "C"
    ORDER BY known.id, given.url COLLATE "C", known.relay_url
    ON CONFLICT (id, relay_url) DO NOTHING
"""
_HELD = """
    SELECT id, false AS is_raw FROM events WHERE id = ANY ($1::text[])
    UNION ALL
    SELECT DISTINCT id, true FROM events_raw WHERE id = ANY ($1::text[])
"""
_COUNT_REFUSED = """
    INSERT INTO refused_events AS counted (relay_url, reason, events, last_seen_at)
    SELECT given.url, given.reason, given.events, $4
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (url, reason, events)
    ORDER BY given.url COLLATE "C", given.reason
    ON CONFLICT (relay_url, reason) DO UPDATE
    SET events = counted.events + excluded.events,
        last_seen_at = greatest(counted.last_seen_at, excluded.last_seen_at)
"""

Row = TypeVar("Row")


class Reader(Protocol):
    """Whatever can fetch rows: a connection or a BigBrotr."""

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class RawEvent:
    """A valid event that the events table cannot hold: its JSON, and why not (a word of
    nostr.events.storage_obstacle, or the SQLSTATE with which PostgreSQL refused it)."""

    id: str
    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write added. `new`: ids of events that the archive did not hold. `sightings`: how many
    pairs of event and relay it did not know. `unstorable`: events that PostgreSQL refused, kept in
    events_raw. `vanished`: ids that were passed as known but were deleted in the meantime, so
    nothing was written for them."""

    new: frozenset[str]
    sightings: int
    unstorable: tuple[RawEvent, ...] = ()
    vanished: frozenset[str] = frozenset()


class Sighting(NamedTuple):
    """That a relay holds an event, first seen there at `seen_at` (Unix seconds)."""

    event_id: str
    url: str
    seen_at: int


async def known_ids(reader: Reader, ids: Sequence[str]) -> set[str]:
    """Those of the ids that the archive holds, in either table."""
    return {row["id"] for row in await reader.fetch(_HELD, list(ids))} if ids else set()


async def write_events(
    conn: asyncpg.Connection,
    relay: RelayUrl,
    seen_at: int,
    events: Sequence[SignedEvent],
    *,
    known: Sequence[str] = (),
    raw: Sequence[RawEvent] = (),
    refused: Mapping[str, int] | None = None,
) -> WriteResult:
    """Writes what one relay sent, in the caller's transaction; may be repeated.

    As write_sighted, with a sighting of each event; `refused` counts by reason what was no valid
    event.
    """
    ids = {*known, *(event.id for event in events), *(event.id for event in raw)}
    written = await write_sighted(
        conn,
        [relay],
        [Sighting(id_, relay.url, seen_at) for id_ in ids],
        events,
        known=known,
        raw=raw,
        now=seen_at,
    )
    await count_refused(conn, {relay: refused or {}}, seen_at)
    return written


async def write_sighted(
    conn: asyncpg.Connection,
    relays: Collection[RelayUrl],
    sightings: Collection[Sighting],
    events: Sequence[SignedEvent],
    *,
    known: Collection[str] = (),
    raw: Sequence[RawEvent] = (),
    now: int,
) -> WriteResult:
    """Writes events and where they were seen, in the caller's transaction; may be repeated.

    `events` are verified and storable (`storage_obstacle` is None; the others come as `raw`), and
    may repeat; `known` are ids found by known_ids, of which only the sightings are recorded. An
    event that PostgreSQL refuses all the same is found by bisection and goes to events_raw; the
    others are written. `sightings` are of `events`, `known` and `raw`, at these relays, a pair of
    event and relay at most once. An event without any is kept all the same: in events there is
    no sighting of it, in events_raw its relay is NULL.
    """
    await conn.execute(_BY_INDEX_ONLY)
    if relays:
        await write_relays(conn, sorted(relays), now)
    new, unstorable = await _insert_events(conn, events)
    kept_raw = {event.id: event for event in [*raw, *unstorable]}

    held = await conn.fetch(_HELD, list(known)) if known else []
    in_raw = {row["id"] for row in held if row["is_raw"]}
    in_events = {event.id for event in events} | {row["id"] for row in held if not row["is_raw"]}
    in_events -= kept_raw.keys()
    # Nobody else can have seen an event that this transaction has added: no conflict to look for.
    rows = await _insert_pairs(conn, _INSERT_SIGHTINGS, sightings, new)
    rows += await _insert_pairs(conn, _INSERT_MISSING_SIGHTINGS, sightings, in_events - new)
    rows += await _insert_pairs(conn, _COPY_RAW, sightings, in_raw)
    if kept_raw:
        new |= kept_raw.keys() - await known_ids(conn, list(kept_raw))
        rows += await _insert_raw(conn, kept_raw.values(), sightings, now)
    return WriteResult(
        new=frozenset(new),
        sightings=rows,
        unstorable=tuple(unstorable),
        vanished=frozenset(known) - {row["id"] for row in held},
    )


async def count_refused(
    conn: asyncpg.Connection, refused: Mapping[RelayUrl, Mapping[str, int]], seen_at: int
) -> None:
    """Counts, per relay and reason, what was no valid event, in the caller's transaction."""
    counts = [
        (relay.url, reason, events)
        for relay, by_reason in refused.items()
        for reason, events in by_reason.items()
        if events > 0
    ]
    if counts:
        await conn.execute(_COUNT_REFUSED, *zip(*counts, strict=True), seen_at)


async def write_relays(conn: asyncpg.Connection, urls: Sequence[RelayUrl], inserted_at: int) -> int:
    """Adds relays in the caller's transaction; returns how many were not known."""
    names, networks = [url.url for url in urls], [url.network for url in urls]
    return int(await conn.fetchval(_INSERT_RELAYS, names, networks, inserted_at))


async def insert_bisected(
    conn: asyncpg.Connection,
    rows: Sequence[Row],
    insert: Callable[[asyncpg.Connection, Sequence[Row]], Awaitable[int]],
) -> tuple[int, list[tuple[Row, str]]]:
    """Inserts rows behind a savepoint. When one has a value that PostgreSQL refuses, halves the
    rows until it is alone. Returns how many rows were new, and the refused ones, each with its
    SQLSTATE. Other errors are raised."""
    try:
        async with conn.transaction():
            return await insert(conn, rows), []
    except asyncpg.PostgresError as error:
        if not is_about_a_row(error):
            raise
        if len(rows) == 1:
            return 0, [(rows[0], str(error.sqlstate))]
    middle = len(rows) // 2
    new_first, refused_first = await insert_bisected(conn, rows[:middle], insert)
    new_second, refused_second = await insert_bisected(conn, rows[middle:], insert)
    return new_first + new_second, refused_first + refused_second


async def _insert_events(
    conn: asyncpg.Connection, events: Sequence[SignedEvent]
) -> tuple[set[str], list[RawEvent]]:
    """The ids of those that were new, and those that PostgreSQL refused."""
    ordered = sorted({event.id: event for event in events}.values())
    new, unstorable = set[str](), list[RawEvent]()

    async def insert(conn: asyncpg.Connection, rows: Sequence[SignedEvent]) -> int:
        ids, pubkeys, created_ats, kinds, tags, contents, sigs = zip(*rows, strict=True)
        documents = [orjson.dumps(value).decode() for value in tags]
        added = await conn.fetch(
            _INSERT_EVENTS, ids, pubkeys, created_ats, kinds, documents, contents, sigs
        )
        new.update(row["id"] for row in added)
        return len(added)

    for start in range(0, len(ordered), ROWS_PER_STATEMENT):
        _, poison = await insert_bisected(conn, ordered[start : start + ROWS_PER_STATEMENT], insert)
        unstorable += [RawEvent(event.id, encode_event(event), why) for event, why in poison]
    return new, unstorable


async def _insert_pairs(
    conn: asyncpg.Connection, statement: str, sightings: Iterable[Sighting], ids: Collection[str]
) -> int:
    """Inserts those of the sightings that are of these events; returns how many rows were added."""
    columns = _columns(sightings, ids)
    if not columns[0]:
        return 0
    return int(str(await conn.execute(statement, *columns)).rpartition(" ")[2])


async def _insert_raw(
    conn: asyncpg.Connection,
    events: Collection[RawEvent],
    sightings: Iterable[Sighting],
    now: int,
) -> int:
    """Inserts events with their sightings; returns how many of these were added."""
    ids = [event.id for event in events]
    raws, reasons = [event.raw for event in events], [event.reason for event in events]
    columns = _columns(sightings, set(ids))
    added = await conn.fetch(_INSERT_RAW, *columns, ids, raws, reasons, now)
    return sum(row["relay_url"] is not None for row in added)


def _columns(sightings: Iterable[Sighting], ids: Collection[str]) -> Sequence[Sequence[object]]:
    """Those of the sightings that are of these events, as columns."""
    chosen = [sighting for sighting in sightings if sighting.event_id in ids]
    return list(zip(*chosen, strict=True)) or [(), (), ()]
