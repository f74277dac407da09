"""Crashes in mid-synchronization: nothing committed is lost, nothing is skipped or claimed.

The programs are real processes, killed without warning. After every blow the ledger is held
against the relay's own list of events: no second is claimed whose events are not archived.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.archiving import (
    SERVICE,
    START,
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
from event_rows import write_events
from migrate import read_migrations
from nostr.events import SignedEvent
from nostr.urls import RelayUrl, to_relay
from scripted_relay import ScriptedRelay, make_events
from simnet.relay import HostileRelay
from standalone.processes import free_port
from standalone.signing import Author


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


# The other services


async def test_an_initializer_killed_at_random_instants_only_has_to_be_run_again(
    empty_database: Database, cluster: Cluster, tmp_path: Path
) -> None:
    rng = random.Random(40)
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("".join(f"wss://relay{number}.example.com\n" for number in range(30_000)))
    env = environment(empty_database, **empty_database.owner_environment(), SEED_RELAYS_PATH=seeds)
    found = set()
    for patience in sorted(rng.uniform(0.3, 3.0) for _ in range(7)):
        async with running("initializer", env) as program:
            with suppress(TimeoutError):
                await asyncio.wait_for(program.process.wait(), patience)
            if program.process.returncode is None:
                program.kill()
        found.add(await applied(cluster, empty_database))
    assert len(found) > 1, "not always at the same point"
    code, output = await run("initializer", env)
    assert code == 0, output
    assert await applied(cluster, empty_database) == (len(read_migrations()), 30_000)
    # As where nothing was ever interrupted.
    whole = cluster.create_database()
    try:
        assert await outline(cluster, empty_database) == await outline(cluster, whole)
    finally:
        cluster.drop_database(whole.dbname)


async def applied(cluster: Cluster, database: Database) -> tuple[int, int]:
    """How many files of init/ were applied, and how many relays there are. Whole files only:
    the archive is either without tables or as those files leave it."""
    connection = await cluster.connect(database.dbname)
    try:
        if not await connection.fetchval("SELECT to_regclass('schema_version') IS NOT NULL"):
            assert await outline(cluster, database) == []
            return 0, 0
        versions = await connection.fetch("SELECT version FROM schema_version ORDER BY version")
        known = [migration.version for migration in read_migrations()]
        assert [row["version"] for row in versions] == known[: len(versions)]
        if not await connection.fetchval("SELECT to_regclass('relays') IS NOT NULL"):
            return len(versions), 0
        return len(versions), await connection.fetchval("SELECT count(*) FROM relays")
    finally:
        await connection.close()


async def outline(cluster: Cluster, database: Database) -> list[tuple[str, ...]]:
    """Every column, index, constraint, function, trigger and privilege of a schema."""
    connection = await cluster.connect(database.dbname)
    try:
        rows = await connection.fetch(
            """
            SELECT 'column', table_name || '.' || column_name, data_type
            FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes
            WHERE schemaname = 'public'
            UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT 'function', proname, prosrc FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger
            WHERE NOT tgisinternal
            UNION ALL SELECT 'privilege', table_name || ' ' || grantee, privilege_type
            FROM information_schema.role_table_grants WHERE table_schema = 'public'
            ORDER BY 1, 2, 3
            """
        )
        return [tuple(row) for row in rows]
    finally:
        await connection.close()


async def test_a_finder_killed_at_random_instants_skips_no_event_and_counts_none_twice(
    db: BigBrotr, database: Database
) -> None:
    rng = random.Random(41)
    authors = [Author(f"finder {number}") for number in range(100)]
    source = RelayUrl.parse("wss://source.example.com")
    events = [
        SignedEvent(*authors[n % 100].sign(10_002, START, [["r", f"wss://relay.r{n}.org"]], ""))
        for n in range(6_000)
    ]
    await db.run_in_transaction(lambda conn: write_events(conn, source, START, events))
    env = environment(database, FINDER_AGGREGATOR_URLS="", FINDER_LOOP_INTERVAL_MINUTES=0.001)
    blows = read = 0
    while read < len(events):
        async with running("finder", env) as program:
            async with asyncio.timeout(30):
                while await read_and_found(db) == read:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(rng.uniform(0, 0.05))
            program.kill()
        blows, read = blows + 1, await read_and_found(db)
    assert blows > 2, "not in the middle of it"
    code, output = await run("finder", env, "--once")
    assert code == 0, output
    assert await read_and_found(db) == len(events)


async def read_and_found(db: BigBrotr) -> int:
    """How many events the finder has read: each of them named a relay, which is there, and was
    counted once."""
    (row,) = await db.fetch(
        """
        SELECT (SELECT count(*) FROM finder_events_read) AS read,
               (SELECT count(*) FROM relay_candidates) AS found,
               (SELECT coalesce(sum(times), 0) FROM relay_sources WHERE source = 'event') AS named
        """
    )
    assert row["read"] == row["found"] == row["named"]
    read: int = row["read"]
    return read


async def test_a_monitor_whose_processes_are_killed_checks_every_relay(
    db: BigBrotr, database: Database
) -> None:
    rng = random.Random(42)
    async with AsyncExitStack() as stack:
        live = [await stack.enter_async_context(HostileRelay([], latency=0.8)) for _ in range(60)]
        dead = [RelayUrl.parse(f"ws://127.0.0.1:{free_port()}", allow_private=True)]
        urls = [*(relay.url for relay in live), *dead]
        await db.insert_relay_batch([to_relay(url) for url in urls], START)
        env = environment(
            database,
            MONITOR_NUM_CORES=2,
            MONITOR_REQUESTS_PER_CORE=1,
            MONITOR_CHECKS_PER_HOST=4,
            MONITOR_CHUNK_SIZE=2,
            MONITOR_REQUEST_TIMEOUT=5,
            MONITOR_LOOP_INTERVAL_MINUTES=0.005,
        )
        for victim in ("worker", "parent", "worker", "parent"):
            before = await checked(db)
            async with running("monitor", env) as program:
                workers = await workers_of(program)
                async with asyncio.timeout(30):
                    while await checked(db) == before:
                        await asyncio.sleep(0.005)
                await asyncio.sleep(rng.uniform(0, 0.2))
                if victim == "worker":
                    os.kill(workers[0], signal.SIGKILL)
                    await program.says("worker_died")
                program.kill()
                await ended(workers)
            await db.execute("UPDATE relay_tasks SET lease_expires_at = 0 WHERE owner IS NOT NULL")
        assert sum(await checked(db)) < len(urls), "not in the middle of it"
        code, output = await run("monitor", env, "--once")
        assert code == 0, output
    assert await checked(db) == (len(live), len(dead))
    held = await db.fetch("SELECT FROM relay_tasks WHERE owner IS NOT NULL")
    assert held == []


async def checked(db: BigBrotr) -> tuple[int, int]:
    """Relays found readable, and relays found dead."""
    (row,) = await db.fetch(
        "SELECT count(*) FILTER (WHERE readable) AS live, "
        "count(*) FILTER (WHERE readable IS NOT TRUE) AS dead FROM relay_metadata_latest"
    )
    return row["live"], row["dead"]
