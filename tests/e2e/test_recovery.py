"""Crashes in mid-synchronization: nothing committed is lost, nothing is skipped or claimed.

The programs are real processes, killed without warning. After every blow the ledger is held
against the relay's own list of events: no second is claimed whose events are not archived.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.archiving import (
    SERVICE,
    ended,
    everything,
    no_false_claim,
    settings,
    some_events,
    workers_of,
)
from components.databases import Cluster, Database
from components.services import environment, run, running
from components.sessions import archived
from scripted_relay import ScriptedRelay, make_events
from standalone.processes import free_port


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    """Slow enough to be interrupted: some 3 ms an event."""
    async with ScriptedRelay(make_events(1_500), cap=50, delay=0.002) as running_relay:
        yield running_relay


async def test_a_killed_worker_is_replaced(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    async with running(SERVICE, settings(database, [relay.url.url], tmp_path)) as program:
        await some_events(db, relay.url.url)
        os.kill((await workers_of(program))[0], signal.SIGKILL)
        await program.says("worker_died")
        await no_false_claim(db, relay.url.url, relay.events)
        await everything(db, relay)


async def test_a_killed_parent_takes_its_workers_along_and_a_new_one_goes_on(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    env = settings(database, [relay.url.url], tmp_path)
    async with running(SERVICE, env) as program:
        await some_events(db, relay.url.url)
        workers = await workers_of(program)
        program.kill()
        await ended(workers)
    await no_false_claim(db, relay.url.url, relay.events)
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
    async with running(SERVICE, settings(database, [relay.url.url], tmp_path)):
        for blow in range(3):
            await some_events(db, relay.url.url, 200 + 300 * blow)
            cluster.administer(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{database.dbname}' AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.2)
        await everything(db, relay)


async def test_sigterm_commits_gives_the_lease_back_and_ends_in_time(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    async with running(SERVICE, settings(database, [relay.url.url], tmp_path)) as program:
        await some_events(db, relay.url.url)
        program.process.send_signal(signal.SIGTERM)
        assert await program.ends(timeout=10) == 0
    await no_false_claim(db, relay.url.url, relay.events)
    held = await db.fetch("SELECT relay_url FROM relay_tasks WHERE owner IS NOT NULL")
    assert held == []
    code, output = await run(SERVICE, settings(database, [relay.url.url], tmp_path), "--once")
    assert code == 0, output
    await everything(db, relay)


async def test_two_synchronizers_never_share_a_relay(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    env = settings(database, [relay.url.url], tmp_path)
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


async def test_a_dead_server_is_not_tried_for_each_of_its_paths(
    db: BigBrotr, database: Database, tmp_path: Path
) -> None:
    port = free_port()
    listed = tmp_path / "relays.txt"
    listed.write_text("\n".join(f"ws://127.0.0.1:{port}/{path}" for path in "abcdef"))
    env = environment(
        database,
        SYNCHRONIZER_NUM_CORES=1,
        SYNCHRONIZER_REQUESTS_PER_CORE=1,
        SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed,
    )
    code, output = await run(SERVICE, env, "--once")
    assert code == 0, output
    assert "server_resting=5" in output
    rows = await db.fetch("SELECT failures, not_before, last_outcome FROM relay_tasks")
    tried = [row for row in rows if row["failures"]]
    assert [row["last_outcome"] for row in tried] == ["connect-refused"]
    assert tried[0]["not_before"] > time.time() + 60, "the pause is kept for the next cycles"
