"""BigBrotr: the specification's methods against a real database through PgBouncer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from nostr_tools import Event, Relay, RelayMetadata

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.sample_events import sample_event
from errors import AccessDenied, DatabaseUnavailable, RelayUrlRefused
from nostr.events import SignedEvent
from nostr.json_text import decode_json
from nostr.urls import RelayUrl, to_relay
from standalone.pgbouncer import start_pgbouncer
from standalone.processes import free_port

RELAY = Relay("wss://relay.example.com")


def _event(number: int, **changes: Any) -> Event:
    return Event(**sample_event(number, **changes)._asdict())


async def _count(db: BigBrotr, table: str) -> int:
    row = await db.fetchone(f"SELECT count(*) FROM {table}")
    assert row is not None
    return int(row[0])


# Events


async def test_events_are_new_once(db: BigBrotr) -> None:
    events = [_event(number) for number in range(5)]
    assert await db.insert_event(events[0], RELAY, 100) is True
    assert await db.insert_event(events[0], RELAY, 200) is False
    assert await db.insert_event_batch([*events, *events], RELAY, 300) == 4
    assert await db.insert_event_batch(events, Relay("wss://other.example.com"), 400) == 0
    assert await db.insert_event_batch([], RELAY, 500) == 0
    assert await _count(db, "events") == 5
    assert await _count(db, "events_relays") == 10
    first = await db.fetchone(
        "SELECT seen_at FROM events_relays WHERE event_id = $1 AND relay_url = $2",
        events[0].id,
        RELAY.url,
    )
    assert first is not None
    assert first["seen_at"] == 100


async def test_more_events_than_one_statement_takes(db: BigBrotr) -> None:
    events = [_event(number) for number in range(1_203)]
    assert await db.insert_event_batch(events, RELAY, 1) == 1_203
    assert await _count(db, "events_relays") == 1_203


async def test_nul_is_kept_in_events_raw(db: BigBrotr) -> None:
    odd = _event(1, content="a\0b")
    assert await db.insert_event_batch([_event(0), odd], RELAY, 7) == 2
    assert await db.insert_event(odd, RELAY, 8) is False
    (row,) = await db.fetch("SELECT * FROM events_raw")
    assert (row["id"], row["relay_url"], row["reason"]) == (odd.id, RELAY.url, "nul")
    assert decode_json(row["raw"]) == odd.to_dict()
    assert await _count(db, "events") == 1


async def test_huge_values_and_many_tags(db: BigBrotr) -> None:
    tags = [["p", f"{number:064x}", "wss://x", ""] for number in range(2_000)]
    contacts = _event(1, kind=3, tags=tags)
    long_value = _event(2, tags=[["d", "x" * 100_000], ["t", "y" * 2_700]], content="z" * 500_000)
    assert await db.insert_event_batch([contacts, long_value], RELAY, 1) == 2
    row = await db.fetchone("SELECT * FROM events WHERE tagvalues @> $1", [f"p:{1999:064x}"])
    assert row is not None
    assert json.loads(row["tags"]) == tags
    assert len(row["tagvalues"]) == 2_000
    row = await db.fetchone(
        "SELECT * FROM events WHERE tagvalues @> ARRAY[tag_key('d', $1)]", "x" * 100_000
    )
    assert row is not None
    assert (row["content"], json.loads(row["tags"])) == (long_value.content, long_value.tags)


async def test_values_round_trip(db: BigBrotr) -> None:
    texts = [
        "".join(map(chr, range(1, 0x20))) + "\x7f\x80\u2028\u2029\ufeff\ufffe\U0001f600\u0301",
        "\\u0000 \\ \\\\ \\n ' '' \" $1 %s :x {}",
        " \t trailing \n",
    ]
    events = [
        sample_event(number, content=text, tags=[["t", text], [text], ["", text], ["e"], []])
        for number, text in enumerate(texts)
    ]
    # nostr-tools refuses an empty tag, so these come in below its types.
    for event in events:
        tags = json.dumps(event.tags)
        await db.execute(
            "SELECT insert_event($1, $2, $3, $4, $5, $6, $7, $8, 'clearnet', 1)",
            *event[:4],
            tags,
            *event[5:],
            RELAY.url,
        )
    rows = {row["id"]: row for row in await db.fetch("SELECT * FROM events")}
    for event in events:
        row = rows[event.id]
        stored = SignedEvent(
            row["id"],
            row["pubkey"],
            row["created_at"],
            row["kind"],
            json.loads(row["tags"]),
            row["content"],
            row["sig"],
        )
        assert stored == event


async def test_arguments_of_the_wrong_type_are_refused(db: BigBrotr) -> None:
    event = _event(0)
    wrong: list[tuple[Any, ...]] = [
        (event.to_dict(), RELAY, 1),
        (event, "wss://relay.example.com", 1),
        (event, RELAY, 1.5),
        (event, RELAY, True),
        (event, RELAY, "1"),
    ]
    for arguments in wrong:
        with pytest.raises(TypeError):
            await db.insert_event(*arguments)
    with pytest.raises(TypeError):
        await db.insert_relay_batch(["wss://relay.example.com"], 1)  # type: ignore[list-item]
    assert await _count(db, "relays") == 0


# Relays


async def test_relays_are_stored_in_canonical_form(db: BigBrotr) -> None:
    relays = [
        Relay("wss://Relay.Example.com:443/"),
        Relay("wss://relay.example.com"),
        to_relay(RelayUrl.parse("wss://relay.example.com/a.b/c")),
        to_relay(RelayUrl.parse("ws://127.0.0.1:7777", allow_private=True)),
    ]
    assert await db.insert_relay_batch(relays, 5) == 3
    assert await db.insert_relay(relays[0], 9) is False
    rows = await db.fetch("SELECT url, network, inserted_at FROM relays ORDER BY url")
    assert [tuple(row) for row in rows] == [
        ("wss://127.0.0.1:7777", "clearnet", 5),
        ("wss://relay.example.com", "clearnet", 5),
        ("wss://relay.example.com/a.b/c", "clearnet", 5),
    ]


async def test_onion_relays_are_tor_whatever_their_path(db: BigBrotr) -> None:
    host = "oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"
    relay = to_relay(RelayUrl.parse(f"ws://{host}/path"))
    assert await db.insert_relay(relay, 1) is True
    rows = await db.fetch("SELECT url, network FROM relays")
    assert [tuple(row) for row in rows] == [(f"wss://{host}/path", "tor")]


async def test_a_relay_url_that_breaks_the_rules_is_refused(db: BigBrotr) -> None:
    relay = Relay("wss://relay.example.com")
    relay.url = "wss://user:secret@relay.example.com"
    with pytest.raises(RelayUrlRefused):
        await db.insert_relay(relay, 1)


# Metadata


def _check(
    generated_at: int, name: str | None = "r", rtt: int = 5, url: str = RELAY.url, **nip11: Any
) -> RelayMetadata:
    return RelayMetadata(
        Relay(url),
        generated_at,
        None if name is None else RelayMetadata.Nip11(name=name, **nip11),
        RelayMetadata.Nip66(True, True, False, rtt, rtt + 1, None),
    )


async def test_metadata_is_deduplicated_by_content(db: BigBrotr) -> None:
    assert await db.insert_relay_metadata(_check(1), 1) is True
    assert await db.insert_relay_metadata(_check(1), 1) is False
    batch = [
        _check(2),
        _check(3, rtt=9),
        _check(3, rtt=9),
        _check(1, url="wss://other.example.com"),
        RelayMetadata(Relay("wss://dead.example.com"), 1),
    ]
    assert await db.insert_relay_metadata_batch(batch, 1) == 4
    assert await db.insert_relay_metadata_batch([], 1) == 0
    assert [await _count(db, table) for table in ("nip11", "nip66", "relay_metadata")] == [1, 2, 5]
    row = await db.fetchone("SELECT * FROM relay_metadata WHERE relay_url LIKE '%dead%'")
    assert row is not None
    assert (row["nip11_id"], row["nip66_id"]) == (None, None)


async def test_documents_round_trip(db: BigBrotr) -> None:
    document: dict[str, Any] = {
        "name": "näme",
        "description": "d" * 10_000,
        "banner": "b",
        "icon": "",
        "pubkey": "ab" * 32,
        "contact": "mailto:x@example.com",
        "supported_nips": [1, 11, "EE"],
        "software": "s",
        "version": "1.0",
        "privacy_policy": "p",
        "terms_of_service": "t",
        "limitation": {"max_limit": 500, "auth_required": False, "x": {"y": [1.50, None]}},
        "extra_fields": {"fees": {"admission": [{"amount": 1}]}, "self": "x"},
    }
    check = RelayMetadata(RELAY, 1, RelayMetadata.Nip11(**document))
    await db.insert_relay_metadata(check, 1)
    (row,) = await db.fetch("SELECT * FROM relay_metadata_latest")
    structured = ("supported_nips", "limitation", "extra_fields")
    stored = {name: json.loads(row[name]) if name in structured else row[name] for name in document}
    assert stored == document


async def test_documents_with_nul_do_not_fail_their_batch(db: BigBrotr) -> None:
    checks = [
        _check(1, name="a\0b", extra_fields={"k\0": "\ud800", "f": float("inf")}),
        _check(2, name="plain"),
    ]
    assert await db.insert_relay_metadata_batch(checks, 1) == 2
    row = await db.fetchone("SELECT name, extra_fields FROM nip11 WHERE name <> 'plain'")
    assert row is not None
    assert row["name"] == "a\ufffdb"
    original = json.loads(json.loads(row["extra_fields"])["_original_json"])
    assert original == checks[0].nip11.to_dict()


async def test_a_check_that_postgresql_refuses_leaves_the_others(
    db: BigBrotr, caplog: pytest.LogCaptureFixture
) -> None:
    checks = [_check(number, rtt=2**40 if number == 3 else number) for number in range(6)]
    assert await db.insert_relay_metadata_batch(checks, 1) == 5
    assert [row[0] for row in await db.fetch("SELECT generated_at FROM relay_metadata")] == [
        0, 1, 2, 4, 5,
    ]  # fmt: skip
    assert "relay_metadata_refused" in caplog.text
    assert "sqlstate=22003" in caplog.text


# Connections


def _with(database: Database, **changes: Any) -> BigBrotr:
    settings: dict[str, Any] = {
        "host": database.host,
        "port": database.port,
        "user": database.writer_user,
        "password": database.writer_password,
        "dbname": database.dbname,
        "min_pool_size": 1,
        "max_pool_size": 2,
    }
    return BigBrotr(**settings | changes)


async def test_context_manager_opens_and_closes(database: Database) -> None:
    db = _with(database)
    assert not db.is_connected
    with pytest.raises(DatabaseUnavailable, match=r"connect\(\)"):
        await db.fetch("SELECT 1")
    async with db as entered:
        assert entered is db
        assert db.is_connected
        await db.connect()
        assert await db.fetchone("SELECT 1 WHERE false") is None
    assert not db.is_connected
    await db.close()


async def test_nothing_is_prepared_through_pgbouncer(db: BigBrotr) -> None:
    """More transactions than server connections, each likely to meet another one."""
    for number in range(20):
        row = await db.fetchone("SELECT $1::int + 1, count(*) FROM pg_prepared_statements", number)
        assert row is not None
        assert tuple(row) == (number + 1, 0)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("changes", [{"password": "wrong"}, {"password": ""}, {"user": "nobody"}])
async def test_refused_roles_get_a_clear_error(
    database: Database, direct: bool, changes: dict[str, str]
) -> None:
    port = database.direct_port if direct else database.port
    with pytest.raises(AccessDenied, match=f"{database.dbname} .*POSTGRES_PASSWORD") as caught:
        await _with(database, port=port, **changes).connect()
    assert "\n" not in str(caught.value)
    assert database.writer_password not in str(caught.value)


async def test_a_database_that_does_not_exist(database: Database) -> None:
    with pytest.raises(AccessDenied, match=r"nosuchdb.*POSTGRES_DB"):
        await _with(database, port=database.direct_port, dbname="nosuchdb").connect()


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
async def test_nothing_listens(database: Database, host: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="POSTGRES_HOST") as caught:
        await _with(database, host=host, port=free_port()).connect()
    assert "\n" not in str(caught.value)


async def test_postgresql_is_down_behind_pgbouncer(
    cluster: Cluster, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigbrotr._CONNECT_TIMEOUT_SECONDS", 1.5)
    folder = cluster.folder / "pgbouncer-alone"
    nobody = replace(cluster.postgres, port=free_port())
    alone = start_pgbouncer(
        folder, nobody, database.pgbouncer_auth_password, log=tmp_path / "pgbouncer.log"
    )
    try:
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await _with(database, port=alone.port).connect()
    finally:
        alone.stop()


async def test_a_lost_connection_is_unavailable_and_the_next_one_works(
    database: Database, db: BigBrotr
) -> None:
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(DatabaseUnavailable):
        await db.execute(kill)
    with pytest.raises(DatabaseUnavailable):
        await db.run_in_transaction(lambda conn: conn.execute(kill))
    assert await db.fetch("SELECT 1")


async def test_a_slow_statement_ends_after_the_command_timeout(database: Database) -> None:
    async with _with(database, command_timeout=0.2) as db:
        with pytest.raises(DatabaseUnavailable, match="no answer in time"):
            await db.execute("SELECT pg_sleep(20)")


async def test_errors_of_a_statement_are_asyncpgs(db: BigBrotr) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        await db.fetch("SELECT * FROM nothing")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"host": ""}, ValueError),
        ({"host": None}, TypeError),
        ({"port": 0}, ValueError),
        ({"port": 70_000}, ValueError),
        ({"port": "5432"}, TypeError),
        ({"password": None}, TypeError),
        ({"min_pool_size": 0}, ValueError),
        ({"min_pool_size": 3}, ValueError),
        ({"max_pool_size": 2.5}, TypeError),
        ({"command_timeout": 0}, ValueError),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    settings: dict[str, Any] = {
        "host": "localhost",
        "port": 5432,
        "user": "u",
        "password": "p",
        "dbname": "d",
        "min_pool_size": 1,
        "max_pool_size": 2,
    }
    with pytest.raises(error, match=next(iter(changes))):
        BigBrotr(**settings | changes)


def test_the_password_is_not_shown() -> None:
    assert "geheim" not in repr(BigBrotr("localhost", 5432, "u", "geheim", "d"))
