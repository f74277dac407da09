"""The functions, classes and constants that the specification names exist, with its parameters.

Further parameters may follow, if they have defaults. Where the specification says
`config: Dict[str, Any]` the type is one of ours; names and order are the same.
"""

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SRC = Path(__file__).parents[2] / "src"
NO_DEFAULT = inspect.Parameter.empty

# (module, qualified name, parameters with their defaults)
FUNCTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("config", "load_monitor_config", {}),
    ("config", "load_synchronizer_config", {}),
    ("config", "load_finder_config", {}),
    ("config", "load_initializer_config", {}),
    ("config", "_validate_port", {"port": NO_DEFAULT, "name": NO_DEFAULT}),
    ("config", "_validate_positive", {"value": NO_DEFAULT, "name": NO_DEFAULT}),
    (
        "bigbrotr",
        "BigBrotr.__init__",
        {
            "self": NO_DEFAULT,
            "host": NO_DEFAULT,
            "port": NO_DEFAULT,
            "user": NO_DEFAULT,
            "password": NO_DEFAULT,
            "dbname": NO_DEFAULT,
            "min_pool_size": 5,
            "max_pool_size": 20,
        },
    ),
    ("bigbrotr", "BigBrotr.connect", {"self": NO_DEFAULT}),
    ("bigbrotr", "BigBrotr.close", {"self": NO_DEFAULT}),
    ("bigbrotr", "BigBrotr.__aenter__", {"self": NO_DEFAULT}),
    (
        "bigbrotr",
        "BigBrotr.insert_event",
        {
            "self": NO_DEFAULT,
            "event": NO_DEFAULT,
            "relay": NO_DEFAULT,
            "seen_at": NO_DEFAULT,
        },
    ),
    (
        "bigbrotr",
        "BigBrotr.insert_event_batch",
        {
            "self": NO_DEFAULT,
            "events": NO_DEFAULT,
            "relay": NO_DEFAULT,
            "seen_at": NO_DEFAULT,
        },
    ),
    (
        "bigbrotr",
        "BigBrotr.insert_relay",
        {"self": NO_DEFAULT, "relay": NO_DEFAULT, "inserted_at": NO_DEFAULT},
    ),
    (
        "bigbrotr",
        "BigBrotr.insert_relay_batch",
        {"self": NO_DEFAULT, "relays": NO_DEFAULT, "inserted_at": NO_DEFAULT},
    ),
    (
        "bigbrotr",
        "BigBrotr.insert_relay_metadata",
        {"self": NO_DEFAULT, "relay_metadata": NO_DEFAULT, "relay_inserted_at": NO_DEFAULT},
    ),
    (
        "bigbrotr",
        "BigBrotr.insert_relay_metadata_batch",
        {
            "self": NO_DEFAULT,
            "relay_metadata_list": NO_DEFAULT,
            "relay_inserted_at": NO_DEFAULT,
        },
    ),
    ("bigbrotr", "BigBrotr.execute", {"self": NO_DEFAULT, "query": NO_DEFAULT}),
    ("bigbrotr", "BigBrotr.fetch", {"self": NO_DEFAULT, "query": NO_DEFAULT}),
    ("bigbrotr", "BigBrotr.fetchone", {"self": NO_DEFAULT, "query": NO_DEFAULT}),
    (
        "functions",
        "RelayFailureTracker.__init__",
        {"self": NO_DEFAULT, "alert_threshold": 0.1, "check_interval": 100},
    ),
    ("functions", "RelayFailureTracker.record_success", {"self": NO_DEFAULT}),
    ("functions", "RelayFailureTracker.record_failure", {"self": NO_DEFAULT}),
    ("functions", "RelayFailureTracker.get_stats", {"self": NO_DEFAULT}),
    ("functions", "chunkify", {"lst": NO_DEFAULT, "n": NO_DEFAULT}),
    (
        "functions",
        "test_database_connection_async",
        {
            "host": NO_DEFAULT,
            "port": NO_DEFAULT,
            "user": NO_DEFAULT,
            "password": NO_DEFAULT,
            "dbname": NO_DEFAULT,
            "logger": None,
        },
    ),
    (
        "functions",
        "connect_bigbrotr_with_retry",
        {"bigbrotr": NO_DEFAULT, "max_retries": 5, "base_delay": 1, "logger": None},
    ),
    (
        "functions",
        "test_torproxy_connection",
        {"host": NO_DEFAULT, "port": NO_DEFAULT, "timeout": 10, "logger": None},
    ),
    ("functions", "wait_for_services", {"config": NO_DEFAULT, "retries": 5, "delay": 30}),
    (
        "relay_loader",
        "fetch_relays_from_database",
        {"config": NO_DEFAULT, "threshold_hours": 12, "readable_only": True, "shuffle": True},
    ),
    ("relay_loader", "fetch_relays_from_file", {"filepath": NO_DEFAULT, "shuffle": True}),
    ("relay_loader", "fetch_all_relays_from_database", {"config": NO_DEFAULT}),
    (
        "relay_loader",
        "fetch_relays_needing_metadata",
        {"config": NO_DEFAULT, "frequency_hours": NO_DEFAULT},
    ),
    (
        "process_relay",
        "get_start_time_async",
        {
            "default_start_time": NO_DEFAULT,
            "bigbrotr": NO_DEFAULT,
            "relay": NO_DEFAULT,
            "retries": 5,
            "delay": 30,
        },
    ),
    (
        "process_relay",
        "insert_batch",
        {
            "bigbrotr": NO_DEFAULT,
            "batch": NO_DEFAULT,
            "relay": NO_DEFAULT,
            "seen_at": NO_DEFAULT,
        },
    ),
    ("process_relay", "process_batch", {"client": NO_DEFAULT, "filter": NO_DEFAULT}),
    (
        "process_relay",
        "process_relay",
        {"bigbrotr": NO_DEFAULT, "client": NO_DEFAULT, "filter": NO_DEFAULT},
    ),
    (
        "process_relay",
        "RawEventBatch.append",
        {"self": NO_DEFAULT, "raw_event": NO_DEFAULT},
    ),
    ("process_relay", "RawEventBatch.is_full", {"self": NO_DEFAULT}),
    ("process_relay", "RawEventBatch.is_empty", {"self": NO_DEFAULT}),
    (
        "healthcheck",
        "HealthCheckServer.__init__",
        {"self": NO_DEFAULT, "port": NO_DEFAULT, "ready_check": None},
    ),
    ("healthcheck", "HealthCheckServer.start", {"self": NO_DEFAULT}),
    ("healthcheck", "HealthCheckServer.stop", {"self": NO_DEFAULT}),
    (
        "logging_config",
        "setup_logging",
        {"service_name": NO_DEFAULT, "level": "INFO"},
    ),
]

ASYNC = {
    "connect",
    "close",
    "execute",
    "fetch",
    "fetchone",
    "start",
    "stop",
    "insert_batch",
    "process_batch",
    "process_relay",
    "get_start_time_async",
    "wait_for_services",
    "test_torproxy_connection",
    "test_database_connection_async",
    "connect_bigbrotr_with_retry",
}

CONSTANTS = {
    "DB_POOL_MIN_SIZE_PER_WORKER": int,
    "DB_POOL_MAX_SIZE_PER_WORKER": int,
    "HEALTH_CHECK_PORT": int,
    "SECONDS_PER_HOUR": int,
    "SECONDS_PER_DAY": int,
    "RELAY_TIMEOUT_MULTIPLIER": int,
    "BINARY_SEARCH_MIN_RANGE": int,
    "TOR_CHECK_HTTP_URL": str,
    "TOR_CHECK_WS_URL": str,
}

PROGRAMS = ("initializer", "finder", "monitor", "synchronizer", "priority_synchronizer")


def resolve(module: str, name: str) -> Callable[..., Any]:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    return found


@pytest.mark.parametrize(
    ("module", "name", "expected"), FUNCTIONS, ids=[f"{m}.{n}" for m, n, _ in FUNCTIONS]
)
def test_the_parameters_are_those_of_the_specification(
    module: str, name: str, expected: dict[str, Any]
) -> None:
    parameters = list(inspect.signature(resolve(module, name)).parameters.values())
    named = parameters[: len(expected)]
    assert {parameter.name: parameter.default for parameter in named} == expected
    assert [parameter.name for parameter in named] == list(expected)
    further = parameters[len(expected) :]
    assert all(
        parameter.default is not NO_DEFAULT
        or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in further
    )


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, n, _ in FUNCTIONS])
def test_what_does_input_and_output_is_a_coroutine(module: str, name: str) -> None:
    last = name.rpartition(".")[2]
    expected = last in ASYNC or last.startswith(("insert_", "fetch_")) or last == "__aenter__"
    assert inspect.iscoroutinefunction(resolve(module, name)) == expected


def test_batches_of_raw_events_have_the_properties_of_the_specification() -> None:
    batch = resolve("process_relay", "RawEventBatch")(10, 20, 5)
    assert (batch.since, batch.until, batch.limit) == (10, 20, 5)
    assert list(batch.raw_events) == []
    assert batch.is_empty()
    assert not batch.is_full()
    for name in ("min_created_at", "max_created_at"):
        assert hasattr(batch, name)


@pytest.mark.parametrize(("name", "kind"), CONSTANTS.items())
def test_constants(name: str, kind: type) -> None:
    assert isinstance(getattr(importlib.import_module("constants"), name), kind)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_each_service_is_a_program(program: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SRC / f"{program}.py"),
        "--help",
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert b"--once" in output


@pytest.mark.parametrize("program", PROGRAMS)
async def test_each_service_refuses_to_start_without_settings(program: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SRC / f"{program}.py"),
        "--once",
        env={"PATH": os.environ["PATH"]},
        cwd=SRC.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    lines = output.decode().splitlines()
    assert process.returncode == 2
    assert len(lines) == 1
    assert "POSTGRES_HOST is not set" in lines[0]
