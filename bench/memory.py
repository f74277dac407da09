"""Part "memory": resident memory of a synchronizer worker while events pass through it."""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.dataset import START, growing
from bench.figures import Figure, Point, Series
from bench.processes import ROOT, children, resident_megabytes
from bench.programs import COMMAND, environment_for
from bench.settings import Amounts, scratch
from bench.stage import events_file, relay, server
from bench.writing import connect_to
from components.databases import Cluster, Database
from sync.relay_model import LANES

_EVENTS_PER_RELAY, _SECONDS_PER_EVENT = 20_000, 60
_EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 600
_AT_ONCE = 10
# A page is given up at 16 MiB (sync.asker), and each lane of a relay may hold one.
_LARGE_MB = LANES * 16 * 2**20 / 1e6


def measure(amounts: Amounts) -> Point:
    """One worker, and relays that hold the same events: with one among them that sends without an
    end, then for a shorter while with one whose pages have 100 MB."""
    path = events_file("memory", growing(_EVENTS_PER_RELAY, _EVENTS_PER_RELAY * _SECONDS_PER_EVENT))
    number = amounts.memory_events // _EVENTS_PER_RELAY
    with server() as cluster, relay(path) as running:
        samples = _run(cluster, running.port, "endless", number)
        large = _run(cluster, running.port, "large", _AT_ONCE - 1)
        counts = asyncio.run(running.counts())
    # The first tenth is warm-up: imports, pools, the first pages.
    warm = samples[len(samples) // 10 :]
    first, second = (
        max(size for _, _, size in part)
        for part in (warm[: len(warm) // 2], warm[len(warm) // 2 :])
    )
    peak, large_peak = (max(size for _, _, size in part) for part in (samples, large))
    return Point(
        "memory",
        1,
        figures=(
            Figure(
                f"worker's memory over {number * _EVENTS_PER_RELAY:,} events",
                "MB",
                Series("second half", (second,)),
                Series("peak of the first half", (first,)),
                1.1,
            ),
            Figure(
                "the same beside a relay whose pages have 100 MB",
                "MB",
                Series("peak", (large_peak,)),
                Series(f"the peak without it and {LANES} pages of 16 MiB", (peak + _LARGE_MB,)),
                1.0,
            ),
        ),
        facts={
            "peak_mb": peak,
            "endless_events": counts.get("flooded", 0),
            "large_pages_mb": counts.get("large bytes", 0) / 1e6,
            "at_once": _AT_ONCE,
        },
        lines={
            "MB of a worker's resident memory by thousand events archived": [
                (round(events / 1_000), round(size, 1)) for _, events, size in samples
            ]
        },
    )


def _run(cluster: Cluster, port: int, odd: str, number: int) -> Sequence[tuple[float, int, float]]:
    """The worker's memory while so many relays are archived, and beside them the odd one."""
    base = f"ws://127.0.0.1:{port}"
    database = cluster.create_database()
    env = environment_for(
        database,
        # Relays are claimed by name: the odd one first, so that it is there all the time.
        [f"{base}/{odd}", *(f"{base}/relay-{name}" for name in range(number))],
        START,
        START + _EVENTS_PER_RELAY * _SECONDS_PER_EVENT,
        PRIORITY_SYNCHRONIZER_NUM_CORES=1,
        PRIORITY_SYNCHRONIZER_REQUESTS_PER_CORE=_AT_ONCE,
    )
    return asyncio.run(_watch(env, database, number * _EVENTS_PER_RELAY))


async def _watch(
    env: dict[str, str], database: Database, expected: int
) -> Sequence[tuple[float, int, float]]:
    """(seconds, sightings so far, megabytes of the worker) until all is archived."""
    samples: list[tuple[float, int, float]] = []
    log: Path = scratch("memory.log")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220
            COMMAND, env=env, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
    started = time.monotonic()
    try:
        async with connect_to(database, 1) as db:
            seen = 0
            while seen < expected:
                await asyncio.sleep(_EVERY_SECONDS)
                # The statistics are exact enough, and cost nothing to read.
                row = await db.fetchone(
                    "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'events_relays'"
                )
                seen = row["n_tup_ins"] if row else 0
                size = max(map(resident_megabytes, children(process.pid)), default=0.0)
                samples.append((time.monotonic() - started, seen, size))
                if process.poll() is not None or samples[-1][0] > _PATIENCE_SECONDS:
                    raise RuntimeError(f"{seen} of {expected} events:\n{log.read_text()[-4000:]}")
    finally:
        process.kill()
        process.wait()
    return samples
