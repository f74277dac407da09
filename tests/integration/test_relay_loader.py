"""Relays from the archive and from files."""

import logging
import time
from pathlib import Path

import pytest

import relay_loader
from bigbrotr import BigBrotr
from components.databases import Database
from config import MonitorConfig, load_monitor_config
from errors import ConfigError
from nostr.urls import RelayUrl, to_relay

NOW = int(time.time())
HOUR = 3_600


@pytest.fixture
def config(database: Database) -> MonitorConfig:
    return load_monitor_config(database.environment() | {"MONITOR_NUM_CORES": "1"})


async def add_relays(db: BigBrotr, *urls: str) -> None:
    relays = [to_relay(RelayUrl.parse(url, allow_private=True)) for url in urls]
    await db.insert_relay_batch(relays, NOW)


async def add_check(db: BigBrotr, url: str, hours_ago: float, readable: bool | None) -> None:
    """One check; `readable` None is a check without any NIP-66 result."""
    nip66_id = None
    if readable is not None:
        nip66_id = ("a" if readable else "b") * 64
        await db.execute(
            "INSERT INTO nip66 (id, openable, readable, writable) "
            "VALUES ($1, true, $2, false) ON CONFLICT DO NOTHING",
            nip66_id,
            readable,
        )
    await db.execute(
        "INSERT INTO relay_metadata (relay_url, generated_at, nip66_id) VALUES ($1, $2, $3)",
        url,
        int(NOW - hours_ago * HOUR),
        nip66_id,
    )


@pytest.fixture
async def checked(db: BigBrotr) -> BigBrotr:
    """An archive whose relays were checked at various times with various results."""
    await add_relays(
        db,
        *(f"wss://{name}.example.com" for name in ("broke", "new", "old", "read", "recovered")),
        "wss://unknown.example.com",
        "wss://10.0.0.1",
    )
    await add_check(db, "wss://read.example.com", 1, True)
    await add_check(db, "wss://read.example.com", 5, True)
    await add_check(db, "wss://broke.example.com", 1, False)
    await add_check(db, "wss://broke.example.com", 2, True)
    await add_check(db, "wss://recovered.example.com", 3, True)
    await add_check(db, "wss://recovered.example.com", 4, False)
    await add_check(db, "wss://old.example.com", 13, True)
    await add_check(db, "wss://unknown.example.com", 2, None)
    await add_check(db, "wss://10.0.0.1", 2, True)
    return db


def names(relays: list[relay_loader.Relay]) -> list[str]:
    return [relay.url.removeprefix("wss://").removesuffix(".example.com") for relay in relays]


async def test_the_latest_check_says_what_is_readable(
    checked: BigBrotr, config: MonitorConfig
) -> None:
    found = await relay_loader.fetch_relays_from_database(config, shuffle=False)
    assert names(found) == ["read", "recovered"]
    assert {relay.network for relay in found} == {"clearnet"}


async def test_older_checks_and_unreadable_relays_on_request(checked: BigBrotr) -> None:
    everything = await relay_loader.readable_relays(checked, readable_only=False, shuffle=False)
    assert names(everything) == ["broke", "read", "recovered", "unknown"]
    longer = await relay_loader.readable_relays(checked, threshold_hours=14, shuffle=False)
    assert names(longer) == ["old", "read", "recovered"]
    assert await relay_loader.readable_relays(checked, threshold_hours=0.5) == []


async def test_relays_that_today_s_rules_refuse_are_left_out_and_counted(
    checked: BigBrotr, caplog: pytest.LogCaptureFixture
) -> None:
    assert "10.0.0.1" not in names(await relay_loader.all_relays(checked))
    assert "stored_relays_left_out reason=private-address relays=1" in caplog.text
    allowed = await relay_loader.all_relays(checked, allow_private=True)
    assert names(allowed) == [
        "10.0.0.1",
        "broke",
        "new",
        "old",
        "read",
        "recovered",
        "unknown",
    ]


async def test_all_relays_by_configuration(checked: BigBrotr, config: MonitorConfig) -> None:
    assert len(await relay_loader.fetch_all_relays_from_database(config)) == 6


async def test_shuffling_loses_nothing(db: BigBrotr) -> None:
    urls = [f"wss://r{number:03}.example.com" for number in range(100)]
    await add_relays(db, *urls)
    for url in urls:
        await add_check(db, url, 1, True)
    shuffled = [relay.url for relay in await relay_loader.readable_relays(db)]
    assert shuffled != urls
    assert sorted(shuffled) == urls


async def test_relays_are_due_when_their_latest_check_is_old(
    checked: BigBrotr, config: MonitorConfig
) -> None:
    due = await relay_loader.fetch_relays_needing_metadata(config, 3)
    assert names(due) == ["new", "old", "recovered"]
    assert names(await relay_loader.relays_due(checked, 12)) == ["new", "old"]
    assert names(await relay_loader.relays_due(checked, 100)) == ["new"]


async def test_an_empty_archive(db: BigBrotr, config: MonitorConfig) -> None:
    assert await relay_loader.fetch_relays_from_database(config) == []
    assert await relay_loader.fetch_all_relays_from_database(config) == []
    assert await relay_loader.fetch_relays_needing_metadata(config, 8) == []


async def test_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "relays.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# comment\r\n\r\nwss://b.example.com # mine\r\nwss://A.example.com/\r\n"
        b"wss://a.example.com\r\nhttp://no.example.com\r\nwss://127.0.0.1\r\n\xff\xff\r\n"
    )
    with caplog.at_level(logging.INFO):
        relays = await relay_loader.fetch_relays_from_file(str(path), shuffle=False)
    assert names(relays) == ["b", "a"]
    assert f"source={path} relays=2 duplicates=1 refused=3" in caplog.text
    assert "reason=private-address lines=1 example=wss://127.0.0.1" in caplog.text
    private = await relay_loader.fetch_relays_from_file(str(path), allow_private=True)
    assert len(private) == 3


async def test_an_empty_file_is_said_to_be_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "relays.txt"
    path.write_text("# nothing yet\n")
    assert await relay_loader.fetch_relays_from_file(str(path)) == []
    assert "the list names no relay" in caplog.text


async def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the relay list") as caught:
            await relay_loader.fetch_relays_from_file(str(path))
        assert str(path) in str(caught.value)
