"""Who is asked for lists of relays, aggregators and relays with NIP-66 events, and when again."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from yarl import URL

from bigbrotr import BigBrotr
from config import FinderConfig
from constants import LOG_NETWORK, LOG_WARNING
from discovery.aggregators import ask, pause_before_asking_again
from discovery.fetch import Fetcher, open_fetcher
from discovery.naming import MAX_STANDING_OF_LIST, Occasion, Source
from discovery.relays import ask_relay
from errors import AggregatorFailed
from logging_config import fields
from nostr.connection import Dialer
from nostr.urls import RelayUrl

# All pages of an aggregator or relay together may take this many times the timeout of one request.
_TIMEOUTS_IN_ALL = 10
_TIMEOUT_FACTOR_TOR = 2

_LAST_ANSWERS = """
    SELECT source, name,
           (extract(epoch FROM now()) - max(last_seen_at))::double precision AS age
    FROM relay_sources
    WHERE source IN ('aggregator', 'nip66')
    GROUP BY source, name
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Texts in the place of relay URLs, how they came (for the log), and what was missing."""

    urls: tuple[str, ...]
    came: dict[str, int]
    cut_short: AggregatorFailed | None


@dataclass(slots=True)
class _Listed:
    """Somebody to ask: when next (monotonic seconds), and how often it failed in a row."""

    url: str
    source: Source
    ask: Callable[[Fetcher], Awaitable[_Answer]]
    due_at: float = 0.0
    failures: int = 0


class Asker:
    """Asks each aggregator and relay of the settings when it is due.

    `problems` has those whose last answer failed or was cut short, with the reason.
    """

    def __init__(self, config: FinderConfig) -> None:
        self._config = config
        self._listed = [
            *(
                _Listed(url, Source("aggregator", _name(url)), partial(self._aggregator, url))
                for url in config.aggregator_urls
            ),
            *(
                _Listed(relay.url, Source("nip66", relay.url), partial(self._relay, relay))
                for relay in config.nip66_relays
            ),
        ]
        self.problems: dict[str, str] = {}

    async def remember(self, db: BigBrotr) -> None:
        """Wait with those whose last answer, before a restart, is younger than the frequency."""
        ages = {
            Source(row["source"], row["name"]): row["age"] for row in await db.fetch(_LAST_ANSWERS)
        }
        for listed in self._listed:
            wait = self._config.frequency_seconds - ages.get(listed.source, float("inf"))
            listed.due_at = time.monotonic() + wait if wait > 0 else 0.0

    async def ask_those_due(self) -> list[Occasion]:
        """What those say who are due, all asked at once."""
        now = time.monotonic()
        due = [listed for listed in self._listed if listed.due_at <= now]
        if not due:
            return []
        async with (
            open_fetcher(
                timeout=self._config.request_timeout,
                allow_private=self._config.allow_private_relays,
                socks5_url=self._socks5_url,
            ) as fetcher,
            asyncio.TaskGroup() as group,
        ):
            asked = [group.create_task(self._ask(listed, fetcher)) for listed in due]
        return [answer for task in asked if (answer := task.result()) is not None]

    @property
    def _socks5_url(self) -> str | None:
        return self._config.tor.socks5_url if self._config.tor else None

    async def _ask(self, listed: _Listed, fetcher: Fetcher) -> Occasion | None:
        try:
            answer = await listed.ask(fetcher)
        except AggregatorFailed as error:
            self._note(listed, error)
            return None
        self._note(listed, answer.cut_short)
        details = fields(
            "list_read",
            source=listed.source.source,
            url=listed.url,
            urls=len(answer.urls),
            **answer.came,
        )
        logger.info(f"{LOG_NETWORK} {details}")
        return Occasion(
            by=listed.source.name,
            named=tuple((text, listed.source) for text in answer.urls),
            max_standing=MAX_STANDING_OF_LIST,
        )

    async def _aggregator(self, url: str, fetcher: Fetcher) -> _Answer:
        timeout = self._config.request_timeout * _TIMEOUTS_IN_ALL
        answer = await ask(fetcher, url, timeout=timeout)
        return _Answer(answer.urls, {"pages": answer.pages}, answer.cut_short)

    async def _relay(self, relay: RelayUrl, _: Fetcher) -> _Answer:
        timeout = self._config.request_timeout
        timeout *= _TIMEOUT_FACTOR_TOR if relay.network == "tor" else 1
        dialer = Dialer(self._socks5_url, self._config.allow_private_relays, timeout)
        answer = await ask_relay(relay, dialer, timeout=timeout, total=timeout * _TIMEOUTS_IN_ALL)
        came = {"events": answer.events, "invalid": answer.invalid}
        return _Answer(answer.urls, came, answer.cut_short)

    def _note(self, listed: _Listed, problem: AggregatorFailed | None) -> None:
        """Keep how somebody did who was asked, and when that is done again."""
        listed.failures = 0 if problem is None else listed.failures + 1
        listed.due_at = time.monotonic() + pause_before_asking_again(
            listed.failures,
            frequency=self._config.frequency_seconds,
            retry_after=None if problem is None else problem.retry_after,
            chance=random.random(),
        )
        if problem is None:
            self.problems.pop(listed.url, None)
            return
        self.problems[listed.url] = problem.reason
        details = fields(
            "list_failed",
            source=listed.source.source,
            url=listed.url,
            reason=problem.reason,
            detail=problem.detail,
        )
        logger.warning(f"{LOG_WARNING} {details}")


def _name(url: str) -> str:
    """An aggregator's URL as readers of the archive may see it: a query may hold a key."""
    return str(URL(url).with_query(None).with_user(None).with_fragment(None))
