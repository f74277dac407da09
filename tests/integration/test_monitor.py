"""The monitor with its worker processes, against real relays and endpoints that are none."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web

from bigbrotr import BigBrotr
from components.databases import Database
from components.relays import StartRelay
from config import load_monitor_config
from errors import ServiceError
from event_rows import write_events
from monitor import Monitor
from nostr.events import SignedEvent
from nostr.urls import RelayUrl, to_relay
from standalone.processes import free_port
from standalone.signing import Author

AUTHOR = Author("monitor")
EVENTS = [AUTHOR.sign(1, 1_700_000_000 + n, [], f"note {n}") for n in range(3)]
ONION = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"
SRC = Path(__file__).parents[2] / "src"

StartMonitor = Callable[..., Awaitable[Monitor]]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def settings(database: Database, **changes: str) -> dict[str, str]:
    return {
        **database.environment(),
        "HEALTH_CHECK_PORT": "0",
        "ALLOW_PRIVATE_RELAYS": "true",
        "SECRET_KEY": AUTHOR.secret_key,
        "PUBLIC_KEY": AUTHOR.pubkey,
        "MONITOR_NUM_CORES": "1",
        "MONITOR_REQUESTS_PER_CORE": "8",
        "MONITOR_REQUEST_TIMEOUT": "2",
        "MONITOR_LOOP_INTERVAL_MINUTES": "0.001",
        **changes,
    }


@pytest.fixture
async def start(database: Database) -> AsyncIterator[StartMonitor]:
    async with AsyncExitStack() as stack:

        async def start(**changes: str) -> Monitor:
            monitor = Monitor(load_monitor_config(settings(database, **changes)))
            stack.push_async_callback(monitor.close)
            await monitor.start()
            return monitor

        yield start


@pytest.fixture
async def endpoint() -> AsyncIterator[Callable[[Connected], Awaitable[str]]]:
    """Starts TCP servers that treat each connection with a function; gives the relay URL."""
    servers: list[asyncio.Server] = []

    async def listen(connected: Connected) -> str:
        async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await connected(reader, writer)
            writer.close()

        server = await asyncio.start_server(treat, "127.0.0.1", 0)
        servers.append(server)
        return f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield listen
    for server in servers:
        server.close()


async def never_answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(os.urandom(200))
    await writer.drain()


async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    return


async def show_a_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    page = b"<html>welcome</html>"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n" + page)
    await writer.drain()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


async def insert(db: BigBrotr, *urls: str) -> None:
    relays = [to_relay(RelayUrl.parse(url, allow_private=True)) for url in urls]
    await db.insert_relay_batch(relays, 1)


async def latest(db: BigBrotr) -> dict[str, dict[str, object]]:
    rows = await db.fetch("SELECT * FROM relay_metadata_latest")
    return {row["relay_url"]: dict(row) for row in rows}


async def readable(db: BigBrotr) -> set[str]:
    return {row["relay_url"] for row in await db.fetch("SELECT relay_url FROM readable_relays")}


async def test_relays_and_things_that_are_none_are_told_apart(
    db: BigBrotr, start: StartMonitor, local_relay: StartRelay, nostr_relay: StartRelay, endpoint
) -> None:
    rust, python = await local_relay(EVENTS), await nostr_relay(EVENTS)
    none = {
        "black hole": await endpoint(never_answer),
        "nonsense": await endpoint(talk_nonsense),
        "hangs up": await endpoint(hang_up),
        "web page": await endpoint(show_a_page),
        "nobody": f"wss://127.0.0.1:{free_port()}",
        "no such name": "wss://relay.invalid",
    }
    await insert(db, rust.url, python.url, *none.values())
    monitor = await start()
    report = await monitor.cycle(asyncio.Event())

    assert not report.failed
    assert await readable(db) == {rust.url, python.url}
    found = await latest(db)
    assert set(found) == {rust.url, python.url, *none.values()}, "a failed check is stored too"
    for url in (rust.url, python.url):
        assert found[url]["openable"]
        assert found[url]["writable"]
        assert all(type(found[url][rtt]) is int for rtt in ("rtt_open", "rtt_read", "rtt_write"))
    assert found[rust.url]["nip11_id"] is None
    assert found[python.url]["software"]
    assert found[python.url]["supported_nips"]
    for name, url in none.items():
        assert found[url]["openable"] is False, name
        assert found[url]["rtt_open"] is None, name

    assert (report.counts["due"], report.counts["checked"], report.counts["stored"]) == (8, 8, 8)
    assert (report.counts["readable"], report.counts["writable"]) == (2, 2)
    outcomes = monitor.info()["outcomes"]
    assert isinstance(outcomes, dict)
    assert outcomes["ok"] == 2
    assert outcomes["timeout"] >= 1
    assert outcomes["refused"] >= 1
    assert sum(outcomes.values()) == 8
    assert await monitor.ready()


async def test_the_living_are_due_by_frequency_and_the_dead_rest(
    db: BigBrotr, start: StartMonitor, local_relay: StartRelay
) -> None:
    living, dead = (await local_relay()).url, f"wss://127.0.0.1:{free_port()}"
    await insert(db, living, dead)
    monitor = await start(MONITOR_FREQUENCY_HOUR="0.0003")
    await monitor.cycle(asyncio.Event())
    for _ in range(2):
        await asyncio.sleep(2.1)
        report = await monitor.cycle(asyncio.Event())
        assert (report.counts["due"], report.counts["resting"]) == (1, 1)
    rows = await db.fetch("SELECT relay_url, count(*) AS n FROM relay_metadata GROUP BY 1")
    assert {row["relay_url"]: row["n"] for row in rows} == {living: 3, dead: 1}


async def test_nothing_is_due_within_the_frequency(
    db: BigBrotr, start: StartMonitor, local_relay: StartRelay
) -> None:
    await insert(db, (await local_relay()).url)
    monitor = await start()
    assert (await monitor.cycle(asyncio.Event())).counts["checked"] == 1
    assert (await monitor.cycle(asyncio.Event())).counts["due"] == 0
    later = (await local_relay()).url
    await insert(db, later)
    assert (await monitor.cycle(asyncio.Event())).counts["checked"] == 1
    assert later in await readable(db)


async def test_a_relay_that_goes_away_is_readable_no_more_until_it_is_back(
    db: BigBrotr, start: StartMonitor, endpoint
) -> None:
    port = free_port()
    url = f"wss://127.0.0.1:{port}"
    await insert(db, url)
    monitor = await start(MONITOR_FREQUENCY_HOUR="0.0003")

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            kind, name, *_ = message.json()
            if kind == "REQ":
                await socket.send_json(["EOSE", name])
        return socket

    for alive in (True, False, True):
        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        if alive:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
        await monitor.cycle(asyncio.Event())
        assert await readable(db) == ({url} if alive else set())
        await runner.cleanup()
        await asyncio.sleep(2.1)
    row = await db.fetchone("SELECT failures FROM relay_tasks WHERE relay_url = $1", url)
    assert row is not None
    assert row["failures"] == 0


async def test_onion_relays_are_skipped_and_not_marked_dead_without_tor(
    db: BigBrotr, start: StartMonitor, local_relay: StartRelay
) -> None:
    await insert(db, ONION, (await local_relay()).url)
    monitor = await start()
    report = await monitor.cycle(asyncio.Event())
    assert (report.counts["skipped_tor"], report.counts["checked"]) == (1, 1)
    assert await monitor.ready()
    assert ONION not in await latest(db)
    assert await db.fetch("SELECT 1 FROM relay_tasks WHERE relay_url = $1", ONION) == []


async def test_onion_relays_wait_for_a_proxy_that_is_configured_but_down(
    db: BigBrotr, start: StartMonitor, endpoint
) -> None:
    accepting = True

    async def socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        if accepting:
            writer.write(b"\x05\x00")
            await writer.drain()

    proxy = RelayUrl.parse(await endpoint(socks), allow_private=True)
    await insert(db, ONION)
    monitor = await start(TORPROXY_HOST="127.0.0.1", TORPROXY_PORT=str(proxy.port))
    assert await monitor.ready()
    accepting = False
    with pytest.raises(ServiceError, match="Tor: no SOCKS5 proxy answers"):
        await monitor.ready()
    report = await monitor.cycle(asyncio.Event())
    assert (report.counts["skipped_tor"], report.failed) == (1, False)
    assert await latest(db) == {}


async def test_an_onion_relay_is_checked_through_the_proxy(
    db: BigBrotr, start: StartMonitor, local_relay: StartRelay, endpoint
) -> None:
    relay = await local_relay(EVENTS)
    asked: list[str] = []

    async def tor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        if 2 not in await reader.readexactly(count):
            writer.write(b"\x05\x00")
            return
        writer.write(b"\x05\x02")
        _, length = await reader.readexactly(2)
        await reader.readexactly(length)
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x01\x00")
        *_, length = await reader.readexactly(5)
        asked.append((await reader.readexactly(length)).decode())
        await reader.readexactly(2)
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", relay.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    proxy = RelayUrl.parse(await endpoint(tor), allow_private=True)
    await insert(db, ONION)
    monitor = await start(TORPROXY_HOST="127.0.0.1", TORPROXY_PORT=str(proxy.port))
    report = await monitor.cycle(asyncio.Event())
    assert (report.counts["checked"], report.counts["skipped_tor"]) == (1, 0)
    assert await readable(db) == {ONION}
    assert set(asked) == {ONION.removeprefix("wss://")}, "names are resolved by the proxy"


async def test_many_black_holes_delay_no_living_relay_of_the_same_round(
    db: BigBrotr, start: StartMonitor, local_relay: StartRelay, endpoint
) -> None:
    hole = await endpoint(never_answer)
    living = [(await local_relay()).url for _ in range(2)]
    await insert(db, *(f"{hole}/{n}" for n in range(24)), *living)
    monitor = await start(MONITOR_REQUEST_TIMEOUT="1", MONITOR_REQUESTS_PER_CORE="26")
    cycle = asyncio.create_task(monitor.cycle(asyncio.Event()))
    async with asyncio.timeout(20):
        while await readable(db) != set(living):
            await asyncio.sleep(0.1)
        report = await cycle
    assert report.counts["checked"] == 26


async def test_a_killed_worker_costs_its_relays_nothing_but_time(
    db: BigBrotr, start: StartMonitor, endpoint
) -> None:
    reached = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()

    url = await endpoint(hold)
    await insert(db, url)
    monitor = await start(MONITOR_REQUEST_TIMEOUT="30")
    cycle = asyncio.create_task(monitor.cycle(asyncio.Event()))
    async with asyncio.timeout(20):
        await reached.wait()
        for pid in monitor._pool.process_ids:
            os.kill(pid, signal.SIGKILL)
        report = await cycle
    assert not report.failed
    assert monitor.info()["outcomes"] == {"worker-died": 1}
    assert await latest(db) == {}
    row = await db.fetchone("SELECT owner, failures FROM relay_tasks WHERE relay_url = $1", url)
    assert row is not None
    assert (row["owner"], row["failures"]) == (None, 0)


async def run_program(
    environment: dict[str, str], *arguments: str, program: str = "monitor"
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(SRC / f"{program}.py"),
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_the_program_runs_one_cycle(
    db: BigBrotr, database: Database, local_relay: StartRelay
) -> None:
    relay = await local_relay(EVENTS)
    await insert(db, relay.url, ONION)
    program = await run_program(settings(database), "--once")
    output = (await program.communicate())[0].decode()
    assert program.returncode == 0, output
    assert await readable(db) == {relay.url}
    assert "check_outcomes ok=1" in output
    assert "skipped_tor=1" in output


async def test_the_program_ends_soon_after_sigterm_and_gives_its_leases_back(
    db: BigBrotr, database: Database, local_relay: StartRelay, endpoint
) -> None:
    hole, living = await endpoint(never_answer), (await local_relay()).url
    await insert(db, living, *(f"{hole}/{n}" for n in range(3)))
    program = await run_program(settings(database, MONITOR_REQUEST_TIMEOUT="60"))
    async with asyncio.timeout(30):
        while await readable(db) != {living}:
            await asyncio.sleep(0.1)
        program.send_signal(signal.SIGTERM)
        started = time.monotonic()
        output = (await program.communicate())[0].decode()
    assert time.monotonic() - started < 10
    assert program.returncode == 0, output
    assert await db.fetch("SELECT 1 FROM relay_tasks WHERE owner IS NOT NULL") == []
    assert set(await latest(db)) == {living}


async def test_a_relay_that_only_an_event_names_is_found_and_then_checked(
    db: BigBrotr, database: Database, local_relay: StartRelay
) -> None:
    known, hidden = await local_relay(), await local_relay(EVENTS)
    named = AUTHOR.sign(10002, 1_700_000_000, [["r", f"{hidden.websocket}/"]], "")

    async def write(conn: asyncpg.Connection) -> object:
        source = RelayUrl.parse(known.url, allow_private=True)
        return await write_events(conn, source, 1_700_000_000, [SignedEvent(*named)])

    await db.run_in_transaction(write)
    environment = settings(database, FINDER_AGGREGATOR_URLS="", FINDER_NIP66_RELAYS="")
    for program in ("finder", "monitor"):
        process = await run_program(environment, "--once", program=program)
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
    assert await readable(db) == {known.url, hidden.url}
