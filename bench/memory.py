"""Part "memory": resident memory of a synchronizer worker while events pass through it."""

import asyncio
import subprocess
import time
from collections import defaultdict
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

_EVENTS_PER_RELAY, _SECONDS_PER_EVENT = 20_000, 60
_EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 600
_AT_ONCE = 10

# (seconds, sightings so far, megabytes of the worker)
_Samples = Sequence[tuple[float, int, float]]


def measure(amounts: Amounts) -> Point:
    """One worker, and relays that hold the same events, one of them sending without an end; then
    the same nine relays beside each sort of tenth: one like them, and the two odd ones."""
    path = events_file("memory", growing(_EVENTS_PER_RELAY, _EVENTS_PER_RELAY * _SECONDS_PER_EVENT))
    number = amounts.memory_events // _EVENTS_PER_RELAY
    runs, peaks = list[_Samples](), defaultdict[str, list[float]](list)
    with server() as cluster, relay(path) as running:
        for _ in range(amounts.program_runs):
            runs.append(_run(cluster, running.port, "endless", number))
            for tenth in ("ordinary", "endless", "large"):
                samples = _run(cluster, running.port, tenth, _AT_ONCE - 1)
                peaks[tenth].append(_peak(samples))
        counts = asyncio.run(running.counts())
    # The first tenth is warm-up: imports, pools, the first pages.
    warm = [samples[len(samples) // 10 :] for samples in runs]
    first = Series("peak of the first half", tuple(_peak(part[: len(part) // 2]) for part in warm))
    second = Series("second half", tuple(_peak(part[len(part) // 2 :]) for part in warm))
    beside = Series("beside ordinary ones", tuple(peaks["ordinary"]))
    return Point(
        "memory",
        amounts.program_runs,
        figures=(
            Figure(
                f"worker's memory over {number * _EVENTS_PER_RELAY:,} events",
                "MB",
                second,
                first,
                1.1,
            ),
            Figure(
                "its peak beside a relay that sends without an end",
                "MB",
                Series("peak", tuple(peaks["endless"])),
                beside,
                1.1,
            ),
            Figure(
                "its peak beside a relay whose pages have 100 MB",
                "MB",
                Series("peak", tuple(peaks["large"])),
                beside,
                1.1,
            ),
        ),
        facts={
            "peak_mb": max(map(_peak, runs)),
            "peak_beside_ordinary_mb": beside.value,
            "endless_events": counts.get("flooded", 0),
            "large_pages_mb": counts.get("large bytes", 0) / 1e6,
            "at_once": _AT_ONCE,
        },
        lines={
            "MB of a worker's resident memory by thousand events archived": [
                (round(events / 1_000), round(size, 1)) for _, events, size in runs[0]
            ]
        },
    )


def _peak(samples: _Samples) -> float:
    return max(size for _, _, size in samples)


def _run(cluster: Cluster, port: int, tenth: str, number: int) -> _Samples:
    """The worker's memory while so many relays are archived, and beside them the tenth one."""
    base = f"ws://127.0.0.1:{port}"
    database = cluster.create_database()
    env = environment_for(
        database,
        # Relays are claimed by name: the tenth one first, so that it is there all the time.
        [f"{base}/{tenth}", *(f"{base}/relay-{name}" for name in range(number))],
        START,
        START + _EVENTS_PER_RELAY * _SECONDS_PER_EVENT,
        PRIORITY_SYNCHRONIZER_NUM_CORES=1,
        PRIORITY_SYNCHRONIZER_REQUESTS_PER_CORE=_AT_ONCE,
    )
    try:
        return asyncio.run(_watch(env, database, number * _EVENTS_PER_RELAY))
    finally:
        cluster.drop_database(database.dbname)


async def _watch(env: dict[str, str], database: Database, expected: int) -> _Samples:
    """The worker's memory until all is archived."""
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
                if process.poll() == 0:
                    break  # all relays are done; the statistics are a little late
                if process.poll() is not None or samples[-1][0] > _PATIENCE_SECONDS:
                    raise RuntimeError(f"{seen} of {expected} events:\n{log.read_text()[-4000:]}")
    finally:
        process.kill()
        process.wait()
    return samples
