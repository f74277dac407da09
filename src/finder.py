"""The finder: relays that the archive's events, aggregators and other relays name become
candidates, which the monitor checks.

The archive is read in every cycle, aggregators and relays are asked every FINDER_FREQUENCY_HOUR
hours. No source is trusted: what they name passes the URL rules and the limits of
`discovery.sieve`, and it takes a real answer to make a candidate a relay.
"""

import asyncio
import logging
import sys
import time

from bigbrotr import BigBrotr
from config import FinderConfig, load_finder_config
from constants import LOG_SEARCH, LOG_START
from discovery.archive import read_lists
from discovery.asking import Asker
from discovery.harvest import Harvest, take_answer
from discovery.sieve import Sieve
from discovery.sightings import read_sightings
from discovery.store import known_urls, tidy_candidates
from functions import connect_bigbrotr_with_retry, services_answer, wait_for_services
from logging_config import fields
from migrate import check_schema
from service import CycleReport, main

# A large archive is read for the first time in several cycles, so that lists do not wait for it.
_READING_SECONDS = 600.0
# Looking through all lists for one that was left out may take a twentieth of the time.
_LOOKING_PAUSE = 20.0

logger = logging.getLogger(__name__)


class Finder:
    """The finder as `service.Service`."""

    def __init__(self, config: FinderConfig) -> None:
        self._config = config
        self._db = BigBrotr.from_config(config.database)
        self._asker = Asker(config)
        self._look_at = 0.0
        self._found = 0

    async def start(self) -> None:
        """Wait for the database, and for Tor when it is configured."""
        await wait_for_services(self._config)
        await connect_bigbrotr_with_retry(self._db, logger=logger)
        await check_schema(self._db)
        await self._asker.remember(self._db)
        details = fields(
            "finder_started",
            aggregators=len(self._config.aggregator_urls),
            nip66_relays=len(self._config.nip66_relays),
            frequency_hours=self._config.frequency_hour,
        )
        logger.info(f"{LOG_START} {details}")

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        """Read what is new in the archive, and ask those who are due."""
        stopped = asyncio.create_task(stop.wait())
        asking = asyncio.create_task(self._asker.ask_those_due())
        try:
            dropped = await tidy_candidates(self._db)
            known = await known_urls(self._db)
            sieve = await asyncio.to_thread(
                Sieve, known, allow_private=self._config.allow_private_relays
            )
            until = time.monotonic() + _READING_SECONDS
            events = await read_sightings(self._db, sieve, stop, until=until)
            if time.monotonic() >= self._look_at:
                lists = await read_lists(self._db, sieve, stop, until=until)
                self._look_at = time.monotonic() + _LOOKING_PAUSE * lists.looking_seconds
                events.join(lists)
            await asyncio.wait((asking, stopped), return_when=asyncio.FIRST_COMPLETED)
            answers = Harvest()
            for answer in asking.result() if asking.done() else []:
                answers.join(await take_answer(self._db, sieve, answer))
        finally:
            asking.cancel()
            stopped.cancel()
            await asyncio.wait((asking, stopped))
        return self._report(events, answers, dropped)

    async def ready(self) -> bool:
        """Whether the database answers, and Tor when it is configured."""
        return await services_answer(self._db, self._config.tor)

    def info(self) -> dict[str, object]:
        """How many candidates were found since the start, and who gives no list, with the
        reason."""
        return {"candidates_found": self._found, "lists_failing": dict(self._asker.problems)}

    async def close(self) -> None:
        """Give the connections back."""
        await self._db.close()

    def _report(self, events: Harvest, answers: Harvest, dropped: int) -> CycleReport:
        total = Harvest()
        total.join(events)
        total.join(answers)
        self._found += total.new
        if total.refused:
            logger.info(f"{LOG_SEARCH} {fields('urls_refused', **total.refused)}")
        return CycleReport(
            {
                "events_read": events.sources,
                "lists_read": answers.sources,
                "lists_failing": len(self._asker.problems),
                "urls_named": total.named,
                "urls_refused": total.refused.total(),
                "candidates_found": total.new,
                "candidates_dropped": dropped,
            }
        )


if __name__ == "__main__":
    sys.exit(main("FINDER", load_finder_config, Finder))
