"""What bad settings and absent components get: one line that names them, and the right exit."""

import signal
import socket
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.databases import Database
from components.services import environment, run, running
from scripted_relay import ScriptedRelay, make_events
from standalone.processes import free_port

SERVICES = ["finder", "monitor", "synchronizer", "priority_synchronizer"]
PROGRAMS = ["initializer", *SERVICES]


def one_error_line(output: str) -> str:
    """The output's only line about the error; no traceback."""
    assert "Traceback" not in output, output
    lines = [line for line in output.splitlines() if line.strip()]
    assert lines, "nothing was said"
    return lines[-1]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_missing_password_is_named(program: str, database: Database) -> None:
    env = environment(database)
    del env["POSTGRES_PASSWORD"]
    code, output = await run(program, env, "--once")
    assert code == 2
    assert "POSTGRES_PASSWORD" in one_error_line(output)


@pytest.mark.parametrize(
    ("program", "variable", "value"),
    [
        ("monitor", "POSTGRES_PORT", "many"),
        ("monitor", "POSTGRES_PASSWORD", "CHANGE_ME"),
        ("monitor", "MONITOR_NUM_CORES", "0"),
        ("finder", "FINDER_REQUEST_TIMEOUT", "-1"),
        ("synchronizer", "SYNCHRONIZER_BATCH_SIZE", ""),
        ("synchronizer", "SYNCHRONIZER_EVENT_FILTER", "{nonsense"),
        ("priority_synchronizer", "PRIORITY_SYNCHRONIZER_NUM_CORES", "two"),
        ("synchronizer", "SECRET_KEY", "abc"),
        ("initializer", "SEED_RELAYS_PATH", "/nowhere/relays.txt"),
    ],
)
async def test_a_wrong_setting_is_named(
    program: str, variable: str, value: str, database: Database
) -> None:
    env = {**environment(database), variable: value}
    code, output = await run(program, env, "--once")
    assert code in (1, 2)
    assert variable in one_error_line(output)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_wrong_password_ends_the_program(program: str, database: Database) -> None:
    code, output = await run(
        program, environment(database, POSTGRES_PASSWORD="not-the-password"), "--once"
    )
    assert code == 1
    assert "POSTGRES_PASSWORD" in output
    assert "not-the-password" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("program", SERVICES)
async def test_an_absent_database_is_waited_for(program: str, database: Database) -> None:
    env = environment(database, POSTGRES_PORT=free_port())
    async with running(program, env) as service:
        await service.says("waiting_for_database")
        service.process.send_signal(signal.SIGTERM)
        assert await service.ends(timeout=10) == 0
    assert "Traceback" not in service.output


async def test_a_taken_port_is_named(database: Database) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        env = environment(database, HEALTH_CHECK_PORT=taken.getsockname()[1])
        code, output = await run("finder", env)
    assert code == 1
    assert "HEALTH_CHECK_PORT" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_schema_of_the_future_is_refused(program: str, database: Database) -> None:
    owner = await asyncpg.connect(
        host=database.direct_host,
        port=database.direct_port,
        user=database.owner_user,
        password=database.owner_password,
        database=database.dbname,
    )
    await owner.execute("INSERT INTO schema_version (version, name) VALUES (9999, 'future')")
    await owner.close()
    code, output = await run(program, environment(database), "--once")
    assert code == 1
    assert "9999" in output
    assert "Traceback" not in output


async def test_health_endpoints_tell_the_truth(database: Database, tmp_path: Path) -> None:
    port = free_port()
    async with ScriptedRelay(make_events(200), cap=50, delay=0.002) as relay:
        listed = tmp_path / "relays.txt"
        listed.write_text(relay.url.url)
        env = environment(
            database,
            HEALTH_CHECK_PORT=port,
            SYNCHRONIZER_NUM_CORES=1,
            SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed,
        )
        async with (
            running("priority_synchronizer", env) as service,
            aiohttp.ClientSession() as http,
        ):
            await service.says("cycle_done", timeout=40)
            for path in ("health", "ready", ""):
                async with http.get(f"http://127.0.0.1:{port}/{path}") as response:
                    assert response.status == 200, await response.text()
                    body = await response.json()
            assert body["last_cycle"]["complete"] == 1
            assert body["progress"] == {"relays": 1, "complete": 1, "with_gaps": 0, "behind": []}
            assert body["live"] == {relay.url.url: 0}


async def test_without_tor_onion_relays_are_counted_not_tried(
    database: Database, tmp_path: Path
) -> None:
    listed = tmp_path / "relays.txt"
    listed.write_text("wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion\n")
    env = environment(database, SYNCHRONIZER_NUM_CORES=1, SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed)
    code, output = await run("priority_synchronizer", env, "--once")
    assert code == 0, output
    assert "no_tor=1" in output


async def test_a_configured_but_absent_tor_is_said_and_survived(
    database: Database, db: BigBrotr, tmp_path: Path
) -> None:
    async with ScriptedRelay(make_events(20)) as relay:
        listed = tmp_path / "relays.txt"
        listed.write_text(relay.url.url)
        env = environment(
            database,
            TORPROXY_HOST="127.0.0.1",
            TORPROXY_PORT=free_port(),
            SYNCHRONIZER_NUM_CORES=1,
            SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed,
        )
        async with running("priority_synchronizer", env, "--once") as service:
            await service.says("TORPROXY_HOST", timeout=60)
            assert await service.ends() == 0
    rows = await db.fetch("SELECT count(*) AS n FROM events")
    assert rows[0]["n"] == 20


async def test_a_changed_filter_or_start_uses_no_proof_of_another(
    database: Database, db: BigBrotr, tmp_path: Path
) -> None:
    start = 1_700_000_000
    events = [
        event
        for kind in (1, 7)
        for count, at in ((10, start), (20, start + 20))
        for event in make_events(count, start=at, kind=kind)
    ]
    async with ScriptedRelay(events) as relay:
        listed = tmp_path / "relays.txt"
        listed.write_text(relay.url.url)

        async def synchronize(flt: str, first: int) -> tuple[int, str]:
            """How many events the archive has then, and what the program said."""
            env = environment(
                database,
                SYNCHRONIZER_NUM_CORES=1,
                SYNCHRONIZER_PRIORITY_RELAYS_PATH=listed,
                SYNCHRONIZER_EVENT_FILTER=flt,
                SYNCHRONIZER_START_TIMESTAMP=first,
                SYNCHRONIZER_STOP_TIMESTAMP=start + 100,
            )
            code, output = await run("priority_synchronizer", env, "--once")
            assert code == 0, output
            rows = await db.fetch("SELECT count(*) AS n FROM events")
            return rows[0]["n"], output

        archived, output = await synchronize('{"kinds": [7], "color": "red"}', start + 15)
        assert archived == 20
        assert "filter_keys_ignored variable=SYNCHRONIZER_EVENT_FILTER keys=color" in output
        assert (await synchronize('{"kinds": [7]}', start))[0] == 30
        assert (await synchronize("{}", start + 15))[0] == 50
        asked = len(relay.requests)
        assert (await synchronize("{}", start))[0] == 60
        assert all(flt["until"] <= start + 16 for flt in relay.requests[asked:])
        # Neither the filter's other spelling nor its dropped key makes it another filter.
        asked = len(relay.requests)
        assert (await synchronize('{"kinds": [7, 7], "x": 1}', start + 15))[0] == 60
        assert len(relay.requests) == asked
    hashes = await db.fetch("SELECT filter FROM sync_filters")
    assert len(hashes) == 2
