"""Reading the settings: defaults, overrides, secrets in files, and what bad values get."""

import dataclasses
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nostr_tools import generate_keypair, to_bech32

import config
from config import (
    load_finder_config,
    load_initializer_config,
    load_monitor_config,
    load_priority_synchronizer_config,
    load_synchronizer_config,
)
from config_values import DEFAULT_AGGREGATOR_URLS
from errors import ConfigError

LOADERS = [
    load_finder_config,
    load_initializer_config,
    load_monitor_config,
    load_priority_synchronizer_config,
    load_synchronizer_config,
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    priority = tmp_path / "priority.txt"
    priority.touch()
    return {
        "POSTGRES_HOST": "db.example",
        "POSTGRES_USER": "bigbrotr_writer",
        "POSTGRES_PASSWORD": "s3cret",
        "SYNCHRONIZER_PRIORITY_RELAYS_PATH": str(priority),
        "MONITOR_NUM_CORES": "1",
        "SYNCHRONIZER_NUM_CORES": "1",
    }


def refusal(load: Callable[..., Any], environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_are_those_of_the_specification(environ: dict[str, str]) -> None:
    monitor = load_monitor_config(environ)
    assert (monitor.frequency_hour, monitor.frequency_seconds) == (8, 28_800)
    assert (monitor.chunk_size, monitor.requests_per_core) == (50, 10)
    assert monitor.health_check_port == 8080
    assert monitor.loop_interval_seconds == 900
    assert (monitor.database.min_pool, monitor.database.max_pool) == (2, 5)
    assert monitor.database.command_timeout == 60
    assert monitor.tor is None
    assert monitor.keypair is None
    assert monitor.allow_private_relays is False

    synchronizer = load_synchronizer_config(environ)
    assert (synchronizer.start_timestamp, synchronizer.stop_timestamp) == (0, -1)
    assert synchronizer.batch_size == 500
    assert synchronizer.event_filter == {}
    assert synchronizer.relay_metadata_threshold_hours == 12

    finder = load_finder_config(environ)
    assert finder.aggregator_urls == DEFAULT_AGGREGATOR_URLS
    assert load_initializer_config(environ).owner is None


def test_the_interval_ends_a_day_ago_unless_told_otherwise(environ: dict[str, str]) -> None:
    assert load_synchronizer_config(environ).last_second(1_000_000) == 913_600
    environ["SYNCHRONIZER_LAG_SECONDS"] = "0"
    assert load_synchronizer_config(environ).last_second(1_000_000) == 1_000_000
    environ["SYNCHRONIZER_STOP_TIMESTAMP"] = "5"
    assert load_synchronizer_config(environ).last_second(1_000_000) == 5


def test_configurations_are_frozen_and_travel_to_worker_processes(
    environ: dict[str, str],
) -> None:
    for load in LOADERS:
        loaded = load(environ)
        assert pickle.loads(pickle.dumps(loaded)) == loaded
        with pytest.raises(dataclasses.FrozenInstanceError):
            loaded.log_level = "DEBUG"  # type: ignore[misc]


def test_priority_variables_override_one_by_one(environ: dict[str, str]) -> None:
    environ |= {
        "SYNCHRONIZER_BATCH_SIZE": "100",
        "SYNCHRONIZER_DB_MAX_POOL": "7",
        "PRIORITY_SYNCHRONIZER_BATCH_SIZE": "200",
        "PRIORITY_SYNCHRONIZER_DB_MAX_POOL": "",
        "PRIORITY_SYNCHRONIZER_LOOP_INTERVAL_MINUTES": "0.5",
    }
    ordinary = load_synchronizer_config(environ)
    priority = load_priority_synchronizer_config(environ)
    assert (ordinary.batch_size, ordinary.database.max_pool) == (100, 7)
    assert (priority.batch_size, priority.database.max_pool) == (200, 7)
    assert (ordinary.loop_interval_seconds, priority.loop_interval_seconds) == (900, 30)


def test_a_wrong_override_is_named_by_its_own_name(environ: dict[str, str]) -> None:
    environ["PRIORITY_SYNCHRONIZER_BATCH_SIZE"] = "many"
    message = refusal(load_priority_synchronizer_config, environ)
    assert message.startswith("PRIORITY_SYNCHRONIZER_BATCH_SIZE is 'many'")
    environ["PRIORITY_SYNCHRONIZER_BATCH_SIZE"] = ""
    environ["SYNCHRONIZER_BATCH_SIZE"] = "few"
    message = refusal(load_priority_synchronizer_config, environ)
    assert message.startswith("SYNCHRONIZER_BATCH_SIZE is 'few'")


@pytest.mark.parametrize("name", ["POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD"])
@pytest.mark.parametrize("load", LOADERS)
def test_missing_and_empty_variables(
    environ: dict[str, str], load: Callable[..., Any], name: str
) -> None:
    environ[name] = "  "
    assert refusal(load, environ).startswith(f"{name} is empty")
    del environ[name]
    assert refusal(load, environ).startswith(f"{name} is not set")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_PORT", "0"),
        ("POSTGRES_PORT", "65536"),
        ("POSTGRES_PORT", "-1"),
        ("POSTGRES_PORT", "54.32"),
        ("POSTGRES_PORT", ""),
        ("HEALTH_CHECK_PORT", "70000"),
        ("HEALTH_CHECK_PORT", "-1"),
        ("LOG_LEVEL", "LOUD"),
        ("ALLOW_PRIVATE_RELAYS", "perhaps"),
        ("MONITOR_NUM_CORES", "0"),
        ("MONITOR_NUM_CORES", "two"),
        ("MONITOR_NUM_CORES", "1_0"),
        ("MONITOR_NUM_CORES", "١"),
        ("MONITOR_CHUNK_SIZE", "-5"),
        ("MONITOR_CHUNK_SIZE", ""),
        ("MONITOR_CHUNK_SIZE", "9" * 40),
        ("MONITOR_REQUEST_TIMEOUT", "0"),
        ("MONITOR_REQUEST_TIMEOUT", "nan"),
        ("MONITOR_FREQUENCY_HOUR", "inf"),
        ("MONITOR_LOOP_INTERVAL_MINUTES", "soon"),
        ("MONITOR_LOOP_INTERVAL_MINUTES", "-0.5"),
        ("MONITOR_DB_MIN_POOL", "6"),
        ("MONITOR_DB_MAX_POOL", "1"),
        ("MONITOR_DB_COMMAND_TIMEOUT", "1e999"),
    ],
)
def test_values_out_of_range_are_named(environ: dict[str, str], name: str, value: str) -> None:
    environ[name] = value
    message = refusal(load_monitor_config, environ)
    assert name in message
    assert ": give " in message


def test_decimals_and_no_health_check_server(environ: dict[str, str]) -> None:
    environ |= {
        "MONITOR_LOOP_INTERVAL_MINUTES": "0.25",
        "MONITOR_FREQUENCY_HOUR": "0.0001",
        "HEALTH_CHECK_PORT": "0",
        "ALLOW_PRIVATE_RELAYS": "True",
        "LOG_LEVEL": "debug",
    }
    monitor = load_monitor_config(environ)
    assert monitor.loop_interval_seconds == 15
    assert monitor.frequency_seconds == 1
    assert monitor.health_check_port == 0
    assert monitor.allow_private_relays is True
    assert monitor.log_level == "DEBUG"


def test_the_interval_must_not_end_before_it_starts(environ: dict[str, str]) -> None:
    environ |= {"SYNCHRONIZER_START_TIMESTAMP": "100", "SYNCHRONIZER_STOP_TIMESTAMP": "99"}
    assert "SYNCHRONIZER_STOP_TIMESTAMP is 99" in refusal(load_synchronizer_config, environ)
    environ["SYNCHRONIZER_STOP_TIMESTAMP"] = "100"
    assert load_synchronizer_config(environ).stop_timestamp == 100
    environ |= {"SYNCHRONIZER_START_TIMESTAMP": "-1", "SYNCHRONIZER_STOP_TIMESTAMP": "-1"}
    assert "SYNCHRONIZER_START_TIMESTAMP is -1" in refusal(load_synchronizer_config, environ)
    environ |= {"SYNCHRONIZER_START_TIMESTAMP": "0", "SYNCHRONIZER_STOP_TIMESTAMP": "-2"}
    assert "SYNCHRONIZER_STOP_TIMESTAMP is -2" in refusal(load_synchronizer_config, environ)


@pytest.mark.parametrize("key", ["START", "STOP"])
def test_milliseconds_are_no_unix_time(environ: dict[str, str], key: str) -> None:
    environ[f"SYNCHRONIZER_{key}_TIMESTAMP"] = "1700000000000"
    assert "Unix seconds, not milliseconds" in refusal(load_synchronizer_config, environ)


def test_secrets_from_files(environ: dict[str, str], tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("from a file\n")
    del environ["POSTGRES_PASSWORD"]
    environ["POSTGRES_PASSWORD_FILE"] = str(secret)
    assert load_monitor_config(environ).database.password == "from a file"

    environ["POSTGRES_PASSWORD"] = "s3cret"
    message = refusal(load_monitor_config, environ)
    assert "POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are both set" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 5_000])
def test_files_that_hold_no_secret(environ: dict[str, str], tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "password"
    secret.write_bytes(content)
    del environ["POSTGRES_PASSWORD"]
    environ["POSTGRES_PASSWORD_FILE"] = str(secret)
    assert refusal(load_monitor_config, environ).startswith("POSTGRES_PASSWORD_FILE")


def test_a_secret_file_that_is_not_there(environ: dict[str, str], tmp_path: Path) -> None:
    del environ["POSTGRES_PASSWORD"]
    environ["POSTGRES_PASSWORD_FILE"] = str(tmp_path / "nothing")
    message = refusal(load_monitor_config, environ)
    assert "POSTGRES_PASSWORD_FILE: cannot read" in message
    assert "No such file" in message


@pytest.mark.parametrize("placeholder", ["CHANGE_ME", "change_me", "CHANGE_ME_please"])
def test_placeholders_are_no_secrets(
    environ: dict[str, str], tmp_path: Path, placeholder: str
) -> None:
    environ["POSTGRES_PASSWORD"] = placeholder
    assert refusal(load_monitor_config, environ).startswith("POSTGRES_PASSWORD still")
    secret = tmp_path / "password"
    secret.write_text(placeholder)
    del environ["POSTGRES_PASSWORD"]
    environ["POSTGRES_PASSWORD_FILE"] = str(secret)
    assert refusal(load_monitor_config, environ).startswith("POSTGRES_PASSWORD_FILE still")


def test_no_configuration_shows_its_secrets(environ: dict[str, str]) -> None:
    secret, public = generate_keypair()
    environ |= {
        "SECRET_KEY": secret,
        "PUBLIC_KEY": public,
        "POSTGRES_OWNER_PASSWORD": "own3r",
        "POSTGRES_WRITER_PASSWORD": "wr1ter",
    }
    shown = "".join(repr(load(environ)) for load in LOADERS)
    for hidden in (secret, "s3cret", "own3r", "wr1ter"):
        assert hidden not in shown
    assert public in shown


def test_keypairs_in_hex_and_bech32(environ: dict[str, str]) -> None:
    secret, public = generate_keypair()
    expected = config.KeypairConfig(secret, public)
    spellings = [
        (secret, public),
        (secret.upper(), public.upper()),
        (to_bech32("nsec", secret), to_bech32("npub", public)),
    ]
    for given_secret, given_public in spellings:
        environ |= {"SECRET_KEY": given_secret, "PUBLIC_KEY": given_public}
        assert load_monitor_config(environ).keypair == expected


def test_keypairs_that_do_not_match(environ: dict[str, str]) -> None:
    secret, public = generate_keypair()
    other_public = generate_keypair()[1]
    for given in [other_public, "ab", "npub1qqqq", to_bech32("npub", other_public), "0" * 64]:
        environ |= {"SECRET_KEY": secret, "PUBLIC_KEY": given}
        message = refusal(load_monitor_config, environ)
        assert message.startswith("PUBLIC_KEY is not the public key of SECRET_KEY")
        assert secret not in message
    for wrong_secret in ["zz" * 32, "nsec1broken", "0" * 64, "f" * 64]:
        environ |= {"SECRET_KEY": wrong_secret, "PUBLIC_KEY": public}
        assert wrong_secret not in refusal(load_monitor_config, environ)


def test_half_a_keypair(environ: dict[str, str]) -> None:
    secret, public = generate_keypair()
    assert "PUBLIC_KEY is missing" in refusal(load_monitor_config, environ | {"SECRET_KEY": secret})
    assert "SECRET_KEY is missing" in refusal(load_monitor_config, environ | {"PUBLIC_KEY": public})
    both_empty = environ | {"SECRET_KEY": "", "PUBLIC_KEY": ""}
    assert load_monitor_config(both_empty).keypair is None


def test_tor_is_optional(environ: dict[str, str]) -> None:
    assert load_monitor_config(environ | {"TORPROXY_HOST": ""}).tor is None
    tor = load_monitor_config(environ | {"TORPROXY_HOST": "torproxy"}).tor
    assert tor is not None
    assert tor.socks5_url == "socks5://torproxy:9050"
    environ |= {"TORPROXY_HOST": "torproxy", "TORPROXY_PORT": "0"}
    assert "TORPROXY_PORT is 0" in refusal(load_monitor_config, environ)


def test_the_event_filter_keeps_what_nip_01_knows(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    environ["SYNCHRONIZER_EVENT_FILTER"] = (
        '{"kinds": [1, 30023], "#t": ["nostr"], "color": "red", "since": 5, "limit": 9}'
    )
    with caplog.at_level(logging.WARNING):
        loaded = load_synchronizer_config(environ)
    assert loaded.event_filter == {"kinds": [1, 30023], "#t": ["nostr"]}
    assert "variable=SYNCHRONIZER_EVENT_FILTER" in caplog.text
    for dropped in ("color", "since", "limit"):
        assert dropped in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        *("{kinds: [1]}", "[1]", '"kinds"', '{"kinds": "1"}', '{"authors": ["npub1x"]}', "{"),
        *('{"#t": ["\\u0000"]}', '{"#t": ["nostr", "x\\ud800"]}', "[" * 50_000),
        *('{"kinds": [NaN]}', '{"kinds": [1.0]}', '{"#t": []}'),
    ],
)
def test_event_filters_that_are_none(environ: dict[str, str], value: str) -> None:
    environ["SYNCHRONIZER_EVENT_FILTER"] = value
    assert refusal(load_synchronizer_config, environ).startswith("SYNCHRONIZER_EVENT_FILTER")


def test_a_missing_priority_list_is_created(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "new.txt"
    environ["SYNCHRONIZER_PRIORITY_RELAYS_PATH"] = str(path)
    with caplog.at_level(logging.WARNING):
        assert load_priority_synchronizer_config(environ).priority_relays_path == path
    assert path.read_text().startswith("#")
    assert f"path={path}" in caplog.text


def test_a_priority_list_that_cannot_be_created_is_no_error(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A directory that is not there refuses the file for root too, unlike a read-only one.
    path = tmp_path / "absent" / "list.txt"
    environ["SYNCHRONIZER_PRIORITY_RELAYS_PATH"] = str(path)
    with caplog.at_level(logging.WARNING):
        assert load_synchronizer_config(environ).priority_relays_path == path
    assert "cannot be created" in caplog.text
    assert not path.exists()


def test_more_workers_than_cores_is_only_odd(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    cores = len(os.sched_getaffinity(0))
    with caplog.at_level(logging.WARNING):
        load_monitor_config(environ | {"MONITOR_NUM_CORES": str(cores)})
        assert not caplog.records
        loaded = load_monitor_config(environ | {"MONITOR_NUM_CORES": str(cores + 1)})
    assert loaded.num_cores == cores + 1
    assert "variable=MONITOR_NUM_CORES" in caplog.text


def test_aggregators(environ: dict[str, str]) -> None:
    environ["FINDER_AGGREGATOR_URLS"] = "https://a.example/x, http://b.example/?y=1"
    assert load_finder_config(environ).aggregator_urls == (
        "https://a.example/x",
        "http://b.example/?y=1",
    )
    environ["FINDER_AGGREGATOR_URLS"] = ""
    assert load_finder_config(environ).aggregator_urls == ()
    for wrong in ("a.example", "ftp://a.example", "https://", "http://[::1"):
        environ["FINDER_AGGREGATOR_URLS"] = wrong
        assert "FINDER_AGGREGATOR_URLS" in refusal(load_finder_config, environ)


def test_relays_for_nip66_events(environ: dict[str, str]) -> None:
    assert [relay.url for relay in load_finder_config(environ).nip66_relays] == [
        "wss://relay.nostr.watch"
    ]
    environ["FINDER_NIP66_RELAYS"] = "wss://A.example/, ws://b.example:7 wss://a.example"
    assert [relay.url for relay in load_finder_config(environ).nip66_relays] == [
        "wss://a.example",
        "wss://b.example:7",
    ]
    environ["FINDER_NIP66_RELAYS"] = ""
    assert load_finder_config(environ).nip66_relays == ()
    for wrong in ("https://a.example", "a.example", "ws://127.0.0.1:7"):
        environ["FINDER_NIP66_RELAYS"] = wrong
        assert "FINDER_NIP66_RELAYS" in refusal(load_finder_config, environ)
    load_finder_config(environ | {"ALLOW_PRIVATE_RELAYS": "true"})


def test_relays_to_publish_to(environ: dict[str, str]) -> None:
    secret, public = generate_keypair()
    assert load_monitor_config(environ).publish_relays == ()
    assert load_monitor_config(environ | {"MONITOR_PUBLISH_RELAYS": ""}).publish_relays == ()
    environ["MONITOR_PUBLISH_RELAYS"] = "wss://A.example/, ws://b.example wss://a.example"
    assert "SECRET_KEY" in refusal(load_monitor_config, environ)
    environ |= {"SECRET_KEY": secret, "PUBLIC_KEY": public}
    relays = [relay.url for relay in load_monitor_config(environ).publish_relays]
    assert relays == ["wss://a.example", "wss://b.example"]
    for wrong in ("a.example", "https://a.example", "wss://127.0.0.1", "wss://a.example,ws://"):
        message = refusal(load_monitor_config, environ | {"MONITOR_PUBLISH_RELAYS": wrong})
        assert message.startswith("MONITOR_PUBLISH_RELAYS holds")


def test_the_bound_on_proof_of_work(environ: dict[str, str]) -> None:
    assert load_monitor_config(environ).max_pow_difficulty == 18
    none = load_monitor_config(environ | {"MONITOR_MAX_POW_DIFFICULTY": "0"})
    assert none.max_pow_difficulty == 0
    for wrong in ("-1", "25"):
        environ["MONITOR_MAX_POW_DIFFICULTY"] = wrong
        assert "MONITOR_MAX_POW_DIFFICULTY" in refusal(load_monitor_config, environ)


def test_the_owner_connects_directly(environ: dict[str, str]) -> None:
    environ |= {"POSTGRES_OWNER_PASSWORD": "own3r", "POSTGRES_DB": "archive"}
    owner = load_initializer_config(environ).owner
    assert owner is not None
    assert (owner.host, owner.port, owner.user) == ("db.example", 5432, "admin")
    assert (owner.password, owner.dbname) == ("own3r", "archive")
    environ |= {
        "POSTGRES_OWNER_USER": "root",
        "POSTGRES_DIRECT_HOST": "direct",
        "POSTGRES_DIRECT_PORT": "5433",
        "POSTGRES_READER_PASSWORD": "r",
    }
    loaded = load_initializer_config(environ)
    assert loaded.owner is not None
    assert (loaded.owner.host, loaded.owner.port, loaded.owner.user) == ("direct", 5433, "root")
    assert loaded.role_passwords == config.RolePasswords(reader="r")
    empty = environ | {"POSTGRES_READER_PASSWORD": ""}
    assert "POSTGRES_READER_PASSWORD is empty" in refusal(load_initializer_config, empty)
    del environ["POSTGRES_OWNER_PASSWORD"]
    assert "POSTGRES_OWNER_USER is set without" in refusal(load_initializer_config, environ)


def test_the_validators_of_the_specification() -> None:
    assert config._validate_port(65_535, "X_PORT") == 65_535
    with pytest.raises(ConfigError, match="X_PORT is 0"):
        config._validate_port(0, "X_PORT")
    config._validate_positive(1, "X")
    with pytest.raises(ConfigError, match="X is 0"):
        config._validate_positive(0, "X")
