"""Reading the archive in NIP-01's order (newest first, then by id) with bounded memory.

Two cursors in one transaction tell the order, the id and the size of each event of `events` and
`events_raw`; the events themselves follow in batches of so many rows and bytes. All of it reads
one snapshot, through PgBouncer too, since a transaction keeps its connection.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg
import orjson

from errors import EventRefused, MessageMalformed
from nostr.events import SignedEvent, parse_event
from nostr.filters import matcher
from transfer.lines import SeenAt, decode_line
from transfer.selection import Selection, event_conditions, raw_conditions

BATCH_EVENTS = 500
BATCH_BYTES = 8 * 1024 * 1024
_KEYS_PER_FETCH = 1_000

_EVENT_KEYS = """
    DECLARE event_keys NO SCROLL CURSOR FOR
    SELECT id, created_at::text AS created_at,
           octet_length(content) + octet_length(tags::text) + 100 * {relays} AS bytes
    FROM events
    WHERE {where}
    ORDER BY events.created_at DESC, id
"""
# encode_event writes the members in this order. What another hand wrote otherwise comes last.
_RAW_KEYS = """
    DECLARE raw_keys NO SCROLL CURSOR FOR
    SELECT id, created_at::text AS created_at, bytes
    FROM (
        SELECT id, max(octet_length(raw)) + 100 * count(*) AS bytes, max(substring(
            encode(substring(raw FROM 1 FOR 300), 'escape')
            FROM '^\\{{"id":"[0-9a-f]{{64}}","pubkey":"[0-9a-f]{{64}}","created_at":([0-9]+),'
        )::numeric) AS created_at
        FROM events_raw
        WHERE {where}
        GROUP BY id
    ) AS keys
    ORDER BY keys.created_at DESC NULLS LAST, id
"""
_RELAY_COUNT = "(SELECT count(*) FROM events_relays AS held WHERE held.event_id = events.id)"
_EVENTS = """
    SELECT id, pubkey, created_at, kind, tags::text AS tags, content, sig
    FROM events WHERE id = ANY ($1::text[])
"""
_RAW = """
    SELECT DISTINCT ON (id) id, raw
    FROM events_raw WHERE id = ANY ($1::text[]) ORDER BY id, relay_url
"""
_SIGHTINGS = """
    SELECT id, relay_url, min(seen_at) AS seen_at
    FROM (
        SELECT event_id AS id, relay_url, seen_at
        FROM events_relays WHERE event_id = ANY ($1::text[])
        UNION ALL
        SELECT id, relay_url, seen_at
        FROM events_raw WHERE id = ANY ($1::text[]) AND relay_url IS NOT NULL
    ) AS sightings
    GROUP BY id, relay_url
    ORDER BY id, relay_url
"""


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Events that follow each other. `relays` has those of each event, by id, when they were
    asked for. `damaged` are ids whose row is not the event that the id names."""

    events: Sequence[SignedEvent]
    relays: dict[str, list[SeenAt]] = field(default_factory=dict)
    damaged: Sequence[str] = ()


class _Key(NamedTuple):
    """Sorts as NIP-01 has it. `age` is minus created_at; None of it is known: last."""

    is_last: bool
    age: int
    id: str
    bytes: int
    is_raw: bool


async def read_events(
    conn: asyncpg.Connection, selection: Selection, *, with_relays: bool = False
) -> AsyncIterator[ReadBatch]:
    """Every selected event once, from the connection of a BigBrotr.snapshot."""
    matches, left = matcher(selection.filter), selection.limit
    async for keys in _batches(_merged(conn, selection, with_relays)):
        if left == 0:
            return
        found, damaged = await _fetch(conn, keys)
        events = [event for event in found if matches(event)][:left]
        if left is not None:
            left -= len(events)
        ids = [event.id for event in events]
        relays = await _relays(conn, ids) if with_relays else {}
        yield ReadBatch(events, relays, damaged)


async def _batches(keys: AsyncIterator[_Key]) -> AsyncIterator[list[_Key]]:
    """The keys in lists of events that together are not too big; one that is comes alone."""
    batch, size = list[_Key](), 0
    async for key in keys:
        if batch and (len(batch) == BATCH_EVENTS or size + key.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += key.bytes
    if batch:
        yield batch


async def _merged(
    conn: asyncpg.Connection, selection: Selection, with_relays: bool
) -> AsyncIterator[_Key]:
    """The keys of both tables in one order."""
    chosen = event_conditions(selection)
    relays = _RELAY_COUNT if with_relays else "0"
    if selection.is_narrow:
        # Plan for all rows. Else the plan for the first ones is right, which sorts nothing large.
        await conn.execute("SET LOCAL cursor_tuple_fraction = 1")
    await conn.execute(_EVENT_KEYS.format(where=chosen.where, relays=relays), *chosen.parameters)
    chosen = raw_conditions(selection)
    await conn.execute(_RAW_KEYS.format(where=chosen.where), *chosen.parameters)
    events, raw = _keys(conn, "event_keys"), _keys(conn, "raw_keys")
    event, other = await anext(events, None), await anext(raw, None)
    while event or other:
        if other is None or (event is not None and event < other):
            assert event is not None
            yield event
            event = await anext(events, None)
        else:
            yield other
            other = await anext(raw, None)


async def _keys(conn: asyncpg.Connection, cursor: str) -> AsyncIterator[_Key]:
    is_raw = cursor == "raw_keys"
    while rows := await conn.fetch(f"FETCH {_KEYS_PER_FETCH} FROM {cursor}"):
        for row in rows:
            created_at = row["created_at"]
            age = 0 if created_at is None else -int(created_at)
            yield _Key(created_at is None, age, row["id"], row["bytes"], is_raw)


async def _fetch(
    conn: asyncpg.Connection, keys: Sequence[_Key]
) -> tuple[list[SignedEvent], list[str]]:
    """The events in the order of the keys, and the ids of those that are not what they were."""
    plain = [key.id for key in keys if not key.is_raw]
    raw = [key.id for key in keys if key.is_raw]
    objects: dict[str, object] = {}
    if plain:
        for row in await conn.fetch(_EVENTS, plain):
            objects[row["id"]] = {**row, "tags": orjson.loads(row["tags"])}
    if raw:
        for row in await conn.fetch(_RAW, raw):
            objects[row["id"]] = _decoded(row["raw"])
    events, damaged = [], []
    for key in keys:
        try:
            event = parse_event(objects[key.id])
        except EventRefused:
            damaged.append(key.id)
            continue
        if event.id == key.id:
            events.append(event)
        else:
            damaged.append(key.id)
    return events, damaged


def _decoded(raw: bytes) -> object:
    try:
        return decode_line(raw)[0]
    except MessageMalformed:
        return None


async def _relays(conn: asyncpg.Connection, ids: Sequence[str]) -> dict[str, list[SeenAt]]:
    relays = defaultdict[str, list[SeenAt]](list)
    for row in await conn.fetch(_SIGHTINGS, ids):
        relays[row["id"]].append(SeenAt(row["relay_url"], row["seen_at"]))
    return relays
