"""A name server on the loopback interface whose answers are scripted."""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from types import TracebackType

import pytest
from aiohttp.resolver import AsyncResolver

_TYPES = {1: 4, 28: 6}  # A, AAAA


class NameServer(asyncio.DatagramProtocol):
    """Answers for every name with what `answers` has for it: addresses of both families, or a
    function that gives them anew for each question. Other names do not exist.

    `questions` has the names that were asked for, in order.
    """

    def __init__(self, answers: dict[str, Sequence[str] | Callable[[], Sequence[str]]]) -> None:
        self.answers = answers
        self.questions: list[str] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let everything that resolves names through nostr.addresses ask this server."""
        resolver = partial(
            AsyncResolver, nameservers=["127.0.0.1"], udp_port=self.port, timeout=2, tries=1
        )
        monkeypatch.setattr("nostr.addresses.AsyncResolver", resolver)

    async def __aenter__(self) -> "NameServer":
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0), family=socket.AF_INET
        )
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, end = _name(data)
        (kind,) = struct.unpack_from("!H", data, end)
        self.questions.append(name)
        scripted = self.answers.get(name)
        addresses = scripted() if callable(scripted) else scripted
        chosen = [
            address
            for text in addresses or ()
            if (address := ip_address(text)).version == _TYPES.get(kind)
        ]
        flags = 0x8180 if addresses is not None else 0x8183  # NXDOMAIN
        reply = data[:2] + struct.pack("!HHHHH", flags, 1, len(chosen), 0, 0) + data[12 : end + 4]
        for address in chosen:
            packed = address.packed
            reply += struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(packed)) + packed
        assert self._transport is not None
        self._transport.sendto(reply, addr)


def _name(data: bytes) -> tuple[str, int]:
    """The name of the first question, and where it ends."""
    labels: list[str] = []
    at = 12
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 1
