"""One session with one relay: get what is not proven yet, look again at what is (async shell)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from traceback import clear_frames
from typing import Any

from bigbrotr import BigBrotr
from errors import SyncAbandoned
from nostr.connection import Dialer
from nostr.filters import filter_hash
from nostr.urls import RelayUrl
from sync import ledger, verification
from sync.asker import Asker
from sync.claims import NoClaims
from sync.driver import Driver
from sync.group_commit import GroupCommit
from sync.ledger import Gap
from sync.page_check import PageChecker
from sync.reconcile import Reconciler
from sync.relay_model import RelayModel
from sync.session_settings import SessionSettings
from sync.verification import VerificationState
from sync.windows import Window
from sync.writer import SessionWriter

# Ends of a session that say nothing of what the relay would serve: they leave no gap behind.
_PASSING = frozenset({"complete", "paused", "timeout", "disconnected"})


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
        group: commits what comes, with what other sessions bring; None: by itself.
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
        group: GroupCommit | None = None,
    ) -> None:
        self._db = db
        self._relay = relay
        self._flt = flt
        self._hash = filter_hash(flt)
        self._target = target
        self._reverify_seconds = settings.reverify_seconds
        self._asker = Asker(relay, dialer, checker, settings, model)
        self._writer = SessionWriter(group or GroupCommit(db), relay, self._hash, target)
        limit = settings.page_limit
        self._reconciler = Reconciler(self._asker, self._writer, db, relay, flt, limit)
        seen_lately = partial(ledger.seen_lately, db, relay.url)
        self._driver = Driver(self._asker, self._writer, flt, limit, seen_lately, self._reconciler)

    async def run(self) -> SessionReport:
        """Ask until everything is proven, recorded as a gap, or refused.

        Raises DatabaseError if the archive is lost; what a relay does never raises.
        """
        await ledger.register_filter(self._db, self._hash, self._flt)
        todo = await self._unproven()
        try:
            outcome, detail = await self._ask(todo)
            await self._asker.settle(self._writer.add)
        except asyncio.CancelledError:
            await self._writer.flush_in_time()
            raise
        finally:
            await self._asker.close()
        return await self._close_books(outcome, detail)

    async def _ask(self, todo: list[Window]) -> tuple[str, str]:
        """The outcome, and its detail if the relay could not be read to the end."""
        try:
            if todo:
                await self._asker.connect()
                await self._prove(todo)
            retractions = self._writer.retractions
            await self._look_again()
            if self._writer.retractions > retractions:
                await self._prove(await self._unproven())
        except SyncAbandoned as error:
            # A worker looks for cycles rarely, and the frames of this one hold pages.
            clear_frames(error.__traceback__)
            return error.outcome, error.detail
        return "complete", ""

    async def _prove(self, todo: list[Window]) -> None:
        """Ask for the windows, and again for those whose proofs had to be taken back."""
        while todo:
            retractions = self._writer.retractions
            await self._driver.drive(todo, self._writer)
            await self._writer.flush()
            todo = await self._unproven() if self._writer.retractions > retractions else []

    async def _unproven(self) -> list[Window]:
        return await ledger.remaining(self._db, self._relay.url, self._hash, self._target)

    async def _look_again(self) -> None:
        """Look at proven seconds for events that appeared late, when a round is due."""
        url, now = self._relay.url, int(time.time())
        state = await ledger.verification_state(self._db, url, self._hash)
        if state is None:
            await self._writer.flush()
            await ledger.record_verification(
                self._db, url, self._hash, VerificationState(now, rounds=0)
            )
            return
        span, model = self._reverify_seconds, self._asker.model
        if not verification.due(state, now, span, reconciles=model.negentropy is True):
            return
        self._asker.model = model.doubted()
        window = verification.next_window(state, self._target, span)
        left = (await self._reconciler.reconcile(window)).left
        await self._driver.drive(left, NoClaims())
        await self._writer.flush()
        await ledger.record_verification(
            self._db, url, self._hash, VerificationState(now, state.rounds + 1)
        )

    async def _close_books(self, outcome: str, detail: str) -> SessionReport:
        refused: list[Gap] = []
        if outcome not in _PASSING and not outcome.startswith("connect-"):
            await self._writer.flush()
            refused = [Gap(window, outcome, detail) for window in await self._unproven()]
        self._writer.refusals(refused)
        await self._writer.flush()
        if outcome == "complete" and await ledger.has_gaps(self._db, self._relay.url, self._hash):
            outcome = "gaps"
        counts = {**self._writer.counts, "requests": self._asker.requests}
        return SessionReport(self._relay.url, outcome, detail, counts, self._asker.model)
