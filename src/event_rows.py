"""Events as rows: the SQL side of the write path.

Everything that two writers may both want is written in one order (relay, events by id,
sightings by id), a set at a time, so concurrent writers wait for each other and never deadlock.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import asyncpg
import orjson

from database_errors import is_about_a_row
from nostr.events import SignedEvent, encode_event
from nostr.urls import RelayUrl

ROWS_PER_STATEMENT = 1_000

_INSERT_EVENTS = "SELECT insert_events($1, $2, $3, $4, $5, $6, $7)"
_INSERT_RELAYS = "SELECT insert_relays($1, $2, $3)"
_INSERT_SIGHTINGS = "SELECT insert_sightings($1, $2, $3)"
_INSERT_RAW = "SELECT insert_raw_events($1, $2, $3, $4, $5)"
_INSERT_RAW_SIGHTINGS = "SELECT insert_raw_sightings($1, $2, $3)"
_INSERT_SIGHTED = """
    INSERT INTO events_relays (event_id, relay_url, seen_at)
    SELECT given.id, given.url, given.seen_at
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (id, url, seen_at)
    ORDER BY given.id COLLATE "C", given.url COLLATE "C"
    ON CONFLICT (event_id, relay_url) DO NOTHING
"""
_INSERT_RAW_SIGHTED = """
    INSERT INTO events_raw (id, relay_url, raw, reason, seen_at)
    SELECT event.id, given.url, event.raw, event.reason, coalesce(given.seen_at, $7)
    FROM unnest($4::text[], $5::bytea[], $6::text[]) AS event (id, raw, reason)
    LEFT JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS given (id, url, seen_at)
        ON given.id = event.id
    ORDER BY event.id COLLATE "C", given.url COLLATE "C"
    ON CONFLICT (id, relay_url) DO NOTHING
"""
_COPY_RAW_SIGHTED = """
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
    SELECT $1, given.reason, given.events, $4
    FROM unnest($2::text[], $3::bigint[]) AS given (reason, events)
    ORDER BY given.reason
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
    """What a write added. `new`: events that the archive did not hold. `sightings`: pairs of
    event and relay that it did not know. `unstorable`: events that PostgreSQL refused, kept in
    events_raw. `vanished`: ids that were passed as known but were deleted in the meantime, so
    nothing was written for them."""

    new: int
    sightings: int
    unstorable: tuple[RawEvent, ...] = ()
    vanished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """That a relay holds an event, first seen there at `seen_at` (Unix seconds)."""

    event_id: str
    relay: RelayUrl
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

    `events` are verified and storable (`storage_obstacle` is None; the others come as `raw`),
    `known` are ids found by known_ids, of which only the sighting is recorded, `refused` counts
    by reason what was no valid event. An event that PostgreSQL refuses all the same is found by
    bisection and goes to events_raw; the others of its batch are written.
    """
    await write_relays(conn, [relay], seen_at)
    new, unstorable = await _insert_all(conn, events)

    held = await conn.fetch(_HELD, list(known)) if known else []
    sighted = {event.id for event in events} | {row["id"] for row in held if not row["is_raw"]}
    sighted -= {event.id for event in unstorable}
    sightings = await _record(conn, _INSERT_SIGHTINGS, sighted, relay, seen_at)

    sighted_raw = {row["id"] for row in held if row["is_raw"]}
    sightings += await _record(conn, _INSERT_RAW_SIGHTINGS, sighted_raw, relay, seen_at)
    new_raw, rows_raw = await _insert_raw(conn, relay, seen_at, [*raw, *unstorable])
    if refused:
        await _count_refused(conn, relay, seen_at, refused)
    return WriteResult(
        new=new + new_raw,
        sightings=sightings + rows_raw,
        unstorable=tuple(unstorable),
        vanished=tuple(sorted(set(known) - {row["id"] for row in held})),
    )


async def write_imported(
    conn: asyncpg.Connection,
    sightings: Sequence[Sighting],
    events: Sequence[SignedEvent],
    *,
    known: Sequence[str] = (),
    raw: Sequence[RawEvent] = (),
    imported_at: int,
) -> WriteResult:
    """Like write_events, for events of which each has relays and times of its own.

    `sightings` are of `events`, `known` and `raw`, a pair of event and relay at most once. An
    event without any is kept all the same: in events there is no sighting of it, in events_raw
    its relay is NULL.
    """
    relays = {sighting.relay for sighting in sightings}
    if relays:
        await write_relays(conn, sorted(relays), imported_at)
    new, unstorable = await _insert_all(conn, events)
    kept_raw = {event.id: event for event in [*raw, *unstorable]}

    held = await conn.fetch(_HELD, list(known)) if known else []
    in_raw = {row["id"] for row in held if row["is_raw"]}
    in_events = {event.id for event in events} | {row["id"] for row in held if not row["is_raw"]}
    in_events -= kept_raw.keys()
    written = await _record_sighted(conn, _INSERT_SIGHTED, sightings, in_events)
    written += await _record_sighted(conn, _COPY_RAW_SIGHTED, sightings, in_raw)
    if kept_raw:
        new += len(kept_raw) - len(await known_ids(conn, list(kept_raw)))
        ids, raws, reasons = zip(
            *((event.id, event.raw, event.reason) for event in kept_raw.values()), strict=True
        )
        pairs = _pairs(sightings, kept_raw)
        await conn.execute(_INSERT_RAW_SIGHTED, *pairs, ids, raws, reasons, imported_at)
        written += len(pairs[0])
    return WriteResult(
        new=new,
        sightings=written,
        unstorable=tuple(unstorable),
        vanished=tuple(sorted(set(known) - {row["id"] for row in held})),
    )


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


async def _insert_all(
    conn: asyncpg.Connection, events: Sequence[SignedEvent]
) -> tuple[int, list[RawEvent]]:
    """How many of the events were new, and those that PostgreSQL refused."""
    ordered = sorted({event.id: event for event in events}.values())
    new, unstorable = 0, list[RawEvent]()
    for start in range(0, len(ordered), ROWS_PER_STATEMENT):
        written, poison = await insert_bisected(
            conn, ordered[start : start + ROWS_PER_STATEMENT], _insert_events
        )
        new += written
        unstorable += [RawEvent(event.id, encode_event(event), why) for event, why in poison]
    return new, unstorable


async def _insert_events(conn: asyncpg.Connection, events: Sequence[SignedEvent]) -> int:
    ids, pubkeys, created_ats, kinds, tags, contents, sigs = zip(*events, strict=True)
    documents = [orjson.dumps(value).decode() for value in tags]
    return int(
        await conn.fetchval(
            _INSERT_EVENTS, ids, pubkeys, created_ats, kinds, documents, contents, sigs
        )
    )


async def _record(
    conn: asyncpg.Connection, statement: str, ids: set[str], relay: RelayUrl, seen_at: int
) -> int:
    if not ids:
        return 0
    return int(await conn.fetchval(statement, sorted(ids), relay.url, seen_at))


def _pairs(
    sightings: Sequence[Sighting], ids: Collection[str]
) -> tuple[list[str], list[str], list[int]]:
    """Those of the sightings that are of these events, as columns."""
    chosen = [sighting for sighting in sightings if sighting.event_id in ids]
    return (
        [sighting.event_id for sighting in chosen],
        [sighting.relay.url for sighting in chosen],
        [sighting.seen_at for sighting in chosen],
    )


async def _record_sighted(
    conn: asyncpg.Connection, statement: str, sightings: Sequence[Sighting], ids: Collection[str]
) -> int:
    pairs = _pairs(sightings, ids)
    if not pairs[0]:
        return 0
    return int(str(await conn.execute(statement, *pairs)).rpartition(" ")[2])


async def _insert_raw(
    conn: asyncpg.Connection, relay: RelayUrl, seen_at: int, events: Sequence[RawEvent]
) -> tuple[int, int]:
    """How many of the events are new to the archive, and how many rows were added."""
    if not events:
        return 0, 0
    unique = sorted({event.id: event for event in events}.values(), key=lambda event: event.id)
    ids = [event.id for event in unique]
    before = await known_ids(conn, ids)
    raws, reasons = [event.raw for event in unique], [event.reason for event in unique]
    rows = await conn.fetchval(_INSERT_RAW, ids, raws, reasons, relay.url, seen_at)
    return len(set(ids) - before), int(rows)


async def _count_refused(
    conn: asyncpg.Connection, relay: RelayUrl, seen_at: int, refused: Mapping[str, int]
) -> None:
    counts = {reason: events for reason, events in refused.items() if events > 0}
    await conn.execute(_COUNT_REFUSED, relay.url, list(counts), list(counts.values()), seen_at)
