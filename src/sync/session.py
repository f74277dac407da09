"""One session with one relay: walk what is not proven yet, commit what comes (async shell).

Several lanes share one connection; each drives a plan (a `Walk` or a `Bisection`), and a lane
with nothing left to do takes over half of the largest walk, so that the round trip does not
set the pace.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bigbrotr import BigBrotr
from errors import DatabaseError, SyncAbandoned
from nostr.connection import Dialer
from nostr.filters import filter_hash
from nostr.urls import RelayUrl
from sync import ledger
from sync.asker import Asker, SessionSettings
from sync.bisection import Bisection
from sync.facts import Order, Saturated, Verdict
from sync.ledger import Gap
from sync.page_check import PageChecker
from sync.partition import partition
from sync.relay_model import Observations, RelayModel
from sync.walk import Walk
from sync.windows import Window
from sync.writer import SessionWriter

# How far back a refined request may look for an event that proves its one second by order.
_REACH_SECONDS = 10 * 365 * 86_400
_FLUSH_ON_CANCEL_SECONDS = 3.0
# Ends of a session that say nothing of what the relay would serve: they leave no gap behind.
_PASSING = frozenset({"complete", "paused", "timeout", "disconnected"})

Plan = Walk | Bisection
Prove = Callable[[Window], None]


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a session did.

    Attributes:
        url: the relay.
        outcome: "complete", "gaps" (all but seconds listed in sync_gaps), "paused" (out of
            time, to be continued), or the reason for which it was abandoned.
        detail: the relay's own words, or what went wrong.
        counts: received, new, refused, requests, proven_seconds, gaps.
        model: what is now known of the relay's habits.
    """

    url: str
    outcome: str
    detail: str
    counts: Mapping[str, int]
    model: RelayModel

    @property
    def failed(self) -> bool:
        return self.outcome not in {"complete", "gaps", "paused"}


class RelaySession:
    """Archives what is not proven yet of one relay, within one target window.

    Args:
        db: the archive.
        dialer: opens the connection.
        checker: checks the events of pages.
        relay: the relay.
        flt: the synchronizer's event filter, without since, until and limit.
        target: the seconds wanted.
        settings: how the relay is asked.
        model: what was learnt of the relay in earlier sessions.
    """

    def __init__(
        self,
        db: BigBrotr,
        dialer: Dialer,
        checker: PageChecker,
        relay: RelayUrl,
        flt: Mapping[str, Any],
        target: Window,
        settings: SessionSettings,
        model: RelayModel,
    ) -> None:
        self._db = db
        self._relay = relay
        self._flt = flt
        self._hash = filter_hash(flt)
        self._target = target
        self._page_limit = settings.page_limit
        self._lanes = model.lanes
        self._asker = Asker(relay, dialer, checker, settings, model)
        self._writer = SessionWriter(db, relay, self._hash, target)
        self._seen = Observations()
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

    async def run(self) -> SessionReport:
        """Ask until everything is proven, recorded as a gap, or refused.

        Raises DatabaseError if the archive is lost; what a relay does never raises.
        """
        await ledger.register_filter(self._db, self._hash, self._flt)
        todo = await ledger.remaining(self._db, self._relay.url, self._hash, self._target)
        outcome, detail = "complete", ""
        try:
            if todo:
                await self._asker.connect()
                self._queue.extend(self._plan(window) for window in todo)
                await self._run_lanes()
        except SyncAbandoned as error:
            outcome, detail = error.outcome, error.detail
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, DatabaseError):
                async with asyncio.timeout(_FLUSH_ON_CANCEL_SECONDS):
                    await self._writer.flush()
            raise
        finally:
            await self._asker.close()
        return await self._close_books(outcome, detail)

    async def _close_books(self, outcome: str, detail: str) -> SessionReport:
        refused: list[Gap] = []
        if outcome not in _PASSING and not outcome.startswith("connect-"):
            await self._writer.flush()
            left = await ledger.remaining(self._db, self._relay.url, self._hash, self._target)
            refused = [Gap(window, outcome, detail) for window in left]
        self._writer.refusals(refused)
        await self._writer.flush()
        if outcome == "complete" and await ledger.has_gaps(self._db, self._relay.url, self._hash):
            outcome = "gaps"
        counts = {**self._writer.counts, "requests": self._asker.requests}
        return SessionReport(self._relay.url, outcome, detail, counts, self._model)

    async def _run_lanes(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._lanes):
                    group.create_task(self._lane())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _lane(self) -> None:
        while True:
            plan = self._next_plan()
            if plan is not None:
                self._active.append(plan)
                try:
                    await self._drive(plan, self._writer.prove)
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
        order = self._model.order
        if order is Order.NONE:
            return Bisection(window, self._page_limit, self._seen, refinement or {})
        if not refinement:
            return Walk(window, order, self._page_limit, self._seen)
        bound_known = self._model.exclusive(order) is not None
        return Walk(
            window,
            order,
            self._page_limit,
            self._seen,
            refinement,
            reach=_REACH_SECONDS,
            expected=expected,
            margin=0 if bound_known else 1,
        )

    async def _drive(self, plan: Plan, prove: Prove) -> None:
        """Follow a plan to its end, handing what it proves to `prove`."""
        while True:
            request = plan.request(self._model)
            page = await self._asker.ask(request.to_filter(self._flt), self._writer.add)
            if page is None:
                self._narrow(plan, "overflow", f"no end though limit was {request.limit}")
                return
            if plan.order is not self._model.order:
                # Another lane has learnt that the order is not what this plan relies on.
                await self._writer.add(page)
                await self._drive_rest(plan, prove)
                return
            step = plan.judge(page.facts)
            if step.near_exclusive is not None:
                self._model = self._model.with_exclusive(plan.order, step.near_exclusive)
            for window in step.proven:
                prove(window)
            # No await between the proof and its page: they are committed together.
            await self._writer.add(page)
            self._signal()
            if step.saturated is not None and await self._prove_second(
                step.saturated, plan.refinement
            ):
                prove(Window(step.saturated.second, step.saturated.second))
            if step.verdict is Verdict.DONE:
                return
            if step.verdict is Verdict.NARROW:
                self._narrow(plan, "refused-events", f"{page.facts.received} in a row")
                return
            if step.verdict is not Verdict.CONTINUE:
                await self._reconsider(step.verdict, plan)
                await self._drive_rest(plan, prove)
                return

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

    async def _drive_rest(self, plan: Plan, prove: Prove) -> None:
        rest = plan.remaining()
        if rest is not None:
            await self._drive(self._plan(rest, plan.refinement), prove)

    async def _prove_second(self, saturated: Saturated, part: Mapping[str, Any]) -> bool:
        """Split a second that one page cannot hold; True if all its parts were proven."""
        second = Window(saturated.second, saturated.second)
        split = partition(self._flt, part, saturated.events)
        proven = split is not None and split.complete
        for share in split.parts if split else ():
            windows: list[Window] = []
            plan = self._plan(second, refinement=share.refinement, expected=share.expected)
            await self._drive(plan, windows.append)
            proven = proven and any(window.contains(second) for window in windows)
        if not proven and not part:
            self._writer.gap(Gap(second, "saturated", f"{len(saturated.events)} events a page"))
        return proven

    def _narrow(self, plan: Plan, reason: str, detail: str) -> None:
        """Go on with the halves of a window that one page cannot show."""
        rest = plan.remaining()
        if rest is None or plan.refinement:
            return
        if rest.seconds > 1:
            self._queue.extend(self._plan(half) for half in rest.halves())
        else:
            self._writer.gap(Gap(rest, reason, detail))


def _seconds_left(plan: Plan) -> int:
    rest = plan.remaining()
    return rest.seconds if rest else 0
