"""Following relays live: new events at once, what an interruption missed, nothing claimed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bigbrotr import BigBrotr
from components.relays import StartRelay
from components.sessions import archived, context, synchronize, true_ids, unproven
from nostr.live import LiveFeed
from nostr.pages import EndKind, Page, PageEnd
from nostr.urls import RelayUrl
from scripted_relay import ScriptedRelay, make_event, make_events
from standalone.relay_client import publish
from standalone.signing import Author
from sync.live import LiveTail, LiveTails
from sync.page_check import CheckedPage
from sync.relay_model import RelayModel
from sync.windows import Window

START = 1_700_000_000


@asynccontextmanager
async def following(db: BigBrotr, url: str, target: Window) -> AsyncIterator[LiveTail]:
    async with context(db, idle_timeout=2.0) as shared:
        tail = LiveTail(shared, RelayUrl.parse(url, allow_private=True), RelayModel(), target)
        task = asyncio.create_task(tail.run())
        try:
            yield tail
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until_archived(db: BigBrotr, url: str, ids: set[str]) -> None:
    async with asyncio.timeout(30):
        while not ids <= await archived(db, url):
            await asyncio.sleep(0.05)


async def test_new_events_of_a_real_relay_arrive_at_once(
    db: BigBrotr, local_relay: StartRelay
) -> None:
    author, now = Author("live"), int(time.time())
    old = [author.sign(1, now - 50_000 + n, [], f"old {n}") for n in range(40)]
    recent = [author.sign(1, now - 600 + n, [], f"recent {n}") for n in range(40)]
    relay = await local_relay(old + recent)
    target = Window(START, now - 10_000)
    await synchronize(db, relay.url, target)
    assert await archived(db, relay.url) == {event.id for event in old}

    async with following(db, relay.url, target):
        await until_archived(db, relay.url, {event.id for event in recent})
        fresh = author.sign(1, int(time.time()), [], "just now")
        await publish(relay.websocket, [fresh])
        await until_archived(db, relay.url, {fresh.id})
    later = Window(START, now + 100)
    assert await unproven(db, relay.url, later) == [Window(target.until + 1, now + 100)]


async def test_an_interruption_is_repaired(db: BigBrotr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.live._FIRST_PAUSE_SECONDS", 1)
    now = int(time.time())
    async with ScriptedRelay(make_events(30, start=now - 300), cap=20) as relay:
        url = relay.url.url
        async with following(db, url, Window(START, now - 400)):
            await until_archived(db, url, true_ids(relay.events))
            await asyncio.sleep(1.5)  # the follower notes how far it has come
            missed = [
                make_event(created_at=int(time.time()) - n, content=f"missed {n}")
                for n in range(50)
            ]
            relay.events += missed
            await relay.drop_all()
            await until_archived(db, url, true_ids(missed))
            assert relay.connected >= 2


async def test_a_relay_that_wants_a_sign_in_is_followed(db: BigBrotr) -> None:
    now = int(time.time())
    async with ScriptedRelay(make_events(10, start=now - 100), auth=True) as relay:
        async with context(db, secret_key=Author("archive").secret_key) as shared:
            tail = LiveTail(shared, relay.url, RelayModel(), Window(START, now - 500))
            task = asyncio.create_task(tail.run())
            await until_archived(db, relay.url.url, true_ids(relay.events))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_relay_that_refuses_after_a_sign_in_is_left_alone(db: BigBrotr) -> None:
    class NeverContent(ScriptedRelay):
        def _refusal(self, connection: object) -> str:
            return "auth-required: still not"

    async with NeverContent(auth=True) as relay:
        async with context(db, secret_key=Author("archive").secret_key) as shared:
            tail = LiveTail(shared, relay.url, RelayModel(), Window(START, int(time.time()) - 500))
            task = asyncio.create_task(tail.run())
            while not relay.requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            assert not task.done()
            assert len(relay.requests) < 20
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_waits_when_a_feed_ends_is_archived(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ephemeral events, which nobody can ask for again."""
    now = int(time.time())
    events = [make_event(created_at=now, kind=20_001, content=f"{n}") for n in range(5)]
    async with ScriptedRelay([], cap=20) as relay, context(db, idle_timeout=2.0) as shared:
        check, checking = shared.checker.check, asyncio.Event()

        async def slow(page: Page, flt: Mapping[str, Any]) -> CheckedPage:
            if page.events:
                checking.set()
                await asyncio.sleep(0.5)
            return await check(page, flt)

        monkeypatch.setattr(shared.checker, "check", slow)
        tail = LiveTail(shared, relay.url, RelayModel(), Window(START, now - 400))
        task = asyncio.create_task(tail.run())
        while len(relay.requests) < 2:  # the subscription, and what was missed
            await asyncio.sleep(0.01)
        (socket,) = relay._sockets
        await socket.send_str(json.dumps(["EVENT", "b1", events[0]]))
        await checking.wait()
        for event in events[1:]:
            await socket.send_str(json.dumps(["EVENT", "b1", event]))
        await relay.drop_all()
        await until_archived(db, relay.url.url, true_ids(events))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_a_silent_relay_answers_is_archived(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.live._SILENCE_SECONDS", 0.5)
    now = int(time.time())
    late = make_event(created_at=now - 5_000, content="copied here late")
    async with ScriptedRelay([], cap=20) as relay:
        async with following(db, relay.url.url, Window(START, now - 400)):
            while len(relay.requests) < 2:
                await asyncio.sleep(0.01)
            relay.events.append(late)
            await until_archived(db, relay.url.url, {late["id"]})


async def test_one_service_follows_a_relay_at_a_time(db: BigBrotr) -> None:
    now = int(time.time())
    async with ScriptedRelay(make_events(10, start=now - 100)) as relay:
        await synchronize(db, relay.url.url, Window(START, now - 500))
        async with context(db) as shared:
            first, second = LiveTails(shared, "first"), LiveTails(shared, "second")
            for tails in (first, second, first):
                await tails.follow(relay.url, RelayModel(), Window(START, now - 500))
            await until_archived(db, relay.url.url, true_ids(relay.events))
            assert list(first.info()) == [relay.url.url]
            assert second.info() == {}
            assert relay.connections == 1
            await first.close()
            await second.close()


async def test_a_feed_is_bounded_and_outlives_eose() -> None:
    feed = LiveFeed(max_events=2, max_bytes=100)
    feed.end(PageEnd(EndKind.EOSE))
    assert feed.ended is None
    assert await feed.take(0.01) == ()
    feed.add("a", 10)
    assert await feed.take(1.0) == ("a",)
    for event in "bcd":
        feed.add(event, 10)
    assert feed.ended == PageEnd(EndKind.OVERFLOW)
    assert await feed.take(1.0) == ("b", "c", "d")
    assert not feed.add("e", 10)
