"""Walking a window page by page in the relay's own order, proving as it goes (pure).

The rules, for a walk from the newest second down (a relay that sends the oldest first is
walked upward by the same code: time is mirrored, see `Axis`):

- An ordered page that reaches down to second m proves everything above m, whatever the cap
  was; m itself may have been cut, so the next request starts at m again.
- A page that lies in one second shows no order. Until another page of the session has shown
  it, the relay is asked whether there is anything above that second.
- A relay that sends the oldest first may have chosen the newest. Asked for a single event, it
  tells which end of the window it chooses from.
- A short page proves no more than a full one. The walk is over only when a request comes
  back empty, or with NIP-67's `finish`.
- If asking from m again brings only second m, ask below m. Something there: the relay cut
  second m, which must be split. Nothing there: m was sent whole if the page was smaller than
  any page known to be cut, else it must be split too.
- Refused events prove nothing: a page of nothing else is empty only if it was too small to
  have been cut; otherwise the window is narrowed.
- The request from m must bring m back. If it does not, the relay leaves out its `until`, or
  it contradicts itself; one more request tells.

Both ends of a window are asked for with a margin of one second, because it is not known in
advance whether the relay includes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import pairwise
from typing import Any

from nostr.connection import EndKind
from nostr.events import SignedEvent
from sync.axis import Axis
from sync.facts import Order, PageFacts, Request, Saturated, Step, Verdict, order_of
from sync.page_limit import PageLimit
from sync.relay_model import Observations, RelayModel
from sync.windows import Window

# The longest stretch that is kept when others take over the rest.
_PAGES_KEPT = 16
# A share asks for a little of the next one: an event from there ends it without further requests.
_PAGES_BEYOND = 0.05
# A refined request starts with room for the events known and so many more, enough to look
# below the second without fetching a full page of what is archived already.
_PEEK = 20


class _Phase(Enum):
    WALK = auto()
    RECHECK = auto()
    """The second that should have come back did not: ask one second further out."""
    BELOW = auto()
    """Nothing but one second came again: ask below it."""
    ABOVE = auto()
    """One second came and no order was shown yet: ask above it."""
    ABOVE_AGAIN = auto()
    """Nothing is above that second; ask with it, in case the far bound is exclusive."""
    CHOICE = auto()
    """The oldest came first: ask for a single event, which shows the end that is chosen from."""


@dataclass(slots=True)
class Walk:
    """One window being walked; `request` and `judge` alternate until the verdict ends it.

    Attributes:
        claim: the seconds to prove.
        order: the order the relay is believed to send in.
        limit: events asked for a page.
        seen: what this session's pages show, shared by its plans.
        refinement: extra filter keys, when one second is being split.
        reach: how far beyond the claim's far end requests look (seconds); a refined walk
            looks far, so that order can prove its one second.
        expected: events already known to match, for a first page no larger than needed. If
            there are some and the relay sends none, it does not understand the refinement.
        margin: seconds added at the near end; 0 only where this session has just seen how the
            relay treats that bound.
    """

    claim: Window
    order: Order
    limit: int
    seen: Observations
    refinement: Mapping[str, Any] = field(default_factory=dict)
    reach: int = 1
    expected: int | None = None
    margin: int = 1
    _axis: Axis = field(init=False)
    _near: int = field(init=False)
    _far: int = field(init=False)
    _claim_far: int = field(init=False)
    _phase: _Phase = field(default=_Phase.WALK, init=False)
    _anchors: frozenset[str] = field(default=frozenset(), init=False)
    _held: PageFacts | None = field(default=None, init=False)
    _last_received: int = field(default=0, init=False)
    _limit: PageLimit = field(init=False)
    _shifted: bool = field(default=False, init=False)
    _size_matters: bool = field(default=False, init=False)
    _came: bool = field(default=False, init=False)
    _walked_events: int = field(default=0, init=False)
    _walked_from: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._axis = Axis(self.order)
        self._claim_far, claim_near = self._axis.ends(self.claim)
        self._far = self._axis.position(self._bounded(self._claim_far - self.reach))
        self._near = self._axis.position(self._bounded(claim_near + self.margin))
        small = self.limit if self.expected is None else self.expected + _PEEK
        self._limit = PageLimit(self.limit, min(self.limit, small), self.limit)

    def request(self, model: RelayModel) -> Request:
        """The next page to ask for."""
        near = self._asked_near()
        self._shifted = model.exclusive(self.order) is True
        window = self._axis.window(self._asked_far(), near + 1 if self._shifted else near)
        limit = 1 if self._phase is _Phase.CHOICE else self._limit.asked
        return Request(window, limit, self.refinement)

    def remaining(self) -> Window | None:
        """What is still to be proven of the claim."""
        return next(iter(self._prove(self._far, self._near)), None)

    def judge(self, facts: PageFacts) -> Step:
        """What the page that answered `request` proves. It must have ended in EOSE."""
        if not facts.is_answer:
            raise ValueError(f"a page that ended in {facts.end.kind} proves nothing")
        if self._limit.is_full:
            self.seen.saw(facts.received)
        elif self._limit.may_have_cut(facts.most_received):
            facts = replace(facts, settled=False)  # its size says nothing
        inside = [event for event in facts.events if self._position(event) <= self._asked_near()]
        finished = facts.end.hint == "finish" and self._phase is _Phase.WALK
        if not facts.events and not finished and not self.seen.shows_nothing(facts.size):
            return Step(Verdict.NARROW)
        if self._phase in {_Phase.ABOVE, _Phase.ABOVE_AGAIN}:
            return self._judge_above(inside)
        if self._phase is _Phase.CHOICE:
            return self._judge_choice(inside)
        order = order_of(facts.events)
        if order is Order.NONE and not finished:
            return Step(Verdict.UNORDERED)
        if order is not None and order is not self.order and not finished:
            return Step(Verdict.TURN)
        self.seen.order = order or self.seen.order
        if facts.events and not inside:
            # Only the second added for an exclusive bound came: the relay includes it.
            return Step(Verdict.CONTINUE, near_exclusive=False)
        match self._phase:
            case _Phase.RECHECK:
                return self._judge_recheck(facts)
            case _Phase.BELOW:
                return self._judge_below(facts, inside)
            case _:
                return self._judge_walk(facts, inside)

    @property
    def settle_below(self) -> int:
        """Pages of fewer events are to settle."""
        by_order = self._anchors and self._phase is _Phase.WALK and not self.refinement
        if by_order and not self._size_matters:
            return self.seen.settle_unless_ordered(self.order, len(self._anchors))
        return self.seen.settle_below

    def ask_for_less(self, page: PageFacts) -> bool:
        """Whether a page that took more room than there is may be asked for with a lower limit.
        Not if the relay ignores limits, nor with one so low that pages hardly show their order."""
        obeys = page.end.kind is EndKind.OVERFLOW and page.received <= self._limit.asked
        too_few = page.received < 2 * self.seen.smallest_cap
        if not obeys or too_few or order_of(page.events) is Order.NONE:
            return False
        self._limit.halve(page.received)
        return True

    def pages_left(self) -> float:
        """How many pages seem to be left that other lanes could take over; 0.0: not known yet."""
        span = self._page_span()
        return (self._near - self._claim_far) / span if span else 0.0

    def split(self, lanes: int, worth: int) -> "list[Walk]":
        """Keep a stretch of some pages, by the density seen so far, and give away what is beyond
        it in as many shares as there are lanes for: fewer, if less than half of `worth` pages
        would be left for each."""
        pages_left = self.pages_left()
        shares = min(lanes, int(2 * pages_left / worth) - 1, self._near - self._claim_far - 1)
        if shares < 1:
            return []
        span = self._page_span()
        stretch = max(1, int(min(_PAGES_KEPT, pages_left / (shares + 1)) * span))
        beyond = max(1, int(_PAGES_BEYOND * span))
        ends = [self._near - stretch * number for number in range(1, shares + 1)]
        given = [self._share(near - 1, far, beyond) for near, far in pairwise(ends)]
        given.append(self._share(ends[-1] - 1, self._claim_far, self.reach))
        self._claim_far = ends[0]
        self.claim = self._axis.window(ends[0], self._axis.ends(self.claim)[1])
        self.reach = beyond
        self._far = self._axis.position(self._bounded(ends[0] - beyond))
        return given

    def _share(self, near: int, far: int, reach: int) -> "Walk":
        window = self._axis.window(far, near)
        share = Walk(window, self.order, self.limit, self.seen, reach=reach)
        share._limit = PageLimit(self.limit, self._limit.most, self._limit.most)
        return share

    def _page_span(self) -> float:
        """The positions that a page takes, as far as is seen; 0.0: nothing that could be shared."""
        walked = 0 if self._walked_from is None else self._walked_from - self._near
        if self.refinement or walked <= 0 or self._phase is not _Phase.WALK:
            return 0.0
        return walked * self.seen.largest / self._walked_events

    def _judge_walk(self, facts: PageFacts, inside: list[SignedEvent]) -> Step:
        at_near = [event for event in inside if self._position(event) == self._near]
        if self._anchors and not at_near:
            if self._shifted:
                return Step(Verdict.CONTRADICTION)
            self._phase = _Phase.RECHECK
            return Step(Verdict.CONTINUE)
        self._came = self._came or any(self.claim.holds(event.created_at) for event in inside)
        passed = not inside or self._position(inside[-1]) < self._claim_far
        if self.expected and passed and not self._came:
            return Step(Verdict.DONE)
        learnt = None if self._shifted or not at_near else False
        if not inside or facts.end.hint == "finish":
            return Step(Verdict.DONE, self._prove(self._far, self._near), near_exclusive=learnt)
        reached = self._position(inside[-1])
        if self._last_received and (reached < self._near or len(at_near) > len(self._anchors)):
            self.seen.saw_cut(self._last_received)
        if reached == self._near:
            return self._stuck(facts, at_near, learnt)
        if self._walked_from is None:
            self._walked_from = self._position(inside[0])
        self._walked_events += len(inside) - len(at_near)
        one_second = self._position(inside[0]) == reached
        choice_known = self._knows_choice(facts)
        if one_second and not (choice_known and self._may_trust_order(facts)):
            self._phase, self._held = _Phase.ABOVE, facts
            return Step(Verdict.CONTINUE, near_exclusive=learnt)
        if not choice_known:
            self._phase, self._held = _Phase.CHOICE, facts
            return Step(Verdict.CONTINUE, near_exclusive=learnt)
        return self._advance(reached, facts, inside, learnt)

    def _may_trust_order(self, facts: PageFacts) -> bool:
        """Whether a page of one second may be taken as sent in the walk's order: another page
        showed the order, or this one was surely sent whole."""
        return self.seen.order is self.order or self.seen.too_small_to_be_cut(facts.size)

    def _knows_choice(self, facts: PageFacts) -> bool:
        """Whether a page that was cut holds the events of its window's near end. One that came
        oldest first may hold the newest: those are to be chosen (NIP-01)."""
        sure = self.order is Order.NEWEST_FIRST or self.seen.oldest_are_chosen
        return sure or self.seen.too_small_to_be_cut(facts.size)

    def _judge_choice(self, inside: list[SignedEvent]) -> Step:
        held = self._take_held()
        self._phase = _Phase.WALK
        first = held.events[0].created_at
        if not inside or any(event.created_at != first for event in inside):
            return Step(Verdict.UNORDERED)
        self.seen.oldest_chosen = True
        return self._advance(self._position(held.events[-1]), held, list(held.events), None)

    def _judge_above(self, inside: list[SignedEvent]) -> Step:
        held = self._take_held()
        reached = self._position(held.events[-1])
        if any(self._position(event) > reached for event in inside):
            self._phase = _Phase.WALK
            return Step(Verdict.TURN)
        if self._phase is _Phase.ABOVE:
            self._phase, self._held = _Phase.ABOVE_AGAIN, held
            return Step(Verdict.CONTINUE)
        self._phase = _Phase.WALK
        return self._advance(reached, held, list(held.events), None)

    def _take_held(self) -> PageFacts:
        held, self._held = self._held, None
        if held is None:
            raise AssertionError("a phase that looks around has the page that led to it")
        return held

    def _advance(
        self, reached: int, facts: PageFacts, inside: list[SignedEvent], learnt: bool | None
    ) -> Step:
        proven = self._prove(reached + 1, self._near)
        self._near = reached
        self._size_matters = False
        self._anchors = frozenset(e.id for e in inside if self._position(e) == reached)
        # A page that our own small limit cut says nothing about the relay's cap.
        self._last_received = facts.received if self._limit.is_full else 0
        self._limit.recover()
        verdict = Verdict.DONE if reached < self._claim_far else Verdict.CONTINUE
        return Step(verdict, proven, near_exclusive=learnt)

    def _stuck(self, facts: PageFacts, at_near: list[SignedEvent], learnt: bool | None) -> Step:
        if self._limit.double():
            return Step(Verdict.CONTINUE, near_exclusive=learnt)
        # Refused events came along with the anchors: the page was not given time to settle.
        self._size_matters = self.settle_below <= facts.received < self.seen.settle_below
        if self._size_matters:
            return Step(Verdict.CONTINUE, near_exclusive=learnt)
        if self._near == self._far:
            return self._settle(facts, at_near, ())
        self._phase, self._held = _Phase.BELOW, facts
        return Step(Verdict.CONTINUE, near_exclusive=learnt)

    def _judge_recheck(self, facts: PageFacts) -> Step:
        self._phase = _Phase.WALK
        if not any(self._position(event) == self._near for event in facts.events):
            return Step(Verdict.CONTRADICTION)
        # Asking one second further out brought the second back: its bound is exclusive. The
        # page itself may be cut by that extra second, so the request is made again.
        return Step(Verdict.CONTINUE, near_exclusive=True)

    def _judge_below(self, facts: PageFacts, inside: list[SignedEvent]) -> Step:
        held = self._take_held()
        stuck = [event for event in held.events if self._position(event) == self._near]
        self._phase = _Phase.WALK
        self._anchors, self._last_received = frozenset(), 0
        if not inside:
            return self._settle(held, stuck, self._prove(self._far, self._near - 1))
        self.seen.saw_cut(held.received)
        saturated = self._saturated(stuck, held)
        self._near -= 1
        step = self._judge_walk(facts, inside)
        return replace(step, saturated=saturated)

    def _settle(
        self, held: PageFacts, at_near: list[SignedEvent], proven: tuple[Window, ...]
    ) -> Step:
        """The verdict on the last second of the walk, below which there is nothing."""
        if self.seen.too_small_to_be_cut(held.size):
            return Step(Verdict.DONE, proven + self._prove(self._near, self._near))
        return Step(Verdict.DONE, proven, self._saturated(at_near, held))

    def _prove(self, far: int, near: int) -> tuple[Window, ...]:
        """The part of the claim between two positions; the margins are never claimed."""
        if far > near:
            return ()
        proven = self._axis.window(far, near).intersect(self.claim)
        return () if proven is None else (proven,)

    def _saturated(self, events: list[SignedEvent], page: PageFacts) -> Saturated | None:
        second = self._axis.position(self._near)
        inside = self.claim.since <= second <= self.claim.until
        return Saturated(second, tuple(events), page) if inside else None

    def _asked_near(self) -> int:
        match self._phase:
            case _Phase.RECHECK:
                return self._near + 1
            case _Phase.BELOW:
                return self._near - 1
            case _:
                return self._near

    def _asked_far(self) -> int:
        if self._held is None or self._phase not in {_Phase.ABOVE, _Phase.ABOVE_AGAIN}:
            return self._far
        reached = self._position(self._held.events[-1])
        return reached + 1 if self._phase is _Phase.ABOVE else reached

    def _position(self, event: SignedEvent) -> int:
        return self._axis.position(event.created_at)

    def _bounded(self, position: int) -> int:
        """The second at a position, not before the beginning of time."""
        return max(0, self._axis.position(position))
