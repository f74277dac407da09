"""Relays to work on: from the archive or from a text file.

The `fetch_*_from_database` functions of the specification open a connection for one query; a
service that has a BigBrotr uses `readable_relays`, `all_relays` and `relays_due` with it.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from nostr_tools import Relay

from bigbrotr import BigBrotr
from config_types import DatabaseConfig
from constants import LOG_INFO, LOG_WARNING, SECONDS_PER_HOUR
from errors import ConfigError, RelayUrlRefused
from logging_config import fields
from nostr.url_lists import UrlReport, scan
from nostr.urls import RelayUrl, to_relay

_RECENTLY_CHECKED = """
    SELECT relay_url AS url
    FROM (
        SELECT relay_url, nip66_id,
               ROW_NUMBER() OVER (PARTITION BY relay_url ORDER BY generated_at DESC) AS position
        FROM relay_metadata
        WHERE generated_at >= $1
    ) AS recent
    LEFT JOIN nip66 ON nip66.id = recent.nip66_id
    WHERE position = 1 AND (nip66.readable OR NOT $2)
    ORDER BY relay_url
"""

_ALL = "SELECT url FROM relays ORDER BY url"

_DUE = """
    SELECT relays.url
    FROM relays
    LEFT JOIN LATERAL (
        SELECT generated_at
        FROM relay_metadata
        WHERE relay_metadata.relay_url = relays.url
        ORDER BY generated_at DESC
        LIMIT 1
    ) AS latest ON TRUE
    WHERE latest.generated_at IS NULL OR latest.generated_at <= $1
    ORDER BY latest.generated_at NULLS FIRST, relays.url
"""

logger = logging.getLogger(__name__)


class ArchiveSettings(Protocol):
    """Settings that lead to the relays of an archive."""

    @property
    def database(self) -> DatabaseConfig: ...
    @property
    def allow_private_relays(self) -> bool: ...


async def fetch_relays_from_database(
    config: ArchiveSettings,
    threshold_hours: int = 12,
    readable_only: bool = True,
    shuffle: bool = True,
) -> list[Relay]:
    """`readable_relays` of the archive that `config` names."""
    async with _archive(config) as bigbrotr:
        return await readable_relays(
            bigbrotr,
            threshold_hours,
            readable_only,
            shuffle,
            allow_private=config.allow_private_relays,
        )


async def fetch_relays_from_file(
    filepath: str, shuffle: bool = True, *, allow_private: bool = False
) -> list[Relay]:
    """The relays that a file lists, one URL a line, each once; `#` starts a comment.

    Lines that are no relay URL are counted and logged; a list without any relay is logged and
    returned empty. A file that cannot be read raises ConfigError.
    """
    report = await asyncio.to_thread(read_relay_list, Path(filepath), allow_private=allow_private)
    log_relay_list(filepath, report)
    return _in_order([to_relay(url) for url in report.accepted], shuffle)


async def fetch_all_relays_from_database(config: ArchiveSettings) -> list[Relay]:
    """`all_relays` of the archive that `config` names."""
    async with _archive(config) as bigbrotr:
        return await all_relays(bigbrotr, allow_private=config.allow_private_relays)


async def fetch_relays_needing_metadata(
    config: ArchiveSettings, frequency_hours: float
) -> list[Relay]:
    """`relays_due` of the archive that `config` names."""
    async with _archive(config) as bigbrotr:
        return await relays_due(
            bigbrotr, frequency_hours, allow_private=config.allow_private_relays
        )


async def readable_relays(
    bigbrotr: BigBrotr,
    threshold_hours: float = 12,
    readable_only: bool = True,
    shuffle: bool = True,
    *,
    allow_private: bool = False,
) -> list[Relay]:
    """Relays checked in the last `threshold_hours` hours whose latest check could read from
    them (or, without `readable_only`, whatever it found)."""
    rows = await bigbrotr.fetch(_RECENTLY_CHECKED, _hours_ago(threshold_hours), readable_only)
    return _in_order(_relays((row["url"] for row in rows), allow_private), shuffle)


async def all_relays(bigbrotr: BigBrotr, *, allow_private: bool = False) -> list[Relay]:
    """Every relay of the archive, by URL."""
    return _relays((row["url"] for row in await bigbrotr.fetch(_ALL)), allow_private)


async def relays_due(
    bigbrotr: BigBrotr, frequency_hours: float, *, allow_private: bool = False
) -> list[Relay]:
    """Relays never checked, then those whose latest check is `frequency_hours` hours old or
    more, oldest first."""
    rows = await bigbrotr.fetch(_DUE, _hours_ago(frequency_hours))
    return _relays((row["url"] for row in rows), allow_private)


def read_relay_list(path: Path, *, allow_private: bool = False, examples: int = 3) -> UrlReport:
    """What a file of relay URLs holds, with some examples of refused lines for each reason; raises
    ConfigError when it cannot be read.

    A file of any length: lines are read one by one, and bytes that are not UTF-8 spoil only
    their line.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            return scan(lines, allow_private=allow_private, examples_per_reason=examples)
    except OSError as error:
        raise ConfigError(
            f"cannot read the relay list {str(path)!r} ({error.strerror}): "
            "name a readable text file with one relay URL a line"
        ) from error


def log_relay_list(source: object, report: UrlReport) -> None:
    """Log what a list held, and why lines were refused."""
    refused = report.refused.total()
    summary = fields(
        "relay_list_read",
        source=source,
        relays=len(report.accepted),
        duplicates=report.duplicates,
        refused=refused,
    )
    if report.accepted:
        logger.info(f"{LOG_INFO} {summary}")
    else:
        logger.warning(f"{LOG_WARNING} {summary} the list names no relay")
    for reason, lines in report.refused.most_common():
        example = next(iter(report.examples.get(reason, ())), "")
        details = fields("relay_urls_refused", reason=reason, lines=lines, example=example)
        logger.warning(f"{LOG_WARNING} {details}")


@asynccontextmanager
async def _archive(config: ArchiveSettings) -> AsyncIterator[BigBrotr]:
    async with BigBrotr.from_config(replace(config.database, min_pool=1, max_pool=1)) as bigbrotr:
        yield bigbrotr


def _hours_ago(hours: float) -> int:
    return int(time.time() - hours * SECONDS_PER_HOUR)


def _relays(urls: Iterable[str], allow_private: bool) -> list[Relay]:
    """Rows of the archive as relays; URLs that today's rules refuse are counted and left out."""
    relays: list[Relay] = []
    refused: Counter[str] = Counter()
    for url in urls:
        try:
            relays.append(to_relay(RelayUrl.parse(url, allow_private=allow_private)))
        except RelayUrlRefused as error:
            refused[error.reason] += 1
    for reason, count in refused.items():
        details = fields("stored_relays_left_out", reason=reason, relays=count)
        logger.warning(f"{LOG_WARNING} {details}")
    return relays


def _in_order(relays: list[Relay], shuffle: bool) -> list[Relay]:
    if shuffle:
        random.shuffle(relays)
    return relays
