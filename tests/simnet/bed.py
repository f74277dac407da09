"""Running batches of simulated relays against the real service program."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bigbrotr import BigBrotr
from components.checks import insert_check
from components.databases import Cluster, Database
from components.services import environment, running
from nostr.urls import to_relay
from simnet.drafts import Reading
from simnet.events import TARGET
from simnet.networks import Plan
from simnet.relay import HostileRelay
from simnet.truth import Verdict, check_economy, compare, read_archive, was_looked_at_again

# Of one kind, but for where their relays come from: the priority file, or the monitor's table.
SERVICES = ("priority_synchronizer", "synchronizer")
PAGE = 500
_CYCLES = 12
_PATIENCE = 2  # cycles for a relay that cannot be read
_LOOKS = 3  # cycles in which a round of re-verification must succeed
# Seconds without a message; what is silent on purpose costs twice as long a cycle.
_IDLE_TIMEOUT = 3.0
_LONGEST_CYCLE = 400.0
_SHORTEST_PAUSE = 60  # seconds; the services say 150 at least
_KEY = "0000000000000000000000000000000000000000000000000000000000000003"
_PUBLIC_KEY = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"

Pair = tuple[Plan, HostileRelay]


@dataclass
class Batch:
    """Relays that one database and one service run share. `first_host` gives each relay an
    address of its own, for a service asks but a few relays of one host at a time. `monitored`:
    by the real monitor, which then decides what the synchronizer reads; else the bed says that all
    can be read. `patient` are relays that took many cycles."""

    plans: Sequence[Plan]
    first_host: int = 0
    service: str = SERVICES[0]
    monitored: bool = False
    verdicts: list[Verdict] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    patient: list[str] = field(default_factory=list)
    seconds: float = 0.0


class _Run:
    """A batch being synchronized."""

    def __init__(
        self,
        batch: Batch,
        database: Database,
        connection: asyncpg.Connection,
        relays: Sequence[HostileRelay],
        listed: Path,
    ) -> None:
        self._batch = batch
        self._database = database
        self._connection = connection
        self._pairs = list(zip(batch.plans, relays, strict=True))
        self._listed = listed

    async def synchronize(self) -> None:
        """Cycle after cycle, until nothing more can come; late events after that."""
        await self._monitor()
        waiting = self._pairs
        for cycle in range(1, _CYCLES + 1):
            await self._cycle(waiting)
            if cycle == 1:
                await self._start_again()
            waiting = [pair for pair in waiting if not await self._is_settled(*pair, cycle)]
            await self._pass_time()
            if not waiting:
                break
            if cycle == _CYCLES // 2:
                self._batch.patient = [plan.describe() for plan, _ in waiting]
        await self._look_again()

    async def judge(self) -> list[Verdict]:
        verdicts = []
        for plan, relay in self._pairs:
            verdict = compare(plan, relay, await read_archive(self._connection, relay.url.url))
            if plan.quick:
                check_economy(verdict, relay, min(PAGE, plan.knobs["cap"]))
            verdicts.append(verdict)
        return verdicts

    async def _cycle(self, pairs: Sequence[Pair]) -> None:
        service = self._batch.service
        wanted = [relay.url.url for _, relay in pairs]
        if service == "synchronizer":  # which leaves the priority relays alone
            wanted = [relay.url.url for plan, relay in self._pairs if (plan, relay) not in pairs]
        self._listed.write_text("".join(f"{url}\n" for url in wanted))
        await self._run(service)
        for plan, relay in pairs:
            archive = await read_archive(self._connection, relay.url.url)
            if archive.leased:
                relay.complaints.append(f"no end of its session in {_LONGEST_CYCLE:.0f} s")
            if archive.must_rest and archive.pause < _SHORTEST_PAUSE:
                relay.complaints.append(f"no pause after {archive.outcome!r}")
            if Reading.UNREADABLE in plan.reading:
                relay.outcomes.add(archive.outcome)

    async def _start_again(self) -> None:
        """A service that was started again keeps to the pauses of the one before it."""
        resting = [
            (pair, pair[1].connected)
            for pair in self._pairs
            if (await read_archive(self._connection, pair[1].url.url)).rests
        ]
        if not resting:
            return
        await self._cycle([pair for pair, _ in resting])
        for (_, relay), connected in resting:
            if relay.connected > connected:
                relay.complaints.append("its pause was forgotten when the service started again")

    async def _pass_time(self) -> None:
        await self._connection.execute(
            "UPDATE relay_tasks SET not_before = 0, owner = NULL, lease_expires_at = NULL"
        )
        for _, relay in self._pairs:
            await relay.time_passes()

    async def _is_settled(self, plan: Plan, relay: HostileRelay, cycles: int) -> bool:
        archive = await read_archive(self._connection, relay.url.url)
        if Reading.UNREADABLE in plan.reading:
            return cycles >= _PATIENCE or not archive.unproven()
        return not archive.unproven() and archive.outcome in ("complete", "gaps")

    async def _look_again(self) -> None:
        """Weeks later: what appeared in seconds that had been read is found."""
        waiting = [
            (plan, relay)
            for plan, relay in self._pairs
            if plan.looked_at_again and not plan.reading
        ]
        for _, relay in waiting:
            relay.looked_again_from = len(relay.asked)
            relay.sent_before = relay.events_sent
        for _ in range(_LOOKS if waiting else 0):
            await self._connection.execute(
                "UPDATE sync_coverage SET verified_at = verified_at - 100 * 86400"
                " WHERE relay_url = ANY ($1::text[]) AND rounds = 0",
                [relay.url.url for _, relay in waiting],
            )
            await self._cycle(waiting)
            await self._pass_time()
            waiting = [
                pair
                for pair in waiting
                if not await was_looked_at_again(self._connection, pair[1].url.url)
            ]
            if not waiting:
                break

    async def _monitor(self) -> None:
        """Checks of the relays: NIP-11 documents, and for the synchronizer what can be read."""
        database = self._database
        readable = self._batch.service == "synchronizer"
        relays = [relay for _, relay in self._pairs]
        async with BigBrotr(
            database.host,
            database.port,
            database.writer_user,
            database.writer_password,
            database.dbname,
        ) as db:
            if self._batch.monitored:
                await db.insert_relay_batch([to_relay(relay.url) for relay in relays], 1)
                await self._run("monitor")
                for relay in relays:
                    relay.forget()
                return
            for relay in relays:
                if readable or relay.nip11 is not None:
                    await insert_check(db, relay.url, readable=readable, nip11=relay.nip11)

    async def _run(self, service: str) -> None:
        """One cycle of a service, to its end or until it has taken far too long."""
        async with running(service, self._environment(), "--once") as program:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_CYCLE):
                    await program.process.wait()
        self._batch.output.append(program.output)
        ended = program.process.returncode
        if ended not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{service} ended with {ended}:\n{program.output}")

    def _environment(self) -> dict[str, str]:
        return environment(
            self._database,
            SYNCHRONIZER_NUM_CORES=1,
            SYNCHRONIZER_REQUESTS_PER_CORE=max(10, len(self._pairs)),
            SYNCHRONIZER_REQUEST_TIMEOUT=_IDLE_TIMEOUT,
            SYNCHRONIZER_START_TIMESTAMP=TARGET[0],
            SYNCHRONIZER_STOP_TIMESTAMP=TARGET[1],
            SYNCHRONIZER_BATCH_SIZE=PAGE,
            SYNCHRONIZER_REVERIFY_DAYS=1,
            SYNCHRONIZER_PRIORITY_RELAYS_PATH=self._listed,
            MONITOR_NUM_CORES=1,
            MONITOR_REQUESTS_PER_CORE=max(10, len(self._pairs)),
            MONITOR_REQUEST_TIMEOUT=_IDLE_TIMEOUT,
            SECRET_KEY=_KEY,
            PUBLIC_KEY=_PUBLIC_KEY,
        )


async def run_batch(cluster: Cluster, batch: Batch) -> Batch:
    """Synchronize the batch in a database of its own, and judge it."""
    started = time.monotonic()
    database = await asyncio.to_thread(cluster.create_database)
    try:
        async with AsyncExitStack() as stack:
            relays = [
                await stack.enter_async_context(
                    HostileRelay(plan.events, host=_host(number), **plan.knobs)
                )
                for number, plan in enumerate(batch.plans, batch.first_host)
            ]
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="simnet-"))
            connection = await cluster.connect(database.dbname)
            stack.push_async_callback(connection.close)
            run = _Run(batch, database, connection, relays, Path(folder) / "relays.txt")
            await run.synchronize()
            batch.verdicts = await run.judge()
    finally:
        await asyncio.to_thread(cluster.drop_database, database.dbname)
    batch.seconds = time.monotonic() - started
    return batch


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
            tell(await run_batch(cluster, batch))

    async with asyncio.TaskGroup() as group:
        for batch in batches:
            group.create_task(work(batch))
    return [verdict for batch in batches for verdict in batch.verdicts]


def batches_of(plans: Iterable[Plan], size: int) -> list[Batch]:
    """The plans in batches, which the two synchronizers take in turns."""
    given = list(plans)
    starts = range(0, len(given), size)
    return [
        Batch(given[start : start + size], start, SERVICES[number % len(SERVICES)])
        for number, start in enumerate(starts)
    ]


def _host(number: int) -> str:
    return f"127.0.{1 + number // 250}.{1 + number % 250}"
