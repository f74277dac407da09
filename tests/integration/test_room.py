"""Memory is bounded whatever a relay sends, and what does not fit is asked for again: nothing is
lost for it."""

import asyncio
import gc
import json
from typing import Any

import pytest

from bigbrotr import BigBrotr
from components.sessions import archived, gaps, synchronize, true_ids, unproven
from nostr.connection import EndKind, Page, PageEnd, RelayConnection
from nostr.events import SignedEvent
from nostr.inbox import Inbox
from nostr.pages import PageCollector
from nostr.websocket import MAX_STRAY_BYTES
from scripted_relay import ScriptedRelay, make_event, make_events
from sync.windows import Window

START = 1_700_000_000
ROOM = 200_000


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A room of 200 KB; the list gets what all pages together might have taken, at each REQ."""
    monkeypatch.setattr("sync.asker.ROOM_BYTES", ROOM)
    under_way: list[int] = []
    promised: list[int] = []
    real = RelayConnection.page

    async def page(self: RelayConnection, flt: Any, *, max_bytes: int, **limits: Any) -> Page:
        under_way.append(max_bytes)
        promised.append(sum(under_way))
        try:
            answer = await real(self, flt, max_bytes=max_bytes, **limits)
        finally:
            under_way.remove(max_bytes)
        assert answer.received_bytes <= max_bytes
        return answer

    monkeypatch.setattr(RelayConnection, "page", page)
    return promised


async def test_huge_pages_on_several_lanes_keep_to_the_room_of_their_relay(
    db: BigBrotr, small_room: list[int]
) -> None:
    small = make_events(2_000)
    large = [make_event(created_at=START + n, content="x" * 20_000) for n in range(800, 1_000)]
    async with ScriptedRelay([*small, *large], cap=50) as relay:
        target = Window(START - 10, START + 2_500)
        report = await synchronize(db, relay.url.url, target, page_limit=50)
        assert report.outcome == "complete", report.detail
        assert await unproven(db, relay.url.url, target) == []
        assert await archived(db, relay.url.url) == true_ids(relay.events)
    assert max(small_room) == ROOM
    assert ROOM // 2 in small_room  # small pages come beside each other


async def test_a_relay_of_large_events_is_asked_for_fewer_at_a_time(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.asker.ROOM_BYTES", 10 * ROOM)
    large = [make_event(created_at=START + n, content="x" * 20_000) for n in range(600)]
    async with ScriptedRelay(large, cap=500) as relay:
        target = Window(START, START + 599)
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "complete", report.detail
        assert await archived(db, relay.url.url) == true_ids(relay.events)
        assert report.counts["received"] < 1.5 * len(large)
        assert {flt["limit"] for flt in relay.requests if flt["limit"] < 500}


async def test_a_second_larger_than_a_share_is_proven_alone(
    db: BigBrotr, small_room: list[int]
) -> None:
    crowded = [make_event(created_at=START + 150, content=f"{n}" + "x" * 20_000) for n in range(8)]
    async with ScriptedRelay([*make_events(300), *crowded], cap=40) as relay:
        target = Window(START, START + 299)
        report = await synchronize(db, relay.url.url, target, page_limit=40)
        assert report.outcome == "complete", report.detail
        assert await archived(db, relay.url.url) == true_ids(relay.events)


async def test_a_second_larger_than_the_room_is_asked_for_in_parts(
    db: BigBrotr, small_room: list[int]
) -> None:
    crowded = [
        make_event(created_at=START + 150, content=f"{n}" + "x" * 20_000, kind=1 + n % 3)
        for n in range(24)
    ]
    async with ScriptedRelay([*make_events(300), *crowded], cap=40) as relay:
        target = Window(START, START + 299)
        report = await synchronize(db, relay.url.url, target, page_limit=40)
        assert report.outcome == "complete", report.detail
        assert await unproven(db, relay.url.url, target) == []
        assert await archived(db, relay.url.url) == true_ids(relay.events)


async def test_a_second_larger_than_the_room_that_has_no_parts_is_a_gap(
    db: BigBrotr, small_room: list[int]
) -> None:
    too_many = [
        make_event(created_at=START + 150, content=f"{n}" + "x" * 20_000) for n in range(12)
    ]
    async with ScriptedRelay([*make_events(300), *too_many], cap=40) as relay:
        target = Window(START, START + 299)
        report = await synchronize(db, relay.url.url, target, page_limit=40)
        assert report.outcome == "gaps"
        recorded = await gaps(db, relay.url.url)
        assert recorded == [("overflow", START + 150, START + 150)]
        wanted = {e["id"] for e in relay.events if e["created_at"] != START + 150}
        assert wanted <= await archived(db, relay.url.url)


@pytest.mark.parametrize(
    ("outcome", "knobs"),
    [
        ("complete", {}),
        ("timeout", {"silent_to": lambda flt: flt["until"] < START + 900}),
        (
            "restricted",
            {"closed": "restricted: no", "closed_to": lambda f: f["until"] < START + 900},
        ),
        ("complete", {"drop_after": 400}),
    ],
)
async def test_no_page_outlives_its_session(
    db: BigBrotr, outcome: str, knobs: dict[str, Any]
) -> None:
    """Cycles are looked for so rarely in a worker that a page in one stays for minutes."""
    async with ScriptedRelay(make_events(2_000), cap=100, **knobs) as relay:
        gc.collect()
        gc.disable()
        try:
            target = Window(START, START + 2_000)
            report = await synchronize(db, relay.url.url, target, page_limit=100, idle_timeout=0.5)
            await asyncio.sleep(0)
            kept = sum(type(thing) is SignedEvent for thing in gc.get_objects())
        finally:
            gc.enable()
    assert report.outcome == outcome
    assert report.counts["received"] > 100
    assert kept == 0


async def test_what_comes_too_late_takes_no_more_than_the_room_of_pages() -> None:
    """It is kept, so a relay that sends much of it is left sooner than for other strays."""
    inbox = Inbox()
    inbox.pages["b1"] = PageCollector(idle_timeout=60, max_events=500, max_bytes=1_000_000)
    inbox.take(b'["EOSE","b1"]')
    late = json.dumps(["EVENT", "b1", make_event(created_at=START, content="x" * 1_000_000)])
    while inbox.stray_bytes <= MAX_STRAY_BYTES:
        inbox.take(late.encode())
    assert 7 <= len(inbox.take_late()) <= 9
    inbox.finish(PageEnd(EndKind.DISCONNECTED))
