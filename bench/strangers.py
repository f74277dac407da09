"""Endpoints that are no relays: `python -m bench.strangers SILENT ALERT DRIP PAGE` (ports).

SILENT takes the connection and says nothing; ALERT answers a TLS hello with a fatal alert; DRIP
sends a byte of an endless header a second; PAGE is a web server that knows no WebSocket.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

_TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure
_PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>"
Stream = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A black hole behind an open port."""
    while await reader.read(4_096):
        pass


async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """TLS that fails."""
    await reader.read(4_096)
    writer.write(_TLS_ALERT)
    await writer.drain()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header without an end."""
    await reader.read(4_096)
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 3_600:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A page, whatever was asked for."""
    await reader.read(4_096)
    writer.write(_PAGE)
    await writer.drain()


KINDS: tuple[Stream, ...] = (silent, alert, drip, page)


def quietly(talk: Stream) -> Stream:
    """Hang up in the end, whatever the other side did."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()

    return handle


async def serve(ports: list[int]) -> None:
    """Listen until killed."""
    servers = [
        await asyncio.start_server(quietly(talk), "127.0.0.1", port, backlog=2_048)
        for talk, port in zip(KINDS, ports, strict=True)
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(list(map(int, sys.argv[1:]))))
