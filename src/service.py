"""What every looping service has in common: start, cycles, health server, shutdown.

A service is an object with a `cycle`; this shell runs it again and again, or once with
`--once`. Exit codes: 0 after a clean stop (or a good single cycle), 1 when the service cannot
go on (or the single cycle failed), 2 when a setting is wrong.
"""

import argparse
import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from constants import LOG_ERROR, LOG_SUCCESS, LOG_WARNING, SHUTDOWN_GRACE_SECONDS
from errors import BigBrotrError, ConfigError, ServiceError
from healthcheck import HealthCheckServer
from logging_config import fields, setup_logging

_FIRST_RETRY_SECONDS = 5.0
# A cycle that has gone on for so long has got over what the one before failed of.
_OVER_IT_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle did. `failed` means the cycle itself, not that some relays are dead."""

    counts: Mapping[str, int] = field(default_factory=dict)
    failed: bool = False


class ServiceConfig(Protocol):
    """The settings that the shell itself needs."""

    @property
    def health_check_port(self) -> int: ...
    @property
    def log_level(self) -> str: ...
    @property
    def loop_interval_seconds(self) -> float: ...


class Service(Protocol):
    """A service as the shell sees it."""

    async def start(self) -> None:
        """Wait for what the service needs and open it; raises BigBrotrError if it cannot."""

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        """One pass over the work; ends soon after `stop` is set, losing nothing committed."""

    async def ready(self) -> bool:
        """Whether the service does its job (database reachable, Tor when configured)."""

    def info(self) -> dict[str, object]:
        """What the `/` endpoint shows beside the service's name."""

    async def close(self) -> None:
        """Release everything; must be safe after a failed `start`."""


C = TypeVar("C", bound=ServiceConfig)
R = TypeVar("R")


def main(
    name: str,
    load_config: Callable[[], C],
    build: Callable[[C], Service],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a service as a program and return its exit code."""
    parser = argparse.ArgumentParser(description=f"BigBrotr {name.lower()} service")
    parser.add_argument("--once", action="store_true", help="run one cycle, then exit")
    once: bool = parser.parse_args(argv).once
    setup_logging(name)
    try:
        config = load_config()
    except ConfigError as error:
        logger.error(f"{LOG_ERROR} {fields('setting_wrong', error=error)}")
        return 2
    setup_logging(name, config.log_level)
    return asyncio.run(_Shell(config, build(config), once=once).run())


class _Shell:
    def __init__(self, config: ServiceConfig, service: Service, *, once: bool) -> None:
        self._config = config
        self._service = service
        self._once = once
        self._stop = asyncio.Event()
        self._cycles = 0
        self._cycling = False
        self._cycle_started = 0.0
        self._trouble = ""
        self._last_report = CycleReport()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        health = HealthCheckServer(
            port=self._config.health_check_port,
            ready_check=self._ready,
            info=self._info,
        )
        try:
            if self._config.health_check_port:
                await health.start()
            await self._until_stopped(self._service.start(), grace=0)
            return await self._loop()
        except BigBrotrError as error:
            logger.error(f"{LOG_ERROR} {fields('service_failed', error=error)}")
            return 1
        finally:
            await self._service.close()
            await health.stop()
            logger.info(f"{LOG_SUCCESS} {fields('service_stopped', cycles=self._cycles)}")

    async def _loop(self) -> int:
        retry = _FIRST_RETRY_SECONDS
        while not self._stop.is_set():
            report = await self._cycle()
            if self._once:
                return 1 if report.failed else 0
            pause = self._config.loop_interval_seconds
            if report.failed:
                # Full jitter, so that services that lost one database do not return as one.
                pause = min(pause, random.uniform(retry / 2, retry))
                retry *= 2
            else:
                retry = _FIRST_RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
        return 0

    async def _cycle(self) -> CycleReport:
        started = self._cycle_started = time.monotonic()
        self._cycling = True
        trouble = ""
        try:
            report = (
                await self._until_stopped(
                    self._service.cycle(self._stop), grace=SHUTDOWN_GRACE_SECONDS / 2
                )
                or CycleReport()
            )
        except BigBrotrError as error:
            logger.error(f"{LOG_ERROR} {fields('cycle_failed', error=error)}")
            report, trouble = CycleReport(failed=True), str(error)
        except Exception as error:
            logger.exception(f"{LOG_ERROR} {fields('cycle_failed', error=error)}")
            report, trouble = CycleReport(failed=True), f"{type(error).__name__}: {error}"
        self._cycling = False
        self._trouble = trouble
        self._cycles += 1
        self._last_report = report
        seconds = round(time.monotonic() - started, 1)
        mark = LOG_WARNING if report.failed else LOG_SUCCESS
        logger.info(f"{mark} {fields('cycle_done', seconds=seconds, **report.counts)}")
        return report

    async def _until_stopped(self, work: Coroutine[object, object, R], *, grace: float) -> R | None:
        """The result of `work`; `grace` seconds after a stop signal it is cancelled."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait((task,), timeout=grace)
        stopped.cancel()
        if task.done():
            return task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await task
        return None

    async def _ready(self) -> bool:
        if self._stop.is_set():
            raise ServiceError("the service is stopping")
        if not (self._cycling or self._cycles > 0) or not await self._service.ready():
            return False
        running = time.monotonic() - self._cycle_started if self._cycling else 0.0
        if self._trouble and running < _OVER_IT_SECONDS:
            raise ServiceError(f"the last cycle failed: {self._trouble}")
        return True

    def _info(self) -> dict[str, object]:
        return {
            "cycles": self._cycles,
            "cycle_running": self._cycling,
            "last_cycle": dict(self._last_report.counts),
            **self._service.info(),
        }
