"""No WebSocket, document or list is asked of an address outside the public Internet, whatever a
name or a redirect leads to: a real name server, real HTTP servers, and an eye on every connect.

127.0.0.9 plays the public Internet. All else of this machine stays private.
"""

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from components.dns import NameServer
from components.internet import PUBLIC, make_public, watched_connects
from discovery.fetch import open_fetcher
from errors import AggregatorFailed, ConnectFailed
from nostr.connection import Dialer
from nostr.nip11 import fetch_nip11
from nostr.urls import RelayUrl

PRIVATE = (
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "0.0.0.0", "100.64.0.1"),
    *("169.254.169.254", "168.63.129.16", "224.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001::1"),
)


@pytest.fixture
def connects() -> Iterator[list[str]]:
    with watched_connects() as seen:
        yield seen


@pytest.fixture(autouse=True)
def one_address_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    make_public(monkeypatch)


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    async with NameServer({"list.example": [PUBLIC]}) as server:
        server.use(monkeypatch)
        yield server


class Site:
    """An HTTP server that counts what it is asked, and may redirect."""

    def __init__(self) -> None:
        self.asked = 0
        self.port = 0
        self.location = ""

    async def answer(self, _: web.BaseRequest) -> web.Response:
        self.asked += 1
        if self.location:
            return web.Response(status=302, headers={"Location": self.location})
        return web.json_response({"name": "a relay", "relays": ["wss://a.example"]})


@pytest.fixture
async def open_site() -> AsyncIterator[Callable[[str], Awaitable[Site]]]:
    async with AsyncExitStack() as stack:

        async def start(host: str) -> Site:
            site = Site()
            runner = web.ServerRunner(web.Server(site.answer), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, host, 0).start()
            site.port = runner.addresses[0][1]
            return site

        yield start


async def ask_websocket(host: str, port: int) -> str:
    try:
        await Dialer(None, False, 3).connect(RelayUrl.parse(f"wss://{host}:{port}"))
    except ConnectFailed as failed:
        return failed.kind
    return "ok"


async def ask_document(host: str, port: int) -> str:
    url = RelayUrl.parse(f"wss://{host}:{port}")
    return (await fetch_nip11(url, Dialer(None, False, 3), timeout=3)).outcome


async def ask_list(host: str, port: int) -> str:
    async with open_fetcher(timeout=3, allow_private=False, socks5_url=None) as fetcher:
        try:
            await fetcher.get(f"http://{host}:{port}/")
        except AggregatorFailed as failed:
            return failed.reason
    return "ok"


Ask = Callable[[str, int], Awaitable[str]]
everybody = pytest.mark.parametrize("ask", [ask_websocket, ask_document, ask_list])


@everybody
@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_to_a_private_address_leads_nowhere(
    ask: Ask, address: str, names: NameServer, connects: list[str]
) -> None:
    names.answers["relay.example"] = [address]
    assert await ask("relay.example", 8080) == "address-refused"
    assert "relay.example" in names.questions
    assert connects == []


@everybody
async def test_the_public_answers_of_a_name_are_used_and_no_others(
    ask: Ask, names: NameServer, connects: list[str], open_site
) -> None:
    site = await open_site(PUBLIC)
    names.answers["relay.example"] = ["10.0.0.1", PUBLIC, "169.254.169.254", "::1"]
    assert await ask("relay.example", site.port) in ("ok", "http-status", "not-websocket")
    assert site.asked
    assert set(connects) == {PUBLIC}


@everybody
async def test_a_name_that_changes_its_mind_is_judged_at_every_connect(
    ask: Ask, names: NameServer, connects: list[str], open_site
) -> None:
    inside, outside = await open_site("127.0.0.1"), await open_site(PUBLIC)
    answers, chance = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1", PUBLIC]], random.Random(1)
    names.answers["relay.example"] = lambda: chance.choice(answers)
    for port in (inside.port, outside.port) * 10:
        await ask("relay.example", port)
    assert outside.asked
    assert set(connects) == {PUBLIC}
    assert inside.asked == 0


TARGETS = (
    *("http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:{port}/"),
    *("http://localhost:{port}/", "http://127.1:{port}/", "http://2130706433:{port}/"),
    *("http://0x7f.0.0.1:{port}/", "http://0177.0.0.1:{port}/", "http://0.0.0.0:{port}/"),
    *("http://[::1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::]:{port}/"),
    *("http://[64:ff9b::7f00:1]:{port}/", "http://100.100.100.200/", "http://127.0.0.1.:{port}/"),
    *("http://inside.example:{port}/", "http://mixed.example:{port}/", "//inside.example:{port}/"),
    *("ws://127.0.0.1:{port}/", "http://flip.example:{port}/"),
)


@everybody
@pytest.mark.parametrize("target", TARGETS)
async def test_no_redirect_leads_inside(
    ask: Ask, target: str, names: NameServer, connects: list[str], open_site
) -> None:
    inside, outside = await open_site("127.0.0.1"), await open_site(PUBLIC)
    names.answers |= {
        "inside.example": ["127.0.0.1"],
        "mixed.example": ["127.0.0.1", "10.1.2.3"],
        "flip.example": (lambda: next(answers)),
    }
    answers = itertools.cycle([["127.0.0.1"], [PUBLIC]])
    outside.location = target.format(port=inside.port)
    assert await ask("list.example", outside.port) != "ok"
    assert outside.asked
    assert inside.asked == 0
    # 177.0.0.1 is a public address: what "0177.0.0.1" means depends on who reads it.
    assert set(connects) <= {PUBLIC, "177.0.0.1"}


async def test_a_redirect_outside_is_followed_for_lists_alone(
    names: NameServer, connects: list[str], open_site
) -> None:
    first, second = await open_site(PUBLIC), await open_site(PUBLIC)
    names.answers["other.example"] = [PUBLIC]
    first.location = f"http://other.example:{second.port}/"
    assert await ask_list("list.example", first.port) == "ok"
    assert second.asked == 1
    assert await ask_websocket("list.example", first.port) == "http-status"
    assert await ask_document("list.example", first.port) == "http-status"
    assert second.asked == 1


@pytest.mark.parametrize("host", ["[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "10.0.0.1"])
async def test_a_private_address_as_host_is_not_even_connected_to(
    host: str, connects: list[str]
) -> None:
    url = RelayUrl.parse(f"wss://{host}", allow_private=True)
    dialer = Dialer(None, False, 3)
    with pytest.raises(ConnectFailed) as caught:
        await dialer.connect(url)
    assert caught.value.kind == "address-refused"
    assert (await fetch_nip11(url, dialer, timeout=3)).outcome == "address-refused"
    assert await ask_list(host, 80) == "address-refused"
    assert connects == []
