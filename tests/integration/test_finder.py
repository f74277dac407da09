"""The finder against a real archive: what it finds, once, and what it survives."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from bigbrotr import BigBrotr
from components.databases import Database
from config import FinderConfig, load_finder_config
from discovery import sightings
from discovery.archive import read_lists
from discovery.mentions import MAX_URLS_PER_EVENT
from discovery.naming import MAX_STANDING_OF_AUTHOR
from discovery.sieve import Sieve
from discovery.sightings import read_sightings
from discovery.store import tidy_candidates
from event_rows import RawEvent, write_events
from finder import Finder
from nostr.events import SignedEvent, encode_event
from nostr.urls import MAX_PATHS_PER_HOST, RelayUrl
from standalone.signing import Author

SOURCE = RelayUrl.parse("wss://source.example")
AUTHOR = Author("finder")
SRC = Path(__file__).parents[2] / "src"

_seconds = iter(range(1_700_000_000, 1_800_000_000))


def event(kind: int, tags: Sequence[Sequence[str]] = (), content: str = "") -> SignedEvent:
    return SignedEvent(*AUTHOR.sign(kind, next(_seconds), tags, content))


async def archive(
    db: BigBrotr,
    *events: SignedEvent,
    source: RelayUrl = SOURCE,
    seen_at: int = 1_700_000_000,
    raw: Sequence[RawEvent] = (),
) -> None:
    async def work(conn):  # type: ignore[no-untyped-def]
        return await write_events(conn, source, seen_at, events, raw=raw)

    result = await db.run_in_transaction(work)
    assert not result.unstorable


async def candidates(db: BigBrotr) -> set[str]:
    return {row["url"] for row in await db.fetch("SELECT url FROM relay_candidates")}


async def sources(db: BigBrotr, url: str) -> dict[tuple[str, str], int]:
    rows = await db.fetch("SELECT * FROM relay_sources WHERE relay_url = $1", url)
    return {(row["source"], row["name"]): row["times"] for row in rows}


def config(database: Database, **settings: str) -> FinderConfig:
    environment = {
        "FINDER_AGGREGATOR_URLS": "",
        "FINDER_NIP66_RELAYS": "",
        "HEALTH_CHECK_PORT": "0",
        **settings,
    }
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
    assert await candidates(db) == {
        "wss://listed.example",
        "wss://hint.example",
        "wss://map.example",
        "wss://recommended.example",
        "wss://inbox.example/dm",
        "wss://monitored.example",
    }
    assert report.counts["events_read"] == 6
    assert report.counts["candidates_found"] == 6
    assert report.counts["urls_refused"] == 2
    assert not report.failed

    again = await finder.cycle(asyncio.Event())
    assert again.counts["events_read"] == 0

    await archive(db, event(10002, [["r", "wss://later.example"]]))
    later = await finder.cycle(asyncio.Event())
    assert (later.counts["events_read"], later.counts["candidates_found"]) == (1, 1)
    assert await finder.ready()


async def test_relays_on_private_addresses_need_a_setting(db: BigBrotr, start) -> None:
    await archive(db, event(10002, [["r", "ws://127.0.0.1:7777"], ["r", "ws://10.0.0.1"]]))
    await (await start()).cycle(asyncio.Event())
    assert await candidates(db) == set()
    await archive(db, event(10002, [["r", "ws://127.0.0.1:7777/"]]))
    await (await start(ALLOW_PRIVATE_RELAYS="true")).cycle(asyncio.Event())
    assert await candidates(db) == {"wss://127.0.0.1:7777"}


async def test_spam_is_bounded_per_event_host_and_author(db: BigBrotr, start) -> None:
    flood = [["r", f"wss://flood.example/{n}"] for n in range(100_000)]
    drops = [event(10002, [["r", f"wss://drops.example/{n}"]]) for n in range(450)]
    hosts = [event(10002, [["r", f"wss://n{n}.example"]]) for n in range(450)]
    await archive(db, event(10002, flood), *drops, *hosts)
    report = await (await start()).cycle(asyncio.Event())
    found = await candidates(db)
    assert sum("flood" in url or "drops" in url for url in found) <= 2 * MAX_PATHS_PER_HOST
    assert len(found) == MAX_STANDING_OF_AUTHOR, "all events are of one author"
    assert report.counts["urls_refused"] == 100_900 - len(found)
    assert not report.failed
    row = await db.fetchone("SELECT count(*) FROM relay_sources")
    assert row is not None
    assert row[0] == len(found), "nothing is kept of what was refused"


async def test_an_event_of_spam_costs_little_memory(db: BigBrotr) -> None:
    spam = [["r", f"wss://spam{n}.example"] for n in range(100_000)]
    await archive(db, *(event(10002, [*spam, ["n", str(n)]]) for n in range(3)))
    sieve = Sieve((), allow_private=False)
    harvest = await read_lists(db, sieve, asyncio.Event())
    assert harvest.new == MAX_URLS_PER_EVENT
    assert harvest.refused["too-many-in-event"] == 3 * (100_000 - MAX_URLS_PER_EVENT)
    assert len(sieve._parsed) <= MAX_URLS_PER_EVENT


async def test_a_batch_is_read_whole_or_not_at_all(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive(db, event(10002, [["r", "wss://found.example"]]))
    sieve = Sieve((), allow_private=False)
    with monkeypatch.context() as patch:
        patch.setattr("discovery.store._RECORD_SOURCES", "SELECT $1::text[], 1 / (0 * $6)")
        with pytest.raises(Exception, match=r"division by zero|parameter"):
            await read_lists(db, sieve, asyncio.Event())
    assert await candidates(db) == set()
    assert await db.fetch("SELECT FROM finder_events_read") == []
    assert (await read_lists(db, sieve, asyncio.Event())).new == 1
    assert await candidates(db) == {"wss://found.example"}
    assert await sources(db, "wss://found.example") == {("event", "10002"): 1}


async def test_where_a_relay_was_named_is_kept_and_counted_once(db: BigBrotr, start) -> None:
    url = "wss://named.example"
    first = event(10002, [["r", url], ["r", f"{url}/"], ["e", "00", url]])
    await archive(db, first)
    await (await start()).cycle(asyncio.Event())
    row = await db.fetchone("SELECT * FROM relay_sources")
    assert row is not None
    assert (row["relay_url"], row["source"], row["name"], row["times"]) == (
        *(url, "event", "10002"),
        1,
    )
    assert row["first_event_id"] == first.id
    candidate = await db.fetchone("SELECT found_by FROM relay_candidates")
    assert candidate is not None
    assert candidate["found_by"] == AUTHOR.pubkey

    await db.execute("SELECT insert_relay($1, 'clearnet', 5)", url)  # it answered
    await archive(db, *(event(10002, [["r", url], ["n", str(n)]]) for n in range(3)))
    await archive(db, event(3, [["p", "ab" * 32, url]]))
    again = await (await start()).cycle(asyncio.Event())
    assert again.counts["candidates_found"] == 0
    assert await sources(db, url) == {("event", "10002"): 4, ("hint", "p"): 1}
    assert await candidates(db) == set()


async def test_hints_of_any_kind_are_read_once_from_a_position_on(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "SIGHTINGS_PER_BATCH", 3)
    other = RelayUrl.parse("wss://other-source.example")
    notes = [event(1, [["e", "00", f"wss://h{n}.example"]]) for n in range(8)]
    await archive(db, *notes)
    await archive(
        db, event(7, [["q", "00", "wss://quoted.example"]]), event(1, [], "wss://no.example")
    )
    await archive(db, *notes, source=other, seen_at=1_700_000_005)
    await archive(
        db, event(10002, [["r", "wss://list.example"], ["p", "00", "wss://hint.example"]])
    )

    sieve = Sieve((), allow_private=False)
    harvest = await read_sightings(db, sieve, asyncio.Event())
    assert harvest.sources == 10, "each event with its first sighting"
    assert await candidates(db) == {
        *(f"wss://h{n}.example" for n in range(8)),
        *("wss://quoted.example", "wss://list.example", "wss://hint.example"),
    }
    assert await sources(db, "wss://h3.example") == {("hint", "e"): 1}
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 0

    # The same second, ids on both sides of the position: read by the (second, id) order.
    more = [event(1, [["a", "00", "wss://h0.example"], ["n", str(n)]]) for n in range(20)]
    await archive(db, *more, seen_at=1_700_000_009)
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 20
    assert await sources(db, "wss://h0.example") == {("hint", "e"): 1, ("hint", "a"): 20}


async def test_lists_are_read_by_their_sightings_or_without_and_once(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.archive._EVENTS_PER_LOOK", 3)
    listed = [["r", "wss://list.example"]]
    # Some in one second, so that the walk's pages end within it.
    same = [
        SignedEvent(*AUTHOR.sign(10002, 1_600_000_000, [*listed, ["n", str(n)]], ""))
        for n in range(10)
    ]
    await archive(db, *same, event(3, [], json.dumps({"wss://map.example": {}})))
    sieve = Sieve((), allow_private=False)
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 11
    assert (await read_lists(db, sieve, asyncio.Event())).sources == 0

    await archive(db, *(event(10002, [*listed, ["n", str(n)]]) for n in range(7)))
    await db.execute("DELETE FROM events_relays")  # as imported events have no sightings
    await db.execute("DELETE FROM finder_events_read WHERE event_id = ANY ($1)", [same[4].id])
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 0
    assert (await read_lists(db, sieve, asyncio.Event())).sources == 8
    assert (await read_lists(db, sieve, asyncio.Event())).sources == 0
    assert await sources(db, "wss://list.example") == {("event", "10002"): 18}
    assert await candidates(db) == {"wss://list.example", "wss://map.example"}


async def test_both_ways_of_reading_at_once_count_each_event_once(db: BigBrotr) -> None:
    events = [event(10002, [["r", "wss://list.example"], ["n", str(n)]]) for n in range(600)]
    await archive(db, *events)
    ways = (read_sightings, read_lists, read_sightings, read_lists)
    read = await asyncio.gather(
        *(way(db, Sieve((), allow_private=False), asyncio.Event()) for way in ways)
    )
    assert sum(harvest.sources for harvest in read) == 600
    assert await sources(db, "wss://list.example") == {("event", "10002"): 600}


async def test_sightings_of_the_last_minutes_wait(db: BigBrotr) -> None:
    now = int(time.time())
    await archive(db, event(1, [["e", "00", "wss://soon.example"]]), seen_at=now)
    sieve = Sieve((), allow_private=False)
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 0
    await db.execute("DELETE FROM events_relays")
    early = event(1, [["e", "00", "wss://then.example"]])
    await archive(db, early, seen_at=now - sightings.LAG_SECONDS - 1)
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 1
    assert await candidates(db) == {"wss://then.example"}


async def test_events_that_the_columns_cannot_hold_are_read_too(db: BigBrotr) -> None:
    named = event(10002, [["r", "wss://raw.example"], ["p", "00", "wss://hint.example"]], "\0")
    broken = RawEvent("f" * 64, b"not JSON", "nul")
    raw = [RawEvent(named.id, encode_event(named), "nul"), broken]
    await archive(db, raw=raw)
    await archive(db, raw=raw, source=RelayUrl.parse("wss://second.example"))
    sieve = Sieve((), allow_private=False)
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 1
    assert await candidates(db) == {"wss://raw.example", "wss://hint.example"}
    assert await sources(db, "wss://raw.example") == {("event", "10002"): 1}
    assert (await read_sightings(db, sieve, asyncio.Event())).sources == 0


async def test_a_position_and_what_was_found_up_to_it_are_kept_together(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive(db, event(1, [["e", "00", "wss://found.example"]]))
    sieve = Sieve((), allow_private=False)
    with monkeypatch.context() as patch:
        patch.setattr(sightings, "_MOVE_POSITION", "SELECT 1 / (0 * $3), $1, $2, $4")
        with pytest.raises(Exception, match=r"division by zero|parameter"):
            await read_sightings(db, sieve, asyncio.Event())
    assert await candidates(db) == set()
    assert (await read_sightings(db, sieve, asyncio.Event())).new == 1
    assert await sources(db, "wss://found.example") == {("hint", "e"): 1}


async def test_candidates_that_fail_most_make_room(db: BigBrotr) -> None:
    await archive(db, event(10002, [["r", f"wss://n{n}.example"] for n in range(6)]))
    await read_lists(db, Sieve((), allow_private=False), asyncio.Event())
    for number, failures in enumerate((9, 5, 3, 2)):
        await db.execute(
            "INSERT INTO relay_tasks (purpose, relay_url, failures, updated_at) "
            "VALUES ('monitor', $1, $2, 1)",
            f"wss://n{number}.example",
            failures,
        )
    await db.execute("INSERT INTO relays VALUES ('wss://n5.example', 'clearnet', 1)")
    assert await tidy_candidates(db, most=3) == 2
    assert await candidates(db) == {f"wss://n{n}.example" for n in (2, 3, 4)}
    left = await db.fetch("SELECT relay_url FROM relay_sources ORDER BY 1")
    assert [row["relay_url"] for row in left] == [f"wss://n{n}.example" for n in (2, 3, 4, 5)]
    assert await tidy_candidates(db, most=1) == 1, "what was hardly tried stays"


async def test_many_events_are_read_in_batches_by_two_finders_at_once(
    db: BigBrotr, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.archive._EVENTS_PER_LOOK", 100)
    monkeypatch.setattr("discovery.archive.EVENTS_PER_BATCH", 30)
    monkeypatch.setattr("discovery.mentions.MAX_STANDING_OF_AUTHOR", 1_000)
    lists_of = [[["r", f"wss://r{n}.example"], ["r", "wss://all.example"]] for n in range(350)]
    await archive(db, *(event(10002, tags) for tags in lists_of))
    one, two = await start(), await start()
    reports = await asyncio.gather(one.cycle(asyncio.Event()), two.cycle(asyncio.Event()))
    assert len(await candidates(db)) == 351
    assert sum(report.counts["candidates_found"] for report in reports) == 351
    assert sum(report.counts["events_read"] for report in reports) == 350
    assert await sources(db, "wss://all.example") == {("event", "10002"): 350}
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
    assert await candidates(db) == {"wss://one.example", "wss://two.example"}
    assert (report.counts["lists_read"], report.counts["lists_failing"]) == (2, 2)
    assert finder.info()["lists_failing"] == {urls[2]: "http-502", urls[3]: "http-402"}
    assert await sources(db, "wss://one.example") == {("aggregator", urls[0]): 1}
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
    assert finder.info()["lists_failing"]
    lists.pages = {"/list": ["wss://back.example"]}
    await asyncio.sleep(1.1)
    await finder.cycle(asyncio.Event())
    assert not finder.info()["lists_failing"]
    assert await candidates(db) == {"wss://back.example"}


async def test_a_restart_is_no_reason_to_ask_again(db: BigBrotr, start, lists) -> None:
    lists.pages = {"/one": ["wss://a.example"], "/two": 502}
    settings = {
        "ALLOW_PRIVATE_RELAYS": "true",
        "FINDER_AGGREGATOR_URLS": f"{lists.url}/one,{lists.url}/two",
    }
    await (await start(**settings)).cycle(asyncio.Event())
    await (await start(**settings)).cycle(asyncio.Event())
    assert sorted(lists.asked) == ["/one", "/two", "/two"], "what failed has nothing to wait for"
    await db.execute("UPDATE relay_sources SET first_seen_at = 1, last_seen_at = 1")
    await (await start(**settings)).cycle(asyncio.Event())
    assert lists.asked.count("/one") == 2


async def test_private_aggregators_are_not_asked_without_the_setting(start, lists) -> None:
    finder = await start(FINDER_AGGREGATOR_URLS=f"{lists.url}/list")
    report = await finder.cycle(asyncio.Event())
    assert report.counts["lists_failing"] == 1
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
        while await candidates(db) != {"wss://found.example"}:
            await asyncio.sleep(0.05)
        stop.set()
        report = await cycle
    assert (report.counts["candidates_found"], report.failed) == (1, False)


async def test_the_program_runs_one_cycle(db: BigBrotr, database: Database, lists) -> None:
    lists.pages = {"/list": ["wss://listed.example"], "/gone": 502}
    await archive(db, event(10002, [["r", "wss://named.example"]]))
    environment = {
        **os.environ,
        **database.environment(),
        "ALLOW_PRIVATE_RELAYS": "true",
        "HEALTH_CHECK_PORT": "0",
        "FINDER_AGGREGATOR_URLS": f"{lists.url}/list {lists.url}/gone",
        "FINDER_NIP66_RELAYS": "",
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
    assert await candidates(db) == {"wss://listed.example", "wss://named.example"}
    assert "list_failed" in output
    assert "reason=http-502" in output
    assert "candidates_found=2" in output
