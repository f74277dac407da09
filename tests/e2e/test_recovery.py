"""Crashes in mid-synchronization: nothing committed is lost, nothing is skipped or claimed.

The programs are real processes, killed without warning. After every blow the ledger is held
against the relay's own list of events: no second is claimed whose events are not archived.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.services import Program, environment, run, running
from components.sessions import archived, true_ids, unproven
from scripted_relay import ScriptedRelay, make_events
from sync.windows import Window

START = 1_700_000_000
TARGET = Window(START, START + 2_000)
SERVICE = "priority_synchronizer"


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    """Slow enough to be interrupted: some 3 ms an event."""
    async with ScriptedRelay(make_events(1_500), cap=50, delay=0.002) as running_relay:
        yield running_relay


def settings(database: Database, relay: ScriptedRelay, folder: Path) -> dict[str, str]:
    listed = folder / "relays.txt"
    listed.write_text(f"{relay.url.url}\n")
    return environment(
        database,
        SYNCHRONIZER_NUM_CORES=1,
        SYNCHRONIZER_REQUEST_TIMEOUT=5,
        SYNCHRONIZER_START_TIMESTAMP=TARGET.since,
        SYNCHRONIZER_STOP_TIMESTAMP=TARGET.until,
        SYNCHRONIZER_LOOP_INTERVAL_MINUTES=0.02,
        SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed,
    )


async def some_events(db: BigBrotr, relay: ScriptedRelay, at_least: int = 300) -> None:
    """Wait until the synchronization is well on its way."""
    async with asyncio.timeout(40):
        while len(await archived(db, relay.url.url)) < at_least:
            await asyncio.sleep(0.05)


async def no_false_claim(db: BigBrotr, relay: ScriptedRelay) -> None:
    left = await unproven(db, relay.url.url, TARGET)
    have = await archived(db, relay.url.url)
    for event in relay.events:
        if event["id"] not in have:
            assert any(w.since <= event["created_at"] <= w.until for w in left)


async def everything(db: BigBrotr, relay: ScriptedRelay) -> None:
    """All archived, all proven, nothing double."""
    async with asyncio.timeout(60):
        while await unproven(db, relay.url.url, TARGET):
            await asyncio.sleep(0.1)
    assert await archived(db, relay.url.url) == true_ids(relay.events)
    rows = await db.fetch("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events")
    assert rows[0]["n"] == rows[0]["ids"] == len(relay.events)


async def workers_of(program: Program) -> list[int]:
    async with asyncio.timeout(20):
        while not (workers := await program.children()):
            await asyncio.sleep(0.05)
    return workers


async def test_a_killed_worker_is_replaced(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    async with running(SERVICE, settings(database, relay, tmp_path)) as program:
        await some_events(db, relay)
        os.kill((await workers_of(program))[0], signal.SIGKILL)
        await program.says("worker_died")
        await no_false_claim(db, relay)
        await everything(db, relay)


async def test_a_killed_parent_takes_its_workers_along_and_a_new_one_goes_on(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    env = settings(database, relay, tmp_path)
    async with running(SERVICE, env) as program:
        await some_events(db, relay)
        workers = await workers_of(program)
        program.kill()
        async with asyncio.timeout(10):
            while any(Path(f"/proc/{pid}").exists() for pid in workers):
                await asyncio.sleep(0.05)
    await no_false_claim(db, relay)
    before = len(await archived(db, relay.url.url))
    assert 0 < before < len(relay.events)

    code, output = await run(SERVICE, env, "--once")
    assert code == 0
    assert "not_due=1" in output, "the dead owner's lease still holds"
    # Time passes: the lease ends, and the relay is taken over.
    await db.execute("UPDATE relay_tasks SET lease_expires_at = 0")
    asked = len(relay.requests)
    code, output = await run(SERVICE, env, "--once")
    assert code == 0, output
    await everything(db, relay)
    assert len(relay.requests) - asked < 45, "what was proven is not fetched again"


async def test_killed_database_backends_only_delay(
    db: BigBrotr, database: Database, relay: ScriptedRelay, cluster: Cluster, tmp_path: Path
) -> None:
    async with running(SERVICE, settings(database, relay, tmp_path)):
        for blow in range(3):
            await some_events(db, relay, 200 + 300 * blow)
            cluster.administer(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{database.dbname}' AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.2)
        await everything(db, relay)


async def test_sigterm_commits_gives_the_lease_back_and_ends_in_time(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    async with running(SERVICE, settings(database, relay, tmp_path)) as program:
        await some_events(db, relay)
        program.process.send_signal(signal.SIGTERM)
        assert await program.ends(timeout=10) == 0
    await no_false_claim(db, relay)
    held = await db.fetch("SELECT relay_url FROM relay_tasks WHERE owner IS NOT NULL")
    assert held == []
    code, output = await run(SERVICE, settings(database, relay, tmp_path), "--once")
    assert code == 0, output
    await everything(db, relay)


async def test_two_synchronizers_never_share_a_relay(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    env = settings(database, relay, tmp_path)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, relay.connections)
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    async with running(SERVICE, env), running(SERVICE, env):
        await everything(db, relay)
    watching.cancel()
    assert most == 1
