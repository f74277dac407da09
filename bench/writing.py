"""Part "write": PostgreSQL's CPU per event offered, beside other ways and beside COPY."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import orjson

from bench.dataset import load, steady
from bench.figures import Figure, Point, Series
from bench.peer_writes import (
    BARE_TABLES,
    BATCH_FUNCTION,
    INSERT_BATCH,
    INSERT_ROW,
    ROW_FUNCTION,
)
from bench.processes import tree_cpu
from bench.settings import Amounts
from bench.stage import events_file, server
from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from event_rows import known_ids, write_events
from nostr.events import SignedEvent
from nostr.urls import RelayUrl

_PAGE, _BATCH, _SEEN_AT, _WRITERS = 500, 1_000, 1_750_000_000, 4
_CONTENDED_EVENTS = 5_000
_MICRO = 1_000_000
_RELAYS = tuple(RelayUrl.parse(f"wss://relay{number}.example.com") for number in range(2))

Offer = tuple[RelayUrl, Sequence[SignedEvent]]
Write = Callable[[BigBrotr, Offer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of PostgreSQL, of PgBouncer and of the client, and the wall clock."""

    server: float
    pooler: float
    client: float
    wall: float


async def ours(db: BigBrotr, offer: Offer) -> None:
    """As a session does: which ids are known, page by page; then a batch in a transaction."""
    relay, events = offer
    for batch in pages(events, _BATCH):
        known: set[str] = set()
        for page in pages(batch, _PAGE):
            known |= await known_ids(db, [event.id for event in page])
        await _write_batch(db, relay, batch, known)


async def row_by_row(db: BigBrotr, offer: Offer) -> None:
    """The ancestor's way: executemany of a call a row."""
    relay, events = offer
    for page in pages(events, _PAGE):
        rows = [_row(event, relay) for event in page]
        await _execute(db, lambda conn, rows=rows: conn.executemany(INSERT_ROW, rows))


async def batch_by_batch(db: BigBrotr, offer: Offer) -> None:
    """BigBrotr 6.6.9's way: a call a batch."""
    relay, events = offer
    for batch in pages(events, _BATCH):
        columns = list(zip(*(_row(event, relay) for event in batch), strict=True))
        await _execute(db, lambda conn, columns=columns: conn.execute(INSERT_BATCH, *columns))


async def copied(conn: asyncpg.Connection, offers: Sequence[Offer]) -> None:
    """The limit: the same rows into tables without any index."""
    distinct = {event.id: event for _, events in offers for event in events}
    for page in pages(list(distinct.values()), _BATCH):
        await conn.copy_records_to_table(
            "bare_events", records=[_row(event, _RELAYS[0])[:7] for event in page]
        )
    for relay, events in offers:
        for page in pages(events, _BATCH):
            records = [(event.id, relay.url, _SEEN_AT) for event in page]
            await conn.copy_records_to_table("bare_sightings", records=records)


def measure(amounts: Amounts) -> Point:
    """Each way in turn into a fresh database, as often as there are runs; then four writers."""
    events = load(events_file("steady", steady(amounts.write_events)))
    overlap = len(events) * 3 // 10
    # Two relays that share a part of their events, as relays do.
    offers = [(_RELAYS[0], events[: -overlap or None]), (_RELAYS[1], events[overlap:])]
    offered = sum(len(part) for _, part in offers)
    costs: dict[str, list[Cost]] = {"ours": [], "rows": [], "batches": [], "copy": []}
    deadlocks: dict[str, list[float]] = {"ours": [], "rows": [], "batches": []}
    with server() as cluster:
        for _ in range(amounts.runs):
            costs["ours"].append(asyncio.run(_write_all(cluster, ours, offers)))
            costs["rows"].append(asyncio.run(_write_all(cluster, row_by_row, offers)))
            costs["batches"].append(asyncio.run(_write_all(cluster, batch_by_batch, offers)))
            costs["copy"].append(asyncio.run(_copy_all(cluster, offers)))
            deadlocks["ours"].append(asyncio.run(_contend(cluster, ours, events)))
        # Each deadlock costs a second: few events are enough to show them.
        some = events[:_CONTENDED_EVENTS]
        deadlocks["rows"].append(asyncio.run(_contend(cluster, row_by_row, some)))
        deadlocks["batches"].append(asyncio.run(_contend(cluster, batch_by_batch, some)))

    def series(name: str, case: str, part: str = "server") -> Series:
        values = (_MICRO * getattr(cost, part) / offered for cost in costs[case])
        return Series(name, tuple(values))

    mine, rows, batches, copy = (
        series("known_ids + insert_events", "ours"),
        series("a call a row", "rows"),
        series("a call a batch, as BigBrotr 6.6.9", "batches"),
        series("COPY, no index", "copy"),
    )
    unit = "µs server CPU/event"
    return Point(
        "write",
        amounts.runs,
        figures=(
            Figure("write an offered event", unit, mine, rows, 0.45),
            Figure("write an offered event", unit, mine, batches),
            Figure("write an offered event", unit, mine, copy),
            Figure(
                "write an offered event, wall clock",
                "µs/event",
                series("ours", "ours", "wall"),
                series("a call a row", "rows", "wall"),
            ),
            Figure(
                "deadlocks of 4 writers",
                "",
                Series("ours", (sum(deadlocks["ours"]),)),
                Series(f"a call a row, {_CONTENDED_EVENTS:,} events", (sum(deadlocks["rows"]),)),
                0.0,
            ),
            Figure(
                "the same",
                "",
                Series("ours", (sum(deadlocks["ours"]),)),
                Series(
                    f"a call a batch, {_CONTENDED_EVENTS:,} events", (sum(deadlocks["batches"]),)
                ),
            ),
        ),
        facts={
            "server_us": mine.value,
            "writer_client_us": series("", "ours", "client").value,
            "pooler_us": series("", "ours", "pooler").value,
        },
        bars={
            "µs of PostgreSQL's CPU for an event offered": {
                "BigBrotr": mine.value,
                "a call a row": rows.value,
                "a call a batch, as BigBrotr 6.6.9": batches.value,
                "COPY, no index (limit)": copy.value,
            }
        },
        cpu={
            f"write {name}, {part}": series("", name, part).value * offered / _MICRO
            for name in costs
            for part in ("server", "pooler", "client", "wall")
        },
    )


def pages(events: Sequence[SignedEvent], size: int) -> Iterator[Sequence[SignedEvent]]:
    """The events, so many at a time."""
    for start in range(0, len(events), size):
        yield events[start : start + size]


def connect_to(database: Database, connections: int = 2) -> BigBrotr:
    """A pool of the writer through PgBouncer."""
    return BigBrotr(
        database.host,
        database.port,
        database.writer_user,
        database.writer_password,
        database.dbname,
        min_pool_size=connections,
        max_pool_size=connections,
        command_timeout=120,
    )


async def _write_batch(
    db: BigBrotr, relay: RelayUrl, batch: Sequence[SignedEvent], known: set[str]
) -> None:
    new = [event for event in batch if event.id not in known]

    async def work(conn: asyncpg.Connection) -> None:
        await write_events(conn, relay, _SEEN_AT, new, known=tuple(known))

    await db.run_in_transaction(work)


async def _execute(db: BigBrotr, work: Callable[[asyncpg.Connection], Awaitable[object]]) -> None:
    # Where four writers deadlock again and again, the rest of this page is left.
    with suppress(asyncpg.DeadlockDetectedError):
        await db.run_in_transaction(work)


async def _write_all(cluster: Cluster, write: Write, offers: Sequence[Offer]) -> Cost:
    database = cluster.create_database()
    cluster.administer(ROW_FUNCTION, BATCH_FUNCTION, "CHECKPOINT", database=database.dbname)
    try:
        async with connect_to(database) as db:
            before = _cpu(cluster)
            for offer in offers:
                await write(db, offer)
            cost = _since(cluster, before)
            await _all_there(db, offers)
        return cost
    finally:
        cluster.drop_database(database.dbname)


async def _copy_all(cluster: Cluster, offers: Sequence[Offer]) -> Cost:
    database = cluster.create_database()
    cluster.administer(*BARE_TABLES, "CHECKPOINT", database=database.dbname)
    try:
        conn = await cluster.connect(database.dbname)
        before = _cpu(cluster)
        await copied(conn, offers)
        cost = _since(cluster, before)
        await conn.close()
        return cost
    finally:
        cluster.drop_database(database.dbname)


async def _contend(cluster: Cluster, write: Write, events: Sequence[SignedEvent]) -> float:
    """Deadlocks when four writers offer the same events, each in an order of its own."""
    database = cluster.create_database()
    cluster.administer(ROW_FUNCTION, BATCH_FUNCTION, database=database.dbname)
    try:
        async with connect_to(database, _WRITERS) as db:
            await asyncio.gather(
                *(
                    write(db, (_RELAYS[0], random.Random(number).sample(events, len(events))))
                    for number in range(_WRITERS)
                )
            )
        await asyncio.sleep(1.1)  # backends report their statistics once a second
        conn = await cluster.connect()
        try:
            found = await conn.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = $1", database.dbname
            )
        finally:
            await conn.close()
        return float(found)
    finally:
        cluster.drop_database(database.dbname)


async def _all_there(db: BigBrotr, offers: Sequence[Offer]) -> None:
    row = await db.fetchone(
        "SELECT (SELECT count(*) FROM events) AS events, "
        "(SELECT count(*) FROM events_relays) AS sightings"
    )
    distinct = {event.id for _, events in offers for event in events}
    assert row is not None
    assert row["events"] == len(distinct)
    assert row["sightings"] == sum(len(events) for _, events in offers)


def _cpu(cluster: Cluster) -> Cost:
    return Cost(
        tree_cpu(cluster.postgres.child.process.pid),
        tree_cpu(cluster.pgbouncer.child.process.pid),
        time.process_time(),
        time.monotonic(),
    )


def _since(cluster: Cluster, before: Cost) -> Cost:
    now = _cpu(cluster)
    return Cost(
        now.server - before.server,
        now.pooler - before.pooler,
        now.client - before.client,
        now.wall - before.wall,
    )


def _row(event: SignedEvent, relay: RelayUrl) -> tuple[object, ...]:
    return (
        event.id,
        event.pubkey,
        event.created_at,
        event.kind,
        orjson.dumps(event.tags).decode(),
        event.content,
        event.sig,
        relay.url,
        relay.network,
        _SEEN_AT,
    )
