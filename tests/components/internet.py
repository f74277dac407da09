"""This machine as a small Internet: one public address, the rest private, every connect watched."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from nostr import addresses

PUBLIC = "127.0.0.9"

_watched: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _watched and isinstance(arguments[1], tuple):
        host = str(ip_address(arguments[1][0].partition("%")[0]))
        for seen in _watched:
            seen.append(host)
        if not ip_address(host).is_loopback:
            raise ConnectionRefusedError(f"the test lets nobody out to {host}")


sys.addaudithook(_watch)


@contextmanager
def watched_connects() -> Iterator[list[str]]:
    """The addresses that this process connects to; it gets no further than this machine."""
    seen: list[str] = []
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)


def make_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PUBLIC pass for an address of the public Internet, and no other of this machine's."""
    loopback = ip_network("127.0.0.0/8")
    refused = {*addresses._REFUSED_V4, *loopback.address_exclude(ip_network(PUBLIC))} - {loopback}
    monkeypatch.setattr(addresses, "_REFUSED_V4", tuple(refused))
