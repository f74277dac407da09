"""The helpers of the services: counting, chunks, retries, waiting, and the SOCKS5 greeting."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import functions
from bigbrotr import BigBrotr
from config import DatabaseConfig, TorConfig
from errors import AccessDenied, DatabaseUnavailable, SchemaMismatch
from functions import RelayFailureTracker, chunkify, connect_bigbrotr_with_retry

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[int]:
    """A TCP server on loopback; yields its port."""
    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def answers_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def free_port() -> int:
    async with server(answers_nothing) as port:
        pass
    return port


@dataclass
class Flaky:
    """A BigBrotr that fails to connect with these errors, one each time, then connects."""

    errors: list[Exception]
    attempts: int = 0

    async def connect(self) -> None:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)


async def connect(flaky: Flaky, max_retries: int = 5) -> None:
    await connect_bigbrotr_with_retry(cast(BigBrotr, flaky), max_retries, base_delay=0)


def test_the_tracker_counts() -> None:
    tracker = RelayFailureTracker()
    assert tracker.get_stats() == {
        "total": 0,
        "successes": 0,
        "failures": 0,
        "failure_rate": 0.0,
    }
    for _ in range(3):
        tracker.record_success()
    tracker.record_failure("timeout")
    stats = tracker.get_stats()
    assert stats == {"total": 4, "successes": 3, "failures": 1, "failure_rate": 0.25}
    assert f"{stats['failure_rate']:.1%}" == "25.0%"


def test_the_tracker_tells_failures_apart(caplog: pytest.LogCaptureFixture) -> None:
    tracker = RelayFailureTracker(check_interval=4)
    with caplog.at_level(logging.INFO):
        for kind in ("dns", "timeout", "timeout"):
            tracker.record_failure(kind)
        tracker.record_failure()
    assert tracker.failures_by_kind() == {"timeout": 2, "dns": 1, "unknown": 1}
    assert next(iter(tracker.failures_by_kind())) == "timeout"
    assert "timeout=2 dns=1 unknown=1" in caplog.messages[-1]


def test_the_tracker_reports_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    tracker = RelayFailureTracker(alert_threshold=0.5, check_interval=2)
    with caplog.at_level(logging.INFO):
        tracker.record_failure()
        assert not caplog.records
        tracker.record_success()
        assert caplog.records[-1].levelname == "INFO"  # half is not above half
        tracker.record_failure()
        tracker.record_failure()
        assert caplog.records[-1].levelname == "WARNING"
    assert len(caplog.records) == 2
    assert "failures=3" in caplog.messages[-1]
    assert "failure_rate=0.75" in caplog.messages[-1]


@given(st.lists(st.integers()), st.integers(min_value=1, max_value=20))
def test_chunks_keep_everything_in_order(items: list[int], n: int) -> None:
    chunks = list(chunkify(items, n))
    assert [item for chunk in chunks for item in chunk] == items
    assert all(len(chunk) == n for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= n for chunk in chunks)


def test_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="a chunk of 0 items"):
        list(chunkify([1], 0))


async def test_connecting_is_tried_again_while_the_database_is_away() -> None:
    flaky = Flaky([DatabaseUnavailable("down"), DatabaseUnavailable("down")])
    await connect(flaky)
    assert flaky.attempts == 3


async def test_connecting_is_given_up_after_the_last_retry() -> None:
    flaky = Flaky([DatabaseUnavailable(f"down {number}") for number in range(9)])
    with pytest.raises(DatabaseUnavailable, match="down 2"):
        await connect(flaky, max_retries=2)
    assert flaky.attempts == 3


@pytest.mark.parametrize("error", [AccessDenied("no"), SchemaMismatch("old")])
async def test_what_waiting_cannot_help_is_raised_at_once(error: Exception) -> None:
    flaky = Flaky([error])
    with pytest.raises(type(error)):
        await connect(flaky)
    assert flaky.attempts == 1


async def test_pauses_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[float] = []

    def remember(low: float, high: float) -> float:
        longest.append(high)
        return low

    monkeypatch.setattr(functions.random, "uniform", remember)
    flaky = Flaky([DatabaseUnavailable("down") for _ in range(8)])
    await connect_bigbrotr_with_retry(cast(BigBrotr, flaky), max_retries=8, base_delay=1)
    assert longest == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_socks5_proxy_is_recognized() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(3))
        writer.write(b"\x05\x00")
        await writer.drain()
        heard.append(await reader.read())
        writer.close()

    async with server(talk) as port:
        assert await functions.test_torproxy_connection("127.0.0.1", port)
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    assert heard == [b"\x05\x01\x00", b""]


@pytest.mark.parametrize("answer", [b"\x05\xff", b"HTTP/1.1 400 Bad Request\r\n", b"\x04", b""])
async def test_what_is_no_open_socks5_proxy(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(answer)
        writer.close()

    async with server(talk) as port:
        assert not await functions.test_torproxy_connection("127.0.0.1", port)
    assert f"proxy=127.0.0.1:{port}" in caplog.text


async def test_a_proxy_that_is_silent_or_absent(caplog: pytest.LogCaptureFixture) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    timeout = cast(int, 0.05)
    async with server(silent) as port:
        assert not await functions.test_torproxy_connection("127.0.0.1", port, timeout)
    assert "no answer in 0.05 s" in caplog.text
    assert not await functions.test_torproxy_connection("127.0.0.1", await free_port())
    assert not await functions.test_torproxy_connection("no-such-host.invalid", 9050)


def nowhere(port: int) -> DatabaseConfig:
    return DatabaseConfig(host="127.0.0.1", port=port, user="u", password="p4ss", dbname="d")


async def test_a_database_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    port = await free_port()
    assert not await functions.test_database_connection_async("127.0.0.1", port, "u", "p4ss", "d")
    assert f"127.0.0.1:{port}" in caplog.text
    assert "p4ss" not in caplog.text


async def test_waiting_for_a_database_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "_FIRST_PAUSE_SECONDS", 0.01)
    database = nowhere(await free_port())
    with pytest.raises(DatabaseUnavailable):
        await functions.wait_for_database(database, patience=0.1, longest_pause=0.02)
    assert caplog.text.count("waiting_for_database") >= 3


@dataclass(frozen=True)
class Services:
    database: DatabaseConfig
    tor: TorConfig | None


async def test_services_go_on_without_tor_and_say_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def database_is_there(_: DatabaseConfig) -> None:
        return None

    monkeypatch.setattr(functions, "_ask_database", database_is_there)
    monkeypatch.setattr(functions, "_FIRST_PAUSE_SECONDS", 0.01)
    port = await free_port()
    config = Services(nowhere(1), TorConfig("127.0.0.1", port))
    await functions.wait_for_services(config, retries=1, delay=0)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"TORPROXY_HOST: no SOCKS5 proxy at 127.0.0.1:{port}" in errors[0].message


async def test_waiting_ends_as_soon_as_tor_answers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def later(*_: object) -> bool:
        nonlocal attempts
        attempts += 1
        return attempts == 3

    async def database_is_there(_: DatabaseConfig) -> None:
        return None

    monkeypatch.setattr(functions, "test_torproxy_connection", later)
    monkeypatch.setattr(functions, "_ask_database", database_is_there)
    monkeypatch.setattr(functions, "_FIRST_PAUSE_SECONDS", 0.01)
    with caplog.at_level(logging.INFO):
        await functions.wait_for_services(Services(nowhere(1), TorConfig("x", 1)))
    assert attempts == 3
    assert "tor_answers" in caplog.text
