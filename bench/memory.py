"""Part "memory": resident memory of a synchronizer worker while events pass through it."""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.dataset import START, growing
from bench.figures import Figure, Point, Series
from bench.processes import ROOT, children, resident_megabytes
from bench.programs import COMMAND, environment_for
from bench.settings import Amounts, scratch
from bench.stage import events_file, relay, server
from bench.writing import connect_to
from components.databases import Database

_EVENTS_PER_RELAY, _SECONDS_PER_EVENT = 20_000, 60
_EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 600
_AT_ONCE = 10


def measure(amounts: Amounts) -> Point:
    """One worker; relays that hold the same events, one that sends without an end, and one whose
    pages have 100 MB."""
    until = START + _EVENTS_PER_RELAY * _SECONDS_PER_EVENT
    path = events_file("memory", growing(_EVENTS_PER_RELAY, _EVENTS_PER_RELAY * _SECONDS_PER_EVENT))
    number = amounts.memory_events // _EVENTS_PER_RELAY
    with server() as cluster, ExitStack() as stack:
        running = stack.enter_context(relay(path))
        base = f"ws://127.0.0.1:{running.port}"
        urls = [f"{base}/endless", f"{base}/large", *(f"{base}/{name}" for name in range(number))]
        database = cluster.create_database()
        env = environment_for(
            database,
            urls,
            START,
            until,
            PRIORITY_SYNCHRONIZER_NUM_CORES=1,
            PRIORITY_SYNCHRONIZER_REQUESTS_PER_CORE=_AT_ONCE,
        )
        samples = asyncio.run(_watch(env, database, number * _EVENTS_PER_RELAY))
        counts = asyncio.run(running.counts())
    # The first tenth is warm-up: imports, pools, the first pages.
    warm = samples[len(samples) // 10 :]
    first, second = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    peaks = [max(size for _, _, size in part) for part in (first, second)]
    return Point(
        "memory",
        1,
        figures=(
            Figure(
                f"worker's memory over {number * _EVENTS_PER_RELAY:,} events",
                "MB",
                Series("second half", (peaks[1],)),
                Series("peak of the first half", (peaks[0],)),
                1.1,
            ),
        ),
        facts={
            "peak_mb": max(size for _, _, size in samples),
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
