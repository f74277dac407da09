"""Faults of our own side: servers that restart, a full disk, networks that are cut.

Real programs against a real PostgreSQL that is as durable as on a server. After every blow the
ledger is held against the relay's own list of events; in the end nothing may be missing.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.archiving import (
    SERVICE,
    TARGET,
    ended,
    everything,
    no_false_claim,
    nothing_unforeseen,
    settings,
    some_events,
    time_passes,
    workers_of,
)
from components.checks import insert_check
from components.databases import DURABLE, Cluster, Database, start_cluster
from components.network import Wire
from components.services import Program, run, running
from components.sessions import archived
from errors import DatabaseUnavailable
from scripted_relay import ScriptedRelay, make_events
from standalone.processes import free_port, service_account


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Servers of our own, for they are ended and begun again."""
    own = start_cluster(DURABLE)
    yield own
    own.stop()


class Observer(BigBrotr):
    """Looks at the archive, waiting for it while it is away."""

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        async with asyncio.timeout(30):
            while True:
                try:
                    return await super().fetch(query, *args)
                except DatabaseUnavailable:
                    await asyncio.sleep(0.1)

    async def fetchone(self, query: str, *args: Any) -> asyncpg.Record | None:
        return next(iter(await self.fetch(query, *args)), None)


@pytest.fixture
async def db(database: Database) -> AsyncIterator[BigBrotr]:
    async with observer(database) as connected:
        yield connected


def observer(database: Database) -> Observer:
    return Observer(
        database.host,
        database.port,
        database.writer_user,
        database.writer_password,
        database.dbname,
        min_pool_size=1,
        max_pool_size=2,
    )


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    """Slow enough to be interrupted."""
    async with ScriptedRelay(make_events(1_500), cap=50, delay=0.002) as running_relay:
        yield running_relay


# The servers end and come back


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["fast", "crash"])
async def test_postgresql_restarts_in_mid_synchronization(
    how: signal.Signals,
    db: BigBrotr,
    database: Database,
    cluster: Cluster,
    relay: ScriptedRelay,
    tmp_path: Path,
) -> None:
    url = relay.url.url
    async with running(SERVICE, settings(database, [url], tmp_path)) as program:
        await some_events(db, url)
        have = await archived(db, url)
        cluster.end_postgres(how)
        await asyncio.sleep(0.5)
        cluster.begin_postgres()
        assert have <= await archived(db, url), "what was committed is there"
        await no_false_claim(db, url, relay.events)
        await everything(db, relay)
        nothing_unforeseen(program)


async def test_pgbouncer_restarts_in_mid_synchronization(
    db: BigBrotr,
    database: Database,
    cluster: Cluster,
    relay: ScriptedRelay,
    tmp_path: Path,
) -> None:
    url = relay.url.url
    async with running(SERVICE, settings(database, [url], tmp_path)) as program:
        await some_events(db, url)
        cluster.end_pgbouncer(signal.SIGTERM)
        await asyncio.sleep(1.0)
        cluster.begin_pgbouncer()
        await no_false_claim(db, url, relay.events)
        await everything(db, relay)
        nothing_unforeseen(program)


@pytest.mark.parametrize("service", ["priority_synchronizer", "synchronizer"])
async def test_every_process_killed_at_random_instants(
    service: str, db: BigBrotr, database: Database, cluster: Cluster, tmp_path: Path
) -> None:
    rng = random.Random(20)
    victims = ["worker", "backend", "pgbouncer", "parent", "worker", "backend"]
    rng.shuffle(victims)
    async with ScriptedRelay(make_events(1_800), cap=50, delay=0.01) as relay:
        url = relay.url.url
        await insert_check(db, relay.url)
        listed = [url] if service == SERVICE else []
        env = settings(database, listed, tmp_path, SYNCHRONIZER_LOOP_INTERVAL_MINUTES=0.005)
        todo = list(victims)
        while todo:
            async with running(service, env) as program:
                while todo:
                    await asked_again(relay)
                    await asyncio.sleep(rng.uniform(0, 0.5))
                    victim = todo.pop()
                    await strike(victim, program, database, cluster)
                    await no_false_claim(db, url, relay.events)
                    if victim == "parent":
                        break
                if not todo:
                    relay.delay = 0.0
                    await everything(db, relay)
                    nothing_unforeseen(program)
            # Only a parent's own leases outlive it.
            await time_passes(db)


async def asked_again(relay: ScriptedRelay) -> None:
    """Wait until a session is under way once more."""
    before = len(relay.requests)
    async with asyncio.timeout(20):
        while len(relay.requests) < before + 4:
            await asyncio.sleep(0.01)


async def strike(victim: str, program: Program, database: Database, cluster: Cluster) -> None:
    """Kill one of the processes, and begin again what nobody else would."""
    workers = await workers_of(program)
    if victim == "worker":
        os.kill(workers[0], signal.SIGKILL)
    elif victim == "parent":
        program.kill()
        await ended(workers)
    elif victim == "backend":
        # PostgreSQL ends all its processes and recovers.
        connection = await cluster.connect()
        pid = await connection.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE datname = $1 ORDER BY random() LIMIT 1",
            database.dbname,
        )
        os.kill(pid, signal.SIGKILL)
        await connection.close()
    elif victim == "pgbouncer":
        cluster.end_pgbouncer(signal.SIGKILL)
        cluster.begin_pgbouncer()


# The disk is full


@contextmanager
def small_disk(cluster: Cluster) -> Iterator[Path | None]:
    """A file system of 24 MB as the tablespace `small`; None where we may not mount one."""
    account = service_account()
    folder = cluster.folder / "small"
    folder.mkdir()
    if account is None or not mounted(folder, account.uid, account.gid):
        yield None
        return
    try:
        cluster.administer(f"CREATE TABLESPACE small LOCATION '{folder}'")
        yield folder
    finally:
        cluster.administer("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mounted(folder: Path, uid: int, gid: int) -> bool:
    options = f"size=24m,uid={uid},gid={gid},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "bigbrotr-test", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


async def test_a_full_disk_is_told_and_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    with small_disk(cluster) as disk:
        database = cluster.create_database(tablespace="small" if disk else "")
        try:
            async with observer(database) as db:
                await fill_and_empty(db, database, cluster, disk, tmp_path)
        finally:
            cluster.drop_database(database.dbname)


async def fill_and_empty(
    db: BigBrotr, database: Database, cluster: Cluster, disk: Path | None, folder: Path
) -> None:
    port = free_port()
    async with ScriptedRelay(make_events(1_500), cap=50, delay=0.001) as relay:
        url = relay.url.url
        env = settings(database, [url], folder, HEALTH_CHECK_PORT=port)
        async with running(SERVICE, env) as program:
            await some_events(db, url, 100)
            fill(disk, cluster, database)
            await program.says("disk is full")
            status, body = await ready(port)
            assert status == 503
            assert "disk is full: make room" in body["reason"]
            await no_false_claim(db, url, relay.events)
            await asyncio.sleep(1.5)
            nothing_unforeseen(program)
            told = [line for line in program.lines if "disk is full" in line]
            assert len(told) < 10, "it waits in between"
            assert all("cycle_failed" in line for line in told)
            have = await archived(db, url)
            make_room(disk, cluster, database)
            await everything(db, relay)
            assert have <= await archived(db, url)
            async with asyncio.timeout(20):
                while (await ready(port))[0] != 200:
                    await asyncio.sleep(0.2)
            nothing_unforeseen(program)


def fill(disk: Path | None, cluster: Cluster, database: Database) -> None:
    if disk is None:
        # The same error from the same place, where no file system can be filled.
        cluster.administer(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE "
            "EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';"
            " END $$",
            "CREATE TRIGGER no_room BEFORE INSERT ON events EXECUTE FUNCTION no_room()",
            database=database.dbname,
        )
        return
    room = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(max(0, room - 64 * 1024)))


def make_room(disk: Path | None, cluster: Cluster, database: Database) -> None:
    if disk is None:
        cluster.administer("DROP FUNCTION no_room CASCADE", database=database.dbname)
    else:
        (disk / "ballast").unlink()


async def ready(port: int) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/ready") as response,
    ):
        return response.status, await response.json()


# The network is cut


async def test_the_network_to_the_relay_freezes_drops_and_refuses(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    async with Wire(relay.port) as wire:
        url = f"wss://127.0.0.1:{wire.port}"
        env = settings(database, [url], tmp_path, SYNCHRONIZER_REQUEST_TIMEOUT=1)
        async with running(SERVICE, env) as program:
            await some_events(db, url, 200)
            wire.drop()  # the session connects again by itself
            await some_events(db, url, 400)
            wire.freeze()
            await program.says("timeout")
            await program.says("cycle_done")  # its pause is recorded by then
            await no_false_claim(db, url, relay.events)
            await wire.cut()
            await time_passes(db)
            await program.says("outcome=connect-refused")
            await no_false_claim(db, url, relay.events)
            await wire.heal()
            await time_passes(db)
            await everything(db, relay, url)
            nothing_unforeseen(program)


async def test_the_network_to_the_database_freezes_and_is_cut(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    url = relay.url.url
    async with Wire(database.port) as wire:
        far = replace(database, port=wire.port)
        env = settings(far, [url], tmp_path, SYNCHRONIZER_DB_COMMAND_TIMEOUT=1)
        async with running(SERVICE, env) as program:
            await some_events(db, url, 200)
            wire.freeze()
            await program.says("cycle_failed")
            wire.thaw()
            await some_events(db, url, len(await archived(db, url)) + 100)
            await wire.cut()
            await asyncio.sleep(1.0)
            await no_false_claim(db, url, relay.events)
            await wire.heal()
            await everything(db, relay)
            nothing_unforeseen(program)


async def test_sigterm_ends_in_time_though_the_database_is_silent(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    url = relay.url.url
    async with Wire(database.port) as wire:
        async with running(
            SERVICE, settings(replace(database, port=wire.port), [url], tmp_path)
        ) as program:
            await some_events(db, url, 200)
            workers = await workers_of(program)
            wire.freeze()
            await asyncio.sleep(0.3)
            program.process.send_signal(signal.SIGTERM)
            assert await program.ends(timeout=10) == 0
            assert "Traceback" not in program.output, program.output
            await ended(workers)
    await no_false_claim(db, url, relay.events)
    await time_passes(db)
    relay.delay = 0.0
    code, output = await run(SERVICE, settings(database, [url], tmp_path), "--once")
    assert code == 0, output
    await everything(db, relay)


# Many at once


async def test_four_synchronizers_share_the_relays_and_one_dies(
    db: BigBrotr, database: Database, tmp_path: Path
) -> None:
    relays = [
        ScriptedRelay(make_events(300, author=number + 1), cap=50, delay=0.012)
        for number in range(6)
    ]
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, *(relay.connections for relay in relays))
            await asyncio.sleep(0.002)

    for relay in relays:
        await relay.__aenter__()
    env = settings(database, [relay.url.url for relay in relays], tmp_path)
    watching = asyncio.create_task(watch())
    try:
        async with running(SERVICE, env) as one, running(SERVICE, env), running(SERVICE, env):
            async with running(SERVICE, env):
                async with asyncio.timeout(30):
                    while not await db.fetch("SELECT FROM events LIMIT 1"):
                        await asyncio.sleep(0.02)
                workers = await workers_of(one)
                one.kill()
                await ended(workers)
                for relay in relays:
                    await no_false_claim(db, relay.url.url, relay.events)
                await db.execute(
                    "UPDATE relay_tasks SET lease_expires_at = 0 WHERE owner LIKE $1",
                    f"%:{one.process.pid}:%",
                )
                for relay in relays:
                    await everything(db, relay)
    finally:
        watching.cancel()
        for relay in relays:
            await relay.__aexit__(None, None, None)
    assert most == 1, "no relay is synchronized twice at once"
    owners = await db.fetch("SELECT FROM relay_tasks WHERE purpose = 'sync'")
    assert len(owners) == len(relays)
    assert TARGET.seconds > 300
