"""One round of checks: claim relays, have them checked, store what came of it.

A single loop in the main process does all of it, so there is one place where a relay changes
hands: waiting, claimed and running, checked, stored and released. Results are stored in batches
by number and by age, whatever is still running: a slow relay holds up nobody.
"""

import asyncio
import logging
import math
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import leases
from bigbrotr import BigBrotr
from constants import LOG_WARNING
from errors import WorkerDied
from functions import RelayFailureTracker, chunkify
from logging_config import fields
from monitoring.candidates import is_proven
from monitoring.due import ANSWERED_AT
from monitoring.schedule import (
    FIRST_RECHECK_SECONDS,
    LONGEST_PLAN_SECONDS,
    rest_after_failure,
)
from nostr.probe import ProbeReport
from nostr.urls import RelayUrl

LEASE_SECONDS = 180
_HEARTBEAT_SECONDS = LEASE_SECONDS / 3
_BATCH_SIZE = 100
_BATCH_SECONDS = 2.0

# Outcomes that say something of our own side, and nothing of the relay.
_NOT_CHECKED = frozenset(("no-tor", "socks", "worker-died", "check-broken"))
# Why an open relay cannot be read. Any other word is the relay's own, and there is no end to them.
_READ_OUTCOMES = frozenset(
    (
        *("ok", "timeout", "disconnected", "closed", "overflow"),
        *("auth-required", "payment-required", "restricted", "blocked", "rate-limited"),
        *("error", "invalid", "unsupported", "mute", "pow"),
    )
)
_OTHER_REFUSAL = "other-refusal"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Checked:
    claim: leases.Claim
    report: ProbeReport | None
    outcome: str
    is_candidate: bool

    @property
    def result(self) -> ProbeReport | None:
        """The report, if it is about the relay."""
        return None if self.outcome in _NOT_CHECKED else self.report

    @property
    def answered(self) -> bool:
        """Whether the relay answered; of a candidate, more is asked than that it opens."""
        if self.result is None or self.result.metadata.nip66 is None:
            return False
        if self.is_candidate:
            return is_proven(self.result)
        return bool(self.result.metadata.nip66.openable)

    @property
    def stored(self) -> ProbeReport | None:
        """The report, if it is to be stored, which makes a candidate a relay."""
        return self.result if self.answered or not self.is_candidate else None


class CheckRound:
    """Checks relays until the list is done.

    Args:
        db: where claims and results go.
        check: checks one relay, wherever (a worker pool's `run`).
        owner: the name under which relays are claimed.
        capacity: how many checks `check` can run at once.
        chunk_size: how many relays are claimed at once.
        frequency: seconds between two checks of a relay that answers.
        tracker: is told how relays fared that have answered before.
        candidates: the URLs of those that are no relays until they answer.
    """

    def __init__(
        self,
        db: BigBrotr,
        check: Callable[[RelayUrl], Awaitable[ProbeReport]],
        *,
        owner: str,
        capacity: int,
        chunk_size: int,
        frequency: float,
        tracker: RelayFailureTracker,
        candidates: Collection[str] = frozenset(),
    ) -> None:
        self._db = db
        self._check = check
        self._owner = owner
        self._capacity = capacity
        self._chunk_size = chunk_size
        self._frequency = frequency
        self._tracker = tracker
        self._candidates = candidates
        self._running: dict[str, asyncio.Task[_Checked]] = {}
        self._checked: list[_Checked] = []
        self._store_at = 0.0
        self._heartbeat_at = 0.0
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    async def run(self, relays: Sequence[RelayUrl], stop: asyncio.Event) -> None:
        """Check the relays; those that another monitor has claimed are left to it. After `stop`,
        checks under way are abandoned, and the results so far stored.

        Raises:
            DatabaseError: the archive was lost; what was not stored will be checked again.
        """
        chunks = deque(chunkify(list(relays), self._chunk_size))
        stopped = asyncio.create_task(stop.wait())
        self._heartbeat_at = _clock() + _HEARTBEAT_SECONDS
        try:
            while not stop.is_set() and (chunks or self._running):
                while chunks and len(self._running) < self._capacity and not stop.is_set():
                    await self._claim(chunks.popleft())
                await self._wait(stopped)
                self._collect()
                await self._keep_up()
        finally:
            stopped.cancel()
            await self._abandon()
        await self._store()
        await leases.release_owner(self._db, self._owner)

    async def _claim(self, relays: Sequence[RelayUrl]) -> None:
        by_url = {relay.url: relay for relay in relays}
        claims = await leases.claim(
            self._db,
            leases.MONITOR,
            list(by_url),
            self._owner,
            limit=len(by_url),
            lease_seconds=LEASE_SECONDS,
        )
        for claim in claims:
            task = asyncio.create_task(self._run_check(claim, by_url[claim.url]))
            self._running[claim.url] = task
        self.counts["left_to_others"] += len(by_url) - len(claims)

    async def _run_check(self, claim: leases.Claim, relay: RelayUrl) -> _Checked:
        is_candidate = relay.url in self._candidates
        try:
            report = await self._check(relay)
        except WorkerDied:
            return _Checked(claim, None, "worker-died", is_candidate)
        except Exception:
            logger.exception(f"{LOG_WARNING} {fields('check_broken', relay=relay)}")
            return _Checked(claim, None, "check-broken", is_candidate)
        return _Checked(claim, report, _outcome(report), is_candidate)

    async def _wait(self, stopped: asyncio.Task[bool]) -> None:
        """Until a check is done, or something else is due."""
        due = min(self._heartbeat_at, self._store_at or self._heartbeat_at)
        await asyncio.wait(
            (stopped, *self._running.values()),
            timeout=max(0.0, due - _clock()),
            return_when=asyncio.FIRST_COMPLETED,
        )

    def _collect(self) -> None:
        for url in [url for url, task in self._running.items() if task.done()]:
            self._checked.append(self._running.pop(url).result())
            self._store_at = self._store_at or _clock() + _BATCH_SECONDS

    async def _keep_up(self) -> None:
        """Store a batch that is full or old; prolong the leases."""
        if len(self._checked) >= _BATCH_SIZE or 0 < self._store_at <= _clock():
            await self._store()
        if self._heartbeat_at <= _clock():
            await self._prolong()

    async def _prolong(self) -> None:
        self._heartbeat_at = _clock() + _HEARTBEAT_SECONDS
        held = [*self._running, *(checked.claim.url for checked in self._checked)]
        ours = await leases.heartbeat(self._db, leases.MONITOR, self._owner, held, LEASE_SECONDS)
        for url in self._running.keys() - ours:
            # We stood still for minutes, and another monitor took the relay over.
            self._running.pop(url).cancel()
            self.counts["left_to_others"] += 1

    async def _store(self) -> None:
        batch, self._checked, self._store_at = self._checked, [], 0.0
        reports = [checked.stored for checked in batch]
        metadata = [report.metadata for report in reports if report is not None]
        now = int(time.time())
        if metadata:
            self.counts["stored"] += await self._db.insert_relay_metadata_batch(metadata, now)
        for checked in batch:
            await self._release(checked, now)

    async def _release(self, checked: _Checked, now: int) -> None:
        claim, outcome = checked.claim, checked.outcome
        self.outcomes[outcome] += 1
        self._count(checked)
        started = now
        if checked.result is None:
            # Not the relay's fault, but a relay that breaks workers must not do so in a loop.
            # What was dead before stays so.
            pause = min(FIRST_RECHECK_SECONDS, self._frequency)
            failed, learnt = claim.failures > 0, None
        elif checked.answered:
            # Another monitor may have made its plan before this check.
            started = checked.result.metadata.generated_at
            pause = min(LONGEST_PLAN_SECONDS, self._frequency)
            failed, learnt = False, {ANSWERED_AT: now}
        else:
            failed, learnt = True, None
            pause = rest_after_failure(
                claim.failures + 1,
                answered_before=ANSWERED_AT in claim.learnt,
                frequency=self._frequency,
                chance=random.random(),
            )
        await leases.release(
            self._db,
            leases.MONITOR,
            self._owner,
            claim.url,
            outcome=outcome,
            failed=failed,
            not_before=started + math.floor(pause),
            learnt=learnt,
        )

    def _count(self, checked: _Checked) -> None:
        if checked.result is None or checked.result.metadata.nip66 is None:
            self.counts["not_checked"] += 1
            return
        result = checked.result.metadata.nip66
        self.counts["checked"] += 1
        self.counts["candidates"] += checked.is_candidate
        self.counts["proven"] += checked.is_candidate and checked.answered
        self.counts["open"] += result.openable
        self.counts["readable"] += result.readable
        self.counts["writable"] += result.writable
        if result.openable:
            self._tracker.record_success()
        elif ANSWERED_AT in checked.claim.learnt:
            self._tracker.record_failure()

    async def _abandon(self) -> None:
        self._collect()
        running, self._running = list(self._running.values()), {}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def _outcome(report: ProbeReport) -> str:
    """The report's outcome as a word from a list that is ours."""
    result = report.metadata.nip66
    if result is None or not result.openable or report.outcome in _READ_OUTCOMES:
        return report.outcome
    return _OTHER_REFUSAL


def _clock() -> float:
    return time.monotonic()
