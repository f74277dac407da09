"""Connections against a relay that misbehaves on command, and against two real ones."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme
from aiohttp import web
from nostr_sdk import LocalRelayBuilder, LocalRelayBuilderNip42, LocalRelayBuilderNip42Mode

from components.relays import StartRelay
from errors import ConnectFailed, EventRefused
from nostr.connection import Dialer, EndKind, Page, RelayConnection
from nostr.events import parse_event
from nostr.urls import RelayUrl
from scripted_relay import ScriptedRelay, make_event, make_events
from simnet.relay import HostileRelay
from socks_proxy import SocksProxy
from standalone.signing import DemoEvent

SECRET_KEY = "2" * 64
START = 1_700_000_000
FILTER = {"since": START, "until": START + 10_000, "limit": 500}
ONION = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"


def url_of(port: int, host: str = "127.0.0.1") -> RelayUrl:
    return RelayUrl.parse(f"ws://{host}:{port}", allow_private=True)


def dialer(**settings: object) -> Dialer:
    defaults = {"socks5_url": None, "allow_private": True, "connect_timeout": 5.0}
    return Dialer(**{**defaults, **settings})


async def read(
    connection: RelayConnection, flt: dict = FILTER, idle_timeout: float = 2.0, **limits: float
) -> Page:
    return await connection.page(flt, idle_timeout=idle_timeout, **{"max_events": 10_000, **limits})


async def read_from(relay: ScriptedRelay, **limits: object) -> Page:
    async with await relay.dialer().connect(relay.url) as connection:
        return await read(connection, **limits)


async def test_a_page_brings_the_events_in_order_and_ends_in_eose():
    events = make_events(20)
    async with ScriptedRelay(events) as relay:
        page = await read_from(relay)
        assert [event._asdict() for event in page.events] == relay.matching({})
    assert page.end.kind is EndKind.EOSE
    assert page.end.hint == ""
    assert page.received_bytes > 20 * 300


@pytest.mark.parametrize(("cap", "hint"), [(100, "finish"), (10, "more")])
async def test_the_hint_of_eose_is_kept(cap: int, hint: str):
    async with ScriptedRelay(make_events(20), hint="auto", cap=cap) as relay:
        assert (await read_from(relay)).end.hint == hint


async def test_closed_keeps_its_prefix():
    async with ScriptedRelay(closed="Rate-Limited: slow down") as relay:
        end = (await read_from(relay)).end
    assert (end.kind, end.prefix, end.text) == (
        EndKind.CLOSED,
        "rate-limited",
        "Rate-Limited: slow down",
    )


async def test_silence_ends_a_page_with_its_events_and_the_last_notice():
    async with (
        ScriptedRelay(make_events(5), eose="never", notice="bad req: hm") as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        page = await read(connection, idle_timeout=0.2)
        assert connection.notices == ("bad req: hm",)
    assert page.end.kind is EndKind.TIMEOUT
    assert page.end.text == "bad req: hm"
    assert len(page.events) == 5


async def test_the_timeout_is_of_silence_not_of_the_whole_page():
    async with ScriptedRelay(make_events(8), delay=0.1) as relay:
        page = await read_from(relay, idle_timeout=0.6)
    assert page.end.kind is EndKind.EOSE
    assert len(page.events) == 8


async def test_a_page_that_trickles_is_given_up_with_what_came():
    async with ScriptedRelay(make_events(100), delay=0.05) as relay:
        page = await read_from(relay, idle_timeout=5, total_timeout=0.3)
    assert page.end.kind is EndKind.TIMEOUT
    assert 1 <= len(page.events) <= 7


async def test_a_dropped_connection_ends_every_open_page():
    async with (
        ScriptedRelay(make_events(50), drop_after=7) as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        page = await read(connection)
        assert connection.closed
        later = await read(connection)
        assert await connection.count({}, timeout=1) is None
    assert page.end.kind is later.end.kind is EndKind.DISCONNECTED
    assert len(page.events) <= 7


async def test_a_page_never_holds_more_than_its_limits():
    async with ScriptedRelay(make_events(100), ignore_limit=True) as relay:
        by_count = await read_from(relay, max_events=10)
        by_bytes = await read_from(relay, max_bytes=2_000)
        exact = await read_from(relay, max_events=100)
    assert by_count.end.kind is by_bytes.end.kind is EndKind.OVERFLOW
    assert len(by_count.events) == 10
    assert 0 < by_bytes.received_bytes <= 2_000
    assert exact.end.kind is EndKind.EOSE


async def test_close_is_sent_after_every_end_but_closed():
    async with ScriptedRelay(make_events(3), closed="error: no", closed_times=1) as relay:
        async with await relay.dialer().connect(relay.url) as connection:
            await read(connection)
            await read(connection)
            await read(connection, max_events=1)
            await connection.count({}, timeout=1)
        assert relay.closes == ["b2", "b3"]


async def test_events_that_come_after_their_eose_are_no_answer():
    events = make_events(30)
    for eose, kind, count in (("first", EndKind.CLOSED, 1), ("middle", EndKind.EOSE, 15)):
        async with HostileRelay(events, eose=eose) as relay:
            page = await read_from(relay)
            assert page.end.kind is kind
            assert len(page.events) >= count
    async with HostileRelay([], eose="first") as relay:
        assert (await read_from(relay)).end.kind is EndKind.EOSE


async def test_events_after_the_eose_of_a_page_that_had_some_are_kept():
    events = make_events(15)
    async with HostileRelay(events, eose="middle") as relay:
        async with await relay.dialer().connect(relay.url) as connection:
            small = await read(connection, settle_below=9)
            assert (len(small.events), len(small.late)) == (8, 7)
            assert connection.take_late() == ()
            large = await read(connection, settle_below=8)
            await connection.settle()
            late = connection.take_late()
            assert (len(large.events), len(large.late), len(late)) == (8, 0, 7)
            assert connection.take_late() == ()
    assert {event.id for event in (*large.events, *late)} == {event["id"] for event in events}


async def test_a_connection_whose_pages_have_settled_waits_no_more(monkeypatch):
    pings = []
    ping = RelayConnection.round_trip

    async def round_trip(connection):
        pings.append(connection)
        return await ping(connection)

    monkeypatch.setattr(RelayConnection, "round_trip", round_trip)
    async with (
        ScriptedRelay(make_events(3)) as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        await connection.settle()
        assert not pings
        await read(connection, settle_below=9)
        await connection.settle()
        assert len(pings) == 1
        await read(connection, settle_below=1)
        await connection.settle()
        await connection.settle()
        assert len(pings) == 2


async def test_garbage_is_counted_and_harmless():
    garbage = [
        *("", "null", "{}", "[]", "[1]", '["EVENT"]', '["EVENT",7,{}]', '["OK","x","yes"]'),
        *('["EOSE"]', '["COUNT","b1",{"count":-1}]', "[" * 3_000, "1" * 5_000, "NaN", '"\ud7ff'),
        *(b"\xff\xfe", b"binary"),
    ]
    harmless = ['["WHAT","b1"]', '["EOSE","other"]', '["EVENT","other",{"id":1}]', '["AUTH","c"]']
    events = make_events(3)
    async with (
        ScriptedRelay(events, garbage=[*garbage, *harmless]) as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        page = await read(connection)
        assert connection.stray == 1
        assert connection.challenge == "c"
    assert page.end.kind is EndKind.EOSE
    assert page.malformed == len(garbage)
    assert len(page.events) == 3


async def test_what_cannot_be_read_may_be_of_any_open_page():
    async with (
        ScriptedRelay(make_events(3), garbage=["nonsense"] * 5, eose="late") as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        pages = await asyncio.gather(read(connection), read(connection))
    assert [len(page.events) for page in pages] == [3, 3]
    assert sum(page.malformed for page in pages) == 10
    assert max(page.unread for page in pages) == 10
    assert min(page.unread for page in pages) >= 5


async def test_a_relay_that_floods_unasked_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nostr.websocket.MAX_STRAY_BYTES", 10_000)
    flood = ['["EVENT","other",{"id":"' + "0" * 64 + '"}]'] * 1_000
    async with ScriptedRelay(garbage=flood) as relay:
        page = await read_from(relay)
    assert page.end.kind is EndKind.DISCONNECTED
    assert "nobody asked" in page.end.text


async def test_a_peer_that_stops_reading_holds_nobody_up():
    released = asyncio.Event()

    async def deaf(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await released.wait()
        return ws

    app = web.Application()
    app.router.add_get("/", deaf)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    event = {"id": "0" * 64, "content": "x" * 30_000_000}
    try:
        async with asyncio.timeout(10):
            connection = await dialer().connect(url_of(runner.addresses[0][1]))
            assert await connection.publish(event, timeout=0.3) is None
            page = await read(connection, idle_timeout=0.3)
            await connection.close()
    finally:
        released.set()
        await runner.cleanup()
    assert page.end.kind is EndKind.TIMEOUT


async def test_an_oversized_frame_ends_the_connection():
    async with ScriptedRelay(make_events(3), oversized=100_000) as relay:
        small = relay.dialer(max_message_bytes=50_000)
        async with await small.connect(relay.url) as connection:
            page = await read(connection)
    assert page.end.kind is EndKind.DISCONNECTED
    assert "1009" in page.end.text


async def test_a_compressed_frame_is_limited_by_its_full_size():
    async with ScriptedRelay(make_events(1), oversized=20_000_000) as relay:
        page = await read_from(relay)
    assert page.end.kind is EndKind.DISCONNECTED


async def test_many_pages_at_once_do_not_mix():
    events = make_events(60)
    async with (
        ScriptedRelay(events, delay=0.001) as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        windows = [{"since": START + n, "until": START + n + 9} for n in range(0, 60, 10)]
        pages = await asyncio.gather(*(read(connection, window) for window in windows))
        for window, page in zip(windows, pages, strict=True):
            assert [event._asdict() for event in page.events] == relay.matching(window)


async def test_an_event_with_numbers_beyond_64_bits_arrives_exactly():
    event = make_event(created_at=START)
    text = '["EVENT","b1",{"id":"%s","tags":[["n",18446744073709551617,1.10,"\\ud800"]]}]'
    async with ScriptedRelay([], garbage=[text % event["id"]]) as relay:
        (received,) = (await read_from(relay)).events
    values = received["tags"][0]
    assert [getattr(value, "text", value) for value in values] == [
        "n",
        "18446744073709551617",
        "1.10",
        "\ud800",
    ]


async def test_signing_in_opens_the_relay():
    async with (
        ScriptedRelay(make_events(2), auth=True) as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        assert (await read(connection)).end.prefix == "auth-required"
        reply = await connection.authenticate(SECRET_KEY, timeout=2)
        assert reply is not None
        assert reply.accepted
        assert len((await read(connection)).events) == 2
        (signed,) = relay.auths
    assert parse_auth(signed) == [
        ["relay", relay.url.websocket("ws")],
        ["challenge", "challenge-1"],
    ]


def parse_auth(event: dict) -> list[list[str]]:
    with pytest.raises(EventRefused, match="auth-event"):
        parse_event(event)
    return event["tags"]


async def test_without_a_challenge_signing_in_fails_in_time():
    async with ScriptedRelay() as relay, await relay.dialer().connect(relay.url) as connection:
        assert await connection.authenticate(SECRET_KEY, timeout=0.1) is None


@pytest.mark.parametrize(
    ("publish", "accepted", "prefix"), [("accept", True, ""), ("pow: 28 bits", False, "pow")]
)
async def test_publishing_returns_the_relays_ok(publish: str, accepted: bool, prefix: str):
    event = make_event(created_at=START)
    async with ScriptedRelay(publish=publish) as relay:
        async with await relay.dialer().connect(relay.url) as connection:
            reply = await connection.publish(event, timeout=2)
        assert relay.published == [event]
    assert (reply.accepted, reply.prefix) == (accepted, prefix)


async def test_publishing_to_a_silent_relay_returns_none():
    async with (
        ScriptedRelay(publish="silent") as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        assert await connection.publish(make_event(created_at=START), timeout=0.1) is None


async def test_count_is_the_number_or_none():
    async with (
        ScriptedRelay(make_events(7), counts=True) as relay,
        await relay.dialer().connect(relay.url) as connection,
    ):
        assert await connection.count({"kinds": [1]}, timeout=2) == 7
        relay.counts = False
        assert await connection.count({"kinds": [1]}, timeout=2) is None


async def test_cancelling_closes_the_socket():
    async with ScriptedRelay(eose="never") as relay:

        async def wait_forever() -> None:
            async with await relay.dialer().connect(relay.url) as connection:
                await read(connection, idle_timeout=60)

        task = asyncio.create_task(wait_forever())
        while not relay.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(2):
            while relay.connections:
                await asyncio.sleep(0.01)


async def test_a_peer_that_never_answers_is_given_up_in_time():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectFailed) as failed:
            await dialer(connect_timeout=0.3).connect(url_of(port))
    assert failed.value.kind == "timeout"


async def test_nobody_listening_is_refused():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectFailed) as failed:
            await dialer().connect(url_of(bound.getsockname()[1]))
    assert failed.value.kind == "refused"


async def test_a_web_server_that_refuses_the_upgrade_is_named():
    async with ScriptedRelay(upgrade=False) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await relay.dialer().connect(relay.url, prefer_scheme="ws")
    assert (failed.value.kind, failed.value.detail) == ("http-status", "HTTP 403")


async def test_a_redirect_of_the_upgrade_is_not_followed():
    async with ScriptedRelay(make_events(1)) as target:

        async def redirect(request: web.Request) -> web.Response:
            raise web.HTTPFound(f"http://127.0.0.1:{target.port}/")

        app = web.Application()
        app.router.add_get("/", redirect)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            with pytest.raises(ConnectFailed) as failed:
                await dialer().connect(url_of(runner.addresses[0][1]), prefer_scheme="ws")
        finally:
            await runner.cleanup()
        assert failed.value.detail == "HTTP 302"
        assert target.connected == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses_are_refused_before_and_after_dns(host: str):
    async with ScriptedRelay() as relay:
        with pytest.raises(ConnectFailed) as failed:
            await dialer(allow_private=False).connect(url_of(relay.port, host))
        assert relay.connected == 0
    assert failed.value.kind == "address-refused"


async def test_a_name_that_is_allowed_reaches_the_relay():
    async with (
        ScriptedRelay() as relay,
        await dialer().connect(url_of(relay.port, "localhost")),
    ):
        assert relay.connected == 1


class Tls:
    """A certificate authority, a server's side with a certificate of it, a client's trust."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)


@pytest.fixture
def tls() -> Iterator[Tls]:
    return Tls()


async def test_tls_with_a_trusted_certificate_is_wss(tls: Tls):
    async with (
        ScriptedRelay(make_events(1), tls=tls.server) as relay,
        await relay.dialer(trust=tls.trust).connect(relay.url) as connection,
    ):
        assert connection.scheme == "wss"
        assert connection.rtt_open >= 0
        assert len((await read(connection)).events) == 1


async def test_a_certificate_error_never_falls_back_to_ws(tls: Tls):
    async with ScriptedRelay(tls=tls.server) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await relay.dialer().connect(relay.url)
        assert relay.connected == 0
    assert failed.value.kind == "tls-certificate"


async def test_a_failed_handshake_does_not_fall_back_to_ws_either(tls: Tls):
    tls.server.minimum_version = ssl.TLSVersion.TLSv1_3
    old_client = ssl.create_default_context()
    old_client.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        refusing = asyncio.create_task(asyncio.to_thread(refuse_handshake, listener, tls.server))
        with pytest.raises(ConnectFailed) as failed:
            await dialer(trust=old_client).connect(url_of(listener.getsockname()[1]))
        await refusing
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert failed.value.kind == "tls"


def refuse_handshake(listener: socket.socket, context: ssl.SSLContext) -> None:
    accepted, _ = listener.accept()
    with accepted, pytest.raises(ssl.SSLError):
        context.wrap_socket(accepted, server_side=True)


@pytest.mark.parametrize(
    ("port", "kind", "schemes"),
    [
        (None, "refused", ["wss", "ws"]),
        (None, "not-tls", ["wss", "ws"]),
        (None, "reset", ["wss"]),
        (7777, "reset", ["wss", "ws"]),
        (7777, "tls", ["wss"]),
        (7777, "tls-certificate", ["wss"]),
        (7777, "tls-expired", ["wss"]),
        (None, "tls-self-signed", ["wss"]),
        (None, "tls-wrong-host", ["wss"]),
        (7777, "timeout", ["wss"]),
        (7777, "http-status", ["wss"]),
        (7777, "dns", ["wss"]),
        (7777, "address-refused", ["wss"]),
    ],
)
async def test_when_ws_is_tried_after_wss(port: int | None, kind: str, schemes: list[str]):
    url = RelayUrl.parse("wss://relay.example.com" + (f":{port}" if port else ""))
    tried = []

    async def attempt(scheme: str) -> None:
        tried.append(scheme)
        raise ConnectFailed(kind if scheme == "wss" else "refused", url.url)

    with pytest.raises(ConnectFailed) as failed:
        await dialer().try_schemes(url, attempt, timeout=1)
    assert tried == schemes
    assert failed.value.kind == kind


async def test_a_peer_without_tls_is_reached_by_ws():
    async with ScriptedRelay() as relay, await relay.dialer().connect(relay.url) as connection:
        assert connection.scheme == "ws"


async def test_a_relay_that_moved_from_ws_to_wss_is_found(tls: Tls):
    async with ScriptedRelay(tls=tls.server) as relay:
        trusting = relay.dialer(trust=tls.trust)
        async with await trusting.connect(relay.url, prefer_scheme="ws") as connection:
            assert connection.scheme == "wss"


async def test_an_onion_relay_without_tor_is_not_tried():
    with pytest.raises(ConnectFailed) as failed:
        await dialer().connect(RelayUrl.parse(ONION))
    assert failed.value.kind == "no-tor"


async def test_each_onion_relay_has_credentials_of_its_own():
    other = "wss://duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"
    async with ScriptedRelay() as relay:
        proxy = SocksProxy(relay.port)
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            through = dialer(socks5_url=f"socks5://127.0.0.1:{port}")
            for url in (ONION, other, ONION + "/path"):
                await (await through.connect(RelayUrl.parse(url))).close()
    first, second, again = proxy.users
    assert first == again != second, "Tor keeps circuits apart by them"


def test_an_onion_relay_has_twice_the_time():
    patient = Dialer(None, allow_private=False, connect_timeout=7)
    assert patient.timeout_for(RelayUrl.parse("wss://a.example")) == 7
    assert patient.timeout_for(RelayUrl.parse(ONION)) == 14


async def test_an_onion_relay_is_reached_through_socks_by_name_alone():
    async with ScriptedRelay(make_events(2)) as relay:
        proxy = SocksProxy(relay.port)
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            through = dialer(socks5_url=f"socks5://127.0.0.1:{port}")
            onion = RelayUrl.parse(ONION + "/path")
            async with await through.connect(onion) as connection:
                assert connection.scheme == "ws"
                assert len((await read(connection)).events) == 2
    name_kind = 3
    assert proxy.asked == [(name_kind, onion.host, 80)]
    assert proxy.users == [onion.host]


async def test_an_onion_that_tor_cannot_reach_and_a_proxy_that_is_down_differ():
    proxy = SocksProxy(0)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        through = dialer(socks5_url=f"socks5://127.0.0.1:{port}")
        with pytest.raises(ConnectFailed) as failed:
            await through.connect(RelayUrl.parse(ONION))
        assert failed.value.kind == "onion-unreachable"
    with pytest.raises(ConnectFailed) as failed:
        await through.connect(RelayUrl.parse(ONION))
    assert failed.value.kind == "socks"


async def test_a_local_relay_of_nostr_sdk(local_relay: StartRelay):
    events = make_events(30)
    running = await local_relay([DemoEvent(**event) for event in events])
    async with await dialer().connect(
        RelayUrl.parse(running.url, allow_private=True)
    ) as connection:
        page = await read(connection)
        assert await connection.count({"kinds": [1]}, timeout=2) == 30
        new = make_event(created_at=START + 99, content="new")
        assert (await connection.publish(new, timeout=2)).accepted
    assert page.end.kind is EndKind.EOSE
    assert {event.id for event in page.events} == {event["id"] for event in events}


async def test_a_local_relay_of_nostr_sdk_that_wants_auth(local_relay: StartRelay):
    def wants_auth(builder: LocalRelayBuilder) -> LocalRelayBuilder:
        return builder.nip42(LocalRelayBuilderNip42(mode=LocalRelayBuilderNip42Mode.BOTH))

    running = await local_relay([], customize=wants_auth)
    async with await dialer().connect(
        RelayUrl.parse(running.url, allow_private=True)
    ) as connection:
        assert (await read(connection)).end.prefix == "auth-required"
        reply = await connection.authenticate(SECRET_KEY, timeout=2)
        assert reply is not None
        assert reply.accepted
        assert (await read(connection)).end.kind is EndKind.EOSE


async def test_a_nostr_relay(nostr_relay: StartRelay):
    events = make_events(30)
    running = await nostr_relay([DemoEvent(**event) for event in events])
    async with await dialer().connect(
        RelayUrl.parse(running.url, allow_private=True)
    ) as connection:
        page = await read(connection)
    assert page.end.kind is EndKind.EOSE
    assert {event.id for event in page.events} == {event["id"] for event in events}


async def test_an_eose_before_the_relay_leaves_is_no_empty_answer() -> None:
    """It may have had events to send: a relay was seen to send EOSE first and then to break off."""

    async def leave_after_eose(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        message = json.loads((await socket.receive()).data)
        await socket.send_str(json.dumps(["EOSE", message[1]]))
        assert request.transport is not None
        request.transport.abort()
        return socket

    app = web.Application()
    app.router.add_get("/", leave_after_eose)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = RelayUrl.parse(f"ws://127.0.0.1:{runner.addresses[0][1]}", allow_private=True)
        dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0)
        async with await dialer.connect(url) as connection:
            page = await connection.page({"limit": 5}, idle_timeout=5.0, max_events=5)
            assert page.end.kind is EndKind.DISCONNECTED
    finally:
        await runner.cleanup()
