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
from errors import DatabaseError
from functions import (
    RelayFailureTracker,
    connect_bigbrotr_with_retry,
    test_torproxy_connection,
    wait_for_services,
)
from migrate import check_schema
from nostr.urls import from_relay
from service import CycleReport
from sync.dispatch import Dispatcher
from sync.session import SessionReport
from sync.task import SyncTask, open_worker
from sync.windows import Window
from workers import WorkerPool

LoadRelays = Callable[[BigBrotr], Awaitable[Sequence[Relay]]]

logger = logging.getLogger(__name__)


class SynchronizerService:
    """One synchronizer; `load_relays` says which relays are its own."""

    def __init__(self, name: str, config: SynchronizerConfig, load_relays: LoadRelays) -> None:
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

    async def start(self) -> None:
        """Wait for the database and Tor, and start the workers."""
        await wait_for_services(self._config)
        await connect_bigbrotr_with_retry(self._db)
        await check_schema(self._db)
        await self._pool.open()

    async def close(self) -> None:
        """Stop the workers and give the relays back."""
        await self._pool.close()
        if self._db.is_connected:
            with suppress(DatabaseError):
                await leases.release_owner(self._db, self._owner)
        await self._db.close()

    async def ready(self) -> bool:
        """Whether the database answers, and Tor where it is configured."""
        await self._db.fetchone("SELECT 1")
        tor = self._config.tor
        return tor is None or await test_torproxy_connection(tor.host, tor.port)

    def info(self) -> dict[str, object]:
        """The relays being synchronized now, and how many sessions failed."""
        running = self._dispatcher.running if self._dispatcher else []
        return {"synchronizing": running, "sessions": self._failures.get_stats()}

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        """Synchronize every relay that is due, each at most once."""
        target = Window(self._config.start_timestamp, self._config.last_second(int(time.time())))
        relays = [from_relay(relay) for relay in await self._load_relays(self._db)]
        reachable = [r for r in relays if r.network != "tor" or self._config.tor is not None]
        dispatcher = Dispatcher(self._db, self._pool, self._owner, self._failures, target)
        self._dispatcher = dispatcher
        await dispatcher.run(reachable, stop)
        dispatcher.counts.update(relays=len(relays), no_tor=len(relays) - len(reachable))
        return CycleReport(dispatcher.counts)
