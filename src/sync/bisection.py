"""Proving a window of a relay that sends its events in no order (pure).

Order proves nothing here. A window is proven when it and its two halves bring the same
events, and each half fewer than the whole (or so few that none was cut); until then each half
is treated the same way, down to one second.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from nostr.events import SignedEvent
from sync.facts import Order, PageFacts, Request, Saturated, Step, Verdict
from sync.relay_model import Observations, RelayModel
from sync.windows import Window, merge


@dataclass(slots=True)
class _Asked:
    window: Window
    events: dict[str, SignedEvent]
    page: PageFacts


@dataclass(slots=True)
class Bisection:
    """One window being halved; `request` and `judge` alternate until the verdict ends it.

    If events are `expected` and nothing comes, the relay does not understand the refinement.
    """

    claim: Window
    limit: int
    seen: Observations
    refinement: Mapping[str, Any] = field(default_factory=dict)
    expected: int = 0
    order: Order = field(default=Order.NONE, init=False)
    _todo: list[Window] = field(init=False)
    _whole: list[_Asked] = field(default_factory=list, init=False)
    _older: _Asked | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._todo = [self.claim]

    def request(self, _model: RelayModel) -> Request:
        """The next page to ask for, one second wider at both ends: bounds may be exclusive."""
        asked = self._asking()
        return Request(
            Window(max(0, asked.since - 1), asked.until + 1), self.limit, self.refinement
        )

    def remaining(self) -> Window | None:
        """The span of what is still to be proven."""
        windows = merge([*self._todo, *(asked.window for asked in self._whole)])
        return Window(windows[0].since, windows[-1].until) if windows else None

    @property
    def settle_below(self) -> int:
        """Sizes decide: no page is believed before what may follow it has come."""
        return sys.maxsize

    def ask_for_less(self, _page: PageFacts) -> bool:
        """A bisection needs whole pages: halves are smaller."""
        return False

    def pages_left(self) -> float:
        """A bisection is not shared between lanes."""
        return 0.0

    def split(self, lanes: int, worth: int) -> "list[Self]":
        """A bisection is not shared between lanes."""
        return []

    def judge(self, facts: PageFacts) -> Step:
        """What the page that answered `request` proves. It must have ended in EOSE."""
        if not facts.is_answer:
            raise ValueError(f"a page that ended in {facts.end.kind} proves nothing")
        self.seen.saw(facts.received)
        window = self._asking()
        inside = {
            event.id: event
            for event in facts.events
            if window.since <= event.created_at <= window.until
        }
        page = _Asked(window, inside, facts)
        if not self._whole:
            self._todo.pop()
            return self._judge_whole(page, finished=facts.end.hint == "finish")
        if self._older is None:
            self._older = page
            return Step(Verdict.CONTINUE)
        return self._judge_halves(self._whole.pop(), page)

    def _asking(self) -> Window:
        if not self._whole:
            return self._todo[-1]
        older, newer = self._whole[-1].window.halves()
        return older if self._older is None else newer

    def _judge_whole(self, page: _Asked, *, finished: bool) -> Step:
        if not page.events and self.expected:
            return self._next(())
        if finished or (not page.events and self.seen.shows_nothing(page.page.size)):
            return self._next((page.window,))
        if page.window.seconds > 1:
            self._whole.append(page)
            return Step(Verdict.CONTINUE)
        if self.seen.too_small_to_be_cut(page.page.size):
            return self._next((page.window,))
        events = tuple(page.events.values())
        return self._next((), Saturated(page.window.since, events, page.page))

    def _judge_halves(self, whole: _Asked, newer: _Asked) -> Step:
        older, self._older = self._older, None
        if older is None:
            raise AssertionError("the older half is asked for first")
        if whole.events.keys() != older.events.keys() | newer.events.keys():
            self.seen.saw_cut(whole.page.received)
        elif self._shows_all(whole.page, max(older.page.size, newer.page.size)):
            return self._next((whole.window,))
        # Else all came from one half, which may be cut as the whole was, at the same events.
        self._todo += [older.window, newer.window]
        return Step(Verdict.CONTINUE)

    def _shows_all(self, whole: PageFacts, larger_half: int) -> bool:
        """Whether a window that brought the same as its halves was not cut, nor they."""
        halves_are_smaller = whole.settled and larger_half < whole.received
        return halves_are_smaller or self.seen.too_small_to_be_cut(whole.size)

    def _next(self, proven: tuple[Window, ...], saturated: Saturated | None = None) -> Step:
        verdict = Verdict.CONTINUE if self._todo else Verdict.DONE
        return Step(verdict, proven, saturated)
