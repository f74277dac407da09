"""The priority synchronizer as the program that it is, over relays of the benchmark."""

import sys
from collections.abc import Sequence

from bench.processes import ROOT
from bench.settings import scratch
from bench.stage import CAP
from components.databases import Database
from components.services import environment

COMMAND = [sys.executable, str(ROOT / "src" / "priority_synchronizer.py"), "--once"]


def environment_for(
    database: Database, urls: Sequence[str], since: int, until: int, **more: object
) -> dict[str, str]:
    """Its environment: these relays, this window, everything else as it is by default."""
    listed = scratch(f"{database.dbname}-relays.txt")
    listed.write_text("".join(f"{url}\n" for url in urls))
    return environment(
        database,
        **{
            "PRIORITY_SYNCHRONIZER_START_TIMESTAMP": since,
            "PRIORITY_SYNCHRONIZER_STOP_TIMESTAMP": until,
            "PRIORITY_SYNCHRONIZER_BATCH_SIZE": CAP,
            "PRIORITY_SYNCHRONIZER_NUM_CORES": 2,
            "SYNCHRONIZER_PRIORITY_RELAYS_PATH": listed,
            **more,
        },
    )
