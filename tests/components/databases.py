"""One PostgreSQL and one PgBouncer for the test session, a fresh migrated database per test."""

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg

from config_types import DatabaseConfig, RolePasswords
from errors import ComponentMissing
from migrate import migrate
from standalone.pgbouncer import PgBouncer, start_pgbouncer
from standalone.postgres import Postgres, start_postgres

T = TypeVar("T")

OWNER = "admin"
TEMPLATE = "migrated"

# Speed over durability: this cluster lives as long as the test session.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "max_connections": "250",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
}
# As a server has it: what is committed survives a crash.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_PGBOUNCER_SETTINGS = {"server_idle_timeout": "10", "server_login_retry": "1"}


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated, empty archive: `host`, `port` lead through PgBouncer, `direct_*` do not."""

    dbname: str
    host: str
    port: int
    direct_host: str
    direct_port: int
    owner_user: str
    owner_password: str
    writer_user: str
    writer_password: str
    reader_user: str
    reader_password: str
    pgbouncer_auth_password: str

    def environment(self) -> dict[str, str]:
        """The variables of a service that writes to this archive."""
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_USER": self.writer_user,
            "POSTGRES_PASSWORD": self.writer_password,
            "POSTGRES_DB": self.dbname,
        }

    def owner_environment(self) -> dict[str, str]:
        """The further variables of the initializer, which migrates and sets passwords."""
        return {
            "POSTGRES_DIRECT_HOST": self.direct_host,
            "POSTGRES_DIRECT_PORT": str(self.direct_port),
            "POSTGRES_OWNER_USER": self.owner_user,
            "POSTGRES_OWNER_PASSWORD": self.owner_password,
            "POSTGRES_WRITER_PASSWORD": self.writer_password,
            "POSTGRES_READER_PASSWORD": self.reader_password,
            "PGBOUNCER_AUTH_PASSWORD": self.pgbouncer_auth_password,
        }


@dataclass(slots=True)
class Cluster:
    """The session's PostgreSQL and PgBouncer, and the passwords of its roles."""

    folder: Path
    postgres: Postgres
    pgbouncer: PgBouncer
    passwords: dict[str, str]
    settings: Mapping[str, str]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def create_database(self, *, migrated: bool = True, tablespace: str = "") -> Database:
        """A fresh database; without `migrated` it has no table at all."""
        name = f"archive_{next(self._numbers)}"
        template = TEMPLATE if migrated else "template0"
        where = f" TABLESPACE {tablespace}" if tablespace else ""
        self.administer(f"CREATE DATABASE {name} TEMPLATE {template}{where}")
        if migrated:
            # Privileges on a database are not copied with its template.
            self.administer(
                f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
                f"GRANT CONNECT ON DATABASE {name} "
                "TO bigbrotr_writer, bigbrotr_reader, pgbouncer_auth",
            )
        return self.database(name)

    def database(self, name: str) -> Database:
        """How to reach the database `name`."""
        return Database(
            dbname=name,
            host="127.0.0.1",
            port=self.pgbouncer.port,
            direct_host="127.0.0.1",
            direct_port=self.postgres.port,
            owner_user=OWNER,
            owner_password=self.postgres.password,
            writer_user="bigbrotr_writer",
            writer_password=self.passwords["bigbrotr_writer"],
            reader_user="bigbrotr_reader",
            reader_password=self.passwords["bigbrotr_reader"],
            pgbouncer_auth_password=self.passwords["pgbouncer_auth"],
        )

    def drop_database(self, name: str) -> None:
        """Remove a database and whatever is still connected to it."""
        self.administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def administer(self, *statements: str, database: str = "postgres") -> None:
        """Run statements one by one as the owner, over a direct connection."""

        async def work() -> None:
            connection = await self.connect(database)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        run_apart(work)

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        """A direct connection of the owner."""
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.postgres.port,
            user=OWNER,
            password=self.postgres.password,
            database=database,
        )

    def end_postgres(self, how: signal.Signals) -> None:
        """SIGINT: a fast shutdown. SIGKILL: the postmaster is gone without a word."""
        self.postgres.child.process.send_signal(how)
        self.postgres.child.process.wait(30)

    def begin_postgres(self) -> None:
        """Start PostgreSQL again on the same data and port. From the test's own thread: servers
        end with the thread that started them."""
        for patience in (0.2, 0.5, 1.0, 2.0, 0.0):
            try:
                self.postgres = start_postgres(
                    self.folder / "postgresql",
                    OWNER,
                    self.passwords[OWNER],
                    self.settings,
                    log=self.folder / "postgresql.log",
                    port=self.postgres.port,
                )
            except ComponentMissing:
                # Backends of a killed postmaster need a moment to notice.
                if not patience:
                    raise
                time.sleep(patience)
            else:
                return

    def end_pgbouncer(self, how: signal.Signals) -> None:
        """SIGTERM: an immediate shutdown. SIGKILL: gone without a word."""
        self.pgbouncer.child.process.send_signal(how)
        self.pgbouncer.child.process.wait(30)

    def begin_pgbouncer(self) -> None:
        """Start PgBouncer again on the same port."""
        self.pgbouncer = start_pgbouncer(
            self.folder / "pgbouncer",
            self.postgres,
            self.passwords["pgbouncer_auth"],
            log=self.folder / "pgbouncer.log",
            port=self.pgbouncer.port,
            settings=_PGBOUNCER_SETTINGS,
        )

    def stop(self) -> None:
        self.pgbouncer.stop()
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_client(cluster: Cluster, database: Database, program: str, *arguments: str) -> str:
    """The output of one of PostgreSQL's programs, run as the owner."""
    command = [str(cluster.postgres.binaries.folder / program), "-w", "-h", "127.0.0.1"]
    command += ["-p", str(database.direct_port), "-U", database.owner_user]
    done = subprocess.run(
        [*command, "-d", database.dbname, *arguments],
        env=os.environ | {"PGPASSWORD": database.owner_password},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def schema_of(cluster: Cluster, database: Database) -> str:
    """The schema as SQL, to be compared."""
    dump = run_client(cluster, database, "pg_dump", "--schema-only")
    # Newer clients write a random key into \restrict lines.
    return re.sub(r"^\\(un)?restrict .*\n", "", dump, flags=re.MULTILINE)


def run_apart(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in an event loop of its own, also from where one is running."""

    async def main() -> T:
        return await work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(main())).result()


def start_cluster(more_settings: Mapping[str, str] | None = None) -> Cluster:
    """Start both servers and prepare the migrated template."""
    settings = {**_SETTINGS, **(more_settings or {})}
    # Not below pytest's own temporary directory: PostgreSQL's user may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="bigbrotr-tests-"))
    folder.chmod(0o755)
    passwords = {
        role: secrets.token_hex(12)
        for role in (OWNER, "bigbrotr_writer", "bigbrotr_reader", "pgbouncer_auth")
    }
    postgres = start_postgres(
        folder / "postgresql",
        OWNER,
        passwords[OWNER],
        settings,
        log=folder / "postgresql.log",
    )
    try:
        pgbouncer = start_pgbouncer(
            folder / "pgbouncer",
            postgres,
            passwords["pgbouncer_auth"],
            log=folder / "pgbouncer.log",
            settings=_PGBOUNCER_SETTINGS,
        )
    except BaseException:
        postgres.stop()
        raise
    cluster = Cluster(folder, postgres, pgbouncer, passwords, settings)
    try:
        cluster.administer(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        owner = DatabaseConfig(
            host="127.0.0.1",
            port=postgres.port,
            user=OWNER,
            password=passwords[OWNER],
            dbname=TEMPLATE,
        )
        roles = RolePasswords(
            writer=passwords["bigbrotr_writer"],
            reader=passwords["bigbrotr_reader"],
            pgbouncer_auth=passwords["pgbouncer_auth"],
        )
        run_apart(partial(migrate, owner, roles))
    except BaseException:
        cluster.stop()
        raise
    return cluster
