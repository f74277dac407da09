"""Fetching NIP-11 documents from servers good and bad."""

import asyncio
import time

import pytest
from aiohttp import web

from components.relays import StartRelay
from nostr.connection import Dialer
from nostr.nip11 import Nip11Result, fetch_nip11
from nostr.urls import RelayUrl
from scripted_relay import ScriptedRelay
from socks_proxy import SocksProxy

DOCUMENT = {"name": "here", "supported_nips": [1, 11], "limitation": {"max_limit": 10}}


async def fetch(relay: ScriptedRelay, timeout: float = 3.0, **settings: int) -> Nip11Result:
    return await fetch_nip11(relay.url, relay.dialer(), timeout=timeout, **settings)


@pytest.mark.parametrize("content_type", ["application/nostr+json", "text/html", "image/png"])
async def test_any_content_type_that_parses_is_read(content_type: str):
    async with ScriptedRelay(nip11=DOCUMENT, nip11_type=content_type) as relay:
        result = await fetch(relay)
    assert result.outcome == "ok"
    assert result.nip11.name == "here"
    assert result.nip11.supported_nips == [1, 11]
    assert result.nip11.limitation == {"max_limit": 10}


@pytest.mark.parametrize(
    ("served", "outcome"),
    [
        (None, "http-status"),
        (500, "http-status"),
        (b"<html>", "not-json"),
        (b"", "not-json"),
        (b"[" * 5_000, "not-json"),
        ([1], "not-nip11"),
        ({"error": "not found"}, "not-nip11"),
        (b"\xef\xbb\xbf" + b'{"name":"bom"}', "ok"),
        (b'{"name":"x","tags":' + b"[" * 50 + b"]" * 50 + b"}", "not-nip11"),
    ],
)
async def test_what_is_no_document_is_named(served: object, outcome: str):
    async with ScriptedRelay(nip11=served) as relay:
        result = await fetch(relay)
    assert result.outcome == outcome
    assert (result.nip11 is None) == (outcome != "ok")


async def test_a_large_document_is_refused():
    async with ScriptedRelay(nip11={"name": "x" * 5_000}) as relay:
        assert (await fetch(relay, max_bytes=1_000)).outcome == "too-large"


async def test_a_server_that_drips_is_left_in_time():
    async with ScriptedRelay(nip11=DOCUMENT, nip11_drip=0.05) as relay:
        started = time.monotonic()
        result = await fetch(relay, timeout=0.5)
    assert result.outcome == "timeout"
    assert time.monotonic() - started < 2


async def test_a_private_address_is_not_asked():
    async with ScriptedRelay(nip11=DOCUMENT) as relay:
        guarded = relay.dialer(allow_private=False)
        result = await fetch_nip11(relay.url, guarded, timeout=2)
    assert result.outcome == "address-refused"


async def test_a_redirect_is_not_followed():
    async with ScriptedRelay(nip11=DOCUMENT) as target:

        async def redirect(request: web.Request) -> web.Response:
            raise web.HTTPMovedPermanently(f"http://127.0.0.1:{target.port}/")

        app = web.Application()
        app.router.add_get("/", redirect)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = RelayUrl.parse(f"ws://127.0.0.1:{runner.addresses[0][1]}", allow_private=True)
        try:
            result = await fetch_nip11(url, target.dialer(), timeout=2)
        finally:
            await runner.cleanup()
    assert (result.outcome, result.detail) == ("http-status", "HTTP 301")


async def test_an_onion_relay_is_asked_through_socks():
    onion = "oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"
    async with ScriptedRelay(nip11=DOCUMENT) as relay:
        proxy = SocksProxy(relay.port)
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            dialer = Dialer(f"socks5://127.0.0.1:{port}", False, 2)
            result = await fetch_nip11(RelayUrl.parse(f"ws://{onion}/a"), dialer, timeout=2)
        assert result.nip11.name == "here"
    without = await fetch_nip11(RelayUrl.parse(f"ws://{onion}"), Dialer(None, False, 2), timeout=2)
    assert without.outcome == "no-tor"
    assert proxy.asked == [(3, onion, 80)]


async def test_cancelling_passes():
    async with ScriptedRelay(nip11=DOCUMENT, nip11_drip=0.05) as relay:
        task = asyncio.create_task(fetch(relay))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_real_relay_describes_itself(nostr_relay: StartRelay):
    running = await nostr_relay([])
    relay = ScriptedRelay()
    url = RelayUrl.parse(running.url, allow_private=True)
    result = await fetch_nip11(url, relay.dialer(), timeout=3)
    assert result.outcome == "ok"
    assert 1 in result.nip11.supported_nips
    assert result.nip11.software


async def test_a_real_relay_without_a_document(local_relay: StartRelay):
    running = await local_relay([])
    relay = ScriptedRelay()
    url = RelayUrl.parse(running.url, allow_private=True)
    result = await fetch_nip11(url, relay.dialer(), timeout=3)
    assert result.nip11 is None
    assert result.outcome != "ok"
