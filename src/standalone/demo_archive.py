"""What the archive holds, as the demo sees it: progress while it fills, then every event."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg
import orjson

from errors import BigBrotrError
from nostr.events import SignedEvent, parse_event
from nostr.json_text import decode_json
from standalone.signing import DemoEvent

_PAGE = 5_000
_PROGRESS = """
    SELECT relays.url, coalesce(held.events, 0) AS events,
           coalesce(held.last_seen_at, 0) AS last_seen_at,
           coalesce(min(progress.proven_percent), 0)::float8 AS proven
    FROM relays
    LEFT JOIN (
        SELECT relay_url, count(*) AS events, max(seen_at) AS last_seen_at
        FROM (
            SELECT relay_url, seen_at FROM events_relays
            UNION ALL SELECT relay_url, seen_at FROM events_raw
        ) AS sightings
        GROUP BY relay_url
    ) AS held ON held.relay_url = relays.url
    LEFT JOIN sync_progress AS progress ON progress.relay_url = relays.url
    WHERE relays.url = ANY ($1::text[])
    GROUP BY 1, 2, 3
"""
_TOTAL = "SELECT (SELECT count(*) FROM events) + (SELECT count(DISTINCT id) FROM events_raw)"
_SIGHTINGS = """
    SELECT relay_url, event_id AS id FROM events_relays
    UNION SELECT relay_url, id FROM events_raw
"""
_EVENTS = """
    SELECT id, pubkey, created_at, kind, tags::text AS tags, content, sig
    FROM events WHERE id > $1 ORDER BY id LIMIT $2
"""
_CHECKED = """
    SELECT facts.relay_url AS url, facts.outcome, facts.write_outcome, facts.scheme,
           (SELECT count(*) FROM relay_metadata WHERE relay_url = facts.relay_url) AS checks,
           latest.rtt_open, latest.rtt_read, latest.software
    FROM relay_facts_latest AS facts
    JOIN relay_metadata_latest AS latest ON latest.relay_url = facts.relay_url
    ORDER BY facts.relay_url
"""
_FOUND = """
    SELECT (SELECT count(*) FROM relays) AS relays,
           (SELECT count(*) FROM relay_metadata) AS checks,
           (SELECT count(*) FROM readable_relays) AS readable,
           (SELECT count(*) FROM finder_events_read) AS lists_read,
           (SELECT count(DISTINCT id) FROM events_raw) AS raw,
           (SELECT coalesce(sum(events), 0)::bigint FROM refused_events) AS refused,
           (SELECT count(*) FROM sync_gaps) AS gaps
"""
_NAMED = """
    SELECT relay_url, source, name, times, candidates.url IS NOT NULL AS is_candidate
    FROM relay_sources
    LEFT JOIN relay_candidates AS candidates ON candidates.url = relay_url
    ORDER BY relay_url, first_seen_at, source, name
"""


@dataclass(frozen=True, slots=True)
class NamedRelay:
    """A relay, or a candidate that has not answered, and the places that name it."""

    url: str
    is_candidate: bool
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckedRelay:
    """What the latest check of a relay found. Round-trip times in milliseconds; `software` is what
    the relay claims to run."""

    url: str
    checks: int
    outcome: str
    write_outcome: str
    scheme: str
    rtt_open: int | None
    rtt_read: int | None
    software: str | None


@dataclass(frozen=True, slots=True)
class RelayProgress:
    """How far one relay is archived; `proven` is a percentage of the seconds asked for."""

    archived: int = 0
    proven: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the archive is: different events in all, and each relay by its URL."""

    events: int
    relays: Mapping[str, RelayProgress]


@dataclass(slots=True)
class ReadBack:
    """Every event of the archive, compared with what was published.

    `right` are ids of events that are identical, `wrong` maps an id to what is wrong with it;
    `unknown` counts right events that the demo did not publish.
    """

    right: set[str] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)
    unknown: int = 0
    sightings: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """All that the demo reads in the end."""

    back: ReadBack
    counts: Mapping[str, int]
    named: Sequence[NamedRelay]
    checked: Sequence[CheckedRelay]
    progress: Progress


async def read_all(
    connection: asyncpg.Connection,
    published: Mapping[str, DemoEvent],
    urls: Collection[str],
) -> Reading:
    """Every event, compared with what was published, and what the services did."""
    return Reading(
        await read_back(connection, published),
        await read_counts(connection),
        await read_named(connection),
        await read_checked(connection),
        await read_progress(connection, urls),
    )


async def read_progress(connection: asyncpg.Connection, urls: Collection[str]) -> Progress:
    """The state of the relays with these URLs."""
    rows = await connection.fetch(_PROGRESS, list(urls))
    found = {row["url"]: RelayProgress(row["events"], row["proven"]) for row in rows}
    total = await connection.fetchval(_TOTAL)
    return Progress(total, {url: found.get(url, RelayProgress()) for url in urls})


async def read_counts(connection: asyncpg.Connection) -> dict[str, int]:
    """Sizes that tell what the services did."""
    return dict(await connection.fetchrow(_FOUND))


async def read_named(connection: asyncpg.Connection) -> list[NamedRelay]:
    """Every relay and candidate that some source names, by URL."""
    named: dict[str, NamedRelay] = {}
    for row in await connection.fetch(_NAMED):
        place = f"{row['source']} {row['name']} ({row['times']}x)"
        before = named[row["relay_url"]].places if row["relay_url"] in named else ()
        named[row["relay_url"]] = NamedRelay(
            row["relay_url"], row["is_candidate"], (*before, place)
        )
    return list(named.values())


async def read_checked(connection: asyncpg.Connection) -> list[CheckedRelay]:
    """Every relay that was checked, by URL."""
    return [CheckedRelay(**row) for row in await connection.fetch(_CHECKED)]


async def read_back(connection: asyncpg.Connection, published: Mapping[str, DemoEvent]) -> ReadBack:
    """Read all events, recompute every id and compare every field."""
    result = ReadBack()
    last = ""
    while rows := await connection.fetch(_EVENTS, last, _PAGE):
        last = rows[-1]["id"]
        for row in rows:
            _judge(row["id"], dict(row) | {"tags": orjson.loads(row["tags"])}, published, result)
    for row in await connection.fetch("SELECT id, raw FROM events_raw"):
        _judge(row["id"], decode_json(row["raw"]), published, result)
    for row in await connection.fetch(_SIGHTINGS):
        result.sightings.setdefault(row["relay_url"], set()).add(row["id"])
    return result


def _judge(
    event_id: str, stored: object, published: Mapping[str, DemoEvent], result: ReadBack
) -> None:
    try:
        event = parse_event(stored)
    except BigBrotrError as error:
        result.wrong[event_id] = str(error)
        return
    original = published.get(event_id)
    if event.id != event_id:
        result.wrong[event_id] = f"its row says it is {event.id}"
    elif original is None:
        result.unknown += 1
    elif differences := list(_differences(event, original)):
        result.wrong[event_id] = f"altered: {', '.join(differences)}"
    else:
        result.right.add(event_id)


def _differences(event: SignedEvent, original: DemoEvent) -> Iterator[str]:
    for name in DemoEvent._fields:
        if getattr(event, name) != getattr(original, name):
            yield name
