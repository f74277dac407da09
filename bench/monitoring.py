"""Part "monitor": a cycle over relays of which 70 % are dead in every way, beside the ideal one."""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from bench.dataset import steady
from bench.figures import Figure, Point, Series
from bench.processes import ROOT, Ran, run_program
from bench.settings import Amounts, scratch
from bench.stage import events_file, relay, server
from bench.strangers import KINDS
from bench.writing import connect_to
from components.databases import Cluster, Database
from components.services import environment
from nostr.connection import Dialer
from nostr.probe import probe
from nostr.urls import RelayUrl, to_relay
from standalone.processes import accepts_connections, free_port, start, wait_until

COMMAND = [sys.executable, str(ROOT / "src" / "monitor.py"), "--once"]
CORES, EACH, TIMEOUT = 2, 100, 5.0
_ALIVE = 0.3
_GOAL_RELAYS = 5_000  # of fewer, the start of the program is the larger part


def measure(amounts: Amounts) -> Point:
    """Cycles of the monitor; before them, one check of each kind alone."""
    with server() as cluster, ExitStack() as stack:
        running = stack.enter_context(relay(events_file("steady", steady(1_000))))
        ports = {
            "alive": running.port,
            "refused": free_port(),
            **stack.enter_context(_strangers()),
        }
        alone = {kind: asyncio.run(_alone(port)) for kind, port in ports.items()}
        number = shares(amounts.monitor_relays, list(ports))
        runs = [_cycle(cluster, number, ports) for _ in range(amounts.program_runs)]
    waiting = ideal(number, alone, CORES * EACH)
    checked = sum(number.values())
    wall, cpu = (
        Series("", tuple(ran.wall for ran in runs)),
        Series("", tuple(ran.cpu for ran in runs)),
    )
    return Point(
        "monitor",
        amounts.program_runs,
        figures=(
            Figure(
                f"a cycle over {checked:,} relays, 70 % of them dead",
                "s",
                replace(wall, name="the program, start included"),
                Series(
                    "ideal: waiting or CPU",
                    tuple(max(waiting, used / CORES) for used in cpu.values),
                ),
                1.2 if checked >= _GOAL_RELAYS else None,
            ),
        ),
        facts={
            "relays": checked,
            "ideal_waiting_s": waiting,
            "cpu_ms_per_check": cpu.value / checked * 1e3,
            **{f"one_check_alone_{kind}_s": seconds for kind, seconds in alone.items()},
        },
        cpu={"monitor, workers included": cpu.value, "monitor, wall": wall.value},
        notes=(
            f"{CORES} processes of {EACH} checks at once, timeout {TIMEOUT:g} s. The ideal is the "
            "larger of: what the checks take alone, by kind, divided by the checks at once; and "
            "the CPU that they took, divided by the cores.",
        ),
    )


def _cycle(cluster: Cluster, number: Mapping[str, int], ports: Mapping[str, int]) -> Ran:
    """A cycle over an archive that knows the relays, but nothing of them.

    Raises RuntimeError when it does not check every relay, or mistakes a dead one for alive.
    """
    database = cluster.create_database()
    asyncio.run(_list(database, number, ports))
    env = environment(
        database,
        MONITOR_NUM_CORES=CORES,
        MONITOR_REQUESTS_PER_CORE=EACH,
        MONITOR_CHECKS_PER_HOST=CORES * EACH,  # all are at one address
        MONITOR_REQUEST_TIMEOUT=TIMEOUT,
    )
    ran = run_program(COMMAND, env)
    checked, opened = asyncio.run(_found(database))
    if checked != sum(number.values()) or opened != number["alive"]:
        raise RuntimeError(f"{checked} relays checked, {opened} open:\n{ran.output[-4000:]}")
    return ran


def shares(relays: int, kinds: list[str]) -> dict[str, int]:
    """How many relays of each kind: 30 % alive (the first kind), the others equally (pure)."""
    dead = round(relays * (1 - _ALIVE)) // (len(kinds) - 1)
    return {kinds[0]: relays - dead * (len(kinds) - 1), **dict.fromkeys(kinds[1:], dead)}


def ideal(number: Mapping[str, int], alone: Mapping[str, float], at_once: int) -> float:
    """Seconds for all checks when as many as allowed always run; no fewer than the longest takes
    (pure)."""
    together = sum(number[kind] * alone[kind] for kind in number) / at_once
    return max(together, *(alone[kind] for kind in number))


@contextmanager
def _strangers() -> Iterator[dict[str, int]]:
    ports = [free_port() for _ in KINDS]
    command = [sys.executable, "-m", "bench.strangers", *map(str, ports)]
    child = start("strangers", command, scratch("strangers.log"), cwd=ROOT)
    try:
        if not wait_until(partial(accepts_connections, ports[-1]), child, 30):
            raise RuntimeError(f"the endpoints do not start:\n{child.tail()}")
        yield {talk.__name__: port for talk, port in zip(KINDS, ports, strict=True)}
    finally:
        child.stop(2)


def _url(port: int, path: str) -> RelayUrl:
    return RelayUrl.parse(f"wss://127.0.0.1:{port}/{path}", allow_private=True)


async def _alone(port: int) -> float:
    dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=TIMEOUT)
    started = time.monotonic()
    await probe(_url(port, "alone"), dialer, timeout=TIMEOUT, keypair=None, now=int(time.time()))
    return time.monotonic() - started


async def _list(database: Database, number: Mapping[str, int], ports: Mapping[str, int]) -> None:
    urls = [_url(ports[kind], str(n)) for kind, many in number.items() for n in range(many)]
    async with connect_to(database) as db:
        await db.insert_relay_batch([to_relay(url) for url in urls], int(time.time()))


async def _found(database: Database) -> tuple[int, int]:
    async with connect_to(database) as db:
        row = await db.fetchone(
            "SELECT count(*) AS checked, count(*) FILTER (WHERE n.openable) AS opened "
            "FROM relay_metadata m LEFT JOIN nip66 n ON n.id = m.nip66_id"
        )
    assert row is not None
    return row["checked"], row["opened"]
