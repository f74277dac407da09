"""Part "gather": transactions of many slow relays, committed together and a relay at a time."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.dataset import load, steady
from bench.figures import Figure, Point, Series
from bench.processes import tree_cpu
from bench.settings import Amounts
from bench.stage import events_file, server
from bench.writing import connect_to
from bigbrotr import BigBrotr
from components.databases import Cluster
from event_rows import known_ids
from nostr.events import SignedEvent
from nostr.filters import filter_hash
from nostr.pages import EndKind, PageEnd
from nostr.urls import RelayUrl
from sync import ledger
from sync.facts import PageFacts
from sync.group_commit import GroupCommit
from sync.page_check import CheckedPage
from sync.windows import Window
from sync.writer import SessionWriter

_RELAYS = tuple(RelayUrl.parse(f"wss://relay{number}.example.com") for number in range(50))
_PAGE_SECONDS = 0.2
# Of each page's events, those that every relay has at some time, and its own.
_SHARED, _OWN = 12, 8
_PAGE = _SHARED + _OWN
_RELAYS_AT_ONCE = 10  # give the same shared events; the next ones do a page later
_COUNTS = """
    SELECT count(*) AS sightings, count(DISTINCT xmin::text) AS transactions,
           (SELECT count(*) FROM events) AS events
    FROM events_relays
"""


@dataclass(frozen=True, slots=True)
class _Cost:
    """Transactions a second; CPU of PostgreSQL and of the client, µs an event offered."""

    transactions: float
    server: float
    client: float


def measure(amounts: Amounts) -> Point:
    """The same pages at the same pace in both ways, in turn."""
    pages = int(amounts.gather_seconds / _PAGE_SECONDS)
    events = load(events_file("steady", steady(amounts.write_events)))
    together, apart = list[_Cost](), list[_Cost]()
    with server() as cluster:
        for _ in range(amounts.runs):
            together.append(asyncio.run(_gather(cluster, events, pages, groups=1)))
            apart.append(asyncio.run(_gather(cluster, events, pages, groups=len(_RELAYS))))

    def figure(name: str, unit: str, part: str, goal: float | None) -> Figure:
        ours, beside = (
            Series(title, tuple(getattr(cost, part) for cost in costs))
            for title, costs in (("ours", together), ("each by itself", apart))
        )
        return Figure(name, unit, ours, beside, goal)

    return Point(
        "gather",
        amounts.runs,
        figures=(
            figure("commits of 50 slow relays", "transactions/s", "transactions", 0.3),
            figure("write an event of slow relays", "µs server CPU/event", "server", None),
        ),
        facts={"gather_client_us": figure("", "", "client", None).ours.value},
        notes=(
            f"{len(_RELAYS)} relays, each with a page of {_PAGE} events every "
            f"{_PAGE_SECONDS * 1_000:.0f} ms for {amounts.gather_seconds:.0f} s, {_SHARED} of them "
            "events that all relays have. Asking which of a page are known is in the CPU.",
        ),
    )


async def _gather(
    cluster: Cluster, events: Sequence[SignedEvent], pages: int, groups: int
) -> _Cost:
    database = cluster.create_database()
    cluster.administer("CHECKPOINT", database=database.dbname)
    try:
        async with connect_to(database, 8) as db:
            name = filter_hash({})
            await ledger.register_filter(db, name, {})
            all_groups = [GroupCommit(db) for _ in range(groups)]
            writers = [
                SessionWriter(all_groups[number % groups], relay, name, Window(0, pages))
                for number, relay in enumerate(_RELAYS)
            ]
            postgres = cluster.postgres.child.process.pid
            before, client, started = tree_cpu(postgres), time.process_time(), time.monotonic()
            await asyncio.gather(
                *(
                    _session(db, writer, events, number, pages, started)
                    for number, writer in enumerate(writers)
                )
            )
            await asyncio.gather(*(writer.flush() for writer in writers))
            wall = time.monotonic() - started
            client, used = time.process_time() - client, tree_cpu(postgres) - before
            row = await db.fetchone(_COUNTS)
        offered = len(_RELAYS) * pages * _PAGE
        assert row is not None
        assert row["sightings"] == offered
        assert row["events"] == sum(writer.counts["new"] for writer in writers)
        micro = 1_000_000 / offered
        return _Cost(row["transactions"] / wall, micro * used, micro * client)
    finally:
        cluster.drop_database(database.dbname)


async def _session(
    db: BigBrotr,
    writer: SessionWriter,
    events: Sequence[SignedEvent],
    number: int,
    pages: int,
    started: float,
) -> None:
    """One relay's pages, newest first, each as soon as it is due."""
    for page in range(pages):
        due = started + _PAGE_SECONDS * (page + number / len(_RELAYS))
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        shared = _SHARED * ((page - number // _RELAYS_AT_ONCE) % pages)
        own = _SHARED * pages + _OWN * (number * pages + page)
        given = [*events[shared : shared + _SHARED], *events[own : own + _OWN]]
        known = await known_ids(db, [event.id for event in given])
        checked = CheckedPage(
            facts=PageFacts(end=PageEnd(EndKind.EOSE), events=(), received=len(given)),
            new=tuple(event for event in given if event.id not in known),
            known=tuple(known),
            raw=(),
            refused={},
        )
        await writer.add(checked, [Window(pages - page, pages - page)])
