"""Brings the database to the schema of this code: applies the numbered files of init/.

Run by the initializer on every start, or by hand: `python src/migrate.py` with the owner's
settings. It connects directly, not through PgBouncer. Each file is applied in a transaction of
its own that holds a lock, so two runners at once take turns and the second finds nothing to do.
"""

import asyncio
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import asyncpg

from bigbrotr import BigBrotr
from config import load_initializer_config
from config_types import DatabaseConfig, RolePasswords
from constants import LOG_ERROR, LOG_SUCCESS
from database_errors import clear_errors
from errors import BigBrotrError, ConfigError, SchemaMismatch
from logging_config import fields, setup_logging
from role_passwords import is_verifier_of, scram_verifier

INIT_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "init"

_FILE_NAME: Final = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_LOCK: Final = 0x42_69_67_42_72_6F_74_72  # any constant of ours ("BigBrotr")
_CONNECT_TIMEOUT_SECONDS: Final = 15.0
_SALT_BYTES: Final = 16
# Roles belong to the whole cluster, where the lock above is one of this database.
_LOCK_PASSWORD: Final = "SELECT rolpassword FROM pg_authid WHERE rolname = $1 FOR UPDATE"
_ALTER_ROLE: Final = "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)"
_OLDEST_SERVER: Final = 150_000
_SERVER: Final = """
    SELECT current_setting('server_version_num')::int AS version,
           current_setting('server_encoding') AS encoding
"""
_APPLIED: Final = "SELECT version, checksum FROM schema_version"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of init/; `checksum` is the SHA-256 of its bytes."""

    version: int
    name: str
    sql: str
    checksum: str


def read_migrations(directory: Path = INIT_DIRECTORY) -> tuple[Migration, ...]:
    """The files by number; raises SchemaMismatch unless they start with 1 and none is twice."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        named = _FILE_NAME.fullmatch(path.name)
        if named is None:
            raise SchemaMismatch(f"{path}: name it NNN_what_it_does.sql")
        content = path.read_bytes()
        found.append(
            Migration(int(named[1]), named[2], content.decode(), sha256(content).hexdigest())
        )
    versions = [migration.version for migration in found]
    if versions[:1] != [1] or len(set(versions)) != len(versions):
        raise SchemaMismatch(f"{directory}: number the SQL files 001, 002 ..., each differently")
    return tuple(found)


def pending_migrations(
    known: Sequence[Migration], applied: Mapping[int, str | None]
) -> tuple[Migration, ...]:
    """What is left to apply, given the checksum by version of what was (None where psql applied
    a file and no runner has seen it yet). Raises SchemaMismatch when the database is newer than
    the code, or when a file differs from what was applied."""
    newest, latest = max(applied, default=0), known[-1].version
    if newest > latest:
        raise SchemaMismatch(
            f"the database has schema version {newest}, this code knows {latest}: "
            "run a newer BigBrotr"
        )
    for migration in known:
        checksum = applied.get(migration.version)
        if checksum is not None and checksum != migration.checksum:
            raise SchemaMismatch(
                f"init/{migration.version:03}_{migration.name}.sql is not the file that was "
                "applied: restore it, and put changes into a new file"
            )
    return tuple(migration for migration in known if migration.version not in applied)


def server_problem(version: int, encoding: str) -> str | None:
    """Why a server (its server_version_num and the database's encoding) cannot hold an archive."""
    if version < _OLDEST_SERVER:
        return f"PostgreSQL {version // 10_000} is too old: use {_OLDEST_SERVER // 10_000} or newer"
    if encoding != "UTF8":
        return f"its encoding is {encoding}: create it with ENCODING 'UTF8'"
    return None


async def migrate(
    owner: DatabaseConfig,
    passwords: RolePasswords | None = None,
    *,
    directory: Path = INIT_DIRECTORY,
) -> tuple[str, ...]:
    """Applies what is missing, sets the roles' passwords, and returns the names of the files
    applied. `owner` is a direct connection as the role that owns the schema.

    Raises SchemaMismatch, AccessDenied or DatabaseUnavailable; a file that fails leaves nothing
    of itself behind.
    """
    known = read_migrations(directory)
    target = f"database {owner.dbname} of {owner.host}:{owner.port} as {owner.user}"
    with clear_errors(target):
        conn = await asyncpg.connect(
            host=owner.host,
            port=owner.port,
            user=owner.user,
            password=owner.password,
            database=owner.dbname,
            timeout=_CONNECT_TIMEOUT_SECONDS,
            statement_cache_size=0,
        )
        try:
            await _check_server(conn, target)
            applied = []
            while migration := await _apply_next(conn, known):
                logger.info(f"{LOG_SUCCESS} {fields('schema_migrated', file=migration.name)}")
                applied.append(migration.name)
            await _set_passwords(conn, passwords or RolePasswords())
            return tuple(applied)
        finally:
            await conn.close(timeout=_CONNECT_TIMEOUT_SECONDS)


async def check_schema(db: BigBrotr, *, directory: Path = INIT_DIRECTORY) -> None:
    """Raises SchemaMismatch unless the database has exactly the schema of this code."""
    known = read_migrations(directory)
    try:
        rows = await db.fetch(_APPLIED)
    except asyncpg.UndefinedTableError:
        raise SchemaMismatch(
            f"database {db.dbname} has no BigBrotr schema: run the initializer first"
        ) from None
    pending = pending_migrations(known, {row["version"]: row["checksum"] for row in rows})
    if pending:
        raise SchemaMismatch(
            f"database {db.dbname} lacks the schema versions from {pending[0].version} to "
            f"{pending[-1].version}: run the initializer first"
        )


async def _check_server(conn: asyncpg.Connection, target: str) -> None:
    row = await conn.fetchrow(_SERVER)
    problem = server_problem(row["version"], row["encoding"])
    if problem:
        raise SchemaMismatch(f"{target}: {problem}")


async def _apply_next(conn: asyncpg.Connection, known: Sequence[Migration]) -> Migration | None:
    """Applies the first file that is missing, None when there is none."""
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        applied: dict[int, str | None] = {}
        if await conn.fetchval("SELECT to_regclass('public.schema_version') IS NOT NULL"):
            applied = {row["version"]: row["checksum"] for row in await conn.fetch(_APPLIED)}
        pending = pending_migrations(known, applied)
        for migration in known:
            if migration.version in applied and applied[migration.version] is None:
                await _record_checksum(conn, migration)
        if not pending:
            return None
        await conn.execute(pending[0].sql)
        await _record_checksum(conn, pending[0])
        return pending[0]


async def _record_checksum(conn: asyncpg.Connection, migration: Migration) -> None:
    await conn.execute(
        "UPDATE schema_version SET checksum = $2 WHERE version = $1",
        migration.version,
        migration.checksum,
    )


async def _set_passwords(conn: asyncpg.Connection, passwords: RolePasswords) -> None:
    wanted = {
        "bigbrotr_writer": passwords.writer,
        "bigbrotr_reader": passwords.reader,
        "pgbouncer_auth": passwords.pgbouncer_auth,
    }
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        for role, password in wanted.items():
            if password is not None:
                await _set_password(conn, role, password)


async def _set_password(conn: asyncpg.Connection, role: str, password: str) -> None:
    """Gives a role its password, unless it has it: another salt, though for the same password,
    would make PgBouncer's logged-in clients fail at their next server connection."""
    current = await conn.fetchval(_LOCK_PASSWORD, role)
    if current is not None and is_verifier_of(current, password):
        return
    verifier = scram_verifier(password, os.urandom(_SALT_BYTES))
    statement = await conn.fetchval(_ALTER_ROLE, role, verifier)
    await conn.execute(statement)


def main() -> int:
    """Migrates with the settings of the environment: 0 done, 1 failed, 2 a setting is wrong."""
    setup_logging("MIGRATE")
    try:
        config = load_initializer_config()
        if config.owner is None:
            raise ConfigError("POSTGRES_OWNER_USER is missing: set it to the role of migrations")
        asyncio.run(migrate(config.owner, config.role_passwords))
    except ConfigError as error:
        logger.error(f"{LOG_ERROR} {fields('setting_wrong', error=error)}")
        return 2
    except BigBrotrError as error:
        logger.error(f"{LOG_ERROR} {fields('migration_failed', error=error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
