"""PgBouncer as its image starts it: pgbouncer/entrypoint.sh and pgbouncer.ini, on other ports."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from components.databases import Cluster, Database
from standalone.pgbouncer import find_pgbouncer
from standalone.processes import (
    accepts_connections,
    free_port,
    service_account,
    start,
    wait_until,
)

IMAGE = Path(__file__).parents[2] / "pgbouncer"
ADMIN_PASSWORD = 'a"d\\m:i$n'


@pytest.fixture
def folder() -> Iterator[Path]:
    """Stands for the image's file system; not below pytest's own folder, which is closed."""
    made = Path(tempfile.mkdtemp(prefix="bigbrotr-pgbouncer-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def port(folder: Path, database: Database) -> Iterator[int]:
    """The port of a PgBouncer started by the image's entrypoint."""
    chosen = free_port()
    for name in ("entrypoint.sh", "pgbouncer.ini"):
        text = (IMAGE / name).read_text().replace("/run/pgbouncer", str(folder))
        text = text.replace("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1")
        (folder / name).write_text(text.replace("6432", str(chosen)))
    account = service_account()
    if account is not None:
        shutil.chown(folder, account.uid, account.gid)
    program = find_pgbouncer()
    environ = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": program.libraries,
        "POSTGRES_HOST": database.direct_host,
        "POSTGRES_PORT": str(database.direct_port),
        "POSTGRES_DB": database.dbname,
        "PGBOUNCER_AUTH_PASSWORD": database.pgbouncer_auth_password,
        "PGBOUNCER_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }
    command = ["sh", "entrypoint.sh", str(program.path), str(folder / "pgbouncer.ini")]
    child = start("pgbouncer", command, folder / "log", env=environ, account=account, cwd=folder)
    try:
        assert wait_until(partial(accepts_connections, chosen), child, 20), child.tail()
        yield chosen
    finally:
        child.stop()


@asynccontextmanager
async def connected(
    port: int, user: str, password: str, dbname: str
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=port,
        user=user,
        password=password,
        database=dbname,
        statement_cache_size=0,
        timeout=10,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def refused(port: int, user: str, password: str, dbname: str) -> bool:
    """Whether the login is refused, at once."""
    try:
        async with connected(port, user, password, dbname):
            return False
    except asyncpg.PostgresError:
        return True


async def test_roles_log_in_by_auth_query(port: int, database: Database) -> None:
    for user, password in (
        (database.writer_user, database.writer_password),
        (database.reader_user, database.reader_password),
    ):
        async with connected(port, user, password, database.dbname) as connection:
            assert await connection.fetchval("SELECT current_user") == user
        assert await refused(port, user, "wrong", database.dbname)


async def test_superusers_and_strangers_do_not(port: int, database: Database) -> None:
    assert await refused(port, database.owner_user, database.owner_password, database.dbname)
    assert await refused(port, "stranger", "x", database.dbname)
    assert await refused(port, database.writer_user, database.writer_password, "postgres")


async def test_a_changed_password_counts_at_the_next_login(
    port: int, database: Database, cluster: Cluster
) -> None:
    cluster.administer("CREATE ROLE changing LOGIN PASSWORD 'first'")
    try:
        cluster.administer(f"GRANT CONNECT ON DATABASE {database.dbname} TO changing")
        assert not await refused(port, "changing", "first", database.dbname)
        cluster.administer("ALTER ROLE changing PASSWORD 'second'")
        assert await refused(port, "changing", "first", database.dbname)
        assert not await refused(port, "changing", "second", database.dbname)
    finally:
        cluster.administer(
            f"REVOKE CONNECT ON DATABASE {database.dbname} FROM changing", "DROP ROLE changing"
        )


async def test_console_is_for_its_administrator_alone(port: int, database: Database) -> None:
    async with connected(port, "pgbouncer_admin", ADMIN_PASSWORD, "pgbouncer") as console:
        assert await console.execute("SHOW POOLS") == "SHOW"
    assert await refused(port, "pgbouncer_admin", "wrong", "pgbouncer")
    auth_password = database.pgbouncer_auth_password
    assert await refused(port, "pgbouncer_auth", auth_password, "pgbouncer")
    # Left without an answer, these could use up all of its connections.
    assert await refused(port, database.writer_user, database.writer_password, "pgbouncer")
    assert await refused(port, "stranger", "x", "pgbouncer")


async def test_health_check_is_a_query_to_the_database(port: int, folder: Path) -> None:
    """The password file and the database's name that entrypoint.sh leaves for healthcheck.sh."""
    host, listening, dbname, user, password = (folder / "pgpass").read_text().strip().split(":")
    assert (host, listening) == ("127.0.0.1", str(port))
    assert (folder / "database").read_text() == dbname
    async with connected(port, user, password, dbname) as connection:
        assert await connection.fetchval("SELECT 1") == 1
