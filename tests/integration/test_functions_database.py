"""Waiting for a real database, through PgBouncer."""

from dataclasses import dataclass, replace

import pytest

import functions
from components.databases import Database
from config import DatabaseConfig, TorConfig, load_monitor_config
from errors import AccessDenied


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
