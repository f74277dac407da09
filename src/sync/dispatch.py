"""Handing relays to the workers: claim, synchronize, release (async shell)."""

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

import asyncpg
import orjson

import leases
from bigbrotr import BigBrotr
from constants import LOG_ERROR, LOG_PROCESS, LOG_WARNING, SECONDS_PER_DAY
from errors import DatabaseError, WorkerDied
from functions import RelayFailureTracker
from leases import Claim
from logging_config import fields
from nostr.urls import RelayUrl
from sync.limits import RelayLimits
from sync.relay_model import RelayModel
from sync.session import SessionReport
from sync.task import SyncTask
from sync.windows import Window
from workers import WorkerPool

LEASE_SECONDS = 120
_HEARTBEAT_SECONDS = LEASE_SECONDS / 4
_RELAYS_PER_HOST = 2
_FIRST_PAUSE_SECONDS = 300
_LONGEST_PAUSE_SECONDS = 7 * SECONDS_PER_DAY
# What befell one relay of a server befalls its others too: they are spared for this round.
_OF_THE_SERVER = frozenset({"rate-limited", "connect-timeout", "connect-refused", "connect-dns"})
# A relay that refused us is not asked again soon (NIP-42: restricted means do not retry).
_REFUSALS = frozenset({"restricted", "blocked", "auth-required", "mute", "pow", "invalid"})

logger = logging.getLogger(__name__)


class Dispatcher:
    """One round over a list of relays, each claimed by a lease and synchronized at most once.

    Args:
        db: the main process's connection to the archive.
        pool: the workers.
        owner: the name under which leases are held.
        failures: told of every session.
        target: the seconds wanted of every relay.

    Attributes:
        counts: sessions by outcome, and the sums of what they did.
        caught_up: the relays whose target is done, with what is known of them.
    """

    def __init__(
        self,
        db: BigBrotr,
        pool: WorkerPool[SyncTask, SessionReport],
        owner: str,
        failures: RelayFailureTracker,
        target: Window,
    ) -> None:
        self._db = db
        self._pool = pool
        self._owner = owner
        self._failures = failures
        self._target = target
        self._todo: deque[RelayUrl] = deque()
        self._running: dict[RelayUrl, asyncio.Task[None]] = {}
        self._resting: set[tuple[str, int | None]] = set()
        self.counts: Counter[str] = Counter()
        self.caught_up: list[tuple[RelayUrl, RelayModel]] = []

    @property
    def running(self) -> list[str]:
        """The relays being synchronized now."""
        return sorted(relay.url for relay in self._running)

    async def run(self, relays: Iterable[RelayUrl], stop: asyncio.Event) -> None:
        """Work the list off, or until `stop`; what runs then is cancelled and commits.

        Raises DatabaseError if the archive is lost.
        """
        self._todo.extend(relays)
        stopped = asyncio.create_task(stop.wait())
        heartbeat = asyncio.create_task(self._keep_leases())
        try:
            while not stop.is_set():
                await self._start_what_fits()
                if not self._running:
                    break
                await asyncio.wait(
                    (*self._running.values(), stopped), return_when=asyncio.FIRST_COMPLETED
                )
                self._collect()
        finally:
            stopped.cancel()
            heartbeat.cancel()
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(heartbeat, *self._running.values(), return_exceptions=True)
            self._running.clear()

    async def _start_what_fits(self) -> None:
        while chosen := self._choose(self._pool.capacity - len(self._running)):
            urls = [relay.url for relay in chosen]
            claims = await leases.claim(
                self._db,
                leases.SYNC,
                urls,
                self._owner,
                limit=len(urls),
                lease_seconds=LEASE_SECONDS,
            )
            self.counts["not_due"] += len(chosen) - len(claims)
            by_url = {relay.url: relay for relay in chosen}
            limits = await claimed_limits(self._db, [claim.url for claim in claims])
            for claim in claims:
                relay = by_url[claim.url]
                task = SyncTask(
                    relay.url, self._target, limits.get(relay.url, RelayLimits()), claim.learnt
                )
                self._running[relay] = asyncio.create_task(self._synchronize(relay, claim, task))

    def _choose(self, most: int) -> list[RelayUrl]:
        """The next relays, sparing hosts that are busy with us already."""
        busy = Counter(relay.host for relay in self._running)
        chosen: list[RelayUrl] = []
        for _ in range(len(self._todo)):
            if len(chosen) >= most:
                break
            relay = self._todo.popleft()
            if (relay.host, relay.port) in self._resting:
                self.counts["server_resting"] += 1
            elif busy[relay.host] < _RELAYS_PER_HOST:
                busy[relay.host] += 1
                chosen.append(relay)
            else:
                self._todo.append(relay)
        return chosen

    def _collect(self) -> None:
        for relay, task in list(self._running.items()):
            if task.done():
                del self._running[relay]
                if not task.cancelled():
                    task.result()

    async def _synchronize(self, relay: RelayUrl, claim: Claim, task: SyncTask) -> None:
        try:
            report = await self._pool.run(task)
        except WorkerDied:
            self.counts["worker_died"] += 1
            await self._release(relay, claim, "worker-died", failed=False)
            return
        except DatabaseError:
            raise
        except Exception as error:
            # A defect of ours that this relay brings to light must not stop all the others.
            self.counts["broken"] += 1
            broken = fields("session_broken", relay=relay.url, error=error)
            logger.error(f"{LOG_ERROR} {broken}")
            await self._release(relay, claim, "session-broken", failed=True)
            return
        outcome = report.outcome
        self.counts["failed" if report.failed else outcome] += 1
        self.counts.update(report.counts)
        if report.failed:
            self._failures.record_failure(outcome)
            if outcome in _OF_THE_SERVER:
                self._resting.add((relay.host, relay.port))
        else:
            self._failures.record_success()
            self.caught_up += [(relay, report.model)] if outcome != "paused" else []
        mark = LOG_WARNING if report.failed else LOG_PROCESS
        logger.info(
            f"{mark} "
            + fields(
                "relay_synchronized",
                relay=relay.url,
                outcome=outcome,
                detail=report.detail,
                **report.counts,
            )
        )
        await self._release(
            relay, claim, outcome, failed=report.failed, learnt=report.model.to_json()
        )

    async def _release(
        self,
        relay: RelayUrl,
        claim: Claim,
        outcome: str,
        *,
        failed: bool,
        learnt: dict[str, object] | None = None,
    ) -> None:
        now = int(time.time())
        not_before = 0
        if failed:
            first = SECONDS_PER_DAY if outcome in _REFUSALS else _FIRST_PAUSE_SECONDS
            not_before = leases.next_attempt(
                claim.failures + 1,
                now,
                first=first,
                cap=_LONGEST_PAUSE_SECONDS,
                random=random.random,
            )
        await leases.release(
            self._db,
            leases.SYNC,
            self._owner,
            relay.url,
            outcome=outcome,
            failed=failed,
            not_before=not_before,
            learnt=learnt,
        )

    async def _keep_leases(self) -> None:
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            held = dict(self._running)
            asked_at = time.monotonic()
            ours = await self._renew([relay.url for relay in held])
            if ours is not None:
                renewed_at = asked_at
            elif time.monotonic() - renewed_at < LEASE_SECONDS - _HEARTBEAT_SECONDS:
                continue  # the database does not answer; the leases hold for a while
            for relay, task in held.items():
                if relay.url not in (ours or ()) and not task.done():
                    self.counts["lease_lost"] += 1
                    task.cancel()

    async def _renew(self, urls: list[str]) -> set[str] | None:
        """The relays that are still ours; None when the database does not say so in time."""
        with suppress(DatabaseError, asyncpg.PostgresError, TimeoutError):
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                return await leases.heartbeat(
                    self._db, leases.SYNC, self._owner, urls, LEASE_SECONDS
                )
        return None


async def claimed_limits(db: BigBrotr, urls: Sequence[str]) -> dict[str, RelayLimits]:
    """What the relays' latest NIP-11 documents claim."""
    rows = await db.fetch(
        """
        SELECT relay_url, limitation::text AS limitation FROM relay_metadata_latest
        WHERE relay_url = ANY ($1::text[]) AND limitation IS NOT NULL
        """,
        list(urls),
    )
    return {
        row["relay_url"]: RelayLimits.from_limitation(orjson.loads(row["limitation"]))
        for row in rows
    }
