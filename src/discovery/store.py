"""What the finder keeps: candidates, and where relays were named."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import asyncpg

from bigbrotr import BigBrotr
from discovery.naming import Found, Naming
from discovery.sieve import MAX_CANDIDATES, Sifted

# Failed checks after which a candidate may have to make room: about two days.
_FAILURES_TO_MAKE_ROOM = 3

_KNOWN = """
    SELECT url, NULL AS found_by FROM relays
    UNION ALL
    SELECT url, found_by FROM relay_candidates
"""
_INSERT_CANDIDATES = """
    INSERT INTO relay_candidates (url, network, found_by, found_at)
    SELECT given.url, given.network, given.found_by, $4
    FROM unnest($1::text[], $2::text[], $3::text[]) AS given (url, network, found_by)
    WHERE NOT EXISTS (SELECT FROM relays WHERE relays.url = given.url COLLATE "C")
    ORDER BY given.url COLLATE "C"
    ON CONFLICT (url) DO NOTHING
"""
# What was named may have been deleted since the finder looked.
_RECORD_SOURCES = """
    INSERT INTO relay_sources AS known
        (relay_url, source, name, first_seen_at, last_seen_at, times, first_event_id)
    SELECT given.url, given.source, given.name, $6, $6, given.times, given.first_event_id
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
        AS given (url, source, name, times, first_event_id)
    WHERE EXISTS (SELECT FROM relays WHERE relays.url = given.url COLLATE "C")
       OR EXISTS (SELECT FROM relay_candidates AS c WHERE c.url = given.url COLLATE "C")
    ORDER BY given.url COLLATE "C", given.source, given.name
    ON CONFLICT (relay_url, source, name) DO UPDATE
    SET times = known.times + excluded.times,
        last_seen_at = greatest(known.last_seen_at, excluded.last_seen_at)
"""
_REMOVE_RELAYS = """
    DELETE FROM relay_candidates USING relays WHERE relays.url = relay_candidates.url
"""
_MAKE_ROOM = """
    DELETE FROM relay_candidates
    WHERE url IN (
        SELECT candidates.url
        FROM relay_candidates AS candidates
        JOIN relay_tasks AS tasks
            ON tasks.purpose = 'monitor' AND tasks.relay_url = candidates.url
        WHERE tasks.failures >= $2 AND tasks.owner IS NULL
        ORDER BY tasks.failures DESC, candidates.found_at
        LIMIT greatest(0, (SELECT count(*) FROM relay_candidates) - $1)
    )
"""
_NO_EVENTS: Mapping[Naming, str] = MappingProxyType({})


async def known_urls(db: BigBrotr) -> list[tuple[str, str | None]]:
    """The URLs of all relays, each with None, and of all candidates, each with who named it."""
    return [(row["url"], row["found_by"]) for row in await db.fetch(_KNOWN)]


async def write_sifted(conn: asyncpg.Connection, sifted: Sifted) -> int:
    """Add candidates, and count who named what, in the caller's transaction; returns how many
    candidates were new."""
    new = await _insert_candidates(conn, sifted.fresh)
    await record_sources(conn, sifted.times, sifted.first_events)
    return new


async def record_sources(
    conn: asyncpg.Connection,
    times: Mapping[Naming, int],
    first_events: Mapping[Naming, str] = _NO_EVENTS,
) -> None:
    """Add to the counts of relays and candidates how often they were named where, in the caller's
    transaction; `first_events` has the first event of those that events named."""
    if not times:
        return
    namings = list(times)
    await conn.execute(
        _RECORD_SOURCES,
        [naming.url for naming in namings],
        [naming.source.source for naming in namings],
        [naming.source.name for naming in namings],
        list(times.values()),
        [first_events.get(naming) for naming in namings],
        int(time.time()),
    )


async def tidy_candidates(db: BigBrotr, *, most: int = MAX_CANDIDATES * 9 // 10) -> int:
    """Remove candidates that became relays meanwhile and, where there are more than `most`, those
    that failed most often; returns how many of the latter."""
    await db.execute(_REMOVE_RELAYS)
    return int((await db.execute(_MAKE_ROOM, most, _FAILURES_TO_MAKE_ROOM)).rpartition(" ")[2])


async def _insert_candidates(conn: asyncpg.Connection, found: Sequence[Found]) -> int:
    if not found:
        return 0
    done = await conn.execute(
        _INSERT_CANDIDATES,
        [relay.url for relay, _ in found],
        [relay.network for relay, _ in found],
        [by for _, by in found],
        int(time.time()),
    )
    return int(str(done).rpartition(" ")[2])
