"""Driving plans to their ends: lanes, changes of mind about order, split seconds (async shell).

Several lanes share one connection; each drives a plan (a `Walk` or a `Bisection`), and a lane
with nothing left to do takes over half of the largest walk, so that the round trip does not
set the pace.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from errors import SyncAbandoned
from sync.alone import Alone
from sync.asker import Asker
from sync.bisection import Bisection
from sync.claims import Claims, Collected
from sync.facts import Order, Request, Saturated, Verdict
from sync.ledger import Gap
from sync.partition import Part, partition, together
from sync.reconcile import Reconciler
from sync.relay_model import Observations, RelayModel
from sync.walk import Walk
from sync.windows import Window
from sync.writer import SessionWriter

# How far back a refined request may look for an event that proves its one second by order.
_REACH_SECONDS = 10 * 365 * 86_400
# Ends that may be due to the form of a request: long lists, unusual keys.
_REFUSALS_OF_A_FORM = frozenset(
    {"invalid", "unsupported", "error", "closed", "timeout", "disconnected"}
)

Plan = Walk | Bisection | Alone


class Driver:
    """Asks for windows of one relay until each is proven or has a recorded reason.

    Args:
        asker: gets pages.
        writer: takes every page; the proof of a page is given to the claims right before, so
            that both are committed together.
        flt: the synchronizer's event filter, without since, until and limit.
        page_limit: events asked for a page.
        lanes: requests in flight.
        seen_lately: whether the archive has seen events of a window at this relay of late.
        reconciler: for seconds that no finer request splits; None: they are left as gaps.
    """

    def __init__(
        self,
        asker: Asker,
        writer: SessionWriter,
        flt: Mapping[str, Any],
        page_limit: int,
        lanes: int,
        seen_lately: Callable[[Window], Awaitable[bool]],
        reconciler: Reconciler | None = None,
    ) -> None:
        self._asker = asker
        self._writer = writer
        self._flt = flt
        self._page_limit = page_limit
        self._lanes = lanes
        self._seen_lately = seen_lately
        self._reconciler = reconciler
        self._seen = Observations()
        self._refined: dict[frozenset[str], Observations] = {}
        # Of each form of refinement, one that chooses much, until it has been asked for.
        self._widest: dict[frozenset[str], Mapping[str, Any]] = {}
        self._queue: deque[Plan] = deque()
        self._active: list[Plan] = []
        self._progress = asyncio.Event()
        self._turned = False

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
        # Not a TaskGroup: a lane that failed while all are cancelled would undo the cancellation.
        lanes = [asyncio.create_task(self._lane(claims)) for _ in range(self._lanes)]
        try:
            await asyncio.wait(lanes, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        for lane in lanes:
            if not lane.cancelled():
                lane.result()

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
        by_size = sorted(self._active, key=_seconds_left, reverse=True)
        return next((half for plan in by_size if (half := plan.split())), None)

    def _signal(self) -> None:
        """Wake the idle lanes, for there may be work to take over."""
        self._progress.set()
        self._progress = asyncio.Event()

    def _plan(
        self, window: Window, refinement: Mapping[str, Any] | None = None, expected: int = 0
    ) -> Plan:
        order, seen = self._model.order, self._seen_with(refinement or {})
        if order is Order.NONE:
            return Bisection(window, self._page_limit, seen, refinement or {}, expected)
        if not refinement:
            return Walk(window, order, self._page_limit, seen)
        bound_known = self._model.exclusive(order) is not None
        return Walk(
            window,
            order,
            self._page_limit,
            seen,
            refinement,
            reach=_REACH_SECONDS,
            expected=expected,
            margin=0 if bound_known else 1,
        )

    def _seen_with(self, refinement: Mapping[str, Any]) -> Observations:
        """What pages of this form show: a relay may cap them otherwise than plain ones."""
        if not refinement:
            return self._seen
        form = frozenset(refinement)
        return self._refined.setdefault(form, Observations(plain=self._seen))

    async def _drive(self, plan: Plan, claims: Claims) -> None:
        """Follow a plan to its end, handing what it proves to `claims`."""
        first_page = True
        while True:
            request = plan.request(self._model)
            page = await self._asker.ask(
                request.to_filter(self._flt), self._writer.add, settle_below=plan.settle_below
            )
            if page is None:
                self._narrow(plan, claims, "overflow", f"no end with limit {request.limit}")
                return
            if plan.order is not self._model.order:
                # Another lane has learnt that the order is not what this plan relies on.
                await self._writer.add(page)
                await self._drive_rest(plan, claims)
                return
            if first_page and not plan.refinement and not page.facts.events:
                await self._believe_emptiness(plan.claim, page.facts.received)
            first_page = False
            self._seen.unsteady = self._asker.strays
            step = plan.judge(page.facts)
            if step.near_exclusive is not None:
                self._model = self._model.with_exclusive(plan.order, step.near_exclusive)
            for window in step.proven:
                claims.prove(window)
            # No await between the proof and its page: they are committed together.
            await self._writer.add(page)
            self._signal()
            if step.saturated is not None and await self._prove_second(
                step.saturated, plan.refinement, claims
            ):
                claims.prove(Window(step.saturated.second, step.saturated.second))
            if step.verdict is Verdict.DONE:
                return
            if step.verdict is Verdict.NARROW:
                self._narrow(plan, claims, "refused-events", f"{page.facts.received} in a row")
                return
            if step.verdict is not Verdict.CONTINUE:
                await self._reconsider(step.verdict, plan)
                await self._drive_rest(plan, claims)
                return

    async def _believe_emptiness(self, window: Window, received: int) -> None:
        """Some relays answer with nothing when they are overloaded. Events of this window that
        they showed a short while ago tell.

        Not so events of its margins, at exclusive bounds, nor those that another filter chose.
        """
        if self._flt or not self._seen.shows_nothing(received):
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

    async def _prove_second(
        self, saturated: Saturated, part: Mapping[str, Any], claims: Claims
    ) -> bool:
        """Split a second that one page cannot hold; True if all its parts were proven."""
        second = Window(saturated.second, saturated.second)
        if part and await self._was_sent_whole(saturated, part):
            return True
        split = partition(self._flt, part, saturated.events, self._asker.longest_message)
        proven = split is not None and split.complete
        if split is not None:
            wide = together(split.parts, self._asker.longest_message)
            self._widest.setdefault(frozenset(wide), wide)
        for share in split.parts if split else ():
            if not await self._prove_part(second, share):
                proven = False
                if share.is_list:
                    break  # the other lists are no shorter
        if not proven and not part:
            proven = await self._reconcile_second(second, saturated)
        if not proven and not part:
            claims.gap(Gap(second, "saturated", f"{len(saturated.events)} events a page"))
        return proven

    async def _prove_part(self, second: Window, share: Part) -> bool:
        """Whether one part of a second was proven."""
        plan = self._plan(second, refinement=share.refinement, expected=share.expected)
        collected = Collected()
        with _refusing_a_form():
            await self._drive(plan, collected)
        return any(window.contains(second) for window in collected.windows)

    async def _was_sent_whole(self, saturated: Saturated, part: Mapping[str, Any]) -> bool:
        """Whether a page of a part was smaller than others of its form, which the relay therefore
        did not cut there. One page of all time is asked for, to see how large they get."""
        seen = self._seen_with(part)
        if saturated.received >= seen.may_be_cut_from:
            return False
        if wide := self._widest.get(frozenset(part)):
            self._widest[frozenset(part)] = {}
            request = Request(Window(0, int(time.time())), self._page_limit, wide)
            with _refusing_a_form():
                page = await self._asker.ask(request.to_filter(self._flt), self._writer.add)
                if page is not None:
                    seen.saw(page.facts.received)
                    await self._writer.add(page)
        return seen.too_small_to_be_cut(saturated.received)

    async def _reconcile_second(self, second: Window, saturated: Saturated) -> bool:
        """Whether NIP-77 shows and gets all of a second that one page cannot hold."""
        if self._reconciler is None or not self._reconciler.usable:
            return False
        shown = max(len(saturated.events), self._seen.largest)
        return (await self._reconciler.reconcile(second, shown=shown)).outcome == "done"

    def _narrow(self, plan: Plan, claims: Claims, reason: str, detail: str) -> None:
        """Go on with the halves of a window that one page cannot show."""
        rest = plan.remaining()
        if rest is None or plan.refinement:
            return
        if rest.seconds > 1:
            self._queue.extend(self._plan(half) for half in rest.halves())
        elif (
            reason == "refused-events" and type(plan) is not Alone and not self._model.is_exclusive
        ):
            self._queue.append(Alone(rest, self._model.order, self._page_limit, self._seen))
        else:
            claims.gap(Gap(rest, reason, detail))


@contextmanager
def _refusing_a_form() -> Iterator[None]:
    """A relay that refuses so fine a request has refused this request, not the others."""
    try:
        yield
    except SyncAbandoned as error:
        if error.outcome not in _REFUSALS_OF_A_FORM:
            raise


def _seconds_left(plan: Plan) -> int:
    rest = plan.remaining()
    return rest.seconds if rest else 0
