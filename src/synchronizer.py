"""The synchronizer: archives the events of all readable relays but the priority ones."""

import logging
import sys
from collections.abc import Sequence
from functools import partial

from nostr_tools import Relay

from bigbrotr import BigBrotr
from config import load_synchronizer_config
from config_types import SynchronizerConfig
from constants import LOG_WARNING
from errors import ConfigError
from logging_config import fields
from relay_loader import fetch_relays_from_file, readable_relays
from service import main
from sync.service import SynchronizerService

NAME = "SYNCHRONIZER"

logger = logging.getLogger(__name__)


async def load_relays(config: SynchronizerConfig, db: BigBrotr) -> Sequence[Relay]:
    """Relays whose latest check is recent and says readable, without the priority relays."""
    readable = await readable_relays(
        db,
        config.relay_metadata_threshold_hours,
        allow_private=config.allow_private_relays,
    )
    try:
        priority = await fetch_relays_from_file(
            str(config.priority_relays_path), allow_private=config.allow_private_relays
        )
    except ConfigError as error:
        logger.warning(f"{LOG_WARNING} {fields('no_priority_relays_left_out', error=error)}")
        return readable
    excluded = {relay.url for relay in priority}
    return [relay for relay in readable if relay.url not in excluded]


def build(config: SynchronizerConfig) -> SynchronizerService:
    """The service with its settings."""
    return SynchronizerService(NAME, config, partial(load_relays, config))


if __name__ == "__main__":
    sys.exit(main(NAME, load_synchronizer_config, build))
