"""The initializer against a real database: schema, seeds, and what bad input gets."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from config import load_initializer_config
from errors import ConfigError, SchemaMismatch
from initializer import initialize

REPOSITORY = Path(__file__).parents[2]
UPSTREAM_LIST = REPOSITORY.parent / "shared" / "corpus" / "seed_relays.txt"

JUNK = b"""\xef\xbb\xbf# seeds
wss://relay.example.com   # with a comment
WSS://Relay.Example.COM/
wss://relay.example.com:443

https://not.a.relay.example
wss://127.0.0.1:7777
wss://\xff\xfe
nonsense
wss://other.example.org/path
ws://plain.example.net
"""
ACCEPTED = [
    "wss://other.example.org/path",
    "wss://plain.example.net",
    "wss://relay.example.com",
]


def seeds(tmp_path: Path, content: bytes) -> dict[str, str]:
    path = tmp_path / "seeds.txt"
    path.write_bytes(content)
    return {"SEED_RELAYS_PATH": str(path)}


async def run_program(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(REPOSITORY / "src" / "initializer.py"),
        *arguments,
        env={"PATH": os.environ["PATH"], **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_from_an_empty_database_to_a_seeded_archive(
    empty_database: Database, tmp_path: Path
) -> None:
    environ = (
        empty_database.environment() | empty_database.owner_environment() | seeds(tmp_path, JUNK)
    )
    code, output = await run_program(environ)
    assert code == 0, output
    assert "seeds_added new=3 known=0 duplicates=2 refused=4" in output
    for reason in ("not-websocket lines=2", "private-address lines=1"):
        assert f"relay_urls_refused reason={reason}" in output
    async with BigBrotr.from_config(load_initializer_config(environ).database) as db:
        rows = await db.fetch("SELECT url, network, inserted_at FROM relays ORDER BY url")
        assert [row["url"] for row in rows] == ACCEPTED

        # Again, as the program of the other services: nothing new, nothing changed.
        code, output = await run_program(environ, "--once")
        assert code == 0, output
        assert "seeds_added new=0 known=3" in output
        again = await db.fetch("SELECT url, network, inserted_at FROM relays ORDER BY url")
        assert again == rows
        named = await db.fetch("SELECT relay_url, source, name, times FROM relay_sources")
        assert sorted(map(tuple, named)) == [
            (url, "list", Path(environ["SEED_RELAYS_PATH"]).name, 2) for url in ACCEPTED
        ]


async def test_without_an_owner_the_schema_is_only_checked(
    database: Database, empty_database: Database, tmp_path: Path, db: BigBrotr
) -> None:
    listed = seeds(tmp_path, b"wss://relay.example.com\n")
    assert await initialize(load_initializer_config(database.environment() | listed)) == 1
    assert await db.fetchone("SELECT count(*) FROM relays") == (1,)

    # PgBouncer lets nobody in before the first migration, so ask the server itself.
    direct = {
        "POSTGRES_HOST": empty_database.direct_host,
        "POSTGRES_PORT": str(empty_database.direct_port),
        "POSTGRES_USER": empty_database.owner_user,
        "POSTGRES_PASSWORD": empty_database.owner_password,
    }
    config = load_initializer_config(empty_database.environment() | direct | listed)
    with pytest.raises(SchemaMismatch, match="run the initializer first"):
        await initialize(config)


async def test_private_relays_when_allowed(
    database: Database, tmp_path: Path, db: BigBrotr
) -> None:
    environ = database.environment() | seeds(tmp_path, JUNK) | {"ALLOW_PRIVATE_RELAYS": "true"}
    assert await initialize(load_initializer_config(environ)) == 4
    row = await db.fetchone("SELECT network FROM relays WHERE url = 'wss://127.0.0.1:7777'")
    assert row is not None


@pytest.mark.parametrize("content", [b"", b"# only\n\n# comments\n", b"nonsense\n" * 3])
async def test_a_list_without_a_relay(database: Database, tmp_path: Path, content: bytes) -> None:
    config = load_initializer_config(database.environment() | seeds(tmp_path, content))
    with pytest.raises(ConfigError, match=r"^SEED_RELAYS_PATH: .* names no relay \(\d+ lines"):
        await initialize(config)


async def test_bad_settings_end_the_program_with_one_line(
    database: Database, tmp_path: Path
) -> None:
    good = database.environment() | database.owner_environment() | seeds(tmp_path, JUNK)
    absent = str(tmp_path / "absent.txt")
    cases = [
        ({"SEED_RELAYS_PATH": absent}, 2, "SEED_RELAYS_PATH: cannot read"),
        ({"SEED_RELAYS_PATH": str(tmp_path)}, 2, "SEED_RELAYS_PATH: cannot read"),
        ({"POSTGRES_HOST": ""}, 2, "POSTGRES_HOST is empty"),
        ({"POSTGRES_WRITER_PASSWORD": "CHANGE_ME"}, 2, "POSTGRES_WRITER_PASSWORD still"),
        ({"POSTGRES_OWNER_PASSWORD": "wrong"}, 1, "POSTGRES_OWNER_USER"),
    ]
    for change, expected, message in cases:
        code, output = await run_program(good | change)
        assert code == expected, output
        last = output.splitlines()[-1]
        assert " - INITIALIZER - ERROR - ❌ " in last
        assert message in last
        assert "Traceback" not in output


async def test_a_schema_from_the_future(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    cluster.administer(
        "INSERT INTO schema_version (version, name) VALUES (999, 'future')",
        database=database.dbname,
    )
    environ = database.environment() | seeds(tmp_path, JUNK)
    for settings in (environ, environ | database.owner_environment()):
        code, output = await run_program(settings)
        assert code == 1, output
        assert "run a newer BigBrotr" in output.splitlines()[-1]
        assert "Traceback" not in output


async def test_a_long_list_of_the_field(database: Database, db: BigBrotr) -> None:
    path = UPSTREAM_LIST if UPSTREAM_LIST.exists() else REPOSITORY / "seed_relays.txt"
    environ = database.environment() | {"SEED_RELAYS_PATH": str(path)}
    new = await initialize(load_initializer_config(environ))
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert new > lines * 0.5
    assert await db.fetchone("SELECT count(*) FROM relays") == (new,)
