"""Asking relays for the NIP-66 events of monitors: real ones, and ones that misbehave."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from bigbrotr import BigBrotr
from components.databases import Database
from components.relays import local_relay, nostr_relay
from config import load_finder_config
from discovery import relays
from discovery.relays import RelayAnswer, ask_relay
from errors import AggregatorFailed
from finder import Finder
from nostr.connection import Dialer
from nostr.urls import RelayUrl
from scripted_relay import Event, ScriptedRelay, make_event
from standalone.signing import Author, DemoEvent

NOW = int(time.time())
MONITORS = [Author(f"monitor {number}") for number in range(3)]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def announced(count: int) -> list[DemoEvent]:
    """NIP-66 events of three monitors, many in one second, and some that are none."""
    signed = [
        MONITORS[number % 3].sign(
            30166, NOW - number // 7, [["d", f"wss://n{number}.example/"], ["n", "clearnet"]], ""
        )
        for number in range(count)
    ]
    return [
        *signed,
        MONITORS[0].sign(10166, NOW, [["frequency", "3600"]], ""),
        MONITORS[0].sign(1, NOW, [["d", "wss://no-list.example"]], "wss://no-list.example"),
    ]


def scripted(count: int) -> list[Event]:
    return [
        make_event(created_at=NOW - number, kind=30166, tags=[["d", f"wss://n{number}.example"]])
        for number in range(count)
    ]


async def asked(websocket: str, *, timeout: float = 5, total: float = 20) -> RelayAnswer:
    url = RelayUrl.parse(websocket, allow_private=True)
    dialer = Dialer(None, True, timeout)
    return await ask_relay(url, dialer, timeout=timeout, total=total)


def hosts(answer: RelayAnswer) -> set[str]:
    return {RelayUrl.parse(text).host for text in answer.urls}


@pytest.mark.parametrize("software", [local_relay, nostr_relay])
async def test_all_pages_of_a_real_relay_are_read(stack: AsyncExitStack, software, monkeypatch):
    monkeypatch.setattr(relays, "EVENTS_PER_PAGE", 40)
    relay = await software(stack, announced(200))
    answer = await asked(relay.websocket)
    assert hosts(answer) == {f"n{number}.example" for number in range(200)}
    assert (answer.events, answer.invalid, answer.cut_short) == (200, 0, None)


async def test_forged_and_foreign_events_are_counted_and_not_read():
    forged = make_event(created_at=NOW, kind=30166, tags=[["d", "wss://forged.example"]])
    forged["sig"] = "00" * 64
    altered = make_event(created_at=NOW, kind=30166, tags=[["d", "wss://altered.example"]])
    altered["tags"] = [["d", "wss://other.example"]]
    other = make_event(created_at=NOW, kind=10002, tags=[["r", "wss://kind.example"]])
    async with ScriptedRelay(scripted(3), extra=[forged, altered, other, 5]) as relay:
        answer = await ask_relay(relay.url, relay.dialer(), timeout=3, total=10)
    assert hosts(answer) == {"n0.example", "n1.example", "n2.example"}
    assert answer.invalid >= 4


async def test_a_relay_that_ignores_until_is_not_asked_for_ever():
    class Stubborn(ScriptedRelay):
        def matching(self, flt):
            return super().matching({key: flt[key] for key in flt if key != "until"})

    async with Stubborn(scripted(50), cap=10) as relay:
        answer = await ask_relay(relay.url, relay.dialer(), timeout=3, total=10)
        assert len(relay.requests) <= 5
    assert len(answer.urls) == 10


async def test_an_endless_relay_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relays, "MAX_PAGES", 4)
    async with ScriptedRelay(scripted(500), cap=5) as relay:
        answer = await ask_relay(relay.url, relay.dialer(), timeout=3, total=10)
        assert len(relay.requests) == 4
    assert answer.cut_short is not None
    assert answer.cut_short.reason == "too-long"
    assert answer.urls


async def test_what_came_before_silence_is_kept():
    async with ScriptedRelay(scripted(50), cap=10) as relay:
        relay.closed_to = lambda flt: "until" in flt
        relay.closed = "rate-limited: slow down"
        answer = await ask_relay(relay.url, relay.dialer(), timeout=3, total=10)
    assert len(answer.urls) == 10
    assert answer.cut_short is not None
    assert answer.cut_short.reason == "rate-limited"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"closed": "auth-required: sign in"}, "auth-required"),
        ({"eose": "never"}, "timeout"),
        ({"upgrade": False}, "http-status"),
        ({"drop_after": 1}, "disconnected"),
        ({"delay": 0.2}, "timeout"),
    ],
)
async def test_a_relay_that_gives_nothing_has_a_reason(how: dict[str, object], reason: str):
    async with ScriptedRelay(scripted(30), **how) as relay:
        with pytest.raises(AggregatorFailed) as caught:
            await ask_relay(relay.url, relay.dialer(), timeout=0.5, total=1.5)
    assert caught.value.reason == reason


async def test_a_private_relay_is_not_asked_without_the_setting():
    async with ScriptedRelay(scripted(1)) as relay:
        dialer = Dialer(None, False, 3)
        with pytest.raises(AggregatorFailed) as caught:
            await ask_relay(relay.url, dialer, timeout=1, total=3)
        assert relay.connected == 0
    assert caught.value.reason == "address-refused"


def finder(database: Database, urls: Sequence[str]) -> Finder:
    return Finder(
        load_finder_config(
            {
                **database.environment(),
                "FINDER_AGGREGATOR_URLS": "",
                "FINDER_NIP66_RELAYS": ",".join(urls),
                "FINDER_REQUEST_TIMEOUT": "3",
                "ALLOW_PRIVATE_RELAYS": "true",
            }
        )
    )


async def test_the_finder_makes_candidates_of_what_monitors_announce(
    stack: AsyncExitStack, db: BigBrotr, database: Database
):
    relay = await local_relay(stack, announced(30))
    dead = "ws://127.0.0.1:1"
    service = finder(database, [relay.websocket, dead])
    stack.push_async_callback(service.close)
    await service.start()
    report = await service.cycle(asyncio.Event())
    assert (report.counts["candidates_found"], report.counts["lists_read"]) == (30, 1)
    assert service.info()["lists_failing"] == {"wss://127.0.0.1:1": "refused"}
    rows = await db.fetch("SELECT relay_url, source, name, times FROM relay_sources")
    assert {tuple(row)[1:] for row in rows} == {("nip66", relay.url, 1)}
    assert len(rows) == 30
    again = await service.cycle(asyncio.Event())
    assert again.counts["lists_read"] == 0, "not before it is due"
