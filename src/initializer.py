"""The initializer: brings the database to this code's schema and adds the seed relays.

It runs once, before the other services, and may run again at any time. Exit codes as the other
services': 0 done, 1 the database cannot be used, 2 a setting or the seed list is wrong.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from bigbrotr import BigBrotr
from config import InitializerConfig, load_initializer_config
from constants import LOG_ERROR, LOG_PROCESS, LOG_START, LOG_SUCCESS, SEED_BATCH_SIZE
from discovery.naming import Naming, Source
from discovery.store import record_sources
from errors import AccessDenied, BigBrotrError, ConfigError
from functions import chunkify, connect_bigbrotr_with_retry, wait_for_database
from logging_config import fields, setup_logging
from migrate import check_schema, migrate
from nostr.url_lists import UrlReport
from nostr.urls import RelayUrl, to_relay
from relay_loader import log_relay_list, read_relay_list

NAME: Final = "INITIALIZER"
_PATIENCE_SECONDS: Final = 150.0

logger = logging.getLogger(__name__)


async def initialize(config: InitializerConfig) -> int:
    """Migrate (with the owner's settings; else only check the schema), then add the seed relays.

    Returns how many relays were new. Raises ConfigError for a seed list that cannot be read or
    names no relay, before the database is touched, and DatabaseError.
    """
    seeds = await asyncio.to_thread(_read_seeds, config)
    await _prepare_schema(config)
    bigbrotr = BigBrotr.from_config(config.database)
    await connect_bigbrotr_with_retry(bigbrotr, logger=logger)
    try:
        await check_schema(bigbrotr)
        new = await _add(bigbrotr, seeds.accepted, Source("list", config.seed_relays_path.name))
    finally:
        await bigbrotr.close()
    totals = fields(
        "seeds_added",
        new=new,
        known=len(seeds.accepted) - new,
        duplicates=seeds.duplicates,
        refused=seeds.refused.total(),
    )
    logger.info(f"{LOG_SUCCESS} {totals}")
    return new


def _read_seeds(config: InitializerConfig) -> UrlReport:
    path = config.seed_relays_path
    try:
        report = read_relay_list(path, allow_private=config.allow_private_relays)
    except ConfigError as error:
        raise ConfigError(f"SEED_RELAYS_PATH: {error}") from error
    if not report.accepted:
        raise ConfigError(
            f"SEED_RELAYS_PATH: {str(path)!r} names no relay ({report.refused.total()} lines "
            "refused): give it one wss:// URL a line"
        )
    log_relay_list(path, report)
    return report


async def _prepare_schema(config: InitializerConfig) -> None:
    if config.owner is None:
        await wait_for_database(config.database, patience=_PATIENCE_SECONDS)
        return
    try:
        await wait_for_database(config.owner, patience=_PATIENCE_SECONDS)
        applied = await migrate(config.owner, config.role_passwords)
    except AccessDenied as error:
        raise AccessDenied(f"POSTGRES_OWNER_USER, POSTGRES_OWNER_PASSWORD: {error}") from error
    logger.info(f"{LOG_SUCCESS} {fields('schema_current', files_applied=len(applied))}")


async def _add(bigbrotr: BigBrotr, seeds: Sequence[RelayUrl], source: Source) -> int:
    now = int(time.time())
    new = done = 0
    for batch in chunkify(list(seeds), SEED_BATCH_SIZE):
        new += await bigbrotr.insert_relay_batch([to_relay(url) for url in batch], now)
        times = {Naming(url.url, source): 1 for url in batch}
        await bigbrotr.run_in_transaction(partial(record_sources, times=times))
        done += len(batch)
        progress = fields("adding_seeds", done=done, of=len(seeds), new=new)
        logger.info(f"{LOG_PROCESS} {progress}")
    return new


def main(argv: Sequence[str] | None = None) -> int:
    """Run the initializer as a program and return its exit code."""
    parser = argparse.ArgumentParser(description="BigBrotr initializer: schema and seed relays")
    parser.add_argument("--once", action="store_true", help="accepted; it always runs once")
    parser.parse_args(argv)
    setup_logging(NAME)
    try:
        config = load_initializer_config()
        setup_logging(NAME, config.log_level)
        logger.info(f"{LOG_START} {fields('initializer_started', seeds=config.seed_relays_path)}")
        asyncio.run(initialize(config))
    except ConfigError as error:
        logger.error(f"{LOG_ERROR} {fields('setting_wrong', error=error)}")
        return 2
    except BigBrotrError as error:
        logger.error(f"{LOG_ERROR} {fields('initializer_failed', error=error)}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
