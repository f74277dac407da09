"""Small helpers of the services: waiting for what they need, counting failures, chunks."""

# The names test_* are those of the specification; no test runner collects this module.
# ruff: noqa: PT028

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol, TypedDict, TypeVar

from bigbrotr import BigBrotr
from config_types import DatabaseConfig, TorConfig
from constants import LOG_ERROR, LOG_INFO, LOG_SUCCESS, LOG_WAIT, LOG_WARNING
from errors import DatabaseError, DatabaseUnavailable, ServiceError
from logging_config import fields

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_RETRY_PAUSE_SECONDS: Final = 60.0
# For the database, then for Tor: both fit into READY_CHECK_TIMEOUT.
_ANSWER_SECONDS: Final = 2
# RFC 1928: version 5, one method offered, "no authentication"; the answer that accepts it.
_SOCKS5_GREETING: Final = b"\x05\x01\x00"
_SOCKS5_ACCEPTED: Final = b"\x05\x00"

_UNKNOWN_KIND: Final = "unknown"

T = TypeVar("T")

_module_logger = logging.getLogger(__name__)


class FailureStats(TypedDict):
    """What a RelayFailureTracker has counted; `failure_rate` is 0.0 to 1.0."""

    total: int
    successes: int
    failures: int
    failure_rate: float


class RelayFailureTracker:
    """Counts how relays fared, failures told apart by kind, and logs it every `check_interval`
    relays: as a warning when the failure rate is above `alert_threshold` (0.0 to 1.0)."""

    def __init__(
        self,
        alert_threshold: float = 0.1,
        check_interval: int = 100,
        logger: logging.Logger | None = None,
    ) -> None:
        self._alert_threshold = alert_threshold
        self._check_interval = check_interval
        self._logger = logger or _module_logger
        self._successes = 0
        self._failures: Counter[str] = Counter()

    def record_success(self) -> None:
        """One more relay went well."""
        self._successes += 1
        self._report_when_due()

    def record_failure(self, kind: str = _UNKNOWN_KIND) -> None:
        """One more relay failed; `kind` is a word that says how."""
        self._failures[kind] += 1
        self._report_when_due()

    def get_stats(self) -> FailureStats:
        """The counts since the start."""
        failures = self._failures.total()
        total = self._successes + failures
        return FailureStats(
            total=total,
            successes=self._successes,
            failures=failures,
            failure_rate=failures / total if total else 0.0,
        )

    def failures_by_kind(self) -> dict[str, int]:
        """The failures since the start by their kind, the most frequent first."""
        return dict(self._failures.most_common())

    def _report_when_due(self) -> None:
        stats = self.get_stats()
        if stats["total"] % self._check_interval:
            return
        counted = {**stats, **self.failures_by_kind()}
        if stats["failure_rate"] > self._alert_threshold:
            self._logger.warning(f"{LOG_WARNING} {fields('many_relays_fail', **counted)}")
        else:
            self._logger.info(f"{LOG_INFO} {fields('relays_processed', **counted)}")


def chunkify(lst: list[T], n: int) -> Generator[list[T], None, None]:
    """`lst` in order, in chunks of `n`; the last one may be shorter. `n` below 1: ValueError."""
    if n < 1:
        raise ValueError(f"a chunk of {n} items is no chunk")
    for start in range(0, len(lst), n):
        yield lst[start : start + n]


async def test_database_connection_async(
    host: str,
    port: int,
    user: str,
    password: str,
    dbname: str,
    logger: logging.Logger | None = None,
) -> bool:
    """Whether the database lets us in and answers; the reason is logged when it does not."""
    database = DatabaseConfig(host=host, port=port, user=user, password=password, dbname=dbname)
    try:
        await _ask_database(database)
    except DatabaseError as error:
        (logger or _module_logger).warning(f"{LOG_WARNING} {fields('no_database', error=error)}")
        return False
    return True


async def connect_bigbrotr_with_retry(
    bigbrotr: BigBrotr,
    max_retries: int = 5,
    base_delay: int = 1,
    logger: logging.Logger | None = None,
) -> None:
    """Connect, trying again up to `max_retries` times with pauses that double from `base_delay`
    seconds (full jitter).

    Only DatabaseUnavailable is retried, and raised after the last attempt; AccessDenied and
    SchemaMismatch are raised at once.
    """
    for attempt in range(max_retries + 1):
        try:
            await bigbrotr.connect()
        except DatabaseUnavailable as error:
            if attempt == max_retries:
                raise
            longest = min(base_delay * 2.0**attempt, _LONGEST_RETRY_PAUSE_SECONDS)
            pause = random.uniform(0, longest)
            (logger or _module_logger).warning(
                f"{LOG_WAIT} "
                f"{fields('database_retry', attempt=attempt + 1, seconds=pause, error=error)}"
            )
            await asyncio.sleep(pause)
        else:
            return


async def test_torproxy_connection(
    host: str, port: int, timeout: int = 10, logger: logging.Logger | None = None
) -> bool:
    """Whether a SOCKS5 proxy that asks for no password answers there. Nothing is sent through
    it. `timeout` is in seconds."""
    try:
        async with asyncio.timeout(timeout):
            answer = await _greet_socks5(host, port)
    except TimeoutError:
        problem = f"no answer in {timeout} s"
    except (OSError, asyncio.IncompleteReadError) as error:
        problem = str(error)
    else:
        if answer == _SOCKS5_ACCEPTED:
            return True
        problem = f"the answer {answer.hex()} is not that of an open SOCKS5 proxy"
    (logger or _module_logger).warning(
        f"{LOG_WARNING} {fields('no_tor', proxy=f'{host}:{port}', error=problem)}"
    )
    return False


async def services_answer(db: BigBrotr, tor: TorConfig | None) -> bool:
    """True when the database answers a query, and Tor where it is configured; that is readiness.

    Raises DatabaseError or ServiceError that names the one that does not.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await db.fetchone("SELECT 1")
    except TimeoutError:
        raise DatabaseUnavailable(f"database: no answer in {_ANSWER_SECONDS:g} s") from None
    if tor is not None and not await test_torproxy_connection(tor.host, tor.port, _ANSWER_SECONDS):
        raise ServiceError(f"Tor: no SOCKS5 proxy answers at {tor.host}:{tor.port}")
    return True


class NeedsServices(Protocol):
    """Settings that say which services to wait for."""

    @property
    def database(self) -> DatabaseConfig: ...
    @property
    def tor(self) -> TorConfig | None: ...


async def wait_for_services(config: NeedsServices, retries: int = 5, delay: int = 30) -> None:
    """Wait for the database, and for Tor where it is configured.

    Attempts follow each other after 1, 2, 4 ... `delay` seconds. The database gets
    `retries` x `delay` seconds before DatabaseUnavailable is raised; AccessDenied is raised at
    once. Tor gets `delay` seconds; without it the service goes on with clearnet relays.
    """
    await asyncio.gather(
        wait_for_database(config.database, patience=retries * delay, longest_pause=delay),
        _wait_for_tor(config.tor, patience=delay),
    )


async def wait_for_database(
    database: DatabaseConfig, *, patience: float, longest_pause: float = 30
) -> None:
    """Wait until the database answers, at most about `patience` seconds; raises
    DatabaseUnavailable after that, AccessDenied at once."""

    async def answers(last: bool) -> bool:
        try:
            await _ask_database(database)
        except DatabaseUnavailable as error:
            if last:
                raise
            _module_logger.warning(f"{LOG_WAIT} {fields('waiting_for_database', error=error)}")
            return False
        return True

    await _repeat(answers, patience, longest_pause)
    _module_logger.info(
        f"{LOG_SUCCESS} {fields('database_answers', host=database.host, port=database.port)}"
    )


async def _wait_for_tor(tor: TorConfig | None, *, patience: float) -> None:
    if tor is None:
        return

    async def answers(_: bool) -> bool:
        return await test_torproxy_connection(tor.host, tor.port)

    if await _repeat(answers, patience, patience):
        _module_logger.info(f"{LOG_SUCCESS} {fields('tor_answers', host=tor.host, port=tor.port)}")
        return
    problem = (
        f"TORPROXY_HOST: no SOCKS5 proxy at {tor.host}:{tor.port}; start it, or remove "
        "TORPROXY_HOST. Onion relays cannot be reached until then"
    )
    _module_logger.error(f"{LOG_ERROR} {fields('tor_absent', error=problem)}")


async def _repeat(
    attempt: Callable[[bool], Awaitable[bool]], patience: float, longest_pause: float
) -> bool:
    """Call `attempt` until it says True or time is up; it is told whether it is the last call."""
    deadline = time.monotonic() + patience
    pause = _FIRST_PAUSE_SECONDS
    while True:
        last = time.monotonic() + pause > deadline
        if await attempt(last):
            return True
        if last:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest_pause)


async def _ask_database(database: DatabaseConfig) -> None:
    async with BigBrotr.from_config(replace(database, min_pool=1, max_pool=1)) as bigbrotr:
        await bigbrotr.fetchone("SELECT 1")


async def _greet_socks5(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_SOCKS5_GREETING)
        return await reader.readexactly(len(_SOCKS5_ACCEPTED))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
