"""The finder against a real archive: what it finds, once, and what it survives."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from bigbrotr import BigBrotr
from components.databases import Database
from config import FinderConfig, load_finder_config
from discovery.archive import read_archive
from discovery.sieve import Sieve
from event_rows import write_events
from finder import Finder
from nostr.events import SignedEvent
from nostr.urls import MAX_PATHS_PER_HOST, RelayUrl
from standalone.signing import Author

SOURCE = RelayUrl.parse("wss://source.example")
AUTHOR = Author("finder")
SRC = Path(__file__).parents[2] / "src"

_seconds = iter(range(1_700_000_000, 1_800_000_000))


def event(kind: int, tags: Sequence[Sequence[str]] = (), content: str = "") -> SignedEvent:
    return SignedEvent(*AUTHOR.sign(kind, next(_seconds), tags, content))


async def archive(db: BigBrotr, *events: SignedEvent) -> None:
    async def work(conn):  # type: ignore[no-untyped-def]
        return await write_events(conn, SOURCE, 1_700_000_000, events)

    result = await db.run_in_transaction(work)
    assert not result.unstorable


async def relays(db: BigBrotr) -> set[str]:
    rows = await db.fetch("SELECT url FROM relays WHERE url <> $1", SOURCE.url)
    return {row["url"] for row in rows}


def config(database: Database, **settings: str) -> FinderConfig:
    environment = {"FINDER_AGGREGATOR_URLS": "", "HEALTH_CHECK_PORT": "0", **settings}
    return load_finder_config({**database.environment(), **environment})


@pytest.fixture
async def start(database: Database) -> AsyncIterator:
    async with AsyncExitStack() as stack:

        async def start(**settings: str) -> Finder:
            finder = Finder(config(database, **settings))
            stack.push_async_callback(finder.close)
            await finder.start()
            return finder

        yield start


@pytest.fixture
async def lists() -> AsyncIterator:
    """An HTTP server: `lists.pages[path]` is what a path answers, `lists.asked` who asked."""

    served = SimpleNamespace(pages={}, asked=[], url="")

    async def handler(request: web.Request) -> web.Response:
        served.asked.append(request.path)
        page = served.pages[request.path]
        if page is asyncio.sleep:
            await asyncio.sleep(3600)
        if isinstance(page, int):
            return web.Response(status=page)
        return web.json_response(page)

    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def test_relays_named_by_events_are_found_once(db: BigBrotr, start) -> None:
    await archive(
        db,
        event(10002, [["r", "wss://Listed.example/"], ["r", "wss://listed.example", "read"]]),
        event(3, [["p", "ab" * 32, "wss://hint.example"]], json.dumps({"ws://map.example": {}})),
        event(2, [], "wss://recommended.example"),
        event(10050, [["relay", "wss://inbox.example/dm"]]),
        event(30166, [["d", "wss://monitored.example/"], ["n", "clearnet"]]),
        event(1, [["r", "wss://not-a-list.example"]], "wss://not-a-list.example"),
        event(10002, [["r", "https://junk.example"], ["r", "wss://user@junk.example"], ["r"]]),
    )
    finder = await start()
    report = await finder.cycle(asyncio.Event())
    assert await relays(db) == {
        "wss://listed.example",
        "wss://hint.example",
        "wss://map.example",
        "wss://recommended.example",
        "wss://inbox.example/dm",
        "wss://monitored.example",
    }
    assert report.counts["events_read"] == 6
    assert report.counts["relays_found"] == 6
    assert report.counts["urls_refused"] == 2
    assert not report.failed

    again = await finder.cycle(asyncio.Event())
    assert again.counts["events_read"] == 0

    await archive(db, event(10002, [["r", "wss://later.example"]]))
    later = await finder.cycle(asyncio.Event())
    assert (later.counts["events_read"], later.counts["relays_found"]) == (1, 1)
    assert await finder.ready()


async def test_relays_on_private_addresses_need_a_setting(db: BigBrotr, start) -> None:
    await archive(db, event(10002, [["r", "ws://127.0.0.1:7777"], ["r", "ws://10.0.0.1"]]))
    await (await start()).cycle(asyncio.Event())
    assert await relays(db) == set()
    await archive(db, event(10002, [["r", "ws://127.0.0.1:7777/"]]))
    await (await start(ALLOW_PRIVATE_RELAYS="true")).cycle(asyncio.Event())
    assert await relays(db) == {"wss://127.0.0.1:7777"}


async def test_spam_is_bounded_per_event_and_per_host(db: BigBrotr, start) -> None:
    flood = [["r", f"wss://flood.example/{n}"] for n in range(20_000)]
    drops = [event(10002, [["r", f"wss://drops.example/{n}"]]) for n in range(450)]
    await archive(db, event(10002, flood), *drops)
    report = await (await start()).cycle(asyncio.Event())
    found = await relays(db)
    assert sum("flood" in url for url in found) == MAX_PATHS_PER_HOST
    assert sum("drops" in url for url in found) == MAX_PATHS_PER_HOST
    assert report.counts["urls_refused"] == 20_450 - len(found)


async def test_a_batch_is_read_whole_or_not_at_all(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive(db, event(10002, [["r", "wss://found.example"]]))
    sieve = Sieve((), allow_private=False)
    monkeypatch.setattr("discovery.archive._MARK_READ", "SELECT $1::text[], 1 / (0 * $2)")
    with pytest.raises(Exception, match="division by zero"):
        await read_archive(db, sieve, asyncio.Event())
    assert await relays(db) == set()
    monkeypatch.undo()
    assert (await read_archive(db, sieve, asyncio.Event())).new == 1
    assert await relays(db) == {"wss://found.example"}


async def test_many_events_are_read_in_batches_by_two_finders_at_once(
    db: BigBrotr, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.archive._IDS_PER_LOOK", 100)
    monkeypatch.setattr("discovery.archive.EVENTS_PER_BATCH", 30)
    await archive(db, *(event(10002, [["r", f"wss://r{n}.example"]]) for n in range(350)))
    one, two = await start(), await start()
    reports = await asyncio.gather(one.cycle(asyncio.Event()), two.cycle(asyncio.Event()))
    assert len(await relays(db)) == 350
    assert sum(report.counts["relays_found"] for report in reports) == 350
    row = await db.fetchone("SELECT count(*) AS read FROM finder_events_read")
    assert row is not None
    assert row["read"] == 350


async def test_aggregators_are_asked_when_due_and_may_fail(db: BigBrotr, start, lists) -> None:
    lists.pages = {
        "/v1": ["wss://one.example", "wss://one.example/", "junk"],
        "/v2": {"relays": [{"relayUrl": "wss://two.example/"}], "total": 1, "offset": 0},
        "/gone": 502,
        "/paid": 402,
    }
    urls = [lists.url + path for path in lists.pages]
    finder = await start(ALLOW_PRIVATE_RELAYS="true", FINDER_AGGREGATOR_URLS=",".join(urls))
    report = await finder.cycle(asyncio.Event())
    assert not report.failed
    assert await relays(db) == {"wss://one.example", "wss://two.example"}
    assert (report.counts["aggregators_read"], report.counts["aggregators_failing"]) == (2, 2)
    assert finder.info()["aggregators_failing"] == {urls[2]: "http-502", urls[3]: "http-402"}
    await finder.cycle(asyncio.Event())
    assert sorted(lists.asked) == sorted(lists.pages), "each once, until it is due again"


async def test_an_aggregator_that_comes_back_is_no_problem_any_more(
    db: BigBrotr, start, lists
) -> None:
    lists.pages = {"/list": 502}
    finder = await start(
        ALLOW_PRIVATE_RELAYS="true",
        FINDER_AGGREGATOR_URLS=f"{lists.url}/list",
        FINDER_FREQUENCY_HOUR="0.0001",
    )
    await finder.cycle(asyncio.Event())
    assert finder.info()["aggregators_failing"]
    lists.pages = {"/list": ["wss://back.example"]}
    await asyncio.sleep(1.1)
    await finder.cycle(asyncio.Event())
    assert not finder.info()["aggregators_failing"]
    assert await relays(db) == {"wss://back.example"}


async def test_private_aggregators_are_not_asked_without_the_setting(start, lists) -> None:
    finder = await start(FINDER_AGGREGATOR_URLS=f"{lists.url}/list")
    report = await finder.cycle(asyncio.Event())
    assert report.counts["aggregators_failing"] == 1
    assert lists.asked == []


async def test_a_slow_aggregator_delays_neither_the_archive_nor_the_end(
    db: BigBrotr, start, lists
) -> None:
    lists.pages = {"/slow": asyncio.sleep}
    finder = await start(ALLOW_PRIVATE_RELAYS="true", FINDER_AGGREGATOR_URLS=f"{lists.url}/slow")
    await archive(db, event(10002, [["r", "wss://found.example"]]))
    stop = asyncio.Event()
    cycle = asyncio.create_task(finder.cycle(stop))
    async with asyncio.timeout(10):
        while await relays(db) != {"wss://found.example"}:
            await asyncio.sleep(0.05)
        stop.set()
        report = await cycle
    assert (report.counts["relays_found"], report.failed) == (1, False)


async def test_the_program_runs_one_cycle(db: BigBrotr, database: Database, lists) -> None:
    lists.pages = {"/list": ["wss://listed.example"], "/gone": 502}
    await archive(db, event(10002, [["r", "wss://named.example"]]))
    environment = {
        **os.environ,
        **database.environment(),
        "ALLOW_PRIVATE_RELAYS": "true",
        "HEALTH_CHECK_PORT": "0",
        "FINDER_AGGREGATOR_URLS": f"{lists.url}/list {lists.url}/gone",
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SRC / "finder.py"),
        "--once",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await program.communicate())[0].decode()
    assert program.returncode == 0, output
    assert await relays(db) == {"wss://listed.example", "wss://named.example"}
    assert "aggregator_failed" in output
    assert "reason=http-502" in output
    assert "relays_found=2" in output
