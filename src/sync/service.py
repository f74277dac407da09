"""The synchronizer service.

`synchronizer` and `priority_synchronizer` differ only in where their relays come from and in
the prefix of their settings.
"""

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from nostr_tools import Relay

import leases
from bigbrotr import BigBrotr
from config_types import SynchronizerConfig
from constants import LOG_WAIT
from errors import DatabaseError
from event_rows import known_ids
from functions import (
    RelayFailureTracker,
    connect_bigbrotr_with_retry,
    services_answer,
    wait_for_services,
)
from logging_config import fields
from migrate import check_schema
from nostr.filters import filter_hash
from nostr.urls import from_relay
from service import CycleReport
from sync import ledger
from sync.dispatch import Dispatcher
from sync.group_commit import GroupCommit
from sync.limits import RelayLimits
from sync.live import LiveContext, LiveTails
from sync.page_check import PageChecker
from sync.session import SessionReport
from sync.task import SyncTask, dialer_for, open_worker, session_settings
from sync.windows import Window
from workers import WorkerPool

# Leases that cannot be given back in this time, as the database is lost, run out by themselves.
_RELEASE_SECONDS = 1.0
# The workers' sessions were cancelled when the cycle ended; these are for closing things.
_WORKERS_GRACE_SECONDS = 2.0

LoadRelays = Callable[[BigBrotr], Awaitable[Sequence[Relay]]]

logger = logging.getLogger(__name__)


class SynchronizerService:
    """One synchronizer; `load_relays` says which relays are its own, and with `live` those that
    are caught up are followed between and during the cycles."""

    def __init__(
        self, name: str, config: SynchronizerConfig, load_relays: LoadRelays, *, live: bool = False
    ) -> None:
        self._config = config
        self._load_relays = load_relays
        self._owner = f"{name.lower()}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._db = BigBrotr.from_config(config.database)
        self._pool: WorkerPool[SyncTask, SessionReport] = WorkerPool(
            partial(open_worker, config),
            processes=config.num_cores,
            concurrency=config.requests_per_core,
            service_name=name,
            log_level=config.log_level,
        )
        self._failures = RelayFailureTracker(logger=logger)
        self._dispatcher: Dispatcher | None = None
        self._progress: dict[str, object] = {}
        # Somebody who wants the events up to a certain second wants no later ones.
        live = live and config.stop_timestamp == -1
        self._tails = LiveTails(self._live_context(), self._owner) if live else None

    def _live_context(self) -> LiveContext:
        return LiveContext(
            self._db,
            GroupCommit(self._db),
            dialer_for(self._config),
            PageChecker(partial(known_ids, self._db)),
            self._config.event_filter,
            session_settings(self._config, RelayLimits()),
        )

    async def start(self) -> None:
        """Wait for the database and Tor, and start the workers."""
        await wait_for_services(self._config)
        await connect_bigbrotr_with_retry(self._db)
        await check_schema(self._db)
        await self._pool.open()

    async def close(self) -> None:
        """Stop the workers and give the relays back."""
        endings = [self._pool.close(_WORKERS_GRACE_SECONDS)]
        if self._tails is not None:
            endings.append(self._tails.close())
        await asyncio.gather(*endings)
        if self._db.is_connected:
            with suppress(DatabaseError, TimeoutError):
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await leases.release_owner(self._db, self._owner)
        await self._db.close()

    async def ready(self) -> bool:
        """Whether the database answers, and Tor where it is configured."""
        return await services_answer(self._db, self._config.tor)

    def info(self) -> dict[str, object]:
        """The relays being synchronized now, how many sessions failed, and how far the archive
        was at the end of the last cycle."""
        running = self._dispatcher.running if self._dispatcher else []
        live = {"live": self._tails.info()} if self._tails else {}
        return {
            "synchronizing": running,
            "sessions": {
                **self._failures.get_stats(),
                "failures_by_kind": self._failures.failures_by_kind(),
            },
            "progress": self._progress,
            **live,
        }

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        """Synchronize every relay that is due, each at most once."""
        # Sessions of a cycle that failed have ended, but still have their leases.
        await leases.release_owner(self._db, self._owner, leases.SYNC)
        target = await self._target()
        if target is None:
            return CycleReport({"relays": 0})
        relays = [from_relay(relay) for relay in await self._load_relays(self._db)]
        reachable = [r for r in relays if r.network != "tor" or self._config.tor is not None]
        dispatcher = Dispatcher(self._db, self._pool, self._owner, self._failures, target)
        self._dispatcher = dispatcher
        await dispatcher.run(reachable, stop)
        dispatcher.counts.update(relays=len(relays), no_tor=len(relays) - len(reachable))
        self._progress = await ledger.progress(self._db, filter_hash(self._config.event_filter))
        if self._tails is not None and not stop.is_set():
            for relay, model in dispatcher.caught_up:
                await self._tails.follow(relay, model, target)
        return CycleReport(dispatcher.counts)

    async def _target(self) -> Window | None:
        """The seconds wanted; None while the first of them is not over yet.

        A second that is not over proves nothing. Should this machine's clock be ahead, the
        database's is not, and the other way round.
        """
        now = min(int(time.time()), await leases.database_time(self._db))
        last = min(self._config.last_second(now), now - 1)
        first = max(self._config.start_timestamp, await ledger.kept_from(self._db))
        if first > last:
            early = fields("nothing_to_do_yet", first_second=first, last_second=last)
            logger.info(f"{LOG_WAIT} {early}")
            return None
        return Window(first, last)
