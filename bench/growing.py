"""Part "growth": the cost of an event and of the documented queries as the archive grows."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import sha256

import asyncpg

from bench.dataset import START, sign
from bench.figures import Figure, Point, Series
from bench.processes import tree_cpu
from bench.settings import Amounts
from bench.stage import server
from bench.writing import connect_to
from bigbrotr import BigBrotr
from components.databases import Cluster
from event_rows import write_events
from nostr.events import SignedEvent
from nostr.urls import RelayUrl

_RELAY = RelayUrl.parse("wss://growth.example.com")
_BATCH, _SPAN = 1_000, 100_000_000
_ROUNDS = 5
# Rows written with all indexes before anything is measured. The first change of a page after a
# checkpoint writes the whole page to the log: in a checkpoint's fifteen minutes that is a few
# events of many, in a short measurement it would be all of them.
_MOST_WARM_UP = 200_000
# Rows with random ids and authors by the square of a random number: few write much. Their
# signatures are noise; nothing here checks them.
_FILL = """
    INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig)
    SELECT encode(sha256(convert_to('id' || n, 'UTF8')), 'hex'),
        encode(sha256(convert_to('key' || floor(pow(random(), 2) * 50000)::int, 'UTF8')), 'hex'),
        $3 + floor(random() * $4)::bigint,
        (ARRAY[1, 1, 1, 7, 7, 6, 3])[1 + floor(random() * 7)::int],
        jsonb_build_array(
            jsonb_build_array('p', encode(sha256(convert_to('key' || n % 50000, 'UTF8')), 'hex')),
            jsonb_build_array('e', encode(sha256(convert_to('id' || n / 2, 'UTF8')), 'hex'))),
        repeat('a note of the archive ', 1 + floor(random() * 14)::int),
        repeat(encode(sha256(convert_to('sig' || n, 'UTF8')), 'hex'), 2)
    FROM generate_series($1::bigint, $2::bigint) AS n
"""
_FILL_SIGHTINGS = """
    INSERT INTO events_relays (event_id, relay_url, seen_at)
    SELECT encode(sha256(convert_to('id' || n, 'UTF8')), 'hex'), $3, $4
    FROM generate_series($1::bigint, $2::bigint) AS n
"""
_SECONDARY = """
    SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relname IN ('events', 'events_relays') AND NOT i.indisunique
"""
_SIZES = """
    SELECT c.relname AS name, pg_total_relation_size(c.oid) - pg_indexes_size(c.oid) AS bytes
    FROM pg_class c WHERE c.relname IN ('events', 'events_relays')
    UNION ALL
    SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c
    JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relname IN ('events', 'events_relays')
"""
_HAS_WALINSPECT = "SELECT true FROM pg_available_extensions WHERE name = 'pg_walinspect'"
_WAL_BYTES = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), $1::pg_lsn)::bigint"
# Whole records, page images included, by the first page that they are about.
_WAL = r"""
    SELECT coalesce(c.relname, '') AS name, sum(w.record_length)::bigint AS bytes
    FROM pg_get_wal_records_info($1, $2) AS w
    LEFT JOIN pg_class c
        ON c.relfilenode = (regexp_match(w.block_ref, 'rel \d+/\d+/(\d+)'))[1]::oid
    GROUP BY 1
"""
QUERIES = {
    "an author's latest 100": "SELECT * FROM events WHERE pubkey = $1 ORDER BY created_at DESC "
    "LIMIT 100",
    "the latest 500 of a kind": "SELECT * FROM events WHERE kind = 1 ORDER BY created_at DESC "
    "LIMIT 500",
    "the latest 100 that name a person": "SELECT * FROM events WHERE tagvalues @> ARRAY['p:' || $1]"
    " ORDER BY created_at DESC LIMIT 100",
    "a relay's latest 100": "SELECT e.* FROM events e JOIN events_relays s ON s.event_id = e.id "
    "WHERE s.relay_url = $1 ORDER BY s.seen_at DESC LIMIT 100",
}


def measure(amounts: Amounts) -> Point:
    """Fill to each size, then write signed events and time the queries."""
    return asyncio.run(_measure(amounts))


async def _measure(amounts: Amounts) -> Point:
    costs: list[list[float]] = []
    reads: list[dict[str, float]] = []
    with server() as cluster:
        database = cluster.create_database()
        conn = await cluster.connect(database.dbname)
        async with connect_to(database) as db:
            await conn.fetchval("SELECT insert_relays($1, $2, 1)", [_RELAY.url], ["clearnet"])
            filled = 0
            for turn, size in enumerate(amounts.growth):
                await _fill(conn, filled + 1, size)
                filled = size + min(size // 5, _MOST_WARM_UP)
                await _insert(conn, size + 1, filled)
                await conn.execute("VACUUM ANALYZE events, events_relays", timeout=600)
                rounds = [
                    await _write(
                        cluster, db, _events(f"growth {turn} {round_}", amounts.growth_events)
                    )
                    for round_ in range(_ROUNDS)
                ]
                costs.append(rounds)
                reads.append(await _read(conn))
        sizes = {row["name"]: row["bytes"] for row in await conn.fetch(_SIZES)}
        start = await conn.fetchval("SELECT pg_current_wal_flush_lsn()")
        wal_events = _events("growth wal", amounts.growth_events)
        async with connect_to(database) as db:
            await _write(cluster, db, wal_events)
        wal = await _wal(conn, start, sizes.keys())
        stored = await conn.fetchval("SELECT count(*) FROM events")
        await conn.close()
    names = [f"{size / 1e6:g} million" for size in amounts.growth]
    small, large = (
        Series(names[index], tuple(cost * 1e6 for cost in costs[index])) for index in (0, -1)
    )
    return Point(
        "growth",
        _ROUNDS,
        figures=(
            Figure(f"write a new event at {names[-1]}", "µs server CPU/event", large, small, 1.5),
            *(
                Figure(
                    query,
                    "ms",
                    Series(names[-1], (reads[-1][query],)),
                    Series(names[0], (reads[0][query],)),
                )
                for query in QUERIES
            ),
        ),
        facts={
            "bytes_per_event": sum(sizes.values()) / stored,
            "wal_bytes_per_event": sum(wal.values()) / amounts.growth_events,
            **{f"bytes_per_event_{name}": size / stored for name, size in sizes.items()},
            "stored": stored,
        },
        bars={
            "µs of PostgreSQL's CPU to write a new event, by events in the archive": {
                name: Series(name, tuple(cost * 1e6 for cost in part)).value
                for name, part in zip(names, costs, strict=True)
            },
            "bytes per event, by table (TOAST included) and index": {
                name: size / stored
                for name, size in sorted(sizes.items(), key=lambda item: -item[1])
            },
            "bytes of write-ahead log per event, by table and index": {
                name: size / amounts.growth_events
                for name, size in sorted(wal.items(), key=lambda item: -item[1])
            },
        },
        notes=(
            "The archive is filled by SQL with its secondary indexes dropped and made again, so "
            f"they are denser than grown ones. Then a fifth more, {_MOST_WARM_UP:,} rows at most, "
            "is written with them, and vacuumed, before anything is measured.",
            "Filled events are synthetic: about 150 bytes of content, two tags, one relay each.",
        ),
    )


async def _wal(conn: asyncpg.Connection, start: str, names: Collection[str]) -> dict[str, int]:
    """The bytes of log since `start`, by table and index where this PostgreSQL can tell."""
    if not await conn.fetchval(_HAS_WALINSPECT):
        return {"all": int(await conn.fetchval(_WAL_BYTES, start))}
    await conn.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    end = await conn.fetchval("SELECT pg_current_wal_flush_lsn()")
    found: Counter[str] = Counter()
    for row in await conn.fetch(_WAL, start, end, timeout=120):
        found[row["name"] if row["name"] in names else "commits, TOAST, others"] += row["bytes"]
    return found


def _events(seed: str, number: int) -> list[SignedEvent]:
    step = _SPAN // number
    return sign([START + position * step for position in range(number)], seed)


async def _fill(conn: asyncpg.Connection, first: int, last: int) -> None:
    indexes = await conn.fetch(_SECONDARY)
    for index in indexes:
        await conn.execute(f"DROP INDEX {index['name']}")
    await _insert(conn, first, last)
    for index in indexes:
        await conn.execute(index["definition"], timeout=600)
    await conn.execute("VACUUM ANALYZE events, events_relays", timeout=600)
    await conn.execute("CHECKPOINT", timeout=600)


async def _insert(conn: asyncpg.Connection, first: int, last: int) -> None:
    await conn.execute(_FILL, first, last, START, _SPAN, timeout=600)
    await conn.execute(_FILL_SIGHTINGS, first, last, _RELAY.url, START, timeout=600)


async def _write(cluster: Cluster, db: BigBrotr, events: Sequence[SignedEvent]) -> float:
    """PostgreSQL's CPU seconds for a new event."""
    server_pid = cluster.postgres.child.process.pid
    before = tree_cpu(server_pid)
    for start in range(0, len(events), _BATCH):
        batch = events[start : start + _BATCH]

        async def work(conn: asyncpg.Connection, batch: Sequence[SignedEvent] = batch) -> None:
            await write_events(conn, _RELAY, START, batch)

        await db.run_in_transaction(work)
    return (tree_cpu(server_pid) - before) / len(events)


async def _read(conn: asyncpg.Connection) -> dict[str, float]:
    """Milliseconds of each query, the median of five."""
    person = sha256(b"key100").hexdigest()  # one who writes and is named often
    found = {}
    for name, query in QUERIES.items():
        given = [_RELAY.url if "relay_url" in query else person] if "$1" in query else []
        times = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            found_rows = await conn.fetch(query, *given)
            times.append((time.perf_counter() - started) * 1e3)
            if not found_rows:
                raise RuntimeError(f"{name}: nothing found")
        found[name] = Series(name, tuple(times)).value
    return found
