"""Driving plans to their ends: lanes, changes of mind about order, split seconds (async shell).

Several lanes share one connection; each drives a plan (a `Walk` or a `Bisection`), and lanes with
nothing left to do share the rest of the longest walk, so that the round trip does not set the pace.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from errors import SyncAbandoned
from nostr.connection import EndKind
from sync.alone import Alone
from sync.asker import Asker
from sync.bisection import Bisection
from sync.claims import Claims, Collected
from sync.crowded import CrowdedSeconds
from sync.facts import Order, PageFacts, Saturated, Verdict
from sync.ledger import Gap
from sync.page_check import CheckedPage
from sync.partition import Part
from sync.reconcile import Reconciler
from sync.relay_model import LANES, RelayModel, Sights
from sync.walk import Walk
from sync.windows import Window
from sync.writer import SessionWriter

# How far back a refined request may look for an event that proves its one second by order.
_REACH_SECONDS = 10 * 365 * 86_400
# Pages under way when a relay is left get so much time to end, and so much to be stored.
_LAST_PAGES_SECONDS = 2.0
# A walk is worth sharing between two lanes if so many pages of it seem to be left. Each share
# costs half a page that is downloaded twice or is not full; a lane of a far relay that has nothing
# to do costs more; and a session of many pages can bear a few more, so that its last pages, too,
# come side by side.
_WORTH_SHARING = 16
_WORTH_SHARING_FAR = 8
_WORTH_SHARING_AT_LAST = 3
_MANY_REQUESTS = 64

Plan = Walk | Bisection | Alone


class Driver:
    """Asks for windows of one relay until each is proven or has a recorded reason.

    Args:
        asker: gets pages.
        writer: takes every page; the proof of a page is given to the claims right before, so
            that both are committed together.
        flt: the synchronizer's event filter, without since, until and limit.
        page_limit: events asked for a page.
        seen_lately: whether the archive has seen events of a window at this relay of late.
        reconciler: for seconds that no finer request splits; None: they are left as gaps.
    """

    def __init__(
        self,
        asker: Asker,
        writer: SessionWriter,
        flt: Mapping[str, Any],
        page_limit: int,
        seen_lately: Callable[[Window], Awaitable[bool]],
        reconciler: Reconciler | None = None,
    ) -> None:
        self._asker = asker
        self._writer = writer
        self._flt = flt
        self._page_limit = page_limit
        self._lanes = 1
        self._seen_lately = seen_lately
        self._seen = Sights(page_limit)
        self._crowded = CrowdedSeconds(
            asker, writer, flt, page_limit, self._seen, self._prove_part, reconciler
        )
        self._queue: deque[Plan] = deque()
        self._active: list[Plan] = []
        self._progress = asyncio.Event()
        self._turned = False
        self._bounds_seen: set[Order] = set()

    @property
    def _model(self) -> RelayModel:
        return self._asker.model

    @_model.setter
    def _model(self, model: RelayModel) -> None:
        self._asker.model = model

    async def drive(self, windows: Iterable[Window], claims: Claims) -> None:
        """Work the windows off in the given order.

        Raises SyncAbandoned if the relay does not answer, DatabaseError if the archive is lost.
        """
        self._queue.extend(self._plan(window) for window in windows)
        self._lanes = self._asker.lanes
        # Not a TaskGroup: a lane that failed while all are cancelled would undo the cancellation.
        lanes = [asyncio.create_task(self._lane(claims)) for _ in range(self._lanes)]
        try:
            await asyncio.wait(lanes, return_when=asyncio.FIRST_EXCEPTION)
            await self._take_last_pages(lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        for lane in lanes:
            if not lane.cancelled():
                lane.result()

    async def _take_last_pages(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        """When one lane has left the relay, keep what it is sending to the others."""
        reasons = (lane.exception() for lane in lanes if lane.done())
        left = next((reason for reason in reasons if isinstance(reason, SyncAbandoned)), None)
        if left is not None:
            self._asker.give_up(left)
            _, unfinished = await asyncio.wait(lanes, timeout=_LAST_PAGES_SECONDS)
            if unfinished:
                await self._asker.close()
                await asyncio.wait(unfinished, timeout=_LAST_PAGES_SECONDS)

    async def _lane(self, claims: Claims) -> None:
        while True:
            plan = self._next_plan()
            if plan is not None:
                self._active.append(plan)
                try:
                    await self._drive(plan, claims)
                finally:
                    self._active.remove(plan)
                    self._signal()
            elif self._active:
                await self._progress.wait()
            else:
                return

    def _next_plan(self) -> Plan | None:
        if self._queue:
            return self._queue.popleft()
        if self._active:
            idle = self._lanes - len(self._active)
            longest = max(self._active, key=_pages_left)
            self._queue.extend(longest.split(idle, self._worth_sharing()))
        return self._queue.popleft() if self._queue else None

    def _worth_sharing(self) -> int:
        if self._lanes <= LANES:
            return _WORTH_SHARING
        few = self._asker.requests < _MANY_REQUESTS
        return _WORTH_SHARING_FAR if few else _WORTH_SHARING_AT_LAST

    def _signal(self) -> None:
        """Wake the idle lanes, for there may be work to take over."""
        self._progress.set()
        self._progress = asyncio.Event()

    def _plan(
        self, window: Window, refinement: Mapping[str, Any] | None = None, expected: int = 0
    ) -> Plan:
        order, seen = self._model.order, self._seen.of(refinement or {})
        if order is Order.NONE or seen.disordered:
            return self._bisection(window, refinement or {}, expected)
        if not refinement:
            return Walk(window, order, self._page_limit, seen)
        return Walk(
            window,
            order,
            self._page_limit,
            seen,
            refinement,
            reach=_REACH_SECONDS,
            expected=expected,
            margin=0 if order in self._bounds_seen else 1,
        )

    def _bisection(
        self, window: Window, refinement: Mapping[str, Any], expected: int = 0
    ) -> Bisection:
        seen = self._seen.of(refinement)
        return Bisection(window, self._page_limit, seen, refinement, expected)

    async def _drive(self, plan: Plan, claims: Claims) -> None:
        """Follow a plan to its end, handing what it proves to `claims`."""
        first_page = True
        while True:
            page = await self._ask(plan)
            if not page.facts.is_answer:
                await self._writer.add(page)
                await self._narrow_overflow(plan, claims, page.facts)
                return
            if plan.order not in {Order.NONE, self._model.order}:
                # Another lane has learnt that the order is not what this plan relies on.
                await self._writer.add(page)
                await self._drive_rest(plan, claims)
                return
            if first_page and not plan.refinement and not page.facts.events:
                await self._believe_emptiness(plan.claim, page.facts.size)
            first_page = False
            self._seen.plain.unsteady = self._asker.strays
            step = plan.judge(page.facts)
            if step.near_exclusive is not None:
                self._model = self._model.with_exclusive(plan.order, step.near_exclusive)
                self._bounds_seen.add(plan.order)
            for window in step.proven:
                claims.prove(window)
            # No await between the proof and its page: they are committed together.
            await self._writer.add(page)
            self._signal()
            if step.saturated is not None and await self._crowded.prove(
                step.saturated, plan.refinement, claims
            ):
                claims.prove(Window(step.saturated.second, step.saturated.second))
            if step.verdict is Verdict.DONE:
                return
            if step.verdict is Verdict.NARROW:
                self._narrow_refused(plan, claims, page.facts)
                return
            if plan.refinement and step.verdict in {Verdict.TURN, Verdict.UNORDERED}:
                # That says nothing of plain pages, and events sent unasked come from afar here.
                # But what the order of such pages has proven is void.
                plan.seen.disordered = True
                await self._writer.retract_session()
                await self._drive(self._bisection(plan.claim, plan.refinement), claims)
                return
            if step.verdict is not Verdict.CONTINUE:
                await self._reconsider(step.verdict, plan)
                await self._drive_rest(plan, claims)
                return

    async def _ask(self, plan: Plan) -> CheckedPage:
        """The plan's next page, with a lower limit if it takes too much room."""
        while True:
            request = plan.request(self._model).to_filter(self._flt)
            page = await self._asker.ask(request, self._writer.add, settle_below=plan.settle_below)
            if page.facts.is_answer or not plan.ask_for_less(page.facts):
                return page
            await self._writer.add(page)

    async def _believe_emptiness(self, window: Window, size: int) -> None:
        """Some relays answer with nothing when they are overloaded. Events of this window that
        they showed a short while ago tell.

        Not so events of its margins, at exclusive bounds, nor those that another filter chose.
        """
        if self._flt or not self._seen.plain.shows_nothing(size):
            return
        if await self._seen_lately(window):
            raise SyncAbandoned("contradiction", f"nothing in {window}, where events were of late")

    async def _reconsider(self, verdict: Verdict, plan: Plan) -> None:
        """Learn from a page that was not in the order that the plan relies on."""
        if verdict is Verdict.CONTRADICTION:
            raise SyncAbandoned("contradiction", f"events came and went in {plan.remaining()}")
        if verdict is Verdict.TURN and not self._turned:
            self._turned = True
            upward = plan.order is Order.NEWEST_FIRST
            order = Order.OLDEST_FIRST if upward else Order.NEWEST_FIRST
            self._model = replace(self._model, order=order)
        elif self._model.order is not Order.NONE:
            self._model = replace(self._model, order=Order.NONE)
            await self._writer.retract_session()

    async def _drive_rest(self, plan: Plan, claims: Claims) -> None:
        rest = plan.remaining()
        if rest is not None:
            await self._drive(self._plan(rest, plan.refinement), claims)

    async def _prove_part(self, second: Window, share: Part) -> bool:
        """Whether one part of a second was proven."""
        plan = self._plan(second, refinement=share.refinement, expected=share.expected)
        collected = Collected()
        await self._drive(plan, collected)
        return any(window.contains(second) for window in collected.windows)

    async def _narrow_overflow(self, plan: Plan, claims: Claims, page: PageFacts) -> None:
        """Go on after a page that had no end, with the halves of its window or the parts of its
        second."""
        rest = plan.remaining()
        if rest is None or self._narrow_to_halves(rest, plan):
            return
        if plan.refinement and (page.end.kind is not EndKind.OVERFLOW or page.has_others):
            return  # this relay does not send what a finer request would choose
        events = tuple(event for event in page.events if event.created_at == rest.since)
        overflown = Saturated(rest.since, events, page)
        if await self._crowded.prove(overflown, plan.refinement, claims):
            claims.prove(rest)

    def _narrow_refused(self, plan: Plan, claims: Claims, page: PageFacts) -> None:
        """Go on after a page of refused events, with the halves of its window or its second
        alone: its neighbours' events may have come."""
        rest = plan.remaining()
        if rest is None or plan.refinement or self._narrow_to_halves(rest, plan):
            return
        if type(plan) is not Alone and not self._model.is_exclusive:
            self._queue.append(Alone(rest, self._model.order, self._page_limit, self._seen.plain))
        else:
            claims.gap(Gap(rest, "refused-events", f"{page.received} in a row"))

    def _narrow_to_halves(self, rest: Window, plan: Plan) -> bool:
        """Whether this could be done: not in one second."""
        if rest.seconds > 1 and not plan.refinement:
            self._queue.extend(self._plan(half) for half in rest.halves())
        return rest.seconds > 1


def _pages_left(plan: Plan) -> float:
    return plan.pages_left()
