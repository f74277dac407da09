"""The priority synchronizer: archives the relays of one file, whatever their last check says.

A relay that is caught up is followed by a live subscription as well.
"""

import sys
import time
from collections.abc import Sequence
from functools import partial

from nostr_tools import Relay

from bigbrotr import BigBrotr
from config import load_priority_synchronizer_config
from config_types import SynchronizerConfig
from relay_loader import fetch_relays_from_file
from service import main
from sync.service import SynchronizerService

NAME = "PRIORITY_SYNCHRONIZER"


async def load_relays(config: SynchronizerConfig, db: BigBrotr) -> Sequence[Relay]:
    """The relays of the priority file, which the archive gets to know with this."""
    relays = await fetch_relays_from_file(
        str(config.priority_relays_path), allow_private=config.allow_private_relays
    )
    await db.insert_relay_batch(relays, int(time.time()))
    return relays


def build(config: SynchronizerConfig) -> SynchronizerService:
    """The service with its settings."""
    return SynchronizerService(NAME, config, partial(load_relays, config), live=True)


if __name__ == "__main__":
    sys.exit(main(NAME, load_priority_synchronizer_config, build))
