"""Migrating: again, at once, from older and newer schemas, and the roles' passwords."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database, schema_of
from components.services import environment, run
from config_types import DatabaseConfig, RolePasswords
from errors import AccessDenied, DatabaseUnavailable, SchemaMismatch
from migrate import INIT_DIRECTORY, check_schema, migrate, read_migrations

FILES = read_migrations()
NAMES = tuple(migration.name for migration in FILES)


def owner_config(database: Database) -> DatabaseConfig:
    return DatabaseConfig(
        host=database.direct_host,
        port=database.direct_port,
        user=database.owner_user,
        password=database.owner_password,
        dbname=database.dbname,
    )


def as_owner(database: Database) -> BigBrotr:
    return BigBrotr.from_config(replace(owner_config(database), min_pool=1))


# Since then there is something to keep.
OLDEST_WITH_TABLES = 11


async def written_state(conn: asyncpg.Connection) -> dict[str, list[str]]:
    """Every row of the tables that an old archive has, column by column as it had them."""
    tables = await conn.fetch(
        """
        SELECT table_name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
               AS columns
        FROM information_schema.columns JOIN information_schema.tables USING (table_name)
        WHERE columns.table_schema = 'public' AND table_type = 'BASE TABLE'
          AND table_name <> 'schema_version'
        GROUP BY table_name
        """
    )
    return {
        f"{row['table_name']} ({row['columns']})": await rows_of(
            conn, row["table_name"], row["columns"]
        )
        for row in tables
    }


async def rows_of(conn: asyncpg.Connection, table: str, columns: str) -> list[str]:
    rows = await conn.fetch(f"SELECT ({columns})::text AS content FROM {table}")
    return sorted(row["content"] for row in rows)


async def fill(conn: asyncpg.Connection) -> None:
    """Rows in every table that version 11 has, through its own functions where it has them."""
    event, other = "a" * 64, "b" * 64
    await conn.execute(
        f"""
        SELECT insert_event('{event}', '{event}', 5, 1, '[["t","x"]]', 'hello', repeat('c', 128),
                            'wss://a.example', 'clearnet', 9);
        SELECT insert_raw_events(ARRAY['{other}'], ARRAY['\\x7b7d'::bytea], ARRAY['nul'],
                                 'wss://a.example', 9);
        SELECT insert_relay_metadata('wss://a.example', 'clearnet', 1, 7, '{{"name": "a"}}',
                                     '{{"openable": true, "readable": true, "writable": false}}');
        INSERT INTO refused_events VALUES ('wss://a.example', 'wrong-id', 3, 9);
        INSERT INTO sync_filters VALUES ('{event}', '{{}}');
        INSERT INTO sync_coverage VALUES ('wss://a.example', '{event}', '{{[0,5),[7,9)}}', '[0,9)',
                                          9, 8, 2);
        INSERT INTO sync_gaps VALUES ('wss://a.example', '{event}', '[5,7)', 'saturated', '', 8, 9);
        INSERT INTO relay_tasks (purpose, relay_url, updated_at)
        VALUES ('sync', 'wss://a.example', 9);
        INSERT INTO finder_events_read VALUES ('{event}', 9);
        """
    )


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The files of a later release: one more."""
    directory = tmp_path / "init"
    shutil.copytree(INIT_DIRECTORY, directory)
    number = FILES[-1].version + 1
    (directory / f"{number:03}_more.sql").write_text(
        "CREATE TABLE more (a INT);\n"
        f"INSERT INTO schema_version (version, name) VALUES ({number}, 'more');\n"
    )
    return directory


async def test_again_changes_nothing(empty_database: Database) -> None:
    assert await migrate(owner_config(empty_database)) == NAMES
    assert await migrate(owner_config(empty_database)) == ()
    async with as_owner(empty_database) as db:
        await check_schema(db)


async def test_several_at_once_share_the_work(empty_database: Database) -> None:
    config = owner_config(empty_database)
    applied = await asyncio.gather(*(migrate(config) for _ in range(4)))
    assert sorted(sum(applied, ())) == sorted(NAMES)


async def test_an_archive_is_upgraded(database: Database, newer: Path) -> None:
    config = owner_config(database)
    assert await migrate(config) == ()
    async with as_owner(database) as db:
        await db.execute("INSERT INTO relays VALUES ('wss://a.example', 'clearnet', 1)")
        with pytest.raises(SchemaMismatch, match="run the initializer first"):
            await check_schema(db, directory=newer)
        assert await migrate(config, directory=newer) == ("more",)
        await check_schema(db, directory=newer)
        assert len(await db.fetch("SELECT url FROM relays")) == 1


@pytest.mark.parametrize("version", [f.version for f in FILES if f.version >= OLDEST_WITH_TABLES])
async def test_an_older_archive_becomes_like_a_new_one_and_keeps_its_rows(
    cluster: Cluster, empty_database: Database, tmp_path: Path, version: int
) -> None:
    for file in FILES:
        if file.version <= version:
            name = f"{file.version:03}_{file.name}.sql"
            shutil.copy(INIT_DIRECTORY / name, tmp_path / name)
    config = owner_config(empty_database)
    await migrate(config, directory=tmp_path)
    conn = await cluster.connect(empty_database.dbname)
    new = cluster.create_database()
    try:
        await fill(conn)
        before = await written_state(conn)
        filled = {table.partition(" ")[0] for table, rows in before.items() if rows}
        assert len(filled) >= 12

        applied = await migrate(config)
        assert applied == tuple(file.name for file in FILES if file.version > version)
        for table, rows in before.items():
            name, _, columns = table.partition(" (")
            assert await rows_of(conn, name, columns.rstrip(")")) == rows, table
        assert schema_of(cluster, empty_database) == schema_of(cluster, new)
    finally:
        await conn.close()
        cluster.drop_database(new.dbname)


async def test_initializers_at_once_do_no_harm(empty_database: Database, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("wss://a.example\n")
    settings = {**empty_database.owner_environment(), "SEED_RELAYS_PATH": seeds}
    done = await asyncio.gather(
        *(run("initializer", environment(empty_database, **settings)) for _ in range(3))
    )
    assert [code for code, _ in done] == [0, 0, 0], done
    said = "\n".join(output for _, output in done)
    assert said.count("schema_migrated") == len(FILES)
    assert said.count("seeds_added new=1") == 1
    async with as_owner(empty_database) as db:
        await check_schema(db)


async def test_a_newer_schema_is_refused(database: Database, newer: Path) -> None:
    await migrate(owner_config(database), directory=newer)
    with pytest.raises(SchemaMismatch, match="run a newer BigBrotr"):
        await migrate(owner_config(database))
    async with as_owner(database) as db:
        with pytest.raises(SchemaMismatch, match="run a newer BigBrotr"):
            await check_schema(db)


async def test_an_edited_file_is_refused(database: Database, newer: Path) -> None:
    await migrate(owner_config(database))
    edited = newer / "003_archive_tables.sql"
    edited.write_text(edited.read_text() + "-- edited\n")
    with pytest.raises(SchemaMismatch, match=r"003_archive_tables\.sql is not the file"):
        await migrate(owner_config(database), directory=newer)


async def test_a_failing_file_leaves_nothing_behind(database: Database, newer: Path) -> None:
    (more,) = newer.glob("*_more.sql")
    more.write_text("CREATE TABLE more (a INT); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(owner_config(database), directory=newer)
    async with as_owner(database) as db:
        await check_schema(db)
        assert await db.fetch("SELECT FROM pg_class WHERE relname = 'more'") == []


async def test_a_database_without_schema_is_named(empty_database: Database) -> None:
    async with as_owner(empty_database) as db:
        with pytest.raises(SchemaMismatch, match=f"{empty_database.dbname} has no BigBrotr schema"):
            await check_schema(db)


async def test_services_check_the_schema_as_writers(db: BigBrotr) -> None:
    await check_schema(db)


async def test_a_database_that_cannot_hold_all_text_is_refused(
    cluster: Cluster, empty_database: Database
) -> None:
    name = empty_database.dbname
    cluster.administer(
        f"DROP DATABASE {name}",
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    )
    with pytest.raises(SchemaMismatch, match=f"{name} .* encoding is LATIN1"):
        await migrate(owner_config(empty_database))


async def test_wrong_password_and_closed_port(database: Database) -> None:
    config = owner_config(database)
    with pytest.raises(AccessDenied, match="POSTGRES_PASSWORD"):
        await migrate(replace(config, password="wrong"))
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1 "):
        await migrate(replace(config, port=1))


@pytest.fixture
def role(cluster: Cluster) -> Iterator[str]:
    """The reader's password is the session's: put it back."""
    yield "bigbrotr_reader"
    password = cluster.passwords["bigbrotr_reader"]
    cluster.administer(f"ALTER ROLE bigbrotr_reader PASSWORD '{password}'")


@pytest.mark.parametrize("password", ["plain", "sp ace'\"\\$:", "\u212bngström", "a\u00adb\u3000c"])
async def test_passwords_open_the_way_through_pgbouncer(
    database: Database, role: str, password: str
) -> None:
    passwords = RolePasswords(reader=password)
    await migrate(owner_config(database), passwords)
    query = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"
    async with as_owner(database) as owner:
        verifier = await owner.fetchone(query)
        await migrate(owner_config(database), passwords)
        assert await owner.fetchone(query) == verifier
    for host, port in (
        (database.host, database.port),
        (database.direct_host, database.direct_port),
    ):
        async with BigBrotr(host, port, role, password, database.dbname, min_pool_size=1) as db:
            assert await db.fetch("SELECT 1")


async def test_databases_of_one_cluster_share_the_roles(
    cluster: Cluster, empty_database: Database, role: str
) -> None:
    others = [cluster.create_database(migrated=False) for _ in range(3)]
    databases = [empty_database, *others]
    try:
        applied = await asyncio.gather(
            *(
                migrate(owner_config(database), RolePasswords(reader="the same"))
                for database in databases
            )
        )
        assert applied == [NAMES] * 4
        for database in databases:
            async with BigBrotr(
                database.host, database.port, role, "the same", database.dbname, min_pool_size=1
            ) as db:
                assert await db.fetch("SELECT * FROM relays") == []
    finally:
        for database in others:
            cluster.drop_database(database.dbname)


def _run_program(database: Database, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = (
        {"PATH": os.environ["PATH"]}
        | database.environment()
        | database.owner_environment()
        | changes
    )
    return subprocess.run(
        [sys.executable, str(INIT_DIRECTORY.parent / "src" / "migrate.py")],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_program_migrates(empty_database: Database) -> None:
    done = _run_program(empty_database)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("schema_migrated") == len(NAMES)
    assert _run_program(empty_database).stdout == ""


def test_program_says_in_one_line_what_is_wrong(empty_database: Database) -> None:
    wrong = _run_program(empty_database, POSTGRES_OWNER_PASSWORD="wrong")
    assert wrong.returncode == 1
    assert "password authentication failed" in wrong.stdout
    unset = _run_program(empty_database, POSTGRES_PORT="many")
    assert unset.returncode == 2
    assert "POSTGRES_PORT" in unset.stdout
    for done in (wrong, unset):
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""
