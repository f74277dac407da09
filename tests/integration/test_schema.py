"""The schema: both ways to it, its indexes and checks, its functions, who may do what."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database, run_client, schema_of
from config_types import DatabaseConfig
from migrate import INIT_DIRECTORY, migrate, read_migrations

URL = "wss://relay.example.com"
HEX_64 = "ab" * 32
HEX_128 = "cd" * 64


@pytest.fixture(scope="module")
def untouched(cluster: Cluster) -> Iterator[Database]:
    """One archive for the tests that leave nothing behind."""
    fresh = cluster.create_database()
    yield fresh
    cluster.drop_database(fresh.dbname)


@pytest.fixture
async def owner(cluster: Cluster, untouched: Database) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the untouched archive, in a transaction that is rolled back."""
    connection = await cluster.connect(untouched.dbname)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
async def writer(untouched: Database) -> AsyncIterator[BigBrotr]:
    async with _connection(untouched, untouched.writer_user, untouched.writer_password) as db:
        yield db


@pytest.fixture
async def reader(untouched: Database) -> AsyncIterator[BigBrotr]:
    async with _connection(untouched, untouched.reader_user, untouched.reader_password) as db:
        yield db


def _connection(database: Database, user: str, password: str) -> BigBrotr:
    return BigBrotr(database.host, database.port, user, password, database.dbname, min_pool_size=1)


def owner_config(database: Database) -> DatabaseConfig:
    return DatabaseConfig(
        host=database.direct_host,
        port=database.direct_port,
        user=database.owner_user,
        password=database.owner_password,
        dbname=database.dbname,
    )


def _run_as_image(cluster: Cluster, database: Database) -> None:
    """What the image's init directory does: psql, a file at a time, statement by statement."""
    for path in sorted(INIT_DIRECTORY.glob("*.sql")):
        run_client(
            cluster, database, "psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-f", str(path)
        )


async def _versions(cluster: Cluster, database: Database) -> list[tuple[Any, ...]]:
    connection = await cluster.connect(database.dbname)
    try:
        query = "SELECT version, name, checksum FROM schema_version ORDER BY version"
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_both_ways_give_the_same_schema(cluster: Cluster, empty_database: Database) -> None:
    by_image = cluster.create_database(migrated=False)
    try:
        applied = await migrate(owner_config(empty_database))
        _run_as_image(cluster, by_image)
        assert len(applied) == len(read_migrations())
        assert schema_of(cluster, by_image) == schema_of(cluster, empty_database)

        assert await migrate(owner_config(by_image)) == ()
        assert await _versions(cluster, by_image) == await _versions(cluster, empty_database)
        assert all(row[2] for row in await _versions(cluster, by_image))
    finally:
        cluster.drop_database(by_image.dbname)


async def test_an_interrupted_init_is_completed(cluster: Cluster, empty_database: Database) -> None:
    """The image's files are applied statement by statement: stop in the middle of one."""
    paths = sorted(INIT_DIRECTORY.glob("*.sql"))
    for path in paths[:4]:
        run_client(cluster, empty_database, "psql", "-v", "ON_ERROR_STOP=1", "-f", str(path))
    half = paths[4].read_text().split("CREATE TABLE IF NOT EXISTS relay_tasks")[0]
    run_client(cluster, empty_database, "psql", "-v", "ON_ERROR_STOP=1", "-c", half)

    assert len(await migrate(owner_config(empty_database))) == len(paths) - 4
    whole = cluster.create_database()
    try:
        assert schema_of(cluster, empty_database) == schema_of(cluster, whole)
    finally:
        cluster.drop_database(whole.dbname)


async def test_fifteen_secondary_indexes_none_a_prefix(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        """
        SELECT i.relname AS name, t.relname AS "table", am.amname AS method,
               x.indisunique, x.indkey::int[] AS columns, x.indpred IS NOT NULL AS partial
        FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_class t ON t.oid = x.indrelid
        JOIN pg_namespace n ON n.oid = t.relnamespace
        JOIN pg_am am ON am.oid = i.relam
        WHERE n.nspname = 'public'
        """
    )
    secondary = {row["name"] for row in rows if not row["indisunique"]}
    assert len(secondary) == 15
    assert {
        "idx_events_pubkey",
        "idx_events_created_at",
        "idx_events_relays_relay_seen",
    } < secondary
    for row in rows:
        for other in rows:
            if row["name"] == other["name"] or row["table"] != other["table"]:
                continue
            is_prefix = other["columns"][: len(row["columns"])] == row["columns"]
            assert not is_prefix, f"{row['name']} is a prefix of {other['name']}"


async def test_every_foreign_key_that_cascades_has_an_index(owner: asyncpg.Connection) -> None:
    missing = await owner.fetch(
        """
        SELECT c.conrelid::regclass::text, c.conname
        FROM pg_constraint c
        WHERE c.contype = 'f' AND c.confdeltype = 'c' AND NOT EXISTS (
            SELECT FROM pg_index x
            WHERE x.indrelid = c.conrelid AND x.indkey[0] = c.conkey[1] AND x.indpred IS NULL
        )
        """
    )
    assert missing == []


async def test_names_of_the_contract_exist(owner: asyncpg.Connection) -> None:
    functions = {row[0] for row in await owner.fetch("SELECT DISTINCT proname FROM pg_proc")}
    assert {
        "insert_event",
        "insert_relay",
        "insert_relay_metadata",
        "delete_orphan_events",
        "delete_orphan_nip11",
        "delete_orphan_nip66",
        "compute_nip11_hash",
        "compute_nip66_hash",
    } <= functions
    relations = {
        row[0]
        for row in await owner.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
    }
    assert {
        "relays",
        "events",
        "events_relays",
        "nip11",
        "nip66",
        "relay_metadata",
        "relay_metadata_latest",
        "readable_relays",
        "sync_progress",
    } <= relations


async def test_no_function_hides_the_sqlstate() -> None:
    for migration in read_migrations():
        assert "WHEN OTHERS" not in migration.sql.upper()


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("relays", ("https://relay.example.com", "clearnet", 1)),
        ("relays", ("wss://" + "a" * 2048, "clearnet", 1)),
        ("relays", (URL + "/b", "i2p", 1)),
        ("relays", (URL + "/b", "clearnet", -1)),
        ("events", ("AB" * 32, HEX_64, 1, 1, "[]", "", HEX_128)),
        ("events", (HEX_64 + "\n", HEX_64, 1, 1, "[]", "", HEX_128)),
        ("events", (HEX_64, "xy" * 32, 1, 1, "[]", "", HEX_128)),
        ("events", (HEX_64, HEX_64, -1, 1, "[]", "", HEX_128)),
        ("events", (HEX_64, HEX_64, 1, 65536, "[]", "", HEX_128)),
        ("events", (HEX_64, HEX_64, 1, -1, "[]", "", HEX_128)),
        ("events", (HEX_64, HEX_64, 1, 1, "{}", "", HEX_128)),
        ("events", (HEX_64, HEX_64, 1, 1, "[]", "", HEX_64)),
        ("nip66", (HEX_64, True, True, True, -1, 0, 0)),
    ],
)
async def test_checks_refuse(owner: asyncpg.Connection, table: str, row: tuple[Any, ...]) -> None:
    names = {
        "relays": "url, network, inserted_at",
        "events": "id, pubkey, created_at, kind, tags, content, sig",
        "nip66": "id, openable, readable, writable, rtt_open, rtt_read, rtt_write",
    }[table]
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", *row)


LONG = "é" * 4_000


@pytest.mark.parametrize(
    ("tags", "tagvalues"),
    [
        ([], []),
        ([["e", "1"], ["E", "2"], ["e", "1", "wss://x"]], ["e:1", "E:2", "e:1"]),
        ([["t", ""], ["t", "a:b"], ["t", "日本\u0001"]], ["t:", "t:a:b", "t:日本\u0001"]),
        ([["emoji", "x"], ["-"], ["1", "x"], ["é", "x"], ["", "x"]], []),
        ([[], ["t"], ["t", None], ["t", 5], ["t", True], ["t", ["x"]], ["t", {"a": 1}]], []),
        ([[5, "x"], [None, "x"], [["t"], "x"]], []),
        (["t", 5, None, {"t": "x"}], []),
        ([["t", "a" * 1000]], ["t:" + "a" * 1000]),
        ([["t", "a" * 1001]], ["t:sha256:" + hashlib.sha256(b"a" * 1001).hexdigest()]),
        ([["t", LONG]], ["t:sha256:" + hashlib.sha256(LONG.encode()).hexdigest()]),
        (
            [["r", "\\x00" * 400 + "\\"]],
            ["r:sha256:" + hashlib.sha256(b"\\x00" * 400 + b"\\").hexdigest()],
        ),
    ],
)
async def test_tagvalues(owner: asyncpg.Connection, tags: list[Any], tagvalues: list[str]) -> None:
    assert await owner.fetchval("SELECT tags_to_tagvalues($1)", json.dumps(tags)) == tagvalues


async def test_events_are_found_by_tag_through_the_index(owner: asyncpg.Connection) -> None:
    value = "v" * 50_000
    tags = [["t", "nostr"], ["d", value]]
    await owner.execute(
        "INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig) "
        "VALUES ($1, $1, 1, 1, $2, '', $3)",
        HEX_64,
        json.dumps(tags),
        HEX_128,
    )
    await owner.execute("SET enable_seqscan = off")
    for condition in ("ARRAY['t:nostr']", f"ARRAY[tag_key('d', '{value}')]"):
        query = f"SELECT id FROM events WHERE tagvalues @> {condition}"
        assert await owner.fetchval(query) == HEX_64
        plan = "\n".join(row[0] for row in await owner.fetch(f"EXPLAIN {query}"))
        assert "idx_events_tagvalues" in plan
    plan = "\n".join(
        row[0] for row in await owner.fetch(f"EXPLAIN SELECT * FROM events WHERE id = '{HEX_64}'")
    )
    assert "events_pkey" in plan


# Roles


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a INT)",
        "CREATE TEMPORARY TABLE mine (a INT)",
        "CREATE SCHEMA mine",
        "ALTER TABLE events ADD COLUMN mine INT",
        "DROP INDEX idx_events_pubkey",
        "DROP TABLE relays",
        "TRUNCATE relays CASCADE",
        "CREATE ROLE mine",
        "UPDATE events SET content = ''",
        "UPDATE events_raw SET raw = ''",
        "UPDATE schema_version SET version = 99",
        "INSERT INTO schema_version (version, name) VALUES (99, 'x')",
        "SELECT * FROM pgbouncer.get_auth('bigbrotr_reader')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY relays TO PROGRAM 'cat'",
    ],
)
async def test_writers_cannot(writer: BigBrotr, statement: str) -> None:
    with pytest.raises(Exception, match=r"permission denied|must be (owner|superuser)"):
        await writer.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO relays VALUES ('wss://a.example', 'clearnet', 1)",
        "DELETE FROM events",
        "UPDATE relay_tasks SET owner = NULL",
        "SELECT insert_relay('wss://a.example', 'clearnet', 1)",
        "SELECT delete_orphan_events()",
        "SELECT 1 FROM relays FOR UPDATE",
        "CREATE TEMPORARY TABLE mine (a INT)",
        "SELECT * FROM pgbouncer.get_auth('bigbrotr_writer')",
    ],
)
async def test_readers_cannot(reader: BigBrotr, statement: str) -> None:
    with pytest.raises(Exception, match="permission denied"):
        await reader.execute(statement)


async def test_readers_read_everything(reader: BigBrotr, owner: asyncpg.Connection) -> None:
    relations = await owner.fetch(
        "SELECT relname FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    )
    assert len(relations) > 12
    for row in relations:
        await reader.fetch(f"SELECT * FROM {row['relname']}")


async def test_pgbouncer_may_ask_for_verifiers_and_nothing_else(untouched: Database) -> None:
    connection = await asyncpg.connect(
        host=untouched.direct_host,
        port=untouched.direct_port,
        user="pgbouncer_auth",
        password=untouched.pgbouncer_auth_password,
        database=untouched.dbname,
    )
    try:
        query = "SELECT username, password FROM pgbouncer.get_auth($1)"
        row = await connection.fetchrow(query, "bigbrotr_writer")
        assert row["username"] == "bigbrotr_writer"
        assert row["password"].startswith("SCRAM-SHA-256$")
        for name in (untouched.owner_user, "pg_monitor", "nobody", "", "' OR true --", None):
            assert await connection.fetch(query, name) == []
        for statement in ("SELECT * FROM public.events", "SELECT * FROM pg_authid"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_definer_functions_have_their_search_path_pinned(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        "SELECT proname, proconfig FROM pg_proc "
        "WHERE prosecdef AND pronamespace IN ('public'::regnamespace, 'pgbouncer'::regnamespace)"
    )
    assert {row["proname"] for row in rows} == {
        "get_auth",
        "delete_orphan_events",
        "delete_orphan_nip11",
        "delete_orphan_nip66",
    }
    for row in rows:
        assert any(
            setting.startswith("search_path=pg_catalog, ") and setting.endswith("pg_temp")
            for setting in row["proconfig"]
        )


# Maintenance


async def test_orphans_are_deleted_in_batches_and_others_kept(db: BigBrotr) -> None:
    await db.execute("SELECT insert_relay($1, 'clearnet', 1)", URL)
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(25)]
    await db.execute(
        "SELECT insert_events($1, $1, $2, $3, $4, $5, $6)",
        ids,
        [1] * 25,
        [1] * 25,
        ["[]"] * 25,
        [""] * 25,
        [HEX_128] * 25,
    )
    await db.execute("SELECT insert_sightings($1, $2, 1)", ids[:3], URL)
    assert (await db.fetch("SELECT delete_orphan_events(4)"))[0][0] == 22
    assert (await db.fetch("SELECT delete_orphan_events(4)"))[0][0] == 0
    left = {row["id"] for row in await db.fetch("SELECT id FROM events")}
    assert left == set(ids[:3])

    for seconds, name in ((1, "a"), (2, "b"), (3, "b")):
        await db.execute(
            "SELECT insert_relay_metadata($1, 'clearnet', 1, $2, $3, $4)",
            URL,
            seconds,
            json.dumps({"name": name}),
            json.dumps(
                {"openable": True, "readable": False, "writable": False, "rtt_open": seconds}
            ),
        )
    await db.execute("DELETE FROM relay_metadata WHERE generated_at < 3")
    assert (await db.fetch("SELECT delete_orphan_nip11(1)"))[0][0] == 1
    assert (await db.fetch("SELECT delete_orphan_nip66(1)"))[0][0] == 2
    assert [row["name"] for row in await db.fetch("SELECT name FROM nip11")] == ["b"]


async def test_an_event_that_a_writer_refers_to_is_no_orphan(
    cluster: Cluster, database: Database, db: BigBrotr
) -> None:
    await db.execute("SELECT insert_relay($1, 'clearnet', 1)", URL)
    await db.execute(
        "SELECT insert_events($1, $1, $2, $3, $4, $5, $6)",
        [HEX_64],
        [1],
        [1],
        ["[]"],
        [""],
        [HEX_128],
    )
    other = await cluster.connect(database.dbname)
    try:
        async with other.transaction():
            await other.execute("SELECT insert_sightings($1, $2, 1)", [HEX_64], URL)
            assert (await db.fetch("SELECT delete_orphan_events()"))[0][0] == 0
    finally:
        await other.close()
    assert len(await db.fetch("SELECT FROM events JOIN events_relays ON event_id = id")) == 1


# Views


async def test_readable_means_the_latest_check_says_so(db: BigBrotr) -> None:
    good = {"openable": True, "readable": True, "writable": False, "rtt_open": 1, "rtt_read": 2}
    bad = {"openable": False, "readable": False, "writable": False}
    checks = {
        "wss://now.example": [(1, bad), (2, good)],
        "wss://once.example": [(1, good), (2, bad)],
        "wss://untested.example": [(1, good), (2, None)],
    }
    for url, results in checks.items():
        for generated_at, result in results:
            await db.execute(
                "SELECT insert_relay_metadata($1, 'clearnet', 1, $2, NULL, $3)",
                url,
                generated_at,
                result and json.dumps(result),
            )
    await db.execute("SELECT insert_relay('wss://never.example', 'clearnet', 1)")
    readable = [row["relay_url"] for row in await db.fetch("SELECT * FROM readable_relays")]
    assert readable == ["wss://now.example"]
    latest = await db.fetch("SELECT relay_url, generated_at FROM relay_metadata_latest")
    assert {tuple(row) for row in latest} == {(url, 2) for url in checks}


async def test_progress_is_never_better_than_what_is_proven(db: BigBrotr) -> None:
    await db.execute("SELECT insert_relay($1, 'clearnet', 1)", URL)
    hashes = [f"{number:064x}" for number in range(5)]
    ledger = [
        # covered, target, covered seconds, percent
        ("{[0,99999)}", "[0,100000)", 99_999, "99.99"),
        ("{[0,100000)}", "[0,100000)", 100_000, "100.00"),
        ("{}", "[0,100)", 0, "0.00"),
        ("{[0,10),[20,40),[500,600)}", "[0,100)", 30, "30.00"),
        ("{[0,10)}", None, 10, None),
    ]
    for filter_hash, (covered, target, _, _) in zip(hashes, ledger, strict=True):
        await db.execute(
            "INSERT INTO sync_filters VALUES ($1, $2)", filter_hash, json.dumps({"kinds": [1]})
        )
        await db.execute(
            "INSERT INTO sync_coverage VALUES "
            "($1, $2, $3::text::int8multirange, $4::text::int8range, 1000000)",
            URL,
            filter_hash,
            covered,
            target,
        )
    await db.execute(
        "INSERT INTO sync_gaps VALUES ($1, $2, '[40,42)', 'saturated', '', 1, 1, 1)", URL, hashes[3]
    )
    rows = await db.fetch("SELECT * FROM sync_progress ORDER BY filter_hash")
    for row, (_, _, seconds, percent) in zip(rows, ledger, strict=True):
        assert row["covered_seconds"] == seconds
        assert (None if percent is None else str(row["proven_percent"])) == percent
    assert [(row["gaps"], row["gap_seconds"]) for row in rows] == [
        (0, 0),
        (0, 0),
        (0, 0),
        (1, 2),
        (0, 0),
    ]
    assert (rows[0]["target_from"], rows[0]["target_until"]) == (0, 99_999)


# Hashes


async def test_hashes_depend_on_content_not_on_key_order(owner: asyncpg.Connection) -> None:
    query = """
        SELECT compute_nip11_hash('n', NULL, NULL, NULL, NULL, NULL, '[1, 2]', NULL, NULL, NULL,
                                  NULL, $1, NULL)
    """
    one = await owner.fetchval(query, '{"a": 1, "b": {"d": 2, "c": 3}}')
    assert one == await owner.fetchval(query, '{"b": {"c": 3, "d": 2}, "a": 1}')
    assert one != await owner.fetchval(query, '{"a": 1, "b": {"d": 3, "c": 3}}')
    assert one != await owner.fetchval(query, None)

    query = "SELECT compute_nip66_hash(true, true, false, 1, $1, NULL)"
    assert await owner.fetchval(query, 2) != await owner.fetchval(query, 3)
    canonical = await owner.fetchval(
        "SELECT encode(sha256(convert_to(jsonb_build_object('openable', true, 'readable', true, "
        "'writable', false, 'rtt_open', 1, 'rtt_read', 2, 'rtt_write', NULL)::text, 'UTF8')), "
        "'hex')"
    )
    assert await owner.fetchval(query, 2) == canonical
