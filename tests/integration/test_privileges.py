"""Least privilege, read from the catalogue: what each role may do, and that it is no more.

A new table or function appears here, so that somebody decides who may use it.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from components.databases import Cluster, Database

ROLES = {"bigbrotr_writer", "bigbrotr_reader", "pgbouncer_auth"}
READ = {"SELECT"}
ADD_AND_REMOVE = {"SELECT", "INSERT", "DELETE"}
CHANGE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
WRITER = {
    **dict.fromkeys(
        (
            "relays",
            "events",
            "events_relays",
            "events_raw",
            "nip11",
            "nip66",
            "relay_metadata",
        ),
        ADD_AND_REMOVE,
    ),
    **dict.fromkeys(("schema_version", "retention"), READ),
}
# Those of readers compute without writing.
READER_FUNCTIONS = {
    "compute_nip11_hash",
    "compute_nip66_hash",
    "filter_takes_kind",
    "tag_key",
    "tags_to_tagvalues",
}
OWNER_ONLY = {"apply_retention", "forget_relays", "retract_removed"}


@pytest.fixture
async def owner(cluster: Cluster, database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await cluster.connect(database.dbname)
    yield connection
    await connection.close()


async def granted(owner: asyncpg.Connection, role: str) -> dict[str, set[str]]:
    """Privileges by table or view; of the role itself and of PUBLIC."""
    rows = await owner.fetch(
        """
        SELECT relname, privilege
        FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE',
                                    'REFERENCES', 'TRIGGER']) AS privilege
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
          AND has_table_privilege($1, pg_class.oid, privilege)
        """,
        role,
    )
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["relname"], set()).add(row["privilege"])
    return found


async def relations(owner: asyncpg.Connection, kind: str) -> set[str]:
    rows = await owner.fetch(
        "SELECT relname FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = $1::text::\"char\"",
        kind,
    )
    return {row["relname"] for row in rows}


async def routines(owner: asyncpg.Connection, role: str | None = None) -> set[str]:
    """The archive's functions and procedures; those that `role` may execute."""
    rows = await owner.fetch(
        """
        SELECT pronamespace::regnamespace::text || '.' || proname AS name FROM pg_proc
        WHERE pronamespace IN ('public'::regnamespace, 'pgbouncer'::regnamespace)
          AND ($1::text IS NULL OR has_function_privilege($1, oid, 'EXECUTE'))
        """,
        role,
    )
    return {row["name"].removeprefix("public.") for row in rows}


async def test_tables(owner: asyncpg.Connection) -> None:
    tables, views = await relations(owner, "r"), await relations(owner, "v")
    assert await granted(owner, "bigbrotr_reader") == dict.fromkeys(tables | views, READ)
    assert await granted(owner, "bigbrotr_writer") == {
        **dict.fromkeys(tables, CHANGE),
        **dict.fromkeys(views, READ),
        **WRITER,
    }
    assert await granted(owner, "pgbouncer_auth") == {}


async def test_functions(owner: asyncpg.Connection) -> None:
    every = await routines(owner)
    assert await routines(owner, "bigbrotr_reader") == READER_FUNCTIONS
    assert await routines(owner, "pgbouncer_auth") == {"pgbouncer.get_auth"}
    assert await routines(owner, "bigbrotr_writer") == every - OWNER_ONLY - {"pgbouncer.get_auth"}


async def test_roles_are_plain_and_members_of_none(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch("SELECT * FROM pg_roles WHERE rolname = ANY ($1)", list(ROLES))
    assert {row["rolname"] for row in rows} == ROLES
    for row in rows:
        assert row["rolcanlogin"]
        for power in ("super", "createdb", "createrole", "replication", "bypassrls", "inherit"):
            assert row[f"rol{power}"] is False, (row["rolname"], power)
    members = await owner.fetch(
        "SELECT FROM pg_auth_members WHERE member::regrole::text = ANY ($1)", list(ROLES)
    )
    assert members == []


async def test_database_and_schemas(owner: asyncpg.Connection) -> None:
    for role in ROLES:
        schema = "pgbouncer" if role == "pgbouncer_auth" else "public"
        for privilege, expected in (("CONNECT", True), ("CREATE", False), ("TEMPORARY", False)):
            may = await owner.fetchval(
                "SELECT has_database_privilege($1, current_database(), $2)", role, privilege
            )
            assert may is expected, (role, privilege)
        for name in ("public", "pgbouncer"):
            usage = await owner.fetchval("SELECT has_schema_privilege($1, $2, 'USAGE')", role, name)
            create = await owner.fetchval(
                "SELECT has_schema_privilege($1, $2, 'CREATE')", role, name
            )
            assert (usage, create) == (name == schema, False), (role, name)
