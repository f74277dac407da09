"""The finder: relays that the archive's events and HTTP aggregators name become relays to watch.

The archive is read in every cycle, the aggregators every FINDER_FREQUENCY_HOUR hours. No source
is trusted: what they name passes the URL rules and the limits of `discovery.sieve`, and it takes
the monitor's check to make a found relay one to read from.
"""

import asyncio
import logging
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bigbrotr import BigBrotr
from config import FinderConfig, load_finder_config
from constants import LOG_NETWORK, LOG_SEARCH, LOG_START, LOG_WARNING
from discovery.aggregators import Answer, ask, pause_before_asking_again
from discovery.archive import Harvest, insert_found, known_relays, read_archive
from discovery.fetch import open_fetcher
from discovery.sieve import Sieve
from errors import AggregatorFailed
from functions import connect_bigbrotr_with_retry, test_torproxy_connection, wait_for_services
from logging_config import fields
from migrate import check_schema
from service import CycleReport, main

# All pages of an aggregator together may take this many times the timeout of one request.
_TIMEOUTS_PER_AGGREGATOR = 10

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Turn:
    """When an aggregator is asked next (monotonic seconds), and how often it failed in a row."""

    due_at: float = 0.0
    failures: int = 0


class Finder:
    """The finder as `service.Service`."""

    def __init__(self, config: FinderConfig) -> None:
        self._config = config
        self._db = BigBrotr.from_config(config.database)
        self._turns = {url: _Turn() for url in config.aggregator_urls}
        self._problems: dict[str, str] = {}
        self._found = 0

    async def start(self) -> None:
        """Wait for the database, and for Tor when it is configured."""
        await wait_for_services(self._config)
        await connect_bigbrotr_with_retry(self._db, logger=logger)
        await check_schema(self._db)
        details = fields(
            "finder_started",
            aggregators=len(self._turns),
            frequency_hours=self._config.frequency_hour,
        )
        logger.info(f"{LOG_START} {details}")

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        """Read what is new in the archive, and ask the aggregators that are due."""
        stopped = asyncio.create_task(stop.wait())
        asking = asyncio.create_task(self._ask_those_due())
        try:
            known = await known_relays(self._db)
            sieve = await asyncio.to_thread(
                Sieve, known, allow_private=self._config.allow_private_relays
            )
            from_events = await read_archive(self._db, sieve, stop)
            _log_harvest("archive_read", from_events)
            await asyncio.wait((asking, stopped), return_when=asyncio.FIRST_COMPLETED)
            answers = asking.result() if asking.done() else []
            from_lists = await self._take(sieve, answers)
        finally:
            asking.cancel()
            stopped.cancel()
            await asyncio.wait((asking, stopped))
        self._found += from_events.new + from_lists.new
        return CycleReport(
            {
                "events_read": from_events.sources,
                "aggregators_read": from_lists.sources,
                "aggregators_failing": len(self._problems),
                "urls_named": from_events.named + from_lists.named,
                "urls_refused": (from_events.refused + from_lists.refused).total(),
                "relays_found": from_events.new + from_lists.new,
            }
        )

    async def ready(self) -> bool:
        """Whether the database answers, and Tor when it is configured."""
        tor = self._config.tor
        if tor is not None and not await test_torproxy_connection(tor.host, tor.port):
            return False
        return await self._db.fetchone("SELECT 1") is not None

    def info(self) -> dict[str, object]:
        """What was found since the start, and which aggregators give no list, with the reason."""
        return {"relays_found": self._found, "aggregators_failing": dict(self._problems)}

    async def close(self) -> None:
        """Give the connections back."""
        await self._db.close()

    async def _ask_those_due(self) -> list[tuple[str, Answer]]:
        now = time.monotonic()
        due = [url for url, turn in self._turns.items() if turn.due_at <= now]
        if not due:
            return []
        async with open_fetcher(
            timeout=self._config.request_timeout,
            allow_private=self._config.allow_private_relays,
            socks5_url=self._config.tor.socks5_url if self._config.tor else None,
        ) as fetcher:
            timeout = self._config.request_timeout * _TIMEOUTS_PER_AGGREGATOR
            asked = (ask(fetcher, url, timeout=timeout) for url in due)
            results = await asyncio.gather(*asked, return_exceptions=True)
        answers: list[tuple[str, Answer]] = []
        for url, result in zip(due, results, strict=True):
            match result:
                case Answer():
                    self._note(url, result.cut_short)
                    answers.append((url, result))
                case AggregatorFailed():
                    self._note(url, result)
                case BaseException():
                    raise result
        return answers

    def _note(self, url: str, problem: AggregatorFailed | None) -> None:
        """Keep how the aggregator did, and when it is asked again."""
        turn = self._turns[url]
        turn.failures = 0 if problem is None else turn.failures + 1
        turn.due_at = time.monotonic() + pause_before_asking_again(
            turn.failures,
            frequency=self._config.frequency_seconds,
            retry_after=None if problem is None else problem.retry_after,
            chance=random.random(),
        )
        if problem is None:
            self._problems.pop(url, None)
            return
        self._problems[url] = problem.reason
        details = fields("aggregator_failed", url=url, reason=problem.reason, detail=problem.detail)
        logger.warning(f"{LOG_WARNING} {details}")

    async def _take(self, sieve: Sieve, answers: Sequence[tuple[str, Answer]]) -> Harvest:
        """Insert the relays that the answers name."""
        harvest = Harvest()
        for url, answer in answers:
            sifted = await asyncio.to_thread(sieve.sift, answer.urls)
            new = await insert_found(self._db, sifted.fresh)
            sieve.admit(sifted.fresh)
            harvest.add(1, sifted, new)
            details = fields(
                "aggregator_read",
                url=url,
                pages=answer.pages,
                urls=len(answer.urls),
                refused=sifted.refused.total(),
                new=new,
            )
            logger.info(f"{LOG_NETWORK} {details}")
        return harvest


def _log_harvest(event: str, harvest: Harvest) -> None:
    if not harvest.sources:
        return
    details = fields(event, events=harvest.sources, named=harvest.named, new=harvest.new)
    logger.info(f"{LOG_SEARCH} {details}")
    if harvest.refused:
        logger.info(f"{LOG_SEARCH} {fields('urls_refused', **harvest.refused)}")


if __name__ == "__main__":
    sys.exit(main("FINDER", load_finder_config, Finder))
