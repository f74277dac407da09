"""One round of checks: claim relays, have them checked, store what came of it.

A single loop in the main process does all of it, so there is one place where a relay changes
hands: waiting, claimed and running, checked, stored and released. Results are stored in batches
by number and by age, whatever is still running: a slow relay holds up nobody.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import leases
from bigbrotr import BigBrotr
from constants import LOG_WARNING
from errors import WorkerDied
from functions import RelayFailureTracker
from logging_config import fields
from monitoring.results import Checked, store
from monitoring.waiting import Waiting
from nostr.probe import ProbeReport
from nostr.urls import RelayUrl

LEASE_SECONDS = 180
_HEARTBEAT_SECONDS = LEASE_SECONDS / 3
_BATCH_SIZE = 100
_BATCH_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes on side by side.

    Attributes:
        capacity: checks in all.
        chunk_size: relays claimed at once.
        per_host: checks of relays of one host.
        tor: checks of onion relays.
    """

    capacity: int
    chunk_size: int
    per_host: int
    tor: int


class CheckRound:
    """Checks relays until the list is done.

    Args:
        db: where claims and results go.
        check: checks one relay, wherever (a worker pool's `run`).
        owner: the name under which relays are claimed.
        limits: how much goes on side by side.
        frequency: seconds between two checks of a relay that answers.
        tracker: is told how relays fared that have answered before.
        candidates: the URLs of those that are no relays until they answer.
        on_stored: is told of each report once it is stored.
    """

    def __init__(
        self,
        db: BigBrotr,
        check: Callable[[RelayUrl], Awaitable[ProbeReport]],
        *,
        owner: str,
        limits: Limits,
        frequency: float,
        tracker: RelayFailureTracker,
        candidates: Collection[str] = frozenset(),
        on_stored: Callable[[ProbeReport], None] = lambda _: None,
    ) -> None:
        self._db = db
        self._check = check
        self._owner = owner
        self._limits = limits
        self._frequency = frequency
        self._tracker = tracker
        self._candidates = candidates
        self._on_stored = on_stored
        self._waiting = Waiting((), per_host=1, tor=1)
        self._running: dict[RelayUrl, asyncio.Task[Checked]] = {}
        self._checked: list[Checked] = []
        self._news = asyncio.Event()
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
        limits = self._limits
        self._waiting = Waiting(relays, per_host=limits.per_host, tor=limits.tor)
        stopped = asyncio.create_task(stop.wait())
        stopped.add_done_callback(self._wake)
        self._heartbeat_at = _clock() + _HEARTBEAT_SECONDS
        try:
            while not stop.is_set() and (self._waiting or self._running):
                while len(self._running) < limits.capacity and not stop.is_set():
                    if not (chunk := self._waiting.take(limits.chunk_size)):
                        break
                    await self._claim(chunk)
                await self._wait()
                self._collect()
                await self._keep_up()
        finally:
            stopped.cancel()
            await self._abandon()
        await self._store()
        await leases.release_owner(self._db, self._owner)

    async def _claim(self, relays: Sequence[RelayUrl]) -> None:
        claims = await leases.claim(
            self._db,
            leases.MONITOR,
            [relay.url for relay in relays],
            self._owner,
            limit=len(relays),
            lease_seconds=LEASE_SECONDS,
        )
        claimed = {claim.url: claim for claim in claims}
        for relay in relays:
            if claim := claimed.get(relay.url):
                task = asyncio.create_task(self._run_check(claim, relay))
                task.add_done_callback(self._wake)
                self._running[relay] = task
            else:
                self.counts["left_to_others"] += 1
                self._waiting.done(relay)

    async def _run_check(self, claim: leases.Claim, relay: RelayUrl) -> Checked:
        is_candidate = relay.url in self._candidates
        try:
            report = await self._check(relay)
        except WorkerDied:
            return Checked(claim, None, "worker-died", is_candidate)
        except Exception:
            logger.exception(f"{LOG_WARNING} {fields('check_broken', relay=relay)}")
            return Checked(claim, None, "check-broken", is_candidate)
        return Checked.of(claim, report, is_candidate)

    def _wake(self, _: object) -> None:
        self._news.set()

    async def _wait(self) -> None:
        """Until a check is done, or something else is due."""
        due = min(self._heartbeat_at, self._store_at or self._heartbeat_at)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - _clock())):
                await self._news.wait()
        self._news.clear()

    def _collect(self) -> None:
        for relay in [relay for relay, task in self._running.items() if task.done()]:
            self._checked.append(self._running.pop(relay).result())
            self._waiting.done(relay)
            self._store_at = self._store_at or _clock() + _BATCH_SECONDS

    async def _keep_up(self) -> None:
        """Store a batch that is full or old; prolong the leases."""
        if len(self._checked) >= _BATCH_SIZE or 0 < self._store_at <= _clock():
            await self._store()
        if self._heartbeat_at <= _clock():
            await self._prolong()

    async def _prolong(self) -> None:
        self._heartbeat_at = _clock() + _HEARTBEAT_SECONDS
        held = [relay.url for relay in self._running]
        held += [checked.claim.url for checked in self._checked]
        ours = await leases.heartbeat(self._db, leases.MONITOR, self._owner, held, LEASE_SECONDS)
        for relay in [relay for relay in self._running if relay.url not in ours]:
            # We stood still for minutes, and another monitor took the relay over.
            self._running.pop(relay).cancel()
            self._waiting.done(relay)
            self.counts["left_to_others"] += 1

    async def _store(self) -> None:
        batch, self._checked, self._store_at = self._checked, [], 0.0
        if not batch:
            return
        self.counts["stored"] += await store(self._db, self._owner, batch, self._frequency)
        for checked in batch:
            self._count(checked)
            if checked.stored is not None:
                self._on_stored(checked.stored)

    def _count(self, checked: Checked) -> None:
        self.outcomes[checked.outcome] += 1
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
        if checked.answered:
            self._tracker.record_success()
        elif checked.answered_before:
            self._tracker.record_failure(checked.outcome)

    async def _abandon(self) -> None:
        self._collect()
        running, self._running = list(self._running.values()), {}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def _clock() -> float:
    return time.monotonic()
