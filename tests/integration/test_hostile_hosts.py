"""Hosts that send what nobody should: none stops a cycle, none makes a worker grow."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.databases import Database
from components.relays import StartRelay
from components.services import environment, running
from nostr.connection import Dialer
from nostr.nip11 import DEFAULT_MAX_BYTES, fetch_nip11
from nostr.probe import probe
from nostr.urls import RelayUrl, to_relay

MEGABYTE = 1_000_000
BLOCK = b"x" * 65_536
Send = Callable[[bytes], Awaitable[None]]
Host = Callable[[Send], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/nostr+json\r\n"


async def fifty_megabytes(send: Send) -> None:
    await send(HEAD + b"Content-Length: 50000000\r\n\r\n" + b'{"name":"')
    for _ in range(50 * MEGABYTE // len(BLOCK)):
        await send(BLOCK)


async def no_length(send: Send) -> None:
    await send(HEAD + b'Connection: close\r\n\r\n{"name":"')
    while True:
        await send(BLOCK)


async def endless_chunks(send: Send) -> None:
    await send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        await send(b"10000\r\n" + BLOCK + b"\r\n")


async def slow_chunks(send: Send) -> None:
    await send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        await send(b"1\r\n \r\n")
        await asyncio.sleep(0.01)


async def one_endless_chunk_size(send: Send) -> None:
    await send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        await send(b"0" * 1_000)
        await asyncio.sleep(0.001)


@cache
def bomb(compress: Callable[[bytes], bytes]) -> bytes:
    """A valid document of 100 MB, compressed to a thousandth."""
    return compress(b'{"name":"' + b"x" * 100 * MEGABYTE + b'"}')


async def gzip_bomb(send: Send) -> None:
    body = bomb(gzip.compress)
    await send(HEAD + b"Content-Encoding: gzip\r\n")
    await send(b"Content-Length: %d\r\n\r\n" % len(body) + body)


async def deflate_bomb(send: Send) -> None:
    body = bomb(zlib.compress)
    await send(HEAD + b"Content-Encoding: deflate\r\n")
    await send(b"Content-Length: %d\r\n\r\n" % len(body) + body)


async def endless_header(send: Send) -> None:
    await send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        await send(BLOCK)


async def many_headers(send: Send) -> None:
    await send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await send(b"X-One: more\r\n" * 1_000)


async def a_list(send: Send) -> None:
    await whole(send, b"[" + b"1," * 100_000 + b"1]")


async def nested(send: Send) -> None:
    await whole(send, b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


async def many_keys(send: Send) -> None:
    await whole(send, json.dumps({"name": "a", **{f"k{n}": n for n in range(15_000)}}).encode())


async def nul_and_surrogates(send: Send) -> None:
    await whole(send, rb'{"name":"a\u0000b\ud800","supported_nips":["\u0000",1e400]}')


async def wrong_types(send: Send) -> None:
    await whole(send, b'{"name":[1],"limitation":7,"supported_nips":{"a":1},"pubkey":true}')


async def whole(send: Send, body: bytes) -> None:
    await send(HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)


HOSTS: dict[Host, set[str]] = {
    fifty_megabytes: {"too-large"},
    no_length: {"too-large"},
    endless_chunks: {"too-large"},
    slow_chunks: {"timeout"},
    one_endless_chunk_size: {"timeout", "protocol"},
    gzip_bomb: {"too-large"},
    deflate_bomb: {"too-large"},
    endless_header: {"protocol", "not-websocket", "timeout"},
    many_headers: {"protocol", "not-websocket", "timeout"},
    a_list: {"not-nip11"},
    nested: {"not-json", "not-nip11"},
    many_keys: {"ok"},
    nul_and_surrogates: {"ok"},
    wrong_types: {"ok"},
}
StartHost = Callable[[Host], Awaitable[RelayUrl]]


@pytest.fixture
async def start_host() -> AsyncIterator[StartHost]:
    """Starts hosts that answer every request of every connection in one way."""
    servers: list[asyncio.Server] = []

    async def listen(host: Host) -> RelayUrl:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async def send(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await reader.readuntil(b"\r\n\r\n")
                await host(send)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return RelayUrl.parse(f"ws://127.0.0.1:{port}", allow_private=True)

    yield listen
    for server in servers:
        server.close()


@pytest.fixture
def traced() -> Iterator[None]:
    # Made before anything is measured.
    bomb(gzip.compress)
    bomb(zlib.compress)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def dialer(timeout: float) -> Dialer:
    return Dialer(None, allow_private=True, connect_timeout=timeout)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)
async def test_a_document_costs_no_more_than_its_bound(start_host: StartHost, host: Host):
    url = await start_host(host)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    result = await fetch_nip11(url, dialer(1), timeout=1, prefer_scheme="ws")
    _, peak = tracemalloc.get_traced_memory()
    assert result.outcome in HOSTS[host]
    assert peak - before < 40 * DEFAULT_MAX_BYTES


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)
async def test_a_probe_ends_with_a_report(start_host: StartHost, host: Host):
    url = await start_host(host)
    report = await probe(url, dialer(1), timeout=1, keypair=None, now=1)
    assert not report.metadata.nip66.openable
    assert report.facts.document_outcome in {*HOSTS[host], ""}
    assert report.metadata.is_valid


async def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1_000


async def test_a_cycle_over_all_of_them_ends_and_its_worker_stays_small(
    db: BigBrotr, database: Database, start_host: StartHost, local_relay: StartRelay
) -> None:
    good = (await local_relay()).url
    hostile = [await start_host(host) for host in HOSTS for _ in range(4)]
    good_relay = RelayUrl.parse(good, allow_private=True)
    await db.insert_relay_batch([to_relay(relay) for relay in [good_relay, *hostile]], 1)
    env = environment(
        database,
        MONITOR_NUM_CORES=1,
        MONITOR_REQUESTS_PER_CORE=30,
        MONITOR_REQUEST_TIMEOUT=2,
        MONITOR_CHECKS_PER_HOST=60,
        MONITOR_LOOP_INTERVAL_MINUTES=60,
    )
    async with running("monitor", env) as monitor:
        await monitor.says("cycle_done", 120)
        (worker,) = await monitor.children()
        grown = await resident_megabytes(worker)
        assert f"checked={len(hostile) + 1}" in monitor.output
    assert grown < 250, "megabytes at the most"
    assert [row[0] for row in await db.fetch("SELECT relay_url FROM readable_relays")] == [good]
    row = await db.fetchone("SELECT count(*) AS checks FROM relay_metadata")
    assert row is not None
    assert row["checks"] == len(hostile) + 1
