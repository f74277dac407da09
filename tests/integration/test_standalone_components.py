"""The suite's own components work: servers, roles through PgBouncer, relays."""

import asyncpg
import pytest

from components.databases import Cluster, Database
from components.relays import StartRelay
from standalone.relay_client import served
from standalone.signing import Author


async def _ask(database: Database, user: str, password: str, query: str) -> object:
    connection = await asyncpg.connect(
        host=database.host,
        port=database.port,
        user=user,
        password=password,
        database=database.dbname,
        statement_cache_size=0,
    )
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_services_log_in_through_pgbouncer(database: Database) -> None:
    answer = await _ask(
        database, database.writer_user, database.writer_password, "SELECT current_user"
    )
    assert answer == "bigbrotr_writer"


async def test_readers_cannot_write(database: Database) -> None:
    statement = "INSERT INTO relays VALUES ('wss://a.example', 'clearnet', 1) RETURNING 1"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _ask(database, database.reader_user, database.reader_password, statement)


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_wrong_password_is_refused(database: Database, password: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match="authentication failed"):
        await _ask(database, database.writer_user, password, "SELECT 1")


async def test_owner_cannot_log_in_through_pgbouncer(database: Database) -> None:
    with pytest.raises(asyncpg.PostgresError, match="no such user"):
        await _ask(database, database.owner_user, database.owner_password, "SELECT 1")


def test_each_test_gets_a_database_of_its_own(cluster: Cluster, database: Database) -> None:
    other = cluster.create_database()
    assert other.dbname != database.dbname
    cluster.drop_database(other.dbname)


async def test_both_relay_implementations_serve_what_they_accepted(
    local_relay: StartRelay, nostr_relay: StartRelay
) -> None:
    author = Author("components")
    events = [author.sign(1, 1_700_000_000 + n, [["t", "x"]], f"event {n}") for n in range(700)]
    for relay in (await local_relay(events, cap=300), await nostr_relay(events)):
        assert relay.accepted == {event.id for event in events}
        assert await served(relay.websocket, relay.accepted) == relay.accepted
