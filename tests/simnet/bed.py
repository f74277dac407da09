"""Running batches of simulated relays against the real service program."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from components.databases import Cluster, Database
from components.services import environment, running
from simnet.events import TARGET
from simnet.faults import Reading
from simnet.networks import Plan
from simnet.relay import HostileRelay
from simnet.truth import Archive, Verdict, check_economy, compare, read_archive

SERVICE = "priority_synchronizer"
PAGE = 500
_CYCLES = 12
_PATIENCE = 3  # cycles for a relay that cannot be read
# Seconds without a message; what is silent on purpose costs twice as long a cycle.
_IDLE_TIMEOUT = 1.5
_LONGEST_CYCLE = 400.0
_KEY = "0000000000000000000000000000000000000000000000000000000000000003"
_PUBLIC_KEY = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"


@dataclass
class Batch:
    """Relays that one database and one service run share."""

    plans: Sequence[Plan]
    first_host: int = 1
    relays: list[HostileRelay] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    cycles: int = 0
    seconds: float = 0.0


async def run_batch(cluster: Cluster, batch: Batch) -> Batch:
    """Synchronize the batch, cycle by cycle, until nothing more can come; then judge it."""
    started = time.monotonic()
    database = await asyncio.to_thread(cluster.create_database)
    try:
        async with AsyncExitStack() as stack:
            for number, plan in enumerate(batch.plans):
                relay = HostileRelay(
                    plan.events, host=_host(batch.first_host + number), **plan.knobs
                )
                batch.relays.append(await stack.enter_async_context(relay))
            with tempfile.TemporaryDirectory(prefix="simnet-") as folder:
                await _synchronize(cluster, database, batch, Path(folder))
    finally:
        await asyncio.to_thread(cluster.drop_database, database.dbname)
    batch.seconds = time.monotonic() - started
    return batch


async def _synchronize(cluster: Cluster, database: Database, batch: Batch, folder: Path) -> None:
    listed = folder / "relays.txt"
    env = _environment(database, listed, len(batch.plans))
    waiting = list(zip(batch.plans, batch.relays, strict=True))
    archives: dict[str, Archive] = {}
    connection = await cluster.connect(database.dbname)
    try:
        while waiting and batch.cycles < _CYCLES:
            listed.write_text("".join(f"{relay.url.url}\n" for _, relay in waiting))
            async with running(SERVICE, env, "--once") as program:
                code = await program.ends(_LONGEST_CYCLE)
            batch.output.append(program.output)
            if code != 0:
                raise RuntimeError(f"{SERVICE} ended with {code}:\n{program.output}")
            batch.cycles += 1
            for _, relay in waiting:
                archives[relay.url.url] = await read_archive(connection, relay.url.url)
            waiting = [
                (plan, relay)
                for plan, relay in waiting
                if not _is_settled(plan, archives[relay.url.url], batch.cycles)
            ]
            # Time passes.
            await connection.execute("UPDATE relay_tasks SET not_before = 0")
            for relay in batch.relays:
                relay.time_passes()
    finally:
        await connection.close()
    for plan, relay in zip(batch.plans, batch.relays, strict=True):
        verdict = compare(plan, relay, archives[relay.url.url])
        if plan.quick:
            check_economy(verdict, relay, min(PAGE, plan.knobs["cap"]))
        batch.verdicts.append(verdict)


def _is_settled(plan: Plan, archive: Archive, cycles: int) -> bool:
    if plan.reading is Reading.UNREADABLE:
        return cycles >= _PATIENCE or not archive.unproven()
    return not archive.unproven() and archive.outcome in ("complete", "gaps")


def _environment(database: Database, listed: Path, relays: int) -> dict[str, str]:
    return environment(
        database,
        SYNCHRONIZER_NUM_CORES=1,
        SYNCHRONIZER_REQUESTS_PER_CORE=max(10, relays),
        SYNCHRONIZER_REQUEST_TIMEOUT=_IDLE_TIMEOUT,
        SYNCHRONIZER_START_TIMESTAMP=TARGET[0],
        SYNCHRONIZER_STOP_TIMESTAMP=TARGET[1],
        SYNCHRONIZER_BATCH_SIZE=PAGE,
        SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed,
        SECRET_KEY=_KEY,
        PUBLIC_KEY=_PUBLIC_KEY,
    )


def _host(number: int) -> str:
    """An address of its own: a service asks but a few relays of one host at a time."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


async def run_batches(
    cluster: Cluster,
    batches: Sequence[Batch],
    at_once: int,
    tell: Callable[[Batch], None] = lambda batch: None,
) -> list[Verdict]:
    """All batches, a few at a time; `tell` hears of each when it is done."""
    turns = asyncio.Semaphore(at_once)

    async def work(batch: Batch) -> None:
        async with turns:
            await run_batch(cluster, batch)
            tell(batch)

    async with asyncio.TaskGroup() as group:
        for batch in batches:
            group.create_task(work(batch))
    return [verdict for batch in batches for verdict in batch.verdicts]


def batches_of(plans: Sequence[Plan], size: int) -> list[Batch]:
    """The plans in batches; each relay has an address of its own."""
    starts = range(0, len(plans), size)
    return [Batch(plans[start : start + size], first_host=start) for start in starts]
