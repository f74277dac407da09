"""Part "archive": two relays into the full schema through PgBouncer, beside BigBrotr 6.6.9."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.dataset import START, growing
from bench.figures import Figure, Point, Series
from bench.peers import stream_with_bigbrotr
from bench.processes import run_program, tree_cpu
from bench.programs import COMMAND, environment_for
from bench.settings import Amounts
from bench.stage import CAP, BenchRelay, events_file, relay, server
from bench.writing import connect_to
from components.databases import Cluster

_SECONDS_PER_EVENT = 60
_NEAR_MS, _FAR_MS = 1, 300
_GOAL_EVENTS = 100_000  # of fewer, opening a far connection is the larger part


@dataclass(slots=True)
class Runs:
    """What each run of the synchronizer cost, in seconds, and its events a second."""

    rates: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    synchronizer: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    pooler: list[float] = field(default_factory=list)
    relays: list[float] = field(default_factory=list)


def measure(amounts: Amounts) -> Point:
    """Ours to the end, with every event in the archive; the peer for a fixed time, in turn."""
    each = amounts.archive_events // 2
    until = START + each * _SECONDS_PER_EVENT
    ours, far, peer = Runs(), Runs(), Runs()
    with server() as cluster, ExitStack() as stack:
        relays = [
            stack.enter_context(relay(_file(name, each), rtts=(_NEAR_MS, _FAR_MS)))
            for name in ("archive-a", "archive-b")
        ]
        near_urls, far_urls = (
            [f"ws://127.0.0.1:{running.delayed[index]}" for running in relays] for index in (0, 1)
        )
        for _ in range(amounts.program_runs):
            archive(cluster, relays, near_urls, until, each * 2, ours)
            found = stream_with_bigbrotr(near_urls, START, until, CAP, amounts.peer_seconds)
            peer.rates.append(found["events"] / found["wall"])
            peer.synchronizer.append(found["cpu"] / found["events"])
            archive(cluster, relays, far_urls, until, each * 2, far)
    total = each * 2
    rate = Series("archived, all indexes", tuple(ours.rates))
    cost = Series("ours, events written", tuple(cpu / total * 1e6 for cpu in ours.synchronizer))
    return Point(
        "archive",
        amounts.program_runs,
        figures=(
            Figure(
                "two relays, cap 500, end to end",
                "events/s",
                rate,
                Series("BigBrotr 6.6.9, fetch and check alone", tuple(peer.rates)),
                6,
                at_least=True,
            ),
            Figure(
                "client CPU of that",
                "µs/event",
                cost,
                Series("BigBrotr 6.6.9", tuple(cpu * 1e6 for cpu in peer.synchronizer)),
            ),
            Figure(
                f"the rate at {_FAR_MS} ms round trip",
                "events/s",
                Series(f"{_FAR_MS} ms", tuple(far.rates)),
                Series(f"{_NEAR_MS} ms", tuple(ours.rates)),
                0.7 if total >= _GOAL_EVENTS else None,
                at_least=True,
            ),
        ),
        facts={
            "events": total,
            "rate": rate.value,
            "client_us": cost.value,
            "server_us": Series("", tuple(ours.server)).value / total * 1e6,
            "pooler_us": Series("", tuple(ours.pooler)).value / total * 1e6,
        },
        bars={
            "events a second from two relays": {
                "BigBrotr, archived": rate.value,
                "BigBrotr 6.6.9, checked only": Series("", tuple(peer.rates)).value,
            }
        },
        cpu={
            f"archive, {name}": Series(name, tuple(getattr(ours, name))).value
            for name in ("synchronizer", "server", "pooler", "relays", "wall")
        },
        notes=(
            f"Both sides reach the relays through a TCP proxy with a round trip of {_NEAR_MS} ms.",
            f"BigBrotr 6.6.9 is stopped after {amounts.peer_seconds:g} s a run; its rate is what "
            "it yielded until then. It writes nothing.",
            "Our rate is that of the whole program: start, workers, and the end of its cycle.",
        ),
    )


def archive(
    cluster: Cluster,
    relays: Sequence[BenchRelay],
    urls: Sequence[str],
    until: int,
    expected: int,
    runs: Runs,
) -> None:
    """One run of the priority synchronizer into a fresh database.

    Raises RuntimeError when it does not archive every event.
    """
    database = cluster.create_database()
    cluster.administer("CHECKPOINT")
    pids = {
        "server": [cluster.postgres.child.process.pid],
        "pooler": [cluster.pgbouncer.child.process.pid],
        "relays": [running.pid for running in relays],
    }
    try:
        before = {name: sum(map(tree_cpu, found)) for name, found in pids.items()}
        ran = run_program(COMMAND, environment_for(database, urls, START, until))
        for name, found in pids.items():
            getattr(runs, name).append(sum(map(tree_cpu, found)) - before[name])

        async def count() -> int:
            async with connect_to(database) as db:
                return int((await db.fetch("SELECT count(*) FROM events_relays"))[0][0])

        if (stored := asyncio.run(count())) != expected:
            raise RuntimeError(f"{stored} of {expected} events archived:\n{ran.output}")
    finally:
        cluster.drop_database(database.dbname)
    runs.rates.append(expected / ran.wall)
    runs.wall.append(ran.wall)
    runs.synchronizer.append(ran.cpu)


def _file(name: str, number: int) -> Path:
    seed = {"archive-a": 2, "archive-b": 3}[name]
    return events_file(name, growing(number, number * _SECONDS_PER_EVENT, seed))
