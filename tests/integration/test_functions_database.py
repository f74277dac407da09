"""Waiting for a real database, through PgBouncer."""

import asyncio
from dataclasses import dataclass, replace

import pytest

import functions
from bigbrotr import BigBrotr
from components.databases import Database
from config import DatabaseConfig, TorConfig, load_monitor_config
from errors import AccessDenied, DatabaseUnavailable, ServiceError
from standalone.processes import free_port


@dataclass(frozen=True)
class Services:
    database: DatabaseConfig
    tor: TorConfig | None = None


async def test_a_database_that_answers(database: Database) -> None:
    config = load_monitor_config(database.environment() | {"MONITOR_NUM_CORES": "1"})
    await functions.wait_for_services(config)
    assert await functions.test_database_connection_async(
        database.host,
        database.port,
        database.writer_user,
        database.writer_password,
        database.dbname,
    )


async def test_a_wrong_password_is_not_waited_for(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_monitor_config(database.environment() | {"MONITOR_NUM_CORES": "1"})
    wrong = Services(replace(config.database, password="wr0ng"))
    with pytest.raises(AccessDenied, match="POSTGRES_PASSWORD") as caught:
        await functions.wait_for_services(wrong)
    assert "wr0ng" not in str(caught.value)
    assert not await functions.test_database_connection_async(
        database.host, database.port, database.writer_user, "wr0ng", database.dbname
    )
    assert "no_database" in caplog.text
    assert "wr0ng" not in caplog.text


async def test_readiness_names_what_does_not_answer(db: BigBrotr) -> None:
    assert await functions.services_answer(db, None)
    port = free_port()
    with pytest.raises(ServiceError, match=rf"^Tor: no SOCKS5 proxy answers at 127.0.0.1:{port}$"):
        await functions.services_answer(db, TorConfig("127.0.0.1", port))
    nowhere = BigBrotr("127.0.0.1", port, "somebody", "secret", "nothing")
    with pytest.raises(DatabaseUnavailable, match=rf"127.0.0.1:{port}"):
        async with nowhere:
            await functions.services_answer(nowhere, None)


async def test_readiness_does_not_wait_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "_ANSWER_SECONDS", 0.2)
    async with BigBrotr(
        database.host,
        database.port,
        database.writer_user,
        database.writer_password,
        database.dbname,
        min_pool_size=1,
        max_pool_size=1,
    ) as busy:
        sleeping = asyncio.create_task(busy.fetchone("SELECT pg_sleep(3)"))
        await asyncio.sleep(0.1)
        with pytest.raises(DatabaseUnavailable, match=r"no answer in 0\.2 s"):
            await functions.services_answer(busy, None)
        sleeping.cancel()
