"""How much is measured: everything, or what fits into three minutes."""

from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT

# Ignored by git; `make clean` leaves it.
CACHE = ROOT / ".run" / "bench"


@dataclass(frozen=True, slots=True)
class Amounts:
    """Events and runs of each part."""

    runs: int = 5
    program_runs: int = 5  # of parts that run a whole service
    check_events: int = 10_000
    write_events: int = 20_000
    gather_seconds: float = 6.0
    request_events: int = 60_000
    archive_events: int = 100_000
    peer_seconds: float = 20.0
    memory_events: int = 1_000_000
    growth: tuple[int, ...] = (100_000, 1_000_000, 3_000_000)
    growth_events: int = 20_000  # a round
    monitor_relays: int = 5_000
    history_relays: int = 10_000
    history_rounds: int = 16


QUICK = Amounts(
    runs=3,
    program_runs=1,
    check_events=3_000,
    write_events=5_000,
    gather_seconds=2.0,
    request_events=20_000,
    archive_events=20_000,
    peer_seconds=5.0,
    memory_events=200_000,
    growth=(20_000, 100_000),
    growth_events=2_000,
    monitor_relays=300,
    history_relays=1_000,
    history_rounds=8,
)


def scratch(name: str) -> Path:
    """A path in the cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / name
