"""Who may do what through the two published ports: the owner, the writer, the reader, strangers."""

import asyncpg
import pytest

from components.deployment import OWNER, READER, WRITER, Deployment
from components.spec_queries import BLOCKS, INLINE, OF_READERS, statements

DATABASE, PGBOUNCER = "DATABASE_PORT", "PGBOUNCER_PORT"
REFUSED = (asyncpg.PostgresError, OSError, asyncpg.InterfaceError)


async def run(
    suite: Deployment, role: str, port: str, *queries: str, dbname: str = ""
) -> list[list[asyncpg.Record]]:
    connection = await suite.connect(role, port=port, dbname=dbname)
    try:
        return [await connection.fetch(query) for query in queries]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("role", "port"),
    [
        (OWNER, DATABASE),
        (WRITER, DATABASE),
        (WRITER, PGBOUNCER),
        (READER, DATABASE),
        (READER, PGBOUNCER),
    ],
)
async def test_queries_of_the_specification(suite: Deployment, role: str, port: str) -> None:
    for block in OF_READERS:
        assert all(await run(suite, role, port, *statements(block))), block
    assert await run(suite, role, port, "SELECT count(*) FROM pg_stat_activity")


@pytest.mark.parametrize("port", [DATABASE, PGBOUNCER])
async def test_the_writer_tidies_up(suite: Deployment, port: str) -> None:
    tidying = [part for block in BLOCKS for part in statements(block) if "delete_orphan" in part]
    assert len(tidying) == 4
    await run(suite, WRITER, port, *tidying)


def test_psql_commands_of_the_specification(suite: Deployment) -> None:
    """`docker exec … psql -U admin -d bigbrotr`, with all that the owner alone may do."""
    for block in (*BLOCKS[7:], *INLINE):
        for statement in statements(block):
            suite.sql(statement)
    assert int(suite.sql("SELECT COUNT(*) FROM events")) > 0


@pytest.mark.parametrize("role", [WRITER, READER])
def test_psql_through_pgbouncer(suite: Deployment, role: str) -> None:
    """`psql "host=localhost port=6432 …"`, where there is a psql."""
    password = suite.setting(
        {WRITER: "POSTGRES_WRITER_PASSWORD", READER: "POSTGRES_READER_PASSWORD"}[role]
    )
    target = f"host=localhost port=6432 user={role} dbname=bigbrotr"
    command = ("env", f"PGPASSWORD={password}", "psql", target, "-qtAc")
    assert int(suite.inside("pgbouncer", *command, "SELECT COUNT(*) FROM events")) > 0
    refused = suite.inside("pgbouncer", *command, "DROP TABLE events", check=False)
    assert refused == ""


@pytest.mark.parametrize("port", [DATABASE, PGBOUNCER])
@pytest.mark.parametrize(
    ("role", "forbidden"),
    [
        (READER, "DELETE FROM events"),
        (READER, "SELECT delete_orphan_events()"),
        (READER, "SELECT * FROM pg_authid"),
        (READER, "SELECT * FROM pgbouncer.get_auth('admin')"),
        (WRITER, "UPDATE events SET content = ''"),
        (WRITER, "TRUNCATE events"),
        (WRITER, "DROP TABLE events"),
        (WRITER, "CREATE TABLE public.mine (x int)"),
        (WRITER, "SELECT * FROM pgbouncer.get_auth('admin')"),
        ("pgbouncer_auth", "SELECT count(*) FROM events"),
    ],
)
async def test_what_a_role_may_not_do(
    suite: Deployment, role: str, forbidden: str, port: str
) -> None:
    # A role that may not look into a schema finds no table there.
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
        await run(suite, role, port, forbidden)


@pytest.mark.parametrize("port", [DATABASE, PGBOUNCER])
async def test_strangers_are_let_in_nowhere(suite: Deployment, port: str) -> None:
    for role in (OWNER, WRITER, READER, "pgbouncer_auth", "stranger"):
        with pytest.raises(REFUSED):
            await suite.connect(role, "not the password", port=port)


async def test_the_owner_does_not_come_through_pgbouncer(suite: Deployment) -> None:
    with pytest.raises(REFUSED):
        await suite.connect(OWNER, port=PGBOUNCER)


async def test_passwords_are_verified_by_scram_on_both_sides(suite: Deployment) -> None:
    kept = "SELECT count(*) AS roles, count(*) FILTER (WHERE rolpassword LIKE 'SCRAM-SHA-256$%') "
    (rows,) = await run(suite, OWNER, DATABASE, f"{kept} AS scram FROM pg_authid WHERE rolcanlogin")
    assert rows[0]["roles"] == rows[0]["scram"] == 4
    rules = suite.sql(
        "SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE type = 'host' "
        "AND address NOT IN ('127.0.0.1', '::1')"
    )
    assert rules == "scram-sha-256"
    assert suite.sql("SHOW password_encryption") == "scram-sha-256"
    # In PgBouncer's memory there is a password of two: who looks up the others, and its console's.
    userlist = suite.inside("pgbouncer", "cat", "/run/pgbouncer/userlist.txt")
    assert [line.split()[0] for line in userlist.splitlines()] == [
        '"pgbouncer_auth"',
        '"pgbouncer_admin"',
    ]


async def test_a_changed_password_counts_at_once(suite: Deployment) -> None:
    before = suite.inspect("pgbouncer")["State"]["StartedAt"]
    old = suite.setting("POSTGRES_READER_PASSWORD")
    suite.sql("ALTER ROLE bigbrotr_reader PASSWORD 'another one'")
    try:
        connection = await suite.connect(READER, "another one")
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        with pytest.raises(REFUSED):
            await suite.connect(READER, old)
    finally:
        suite.sql(f"ALTER ROLE bigbrotr_reader PASSWORD '{old}'")
    assert await run(suite, READER, PGBOUNCER, "SELECT 1")
    assert suite.inspect("pgbouncer")["State"]["StartedAt"] == before


async def test_console_shows_the_settings_of_the_specification(suite: Deployment) -> None:
    # The console speaks the simple protocol alone, as psql does.
    admin = (
        "env",
        f"PGPASSWORD={suite.setting('PGBOUNCER_ADMIN_PASSWORD')}",
        "psql",
        "-qtA",
        "-h",
        "localhost",
        "-p",
        "6432",
        "-U",
        "pgbouncer_admin",
        "pgbouncer",
        "-c",
    )
    shown = suite.inside("pgbouncer", *admin, "SHOW CONFIG").splitlines()
    config = {line.split("|")[0]: line.split("|")[1] for line in shown}
    assert config["pool_mode"] == "transaction"
    assert config["auth_type"] == "scram-sha-256"
    assert config["max_client_conn"] == "1000"
    assert config["default_pool_size"] == "25"
    assert config["server_idle_timeout"] == "600"
    assert config["server_lifetime"] == "3600"
    pools = suite.inside("pgbouncer", *admin, "SHOW POOLS")
    assert f"bigbrotr|{WRITER}|" in pools


@pytest.mark.parametrize("role", [OWNER, WRITER, READER, "pgbouncer_auth", "stranger"])
async def test_console_is_for_its_administrator_alone(suite: Deployment, role: str) -> None:
    password = "any" if role == "stranger" else ""
    with pytest.raises(REFUSED):
        await suite.connect(role, password, dbname="pgbouncer")


async def test_a_thousand_clients_share_a_few_connections(suite: Deployment) -> None:
    """Transaction mode: clients that only wait hold no connection to the database."""
    clients = []
    try:
        for _ in range(150):
            client = await suite.connect(READER)
            clients.append(client)
            assert await client.fetchval("SELECT 1") == 1
        used = suite.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{READER}'")
        assert 1 <= int(used) <= 25
    finally:
        for client in clients:
            await client.close()


@pytest.mark.parametrize(
    ("value", "problem"), [("", "is (empty|not set)"), ("CHANGE_ME", "still has the placeholder")]
)
@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("database", "POSTGRES_PASSWORD"),
        ("initializer", "POSTGRES_PASSWORD"),
        ("initializer", "POSTGRES_READER_PASSWORD"),
        ("initializer", "PGBOUNCER_AUTH_PASSWORD"),
        ("pgbouncer", "PGBOUNCER_AUTH_PASSWORD"),
        ("pgbouncer", "PGBOUNCER_ADMIN_PASSWORD"),
        ("monitor", "POSTGRES_PASSWORD"),
        ("synchronizer", "POSTGRES_PASSWORD"),
    ],
)
def test_passwords_that_are_none_are_refused(
    suite: Deployment, service: str, name: str, value: str, problem: str
) -> None:
    with pytest.raises(AssertionError, match=f"{name} {problem}"):
        suite.compose("run", "--rm", "--no-deps", "-e", f"{name}={value}", service)
