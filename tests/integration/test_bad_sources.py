"""One cycle of the finder with everything that sources do wrong at once: it ends, keeps what was
good, and reaches no address that it should not."""

import asyncio
import contextlib
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from aiohttp import web

from bigbrotr import BigBrotr
from components.databases import Database
from components.dns import NameServer
from components.internet import PUBLIC, make_public, watched_connects
from config import load_finder_config
from discovery.fetch import MAX_BODY_BYTES, open_fetcher
from errors import AggregatorFailed
from event_rows import write_events
from finder import Finder
from nostr.events import SignedEvent
from nostr.urls import RelayUrl
from scripted_relay import ScriptedRelay, make_event, make_events
from standalone.signing import Author

MEGABYTE = 1024 * 1024
BOMB = gzip.compress(b" " * (50 * MEGABYTE), 1)
METADATA = "http://169.254.169.254/latest/meta-data/"
Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def _stream(
    request: web.BaseRequest, piece: bytes, pause: float, times: int
) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(times):
            await response.write(piece)
            await asyncio.sleep(pause)
    return response


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    return await _stream(request, b" " * 65_536, 0, 10**9)


async def dripping(request: web.BaseRequest) -> web.StreamResponse:
    return await _stream(request, b" ", 0.05, 10**9)


async def fifty_megabytes(request: web.BaseRequest) -> web.StreamResponse:
    return await _stream(request, b'"wss://x.example",' * 4_000, 0, 730)


async def bomb(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=BOMB, headers={"Content-Encoding": "gzip"})


async def silent(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(3_600)
    return web.Response()


def page(body: object, status: int = 200) -> Serve:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html")
        return web.json_response(body, status=status)

    return answer


def redirect(to: str) -> Serve:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": to})

    return answer


SITES: dict[str, tuple[Serve, str | None]] = {
    "/good": (page(["wss://good.example", "wss://10.0.0.1", "junk", None]), None),
    "/detailed": (page({"relays": [{"relayUrl": "wss://detailed.example"}]}), None),
    "/html": (page("<!doctype html><div id=app></div>"), "not-json"),
    "/paid": (page({"error": "Payment Required"}, 402), "http-402"),
    "/gone": (page("<h1>Bad Gateway</h1>", 502), "http-502"),
    "/empty": (page(""), "not-json"),
    "/deep": (page("[" * 200_000), "not-json"),
    "/wrong": (page({"message": "hello"}), "no-relays"),
    "/endless": (endless, "too-large"),
    "/large": (fifty_megabytes, "too-large"),
    "/bomb": (bomb, "too-large"),
    "/dripping": (dripping, "timeout"),
    "/silent": (silent, "timeout"),
    "/metadata": (redirect(METADATA), "address-refused"),
    "/inside": (redirect("http://inside.example/"), "address-refused"),
    "/circle": (redirect("/circle"), "too-many-redirects"),
    "/file": (redirect("file:///etc/passwd"), "bad-url"),
}


@pytest.fixture
async def sites() -> AsyncIterator[str]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await SITES[request.path][0](request)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, PUBLIC, 0).start()
    yield f"http://lists.example:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
def connects() -> Iterator[list[str]]:
    with watched_connects() as seen:
        yield seen


@pytest.fixture(autouse=True)
async def internet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    make_public(monkeypatch)
    names = {"lists.example": [PUBLIC], "relay.example": [PUBLIC], "inside.example": ["127.0.0.1"]}
    async with NameServer(names) as server:
        server.use(monkeypatch)
        yield


async def spam(db: BigBrotr) -> None:
    """100,000 URLs in one list, and lists of 40 authors with 50 URLs each."""
    flood = [["r", f"wss://f{number}.example"] for number in range(100_000)]
    events = [SignedEvent(*Author("flood").sign(10002, 1_700_000_000, flood, ""))]
    for number in range(40):
        tags = [["r", f"wss://s{number}-{n}.example/x"] for n in range(50)]
        events.append(SignedEvent(*Author(f"a{number}").sign(10002, 1_700_000_000, tags, "")))
    relay = RelayUrl.parse("wss://source.example")
    await db.run_in_transaction(lambda conn: write_events(conn, relay, 1_700_000_000, events))


async def test_no_source_stops_a_cycle(
    db: BigBrotr, database: Database, sites: str, connects: list[str]
) -> None:
    await spam(db)
    announced = [
        make_event(created_at=1_700_000_000, kind=30166, tags=[["d", "wss://announced.example"]])
    ]
    async with (
        ScriptedRelay(announced, host=PUBLIC) as good,
        ScriptedRelay(make_events(3), host=PUBLIC, eose="never") as mute,
        ScriptedRelay(make_events(3), host=PUBLIC, oversized=6 * MEGABYTE) as oversized,
    ):
        relays = [f"ws://relay.example:{relay.url.port}" for relay in (good, mute, oversized)]
        service = Finder(
            load_finder_config(
                {
                    **database.environment(),
                    "FINDER_AGGREGATOR_URLS": ",".join(sites + path for path in SITES),
                    "FINDER_NIP66_RELAYS": ",".join([*relays, "wss://inside.example"]),
                    "FINDER_REQUEST_TIMEOUT": "1.5",
                }
            )
        )
        try:
            await service.start()
            connects.clear()
            async with asyncio.timeout(60):
                report = await service.cycle(asyncio.Event())
            failing = service.info()["lists_failing"]
        finally:
            await service.close()
    assert not report.failed
    assert failing == {
        **{sites + path: reason for path, (_, reason) in SITES.items() if reason},
        f"wss://relay.example:{mute.url.port}": "timeout",
        f"wss://relay.example:{oversized.url.port}": "disconnected",
        "wss://inside.example": "address-refused",
    }
    found = {row["url"] for row in await db.fetch("SELECT url FROM relay_candidates")}
    assert {"wss://good.example", "wss://detailed.example", "wss://announced.example"} <= found
    assert sum(url.startswith("wss://f") for url in found) == 200
    assert sum(url.startswith("wss://s") for url in found) == 2_000
    assert len(found) == 2_203
    # Besides the lists: PgBouncer, at 127.0.0.1, which no list leads to (see the failures).
    assert set(connects) <= {PUBLIC, "127.0.0.1"}


@pytest.mark.parametrize("path", ["/endless", "/large", "/bomb"])
async def test_a_body_without_an_end_costs_no_memory(sites: str, path: str) -> None:
    async with open_fetcher(timeout=20, allow_private=False, socks5_url=None) as fetcher:
        with contextlib.suppress(AggregatorFailed):
            await fetcher.get(f"{sites}/html")
        tracemalloc.start()
        try:
            with pytest.raises(AggregatorFailed) as caught:
                await fetcher.get(sites + path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert caught.value.reason == "too-large"
    # What the server keeps is in this process, too.
    assert peak < 3 * MAX_BODY_BYTES
