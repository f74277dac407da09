"""Finding by NIP-77 what the archive lacks, and what may be concluded from it."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from bigbrotr import BigBrotr
from components.relays import StartRelay
from components.sessions import archived, gaps, synchronize, true_ids, unproven
from event_rows import known_ids
from nostr.connection import Dialer
from nostr.filters import filter_hash
from nostr.urls import RelayUrl
from scripted_relay import Event, ScriptedRelay, make_event, make_events
from standalone.relay_client import publish
from standalone.signing import Author
from sync import ledger, reconcile
from sync.asker import Asker
from sync.group_commit import GroupCommit
from sync.page_check import PageChecker
from sync.reconcile import Reconciler, Reconciliation
from sync.relay_model import RelayModel
from sync.session_settings import SessionSettings
from sync.windows import Window, merge
from sync.writer import SessionWriter

START = 1_700_000_000
KEY = Author("archive").secret_key


class Bench:
    """A Reconciler and what it works with."""

    def __init__(
        self,
        db: BigBrotr,
        checker: PageChecker,
        url: str,
        flt: Mapping[str, Any],
        settings: SessionSettings,
        model: RelayModel,
    ) -> None:
        relay = RelayUrl.parse(url, allow_private=True)
        dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0)
        self.asker = Asker(relay, dialer, checker, settings, model)
        self.writer = SessionWriter(GroupCommit(db), relay, filter_hash(flt), Window(0, 2**40))
        self.reconciler = Reconciler(self.asker, self.writer, db, relay, flt, settings.page_limit)

    async def reconcile(self, window: Window, shown: int | None = None) -> Reconciliation:
        found = await self.reconciler.reconcile(window, shown=shown)
        await self.writer.flush()
        return found


@asynccontextmanager
async def bench(
    db: BigBrotr,
    url: str,
    flt: Mapping[str, Any] | None = None,
    model: RelayModel | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    await ledger.register_filter(db, filter_hash(flt or {}), flt or {})
    ready = Bench(
        db,
        PageChecker(partial(known_ids, db)),
        url,
        flt or {},
        SessionSettings(**{"idle_timeout": 2.0, **settings}),
        model or RelayModel(),
    )
    try:
        yield ready
    finally:
        await ready.asker.close()


async def test_local_relay_from_end_to_end(db: BigBrotr, local_relay: StartRelay) -> None:
    """Late and back-dated events cost their own number, an unchanged relay one round trip."""
    author = Author("reconciled")
    events = [author.sign(1, START + n, [], f"note {n}") for n in range(2_000)]
    relay = await local_relay(events, cap=100)
    everything = Window(START - 10_000, START + 10_000)
    await synchronize(db, relay.url, everything)
    assert await archived(db, relay.url) == relay.accepted

    async with bench(db, relay.url) as work:
        unchanged = await work.reconcile(everything)
        assert unchanged == Reconciliation((everything,), (), "done", 0)
        assert work.asker.requests == 1, "one round trip"
        assert work.writer.counts["received"] == 0
        assert work.asker.model.negentropy is True

    late = [author.sign(1, START - 5_000 + 1_000 * n, [], f"late {n}") for n in range(9)]
    await publish(relay.websocket, late)
    async with bench(db, relay.url) as work:
        found = await work.reconcile(everything)
        assert (merge(found.proven), found.left) == ([everything], ())
        assert found.late == 9
        assert work.writer.counts["received"] == 9, "nothing else was downloaded"
        assert work.asker.requests < 12
    assert await archived(db, relay.url) == relay.accepted | {event.id for event in late}


async def test_a_second_that_nothing_splits(db: BigBrotr, local_relay: StartRelay) -> None:
    """One kind and one author in one second, more than the relay sends: complete by NIP-77."""
    author = Author("crowd")
    events = [author.sign(1, START + 50, [], f"n{n}") for n in range(700)]
    events += [author.sign(1, START + n, [], f"m{n}") for n in range(90)]
    relay = await local_relay(events, cap=100)
    target = Window(START, START + 100)
    report = await synchronize(db, relay.url, target)
    assert report.outcome == "complete"
    assert report.model.negentropy is True
    assert await archived(db, relay.url) == relay.accepted
    assert await unproven(db, relay.url, target) == []
    assert await gaps(db, relay.url) == []


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"negentropy": "silent"},
        {"negentropy": "old"},
        {"negentropy": "blocked: not you"},
        {"negentropy": True, "neg_cap": 100},
        {"negentropy": True, "neg_cap": 150},  # more than a page shows
        {"negentropy": True, "neg_records": 200},
        {"negentropy": True, "neg_hides": lambda event: event["id"] < "8"},
    ],
    ids=str,
)
async def test_what_does_not_show_a_second_leaves_it_a_gap(
    db: BigBrotr, knobs: dict[str, Any]
) -> None:
    crowded = make_events(300, start=START + 50, per_second=300)
    async with ScriptedRelay(crowded + make_events(40, author=2), cap=100, **knobs) as relay:
        target = Window(START, START + 100)
        report = await synchronize(db, relay.url.url, target, idle_timeout=1.0)
        assert report.outcome == "gaps"
        assert await unproven(db, relay.url.url, target) == [Window(START + 50, START + 50)]


async def synchronized(db: BigBrotr, relay: ScriptedRelay, target: Window) -> None:
    assert (await synchronize(db, relay.url.url, target)).outcome == "complete"
    relay.requests.clear()


TARGET = Window(START, START + 999)


async def test_only_the_filter_is_compared(db: BigBrotr) -> None:
    flt = {"kinds": [7], "#t": ["a"]}
    wanted = [make_event(created_at=START + n, kind=7, tags=[["t", "a"]]) for n in range(60)]
    others = [make_event(created_at=START + n, kind=7, tags=[["t", "b"]]) for n in range(60)]
    everything = wanted + others + make_events(60)
    async with ScriptedRelay(everything, negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        async with bench(db, relay.url.url, flt) as work:
            assert (await work.reconcile(TARGET)).proven == (TARGET,)
            assert work.asker.requests == 1
        relay.events.append(
            late := make_event(created_at=START + 5, kind=7, tags=[["t", "a"], ["x", "late"]])
        )
        relay.events.append(make_event(created_at=START + 5, kind=1))
        async with bench(db, relay.url.url, flt) as work:
            found = await work.reconcile(TARGET)
            assert found.late == 1
        assert relay.requests[0]["ids"] == [late["id"]]
        assert relay.negotiations[0] == {**flt, "since": START - 1, "until": START + 1_000}


async def test_events_that_columns_cannot_hold_are_known_too(db: BigBrotr) -> None:
    odd = [make_event(created_at=START + n, content=f"\0 {n}") for n in range(5)]
    async with ScriptedRelay(odd + make_events(20), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        async with bench(db, relay.url.url) as work:
            assert await work.reconcile(TARGET) == Reconciliation((TARGET,), (), "done", 0)
            assert relay.requests == []


async def test_the_relay_may_forget_what_we_keep(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(300), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        del relay.events[10:200:3]
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert (merge(found.proven), found.left, found.late) == ([TARGET], (), 0)


async def test_it_must_not_serve_what_it_says_it_has_not(db: BigBrotr) -> None:
    """An index that knows less than the relay serves proves nothing."""
    async with ScriptedRelay(make_events(300), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        relay.neg_hides = lambda event: event["created_at"] == START + 100
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert found == Reconciliation((), (TARGET,), "inconsistent", 0)


async def test_it_must_send_what_it_says_it_has(db: BigBrotr) -> None:
    late = make_events(5, author=2)
    async with ScriptedRelay(make_events(100), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        relay.events += late
        relay.empty_lie = lambda flt: "ids" in flt
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert found == Reconciliation((), (TARGET,), "withheld", 0)


async def test_refused_events_are_counted_and_settle_their_ids(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(50), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        good = make_event(created_at=START + 7, author=2)
        broken = {**make_event(created_at=START + 8, author=2), "sig": "0" * 128}
        relay.events += [good, broken]
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert (merge(found.proven), found.late) == ([TARGET], 1)
            assert work.writer.counts["refused"] > 0
        assert good["id"] in await archived(db, relay.url.url)


async def test_junk_under_the_id_of_a_good_event_settles_nothing(db: BigBrotr) -> None:
    """With each page comes a broken copy of an event that this page is too small for."""
    late = make_events(60, author=2)
    junk = [{**event, "content": "changed"} for event in late]
    async with ScriptedRelay(make_events(100), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        relay.events += late
        relay.cap, relay.extra = 20, junk
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert found.late == 60
        assert true_ids(late) <= await archived(db, relay.url.url)


async def test_missing_events_are_asked_for_in_pages(db: BigBrotr) -> None:
    """The relay sends 30 events a page, whatever the number of ids asked for."""
    late = make_events(400, author=2)
    async with ScriptedRelay(make_events(100), negentropy=True, message_limit=60_000) as relay:
        await synchronized(db, relay, TARGET)
        relay.events += late
        relay.cap = 30
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert (merge(found.proven), found.late) == ([TARGET], 400)
            assert work.writer.counts["received"] == 400, "nothing came twice"


async def test_messages_are_as_short_as_the_relay_wants(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(100), negentropy=True, message_limit=4_000) as relay:
        await synchronized(db, relay, TARGET)
        relay.events += make_events(400, author=2)
        async with bench(db, relay.url.url, longest_message=4_000) as work:
            assert (await work.reconcile(TARGET)).late == 400
        assert max(len(request["ids"]) for request in relay.requests) < 60


async def test_a_relay_that_wants_a_pause_gets_it(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.response._RATE_LIMIT_PAUSES_SECONDS", (0.2,))
    async with ScriptedRelay(negentropy="rate-limited: slow down") as relay:
        async with bench(db, relay.url.url) as work:
            started = time.monotonic()
            assert (await work.reconcile(TARGET)).outcome == "refused"
            assert time.monotonic() - started >= 0.1
            assert relay.neg_messages == 2


def late_and_old(count: int) -> list[Event]:
    return make_events(count, start=START, author=2) + make_events(count, start=START + 500)


async def test_a_set_that_is_cut_proves_only_what_it_shows(db: BigBrotr) -> None:
    async with ScriptedRelay(late_and_old(150), negentropy=True, neg_cap=100) as relay:
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
        have = await archived(db, relay.url.url)
        for window in found.proven:
            inside = relay.matching({"since": window.since, "until": window.until})
            assert true_ids(inside) <= have
        assert have == true_ids(relay.events), "parted, it shows all"


async def test_large_windows_are_halved(db: BigBrotr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "MOST_ITEMS", 120)
    async with ScriptedRelay(make_events(600), negentropy=True, neg_records=100) as relay:
        await synchronized(db, relay, TARGET)
        late = [make_event(created_at=START + n, author=2) for n in (0, 300, 599)]
        relay.events += late
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(TARGET)
            assert (merge(found.proven), found.left, found.late) == ([TARGET], (), 3)
        assert true_ids(late) <= await archived(db, relay.url.url)


async def test_a_second_above_the_limit_is_left(db: BigBrotr) -> None:
    crowded = make_events(50, per_second=50)
    async with ScriptedRelay(crowded, negentropy=True, neg_records=20) as relay:
        async with bench(db, relay.url.url) as work:
            found = await work.reconcile(Window(START - 4, START + 4))
            assert found.outcome == "refused"
            assert Window(START, START) in found.left
            assert merge([*found.proven, *found.left]) == [Window(START - 4, START + 4)]


async def test_exclusive_bounds_hide_nothing(db: BigBrotr) -> None:
    edges = [make_event(created_at=second) for second in (START, START + 999)]
    async with ScriptedRelay(make_events(500, start=START + 100), negentropy=True) as relay:
        await synchronized(db, relay, TARGET)
        relay.events += edges
        relay.neg_hides = lambda event: event["created_at"] in {START - 1, START + 1_000}
        async with bench(db, relay.url.url) as work:
            assert (await work.reconcile(TARGET)).late == 2
        assert true_ids(edges) <= await archived(db, relay.url.url)


@pytest.mark.parametrize(
    ("knobs", "outcome", "learnt"),
    [
        ({}, "unsupported", False),
        ({"negentropy": "silent"}, "timeout", False),
        ({"negentropy": "old"}, "unsupported", False),
        ({"negentropy": "blocked: not you"}, "refused", None),
        ({"negentropy": True, "message_limit": 60}, "disconnected", None),
    ],
    ids=str,
)
async def test_what_is_learnt_of_a_refusal(
    db: BigBrotr, knobs: dict[str, Any], outcome: str, learnt: bool | None
) -> None:
    async with ScriptedRelay(make_events(50), **knobs) as relay:
        async with bench(db, relay.url.url, idle_timeout=0.5) as work:
            found = await work.reconcile(TARGET)
            assert found == Reconciliation((), (TARGET,), outcome, 0)
            assert work.asker.model.negentropy is learnt
            asked = relay.neg_messages, relay.connected
            await work.reconcile(TARGET)
            again = relay.neg_messages, relay.connected
            assert (again == asked) is (learnt is False), "asked again unless it speaks no NIP-77"


async def test_it_signs_in_where_that_is_asked_for(db: BigBrotr) -> None:
    events = make_events(50)
    async with ScriptedRelay(events, negentropy=True, auth=True) as relay:
        async with bench(db, relay.url.url, secret_key=KEY) as work:
            assert (await work.reconcile(TARGET)).late == 50
        async with bench(db, relay.url.url) as work:
            assert (await work.reconcile(TARGET)).outcome == "refused"
