"""The plans against simulated relays: nothing unproven is claimed, everything readable is got.

No I/O: a relay is a function from a request to a page, with the habits of real relays. Each
seed draws events and habits; the assertions are the promise itself (DESIGN section 1).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import pytest

from nostr.connection import EndKind, PageEnd
from nostr.events import SignedEvent
from sync.alone import Alone
from sync.bisection import Bisection
from sync.facts import Order, PageFacts, Request, Saturated, Verdict
from sync.partition import LAST_KIND, Part, partition, together
from sync.relay_model import Observations, RelayModel, Sights
from sync.walk import Walk
from sync.windows import Window, merge, subtract

START = 1_700_000_000


def make_event(second: int, number: int, kind: int = 1, author: int = 0) -> SignedEvent:
    return SignedEvent(f"{number:064x}", f"{author:064x}", second, kind, [], "", "0" * 128)


@dataclass
class SimulatedRelay:
    """A relay as a function. `cap` clamps silently, whatever limit is asked for; so many of its
    events, `junk`, have a wrong signature and never count, and the first of them, `unreadable`, are
    not even messages. Up to `garbage` frames that are none come beside a page: those of others,
    unless it is asked for alone. With `longest_list` it answers longer
    lists of kinds with nothing. Pages over `room` have no end for us; an event takes one, or its
    `weights`."""

    events: list[SignedEvent]
    rng: random.Random
    cap: int = 500
    order: Order = Order.NEWEST_FIRST
    until_exclusive: bool = False
    since_exclusive: bool = False
    hints: bool = False
    junk: int = 0
    unreadable: int = 0
    garbage: int = 0
    longest_list: int = LAST_KIND + 1
    cap_by_key: Mapping[str, int] = field(default_factory=dict)
    room: int | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    noise: int = 0
    requests: int = 0
    sent: int = 0
    log: list[tuple[Request, int]] = field(default_factory=list)

    def answer(self, request: Request) -> PageFacts:
        self.requests += 1
        window = request.window
        until = window.until - self.until_exclusive
        since = window.since + self.since_exclusive
        kinds = frozenset(request.refinement.get("kinds", range(LAST_KIND + 1)))
        authors = request.refinement.get("authors")
        found = [
            event
            for event in self.events
            if since <= event.created_at <= until
            and event.kind in kinds
            and (authors is None or event.pubkey in authors)
            and ("kinds" not in request.refinement or len(kinds) <= self.longest_list)
        ]
        self.rng.shuffle(found)
        if self.order is not Order.NONE:
            sign = -1 if self.order is Order.NEWEST_FIRST else 1
            found.sort(key=lambda event: sign * event.created_at)
        caps = (cap for key, cap in self.cap_by_key.items() if key in request.refinement)
        page = found[: min([self.cap, request.limit, *caps])]
        hint = ("more" if len(page) < len(found) else "finish") if self.hints else ""
        whole = len(page)
        page = page[: self.fitting(page)]
        self.sent += len(page)
        self.log.append((request, len(page)))
        junk = {event.id for event in self.events[: self.junk]}
        usable = tuple(event for event in page if event.id not in junk)
        unreadable = {event.id for event in self.events[: self.unreadable]}
        read = [event for event in page if event.id not in unreadable]
        refused_at = frozenset(event.created_at for event in read if event.id in junk)
        self.noise = self.rng.randint(0, self.garbage)
        unread = len(page) - len(read) + self.noise
        end = PageEnd(EndKind.EOSE, hint=hint)
        if len(page) < whole:
            end = PageEnd(EndKind.OVERFLOW)
        return PageFacts(end, usable, len(read), refused_at, unread=unread)

    def fitting(self, page: Sequence[SignedEvent]) -> int:
        """How many of its first events there is room for."""
        sizes = accumulate(self.weights.get(event.id, 1) for event in page)
        return sum(self.room is None or size <= self.room for size in sizes)


def settled_as_asked(plan: Walk | Bisection | Alone, facts: PageFacts, noise: int = 0) -> PageFacts:
    """The page as it is known to the plan: only small ones are given time to settle, and are asked
    for alone if what cannot be read came with them."""
    if facts.received >= plan.settle_below:
        return replace(facts, settled=False)
    return replace(facts, unread=facts.unread - noise)


@dataclass
class Outcome:
    archived: set[str]
    proven: list[Window]
    gaps: list[int]


class Driver:
    """The session's logic without I/O, in one lane (RelaySession drives the same plans)."""

    def __init__(self, relay: SimulatedRelay, limit: int) -> None:
        self.relay = relay
        self.limit = limit
        self.model = RelayModel()
        self.seen = Sights(limit)
        self.widest: dict[frozenset[str], Mapping[str, object]] = {}
        self.turned = False
        self.bounds_seen: set[Order] = set()
        self.outcome = Outcome(set(), [], [])

    def plan(self, window: Window, part: dict[str, object], expected: int = 0) -> Walk | Bisection:
        order = self.model.order
        seen = self.seen.of(part)
        if order is Order.NONE:
            return Bisection(window, self.limit, seen, part, expected)
        if not part:
            return Walk(window, order, self.limit, seen)
        margin = 0 if order in self.bounds_seen else 1
        return Walk(window, order, self.limit, seen, part, 10**9, expected, margin)

    def drive(self, plan: Walk | Bisection | Alone, sink: list[Window]) -> None:
        while True:
            facts = self.relay.answer(plan.request(self.model))
            facts = settled_as_asked(plan, facts, self.relay.noise)
            assert self.relay.requests < 50_000, "the plan does not end"
            self.outcome.archived.update(event.id for event in facts.events)
            if not facts.is_answer:
                if plan.ask_for_less(facts):
                    continue
                self.narrow_overflow(plan, facts, sink)
                return
            step = plan.judge(facts)
            if step.near_exclusive is not None:
                self.model = self.model.with_exclusive(plan.order, step.near_exclusive)
                self.bounds_seen.add(plan.order)
            sink.extend(step.proven)
            if step.saturated is not None:
                self.split(step.saturated, dict(plan.refinement), sink)
            if step.verdict is not Verdict.CONTINUE:
                break
        if step.verdict in (Verdict.DONE, Verdict.CONTRADICTION):
            return
        if step.verdict is Verdict.NARROW:
            self.narrow(plan, sink)
            return
        if step.verdict is Verdict.TURN and not self.turned:
            self.turned = True
            self.model = replace(self.model, order=Order.OLDEST_FIRST)
        else:
            self.model = replace(self.model, order=Order.NONE)
            self.outcome.proven.clear()
        if rest := plan.remaining():
            self.drive(self.plan(rest, dict(plan.refinement)), sink)

    def narrow_overflow(
        self, plan: Walk | Bisection | Alone, facts: PageFacts, sink: list[Window]
    ) -> None:
        rest = plan.remaining()
        if rest is None or (plan.refinement and facts.has_others):
            return
        if rest.seconds == 1:
            events = tuple(e for e in facts.events if e.created_at == rest.since)
            self.split(Saturated(rest.since, events, facts), dict(plan.refinement), sink)
        elif not plan.refinement:
            for half in rest.halves():
                self.drive(self.plan(half, {}), sink)

    def narrow(self, plan: Walk | Bisection | Alone, sink: list[Window]) -> None:
        rest = plan.remaining()
        if rest is None or plan.refinement:
            return
        if rest.seconds == 1:
            if isinstance(plan, Alone) or self.model.is_exclusive:
                self.outcome.gaps.append(rest.since)
            else:
                self.drive(Alone(rest, self.model.order, self.limit, self.seen.plain), sink)
            return
        for half in rest.halves():
            self.drive(self.plan(half, {}), sink)

    def split(self, saturated: Saturated, part: dict[str, object], sink: list[Window]) -> None:
        second = Window(saturated.second, saturated.second)
        if part and self.was_sent_whole(saturated, part):
            sink.append(second)
            return
        parts = partition({}, part, saturated.events)
        proven = parts is not None and parts.complete
        if parts:
            wide = together(parts.parts)
            self.widest.setdefault(frozenset(wide), wide)
        for share in parts.parts if parts else ():
            windows: list[Window] = []
            self.drive(self.plan(second, dict(share.refinement), share.expected), windows)
            believed = any(window.contains(second) for window in windows)
            proven = proven and believed and self.takes_list(share, saturated.events)
        if proven:
            sink.append(second)
        elif not part:
            self.outcome.gaps.append(saturated.second)

    def takes_list(self, share: Part, events: Sequence[SignedEvent]) -> bool:
        kinds = share.refinement.get("kinds", ())
        seen = self.seen.of(share.refinement)
        if share.expected or not share.is_list or len(kinds) <= seen.longest_list:
            return True
        wide = {"kinds": [*kinds, *(event.kind for event in events[:1])]}
        page = self.relay.answer(Request(Window(0, 2 * START), 1, wide))
        self.outcome.archived.update(event.id for event in page.events)
        if page.is_answer and page.events:
            seen.longest_list = len(kinds)
        return len(kinds) <= seen.longest_list

    def was_sent_whole(self, saturated: Saturated, part: Mapping[str, object]) -> bool:
        seen = self.seen.of(part)
        if wide := self.widest.get(frozenset(part)):
            self.widest[frozenset(part)] = {}
            page = self.relay.answer(Request(Window(0, 2 * START), self.limit, wide))
            if page.is_answer:
                seen.saw(page.received)
        return seen.too_small_to_be_cut(saturated.page.size)


def synchronize(relay: SimulatedRelay, target: Window, limit: int = 500) -> Outcome:
    driver = Driver(relay, limit)
    driver.drive(driver.plan(target, {}), driver.outcome.proven)
    return replace(driver.outcome, proven=merge(driver.outcome.proven))


def check_soundness(relay: SimulatedRelay, outcome: Outcome) -> None:
    for event in relay.events[relay.junk :]:
        if any(w.since <= event.created_at <= w.until for w in outcome.proven):
            assert event.id in outcome.archived, f"{event.created_at} is claimed but not archived"


def check_nothing_is_left(outcome: Outcome, target: Window) -> None:
    unproven = subtract(target, [*outcome.proven, *(Window(s, s) for s in outcome.gaps)])
    assert unproven == [], "seconds are neither proven nor recorded as a gap"


def draw_refused(rng: random.Random) -> list[SignedEvent]:
    return [
        make_event(rng.randint(START, START + 20), 5 * 10**6 + n)
        for n in range(rng.choice([30, 90]))
    ]


def draw_events(rng: random.Random, target: Window, *, burst: int = 0) -> list[SignedEvent]:
    seconds = [
        rng.choice([rng.randint(target.since, target.until), target.since + rng.randint(0, 60)])
        for _ in range(rng.choice([0, 1, 2, 5, 40, 300, 900]))
    ]
    events = [make_event(s, n, rng.randint(0, 3), rng.randint(0, 5)) for n, s in enumerate(seconds)]
    crowded = rng.choice([target.since, target.until, rng.randint(target.since, target.until)])
    events += [
        make_event(crowded, 10**6 + n, rng.choice([1, 7, 30_000 + n % 50]), n % 9)
        for n in range(burst)
    ]
    return events


@pytest.mark.parametrize("seed", range(150))
def test_a_relay_in_order_is_proven_completely(seed: int) -> None:
    rng = random.Random(seed)
    target = Window(START, START + rng.choice([0, 1, 30, 5_000, 10**6]))
    cap = rng.choice([20, 33, 100, 500, 5_000])
    relay = SimulatedRelay(
        draw_events(rng, target, burst=rng.choice([0, 0, cap - 1, cap, cap + 1])),
        rng,
        cap=cap,
        order=rng.choice([Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        until_exclusive=rng.random() < 0.3,
        since_exclusive=rng.random() < 0.3,
        hints=rng.random() < 0.3,
    )
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    check_nothing_is_left(outcome, target)


@pytest.mark.parametrize("seed", range(60))
def test_a_relay_without_order_makes_no_false_proof(seed: int) -> None:
    rng = random.Random(1_000 + seed)
    target = Window(START, START + rng.choice([1, 30, 5_000]))
    relay = SimulatedRelay(
        draw_events(rng, target),
        rng,
        cap=rng.choice([20, 100, 500]),
        order=Order.NONE,
        until_exclusive=rng.random() < 0.3,
    )
    check_soundness(relay, synchronize(relay, target))


@pytest.mark.parametrize("seed", range(60))
def test_pages_that_take_too_much_room_hide_nothing(seed: int) -> None:
    rng = random.Random(5_000 + seed)
    target = Window(START, START + rng.choice([0, 1, 30, 5_000, 10**6]))
    cap = rng.choice([20, 100, 500])
    events = draw_events(rng, target, burst=rng.choice([0, cap - 1, cap + 1]))
    relay = SimulatedRelay(
        events,
        rng,
        cap=cap,
        order=rng.choice([Order.NEWEST_FIRST, Order.NEWEST_FIRST, Order.OLDEST_FIRST, Order.NONE]),
        until_exclusive=rng.random() < 0.3,
        room=rng.choice([30, 60, 400, 2_000]),
        weights={event.id: rng.choice([1, 1, 1, 5, 30]) for event in events},
    )
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    check_nothing_is_left(outcome, target)


def test_pages_that_take_too_much_room_are_fetched_with_a_lower_limit() -> None:
    events = [make_event(START + n, n) for n in range(2_000)]
    relay = SimulatedRelay(events, random.Random(0), room=60)
    outcome = synchronize(relay, Window(START, START + 1_999))
    assert outcome.proven == [Window(START, START + 1_999)]
    assert relay.sent < 1.4 * len(events)


@pytest.mark.parametrize("seed", range(60))
def test_refused_events_hide_nothing(seed: int) -> None:
    """A page full of broken events is not an empty page."""
    rng = random.Random(2_000 + seed)
    target = Window(START, START + rng.choice([30, 5_000]))
    events = draw_refused(rng)
    relay = SimulatedRelay(
        [*events, *draw_events(rng, target)],
        rng,
        cap=rng.choice([20, 40, 500]),
        order=rng.choice([Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        junk=len(events),
    )
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    check_nothing_is_left(outcome, target)


@pytest.mark.parametrize("seed", range(120))
def test_frames_that_cannot_be_read_hide_nothing(seed: int) -> None:
    """They make a page neither larger, as others might be cut at, nor small enough to be whole."""
    rng = random.Random(6_000 + seed)
    target = Window(START, START + rng.choice([30, 5_000]))
    events = draw_refused(rng)
    relay = SimulatedRelay(
        [*events, *draw_events(rng, target)],
        rng,
        cap=rng.choice([20, 40, 500]),
        order=rng.choice([Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        junk=len(events),
        unreadable=rng.choice([0, 20, len(events)]),
        garbage=rng.choice([0, 15, 150]),
    )
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    check_nothing_is_left(outcome, target)


class NewestSentAscending(SimulatedRelay):
    """Chooses the newest events, as NIP-01 has it, and sends the oldest of them first."""

    def answer(self, request: Request) -> PageFacts:
        page = super().answer(request)
        return replace(page, events=page.events[::-1])


@pytest.mark.parametrize("number", [30, 100, 400, 1_000])
@pytest.mark.parametrize("hints", [False, True])
def test_the_newest_sent_in_ascending_order_are_not_the_oldest(number: int, hints: bool) -> None:
    relay = NewestSentAscending(
        [make_event(START + n, n) for n in range(number)], random.Random(1), cap=50, hints=hints
    )
    outcome = synchronize(relay, Window(START - 10, START + 2_000))
    check_soundness(relay, outcome)
    assert outcome.proven == [Window(START - 10, START + 2_000)]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_chosen_and_in_whichever_order_it_is_sent(seed: int) -> None:
    rng = random.Random(7_000 + seed)
    target = Window(START, START + rng.choice([0, 1, 30, 5_000]))
    cap = rng.choice([20, 33, 100])
    relay = NewestSentAscending(
        draw_events(rng, target, burst=rng.choice([0, 0, cap - 1, cap + 1, 3 * cap])),
        rng,
        cap=cap,
        until_exclusive=rng.random() < 0.3,
        since_exclusive=rng.random() < 0.3,
        hints=rng.random() < 0.3,
    )
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    check_nothing_is_left(outcome, target)


def test_what_is_finished_without_the_second_asked_for_proves_nothing_of_it() -> None:
    class Unshuffled(random.Random):
        def shuffle(self, x: object) -> None:
            pass

    events = [make_event(START + 5, n) for n in range(61)]
    relay = SimulatedRelay(events, Unshuffled(), cap=50, until_exclusive=True, hints=True, junk=60)
    check_soundness(relay, synchronize(relay, Window(START, START + 10)))


@pytest.mark.parametrize("seed", range(10))
def test_lists_that_a_relay_does_not_understand_prove_nothing(seed: int) -> None:
    old = [make_event(START - 100 + n, 5_000 + n) for n in range(50)]
    crowd = [make_event(START + 5, n) for n in range(3)] + [make_event(START + 5, 99, kind=7)]
    relay = SimulatedRelay(
        [*old, *crowd],
        random.Random(seed),
        cap=100,
        longest_list=100,
        room=100,
        weights={crowd[3].id: 1_000},
    )
    check_soundness(relay, synchronize(relay, Window(START, START + 10)))


def test_refused_events_of_the_neighbours_hide_no_second() -> None:
    junk = [make_event(START + 100 + n % 3, 5 * 10**6 + n) for n in range(51)]
    events = [make_event(START + n, n) for n in range(300) if n not in range(100, 103)]
    relay = SimulatedRelay([*junk, *events], random.Random(0), cap=40, junk=len(junk))
    target = Window(START, START + 400)
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    assert (outcome.proven, outcome.gaps) == ([target], [])


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("seed", range(30))
def test_lower_caps_for_finer_filters_hide_nothing(seed: int, order: Order) -> None:
    """Below a crowded second at the end of a relay's history, no order proves its parts."""
    rng = random.Random(3_000 + seed)
    target = Window(START, START + 50)
    cap = rng.choice([60, 100])
    kinds, authors = rng.choice([2, 5, 30]), rng.choice([1, 3])
    crowd = [
        make_event(START, n, kind=n % kinds, author=n % authors)
        for n in range(rng.choice([cap, 2 * cap]) + rng.choice([0, 1, 40]))
    ]
    newer = [make_event(START + rng.randint(1, 60), 10**6 + n, kind=n % 3) for n in range(200)]
    relay = SimulatedRelay(
        crowd + newer,
        rng,
        cap=cap,
        order=order,
        cap_by_key={"kinds": rng.choice([25, 40, 500]), "authors": rng.choice([20, 22, 500])},
    )
    check_soundness(relay, synchronize(relay, target))


@pytest.mark.parametrize("kinds", [1, 4])
def test_a_second_of_many_pages_is_split_by_kind(kinds: int) -> None:
    """Kinds below the cap prove the second; one kind above it is an honest gap."""
    burst = [make_event(START + 5, n, kind=n % kinds) for n in range(1_200)]
    around = [make_event(START + n % 10, 10_000 + n) for n in range(40)]
    relay = SimulatedRelay(burst + around, random.Random(1))
    target = Window(START, START + 9)
    outcome = synchronize(relay, target)
    check_soundness(relay, outcome)
    if kinds == 1:
        assert outcome.gaps == [START + 5]
        assert subtract(target, outcome.proven) == [Window(START + 5, START + 5)]
    else:
        assert outcome.gaps == []
        assert outcome.proven == [target]
        assert {event.id for event in relay.events} <= outcome.archived


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("seed", range(8))
def test_a_relay_that_ignores_long_lists_proves_nothing_with_them(seed: int, order: Order) -> None:
    rng = random.Random(seed)
    burst = [make_event(START + 5, n, kind=n % 12, author=n % 3) for n in range(150)]
    rare = [make_event(START + 5, 1_000 + n, kind=40 + n) for n in range(30)]
    relay = SimulatedRelay(burst + rare, rng, cap=60, order=order, longest_list=1_000)
    outcome = synchronize(relay, Window(START, START + 9))
    check_soundness(relay, outcome)


@pytest.mark.parametrize("seed", range(8))
def test_a_crowded_second_hides_nothing_from_a_bisection(seed: int) -> None:
    """A relay that is believed to have no order may send the same cut page for a half."""
    rng = random.Random(seed)
    target = Window(START, START + rng.choice([7, 100]))
    crowd = [make_event(rng.choice([START, START + 5]), n) for n in range(300)]
    relay = SimulatedRelay(crowd, random.Random(1), cap=35)
    relay.rng.shuffle = lambda events: None  # type: ignore[method-assign]
    driver = Driver(relay, 500)
    driver.model = replace(driver.model, order=Order.NONE)
    driver.drive(driver.plan(target, {}), driver.outcome.proven)
    check_soundness(relay, driver.outcome)


def test_well_behaved_relay_costs_about_one_request_a_page() -> None:
    events = [make_event(START + n, n) for n in range(60_000)]
    relay = SimulatedRelay(events, random.Random(0))
    outcome = synchronize(relay, Window(START, START + 60_000))
    assert len(outcome.archived) == 60_000
    assert relay.requests <= 132
    assert relay.sent <= 1.02 * 60_000


def test_finish_ends_the_walk_at_once() -> None:
    relay = SimulatedRelay([make_event(START + 3, 1)], random.Random(0), hints=True)
    outcome = synchronize(relay, Window(START, START + 10))
    assert outcome.proven == [Window(START, START + 10)]
    assert relay.requests == 1


def test_the_example_of_the_documentation() -> None:
    """The table in docs/proof.md is what really happens."""
    seconds = [10, 20, 30, 30, 40, 50, 60]
    relay = SimulatedRelay([make_event(s, n) for n, s in enumerate(seconds)], random.Random(0), 4)
    walk, model = Walk(Window(0, 99), Order.NEWEST_FIRST, 500, Observations()), RelayModel()
    table = []
    verdict = Verdict.CONTINUE
    while verdict is Verdict.CONTINUE:
        request = walk.request(model)
        facts = relay.answer(request)
        step = walk.judge(facts)
        verdict = step.verdict
        if step.near_exclusive is not None:
            model = model.with_exclusive(walk.order, step.near_exclusive)
        sent = " ".join(str(event.created_at) for event in facts.events) or "nothing"
        proven = ", ".join(
            f"{w.since} to {w.until}" if w.seconds > 1 else f"{w.since}" for w in step.proven
        )
        table.append(f"| {request.window.until} | {sent} | {proven + ' ' if proven else ''}|")
    documentation = (Path(__file__).parents[2] / "docs" / "proof.md").read_text()
    assert "\n".join(table) in documentation


def test_a_full_second_is_never_taken_as_complete() -> None:
    """The ancestor took a page full of one second for all of that second."""
    relay = SimulatedRelay([make_event(START, n) for n in range(501)], random.Random(0))
    outcome = synchronize(relay, Window(START, START))
    assert outcome.gaps == [START]
    assert outcome.proven == []


@pytest.mark.parametrize("limit", [2, 5, 19, 20])
def test_a_page_as_small_as_was_asked_for_may_be_cut(limit: int) -> None:
    """The oldest second, below which nothing is: a relay that allows few events a page."""
    events = [make_event(START, n) for n in range(limit + 2)]
    relay = SimulatedRelay([*events, make_event(START + 5, 99)], random.Random(0))
    outcome = synchronize(relay, Window(START, START + 9), limit)
    check_soundness(relay, outcome)
    assert outcome.gaps == [START]


def test_silent_emptiness_after_events_is_a_contradiction() -> None:
    """A relay that turns to empty answers (overloaded, say) proves nothing with them."""
    relay = SimulatedRelay([make_event(START + n, n) for n in range(100)], random.Random(0), cap=20)
    walk = Walk(Window(START, START + 99), Order.NEWEST_FIRST, 500, Observations())
    model = RelayModel()
    first = walk.judge(relay.answer(walk.request(model)))
    assert first.proven == (Window(START + 81, START + 99),)
    empty = PageFacts(PageEnd(EndKind.EOSE), (), 0)
    assert walk.judge(empty).proven == ()
    assert walk.judge(empty).verdict is Verdict.CONTRADICTION


@pytest.mark.parametrize("kind", [k for k in EndKind if k is not EndKind.EOSE])
def test_no_other_end_of_a_page_is_judged(kind: EndKind) -> None:
    walk = Walk(Window(START, START + 9), Order.NEWEST_FIRST, 500, Observations())
    with pytest.raises(ValueError, match="proves nothing"):
        walk.judge(PageFacts(PageEnd(kind), (), 0))


@pytest.mark.parametrize("order", [Order.NEWEST_FIRST, Order.OLDEST_FIRST])
@pytest.mark.parametrize(
    ("lanes", "worth", "shares"), [(3, 16, 3), (7, 16, 4), (7, 8, 7), (0, 8, 0)]
)
def test_lanes_get_shares_that_adjoin_and_leave_nothing_out(
    order: Order, lanes: int, worth: int, shares: int
) -> None:
    events = [make_event(START + n, n) for n in range(4_200)]
    relay = SimulatedRelay(events, random.Random(0), cap=100, order=order)
    target = Window(START, START + 4_199)
    walk = Walk(target, order, 500, Observations())
    assert walk.split(3, 16) == []  # nothing is known of the density yet
    proven: list[Window] = []
    while not proven:
        proven += walk.judge(relay.answer(walk.request(RelayModel(order=order)))).proven
    given = walk.split(lanes, worth)
    assert len(given) == shares
    rest = walk.remaining()
    assert rest is not None
    assert merge([*proven, rest, *(share.claim for share in given)]) == [target]
    assert sum(w.seconds for w in (*proven, rest, *(s.claim for s in given))) == 4_200


def test_a_share_of_a_walk_that_was_split_before_ends_at_an_event_beyond_it() -> None:
    events = [make_event(START + n, n) for n in range(6_000)]
    relay = SimulatedRelay(events, random.Random(0), cap=100)
    walk = Walk(Window(START, START + 5_999), Order.NEWEST_FIRST, 500, Observations())
    model = RelayModel()
    walk.judge(relay.answer(walk.request(model)))
    assert walk.split(1, 8)
    walk.judge(relay.answer(walk.request(model)))
    (share,) = walk.split(1, 8)
    relay.log.clear()
    verdict = Verdict.CONTINUE
    while verdict is Verdict.CONTINUE:
        verdict = share.judge(relay.answer(share.request(model))).verdict
    sizes = [size for _, size in relay.log]
    assert verdict is Verdict.DONE
    assert len(sizes) == share.claim.seconds // 100 + 1
    assert min(sizes) > 1


@pytest.mark.parametrize("seed", range(40))
def test_splitting_a_walk_between_lanes_loses_nothing(seed: int) -> None:
    rng = random.Random(seed)
    order = rng.choice([Order.NEWEST_FIRST, Order.OLDEST_FIRST])
    events = [make_event(START + rng.randint(0, 20_000), n) for n in range(6_000)]
    relay = SimulatedRelay(events, rng, cap=100, order=order)
    seen, model = Observations(), RelayModel(order=order)
    plans = [Walk(Window(START, START + 20_000), order, 500, seen)]
    proven: list[Window] = []
    archived: set[str] = set()
    split = 0
    while plans:
        plan = rng.choice(plans)
        request = plan.request(model)
        # The split may come while the page is on its way.
        given = plan.split(rng.randint(0, 4 - len(plans)), rng.choice([8, 16]))
        plans += given
        split += len(given)
        facts = settled_as_asked(plan, relay.answer(request))
        archived.update(facts.ids())
        step = plan.judge(facts)
        if step.near_exclusive is not None:
            model = model.with_exclusive(order, step.near_exclusive)
        assert step.saturated is None
        proven += step.proven
        if step.verdict is Verdict.DONE:
            plans.remove(plan)
    assert split > 0
    assert merge(proven) == [Window(START, START + 20_000)]
    assert len(archived) == 6_000
