"""The whole suite as processes: PostgreSQL, PgBouncer, the initializer and the services.

The services are the programs that containers run, with the same environment variables.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from errors import AccessDenied, ComponentMissing, ServiceError
from standalone.pgbouncer import PgBouncer, start_pgbouncer
from standalone.postgres import Postgres, start_postgres
from standalone.processes import Child, start

SOURCE = Path(__file__).parent.parent
SERVICES = ("finder", "monitor", "synchronizer", "priority_synchronizer")
WRITER = "bigbrotr_writer"
READER = "bigbrotr_reader"

_POSTGRES_SETTINGS = {
    "shared_buffers": "256MB",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "wal_compression": "on",
    "log_min_messages": "warning",
}
# What a program needs of the environment it was started in.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class Passwords:
    """One for each role of the database."""

    owner: str = field(repr=False)
    writer: str = field(repr=False)
    reader: str = field(repr=False)
    pgbouncer_auth: str = field(repr=False)

    @classmethod
    def random(cls) -> "Passwords":
        """Fresh passwords."""
        return cls(*(secrets.token_hex(16) for _ in range(4)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a suite is made of. Ports that are None are chosen among the free ones."""

    folder: Path
    passwords: Passwords
    owner: str = "admin"
    dbname: str = "bigbrotr"
    postgres_port: int | None = None
    pgbouncer_port: int | None = None
    outlive_parent: bool = False


@dataclass(slots=True)
class Suite:
    """A running suite; its programs write into `<name>.log` in the plan's folder."""

    plan: Plan
    postgres: Postgres
    pgbouncer: PgBouncer | None
    services: dict[str, Child] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where services and readers connect: PgBouncer, or PostgreSQL when it is missing."""
        return self.pgbouncer.port if self.pgbouncer else self.postgres.port

    @property
    def children(self) -> list[Child]:
        """Every process of the suite, in the order in which to stop them."""
        servers = [self.pgbouncer.child] if self.pgbouncer else []
        return [*self.services.values(), *servers, self.postgres.child]

    def psql(self) -> str:
        """The command that opens the archive for reading; it asks for the reader's password."""
        return f"psql -h 127.0.0.1 -p {self.port} -U {READER} {self.plan.dbname}"

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The variables of a service: how to reach the database, and its own `settings`."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            **settings,
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_DB": self.plan.dbname,
            "POSTGRES_USER": WRITER,
            "POSTGRES_PASSWORD": self.plan.passwords.writer,
        }

    def initialize(self, settings: Mapping[str, str], timeout: float = 120) -> None:
        """Run the initializer: migrations, the roles' passwords, the seed relays.

        Raises ServiceError with the end of its log when it fails.
        """
        passwords = self.plan.passwords
        owner = {
            "POSTGRES_DIRECT_HOST": "127.0.0.1",
            "POSTGRES_DIRECT_PORT": str(self.postgres.port),
            "POSTGRES_OWNER_USER": self.plan.owner,
            "POSTGRES_OWNER_PASSWORD": passwords.owner,
            "POSTGRES_WRITER_PASSWORD": passwords.writer,
            "POSTGRES_READER_PASSWORD": passwords.reader,
            "PGBOUNCER_AUTH_PASSWORD": passwords.pgbouncer_auth,
        }
        child = self._start("initializer", self.environment(settings) | owner)
        code = child.wait(timeout)
        if code != 0:
            raise ServiceError(f"the initializer failed (exit code {code}):\n{child.tail()}")

    def start_service(self, name: str, settings: Mapping[str, str]) -> Child:
        """Start the service `name` with its own `settings`, again if it ran before."""
        child = self._start(name, self.environment(settings))
        self.services[name] = child
        return child

    def stop_services(self) -> dict[str, int]:
        """Stop the services as a container runtime does, all at once; their exit codes."""
        for child in self.services.values():
            child.ask_to_stop()
        return {name: child.stop() for name, child in self.services.items()}

    def stop(self) -> None:
        """Stop everything."""
        self.stop_services()
        for child in self.children:
            child.stop(30)

    def _start(self, name: str, environment: Mapping[str, str]) -> Child:
        return start(
            name,
            [sys.executable, str(SOURCE / f"{name}.py")],
            self.plan.folder / f"{name}.log",
            env=environment,
            cwd=SOURCE.parent,
            outlive_parent=self.plan.outlive_parent,
        )


def open_suite(plan: Plan) -> Suite:
    """Start the database and PgBouncer; the archive's database exists then, still empty.

    Raises ComponentMissing when PostgreSQL cannot be started, AccessDenied when an existing
    data directory has another owner password. Without PgBouncer it says so and goes on.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    postgres = start_postgres(
        plan.folder / "postgresql",
        plan.owner,
        plan.passwords.owner,
        _POSTGRES_SETTINGS,
        log=plan.folder / "postgresql.log",
        port=plan.postgres_port,
        outlive_parent=plan.outlive_parent,
    )
    try:
        asyncio.run(_create_database(postgres, plan.dbname))
        return Suite(plan, postgres, _pgbouncer(plan, postgres))
    except BaseException:
        postgres.stop()
        raise


def _pgbouncer(plan: Plan, postgres: Postgres) -> PgBouncer | None:
    try:
        return start_pgbouncer(
            plan.folder / "pgbouncer",
            postgres,
            plan.passwords.pgbouncer_auth,
            log=plan.folder / "pgbouncer.log",
            port=plan.pgbouncer_port,
            outlive_parent=plan.outlive_parent,
        )
    except ComponentMissing as error:
        print(f"suite: {error}; going on without it, straight to PostgreSQL", flush=True)
        return None


async def _create_database(postgres: Postgres, dbname: str) -> None:
    try:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=postgres.port,
            user=postgres.superuser,
            password=postgres.password,
            database="postgres",
        )
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise AccessDenied(
            f"the database was created with another POSTGRES_USER or POSTGRES_PASSWORD ({error}); "
            "set them back, or remove the data directory to start anew"
        ) from error
    try:
        known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", dbname)
        if not known:
            quoted = dbname.replace('"', '""')
            await connection.execute(f'CREATE DATABASE "{quoted}"')
    finally:
        await connection.close()
