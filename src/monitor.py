"""The monitor: checks every relay, again and again, and keeps what it finds in relay_metadata.

Due relays are claimed by lease, so several monitors share the work, and checked in worker
processes (NIP-11 document; open, read and write tests with round-trip times, NIP-66). A failed
check is stored like any other: what counts is the latest one.
"""

import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

import leases
from bigbrotr import BigBrotr
from config import MonitorConfig, load_monitor_config
from constants import LOG_INFO, LOG_PROCESS, LOG_START
from functions import (
    RelayFailureTracker,
    connect_bigbrotr_with_retry,
    services_answer,
    test_torproxy_connection,
    wait_for_services,
)
from logging_config import fields
from migrate import check_schema
from monitoring.check import CheckSettings, checker
from monitoring.due import plan_checks
from monitoring.publisher import Publisher
from monitoring.rounds import CheckRound, Limits
from nostr.nip66 import announcement, discovery
from nostr.probe import ProbeReport
from nostr.urls import RelayUrl
from service import CycleReport, main
from workers import WorkerPool

NAME = "MONITOR"
# How long a cycle waits for its last publications; what is left goes on beside the next one.
_PUBLISH_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Monitor:
    """The monitor as `service.Service`."""

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config
        self._db = BigBrotr.from_config(config.database)
        self._pool: WorkerPool[RelayUrl, ProbeReport] = WorkerPool(
            checker(config),
            processes=config.num_cores,
            concurrency=config.requests_per_core,
            service_name=NAME,
            log_level=config.log_level,
        )
        self._resources = AsyncExitStack()
        self._owner = f"monitor:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._tracker = RelayFailureTracker(logger=logger)
        self._outcomes: Counter[str] = Counter()
        self._publisher = Publisher(
            config.publish_relays,
            CheckSettings.of(config).dialer(),
            config.keypair,
            timeout=config.request_timeout,
        )

    async def start(self) -> None:
        """Wait for the database, and for Tor when it is configured; start the workers."""
        await wait_for_services(self._config)
        await connect_bigbrotr_with_retry(self._db, logger=logger)
        self._resources.push_async_callback(self._db.close)
        await check_schema(self._db)
        await self._resources.enter_async_context(self._pool)
        await self._resources.enter_async_context(self._publisher)
        details = fields(
            "monitor_started",
            workers=self._config.num_cores,
            concurrency=self._pool.capacity,
            frequency_hours=self._config.frequency_hour,
            write_test=self._config.keypair is not None,
            publish_relays=len(self._config.publish_relays),
        )
        logger.info(f"{LOG_START} {details}")

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        """Check every relay that is due."""
        # Whatever an interrupted cycle of ours still holds.
        await leases.release_owner(self._db, self._owner)
        plan = await plan_checks(self._db, self._config, tor=await self._tor_answers())
        planned = {
            "due": len(plan.relays),
            "resting": plan.resting,
            "skipped_tor": plan.skipped_tor,
        }
        if plan.relays:
            logger.info(f"{LOG_PROCESS} {fields('checks_planned', **planned)}")
        checks = CheckRound(
            self._db,
            self._pool.run,
            owner=self._owner,
            limits=Limits(
                self._pool.capacity,
                self._config.chunk_size,
                self._config.checks_per_host,
                self._config.tor_checks,
            ),
            frequency=self._config.frequency_seconds,
            tracker=self._tracker,
            candidates=plan.candidates,
            on_stored=self._publish,
        )
        published = Counter(self._publisher.counts)
        self._publisher.offer(
            announcement(
                frequency=self._config.frequency_seconds,
                timeout_ms=round(self._config.request_timeout * 1000),
                now=int(time.time()),
            )
        )
        await checks.run(plan.relays, stop)
        self._outcomes = checks.outcomes
        if checks.outcomes:
            counted = dict(checks.outcomes.most_common())
            logger.info(f"{LOG_INFO} {fields('check_outcomes', **counted)}")
        await self._publisher.drain(0 if stop.is_set() else _PUBLISH_SECONDS)
        published = self._publisher.counts - published
        return CycleReport({**planned, **checks.counts, **published})

    async def ready(self) -> bool:
        """Whether the database answers, and Tor when it is configured."""
        return await services_answer(self._db, self._config.tor)

    def info(self) -> dict[str, object]:
        """The outcomes of the last cycle's checks, and how relays fared since the start."""
        return {
            "outcomes": dict(self._outcomes),
            "relays_that_answered_before": {
                **self._tracker.get_stats(),
                "failures_by_kind": self._tracker.failures_by_kind(),
            },
        }

    async def close(self) -> None:
        """End the workers, give the connections back."""
        await self._resources.aclose()

    def _publish(self, report: ProbeReport) -> None:
        """An event of NIP-66 says that its relay is there, so there is none of the dead."""
        nip66 = report.metadata.nip66
        if nip66 is not None and nip66.openable:
            self._publisher.offer(discovery(report))

    async def _tor_answers(self) -> bool:
        tor = self._config.tor
        return tor is not None and await test_torproxy_connection(tor.host, tor.port)


if __name__ == "__main__":
    sys.exit(main(NAME, load_monitor_config, Monitor))
