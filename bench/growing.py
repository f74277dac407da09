"""Part "growth": the cost of an event and of the documented queries as the archive grows."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from statistics import median

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
_WAL_END = "SELECT pg_current_wal_flush_lsn()"
_WAL_BYTES = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), $1::pg_lsn)::bigint"
# Whole records, page images included, by the first page that they are about.
_WAL = r"""
    SELECT coalesce(c.relname, '') AS name, sum(w.record_length)::bigint AS bytes
    FROM pg_get_wal_records_info($1, $2) AS w
    LEFT JOIN pg_class c
        ON c.relfilenode = (regexp_match(w.block_ref, 'rel \d+/\d+/(\d+)'))[1]::oid
    GROUP BY 1
"""
# Each round pays for its own tags, not now and then for those of two.
_TAKE_PENDING_IN = "SELECT gin_clean_pending_list('idx_events_tagvalues')"
_VACUUM = "VACUUM ANALYZE events, events_relays"
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


@dataclass(slots=True)
class _Archive:
    """An archive, how many events it was filled with, and what the writes cost (µs an event)."""

    cluster: Cluster
    conn: asyncpg.Connection
    db: BigBrotr
    filled: int = 0
    costs: list[float] = field(default_factory=list)

    async def grow(self, size: int) -> None:
        """Fill up to `size`, and some more events with the indexes in place."""
        indexes = await self.conn.fetch(_SECONDARY)
        for index in indexes:
            await self.conn.execute(f"DROP INDEX {index['name']}")
        await self._fill(size)
        for index in indexes:
            await self.conn.execute(index["definition"], timeout=600)
        await self.conn.execute(_VACUUM, timeout=600)
        await self.conn.execute("CHECKPOINT", timeout=600)
        await self._fill(size + min(size // 5, _MOST_WARM_UP))
        await self.conn.execute(_VACUUM, timeout=600)

    async def _fill(self, last: int) -> None:
        await self.conn.execute(_FILL, self.filled + 1, last, START, _SPAN, timeout=600)
        await self.conn.execute(
            _FILL_SIGHTINGS, self.filled + 1, last, _RELAY.url, START, timeout=600
        )
        self.filled = last

    async def write(self, events: Sequence[SignedEvent]) -> float:
        """Microseconds of PostgreSQL's CPU for a new event."""
        server_pid = self.cluster.postgres.child.process.pid
        before = tree_cpu(server_pid)
        for start in range(0, len(events), _BATCH):
            batch = events[start : start + _BATCH]

            async def work(conn: asyncpg.Connection, batch: Sequence[SignedEvent] = batch) -> None:
                await write_events(conn, _RELAY, START, batch)

            await self.db.run_in_transaction(work)
        await self.conn.execute(_TAKE_PENDING_IN)
        return (tree_cpu(server_pid) - before) / len(events) * 1e6

    async def read(self) -> dict[str, Series]:
        """Milliseconds of each query, and how many events it found, by the query's name."""
        person = sha256(b"key100").hexdigest()  # one who writes and is named often
        found = {}
        for name, query in QUERIES.items():
            given = [_RELAY.url if "relay_url" in query else person] if "$1" in query else []
            times = []
            for _ in range(_ROUNDS):
                started = time.perf_counter()
                found_rows = await self.conn.fetch(query, *given)
                times.append((time.perf_counter() - started) * 1e3)
                if not found_rows:
                    raise RuntimeError(f"{name}: nothing found")
            found[name] = Series(f"{len(found_rows)} found", tuple(times))
        return found

    async def log(self, events: Sequence[SignedEvent], names: Collection[str]) -> dict[str, float]:
        """Bytes of write-ahead log an event, by table and index if this PostgreSQL can tell."""
        start = await self.conn.fetchval(_WAL_END)
        await self.write(events)
        if not await self.conn.fetchval(_HAS_WALINSPECT):
            return {"all": await self.conn.fetchval(_WAL_BYTES, start) / len(events)}
        await self.conn.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        end = await self.conn.fetchval(_WAL_END)
        found: Counter[str] = Counter()
        for row in await self.conn.fetch(_WAL, start, end, timeout=120):
            found[row["name"] if row["name"] in names else "commits, TOAST, others"] += row["bytes"]
        return {name: size / len(events) for name, size in found.items()}


def measure(amounts: Amounts) -> Point:
    """Fill to each size, then write signed events and time the queries."""
    return asyncio.run(_measure(amounts))


async def _measure(amounts: Amounts) -> Point:
    """An archive grows from size to size. At each of them its writes take turns with those of a
    fresh one of the first size: what keeps the machine busy for a while costs both."""
    first, *larger = amounts.growth
    bars = {}
    with server() as cluster:
        async with AsyncExitStack() as stack:
            large = await _create(cluster, stack)
            for size in larger:
                small, large.costs = await _create(cluster, stack), []
                await small.grow(first)
                await large.grow(size)
                await _write_in_turn((small, large), amounts.growth_events)
                bars[_name(size)] = median(large.costs)
            reads_small, reads = await small.read(), await large.read()
            stored = await large.conn.fetchval("SELECT count(*) FROM events")
            sizes = {row["name"]: row["bytes"] / stored for row in await large.conn.fetch(_SIZES)}
            wal = await large.log(_events("growth log", amounts.growth_events), sizes.keys())
    return Point(
        "growth",
        _ROUNDS,
        figures=(
            Figure(
                f"write a new event at {_name(size)}",
                "µs server CPU/event",
                Series(_name(size), tuple(large.costs)),
                Series(_name(first), tuple(small.costs)),
                1.5,
            ),
            *(
                Figure(
                    f"{query} ({reads[query].name})",
                    "ms",
                    reads[query],
                    replace(reads_small[query], name=f"{_name(first)}, {reads_small[query].name}"),
                )
                for query in QUERIES
            ),
        ),
        facts={
            "bytes_per_event": sum(sizes.values()),
            "wal_bytes_per_event": sum(wal.values()),
            **{f"bytes_per_event_{name}": size for name, size in sizes.items()},
            "stored": stored,
        },
        bars={
            "µs of PostgreSQL's CPU to write a new event, by events in the archive": {
                _name(first): median(small.costs),
                **bars,
            },
            "bytes per event, by table (TOAST included) and index": _largest_first(sizes),
            "bytes of write-ahead log per event, by table and index": _largest_first(wal),
        },
        notes=(
            "The archive is filled by SQL with its secondary indexes dropped and made again, so "
            f"they are denser than grown ones. Then a fifth more, {_MOST_WARM_UP:,} rows at most, "
            "is written with them, and vacuumed, and a round of writes comes that does not count.",
            "At the end of each round the GIN index takes in what is pending. Rounds of the two "
            "archives take turns, so a busy moment costs both.",
            "Filled events are synthetic: about 150 bytes of content, two tags, one relay each.",
        ),
    )


async def _create(cluster: Cluster, stack: AsyncExitStack) -> _Archive:
    database = cluster.create_database()
    conn = await cluster.connect(database.dbname)
    stack.push_async_callback(conn.close)
    await conn.fetchval("SELECT insert_relays($1, $2, 1)", [_RELAY.url], ["clearnet"])
    return _Archive(cluster, conn, await stack.enter_async_context(connect_to(database)))


async def _write_in_turn(archives: Sequence[_Archive], number: int) -> None:
    """Rounds of as many events. The first one does not count: a new server connection pays for
    each page of shared memory that it touches for the first time."""
    for round_ in range(_ROUNDS + 1):
        for archive in archives:
            events = _events(f"growth {archive.filled} {round_}", number)
            cost = await archive.write(events)
            if round_:
                archive.costs.append(cost)


def _events(seed: str, number: int) -> list[SignedEvent]:
    step = _SPAN // number
    return sign([START + position * step for position in range(number)], seed)


def _name(size: int) -> str:
    return f"{size / 1e6:g} million"


def _largest_first(sizes: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))
