"""Opening a WebSocket to a relay: which scheme to try, how long, and when to try the other."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from errors import ConnectFailed
from nostr.link import link_facts
from nostr.messages import Ok as OkReply
from nostr.pages import EndKind, Page, PageEnd
from nostr.transport import Transport, failure_kind, open_transport, patience, speaks_no_tls
from nostr.urls import RelayUrl
from nostr.websocket import CLOSE_SECONDS, RelayConnection

__all__ = ["Dialer", "EndKind", "OkReply", "Page", "PageEnd", "RelayConnection"]

DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_DEFLATE_WINDOW_BITS = 15

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dialer:
    """How to reach relays. Times in seconds; `connect_timeout`, twice that through Tor, bounds name
    lookup, TCP, TLS and upgrade together. `trust` replaces the system's certificate authorities."""

    socks5_url: str | None
    allow_private: bool
    connect_timeout: float
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    trust: ssl.SSLContext | None = None

    def transport(self, url: RelayUrl) -> Transport:
        """An HTTP session that reaches this relay and nothing it must not; raises ConnectFailed."""
        return open_transport(
            url,
            socks5_url=self.socks5_url,
            allow_private=self.allow_private,
            timeout=self.timeout_for(url),
            trust=self.trust,
        )

    def timeout_for(self, url: RelayUrl) -> float:
        """`connect_timeout` as this relay's network has it."""
        return self.connect_timeout * patience(url)

    async def connect(self, url: RelayUrl, *, prefer_scheme: str | None = None) -> RelayConnection:
        """Opens a WebSocket: wss first (ws first for .onion), and ws only where the peer speaks
        no TLS at all, never after a certificate error. `prefer_scheme` is what worked before.

        Raises ConnectFailed with one of the kinds of nostr.transport.failure_kind, "no-tor" or
        "address-refused".
        """
        return await self.try_schemes(
            url, lambda scheme: self._open(url, scheme), self.timeout_for(url), prefer_scheme
        )

    async def try_schemes(
        self,
        url: RelayUrl,
        attempt: Callable[[str], Awaitable[T]],
        timeout: float,
        prefer_scheme: str | None = None,
    ) -> T:
        """Makes an attempt with one scheme, "wss" or "ws", then with the other if `connect` would;
        both within `timeout` seconds. Raises ConnectFailed."""
        first = prefer_scheme or ("ws" if url.network == "tor" else "wss")
        try:
            async with asyncio.timeout(timeout):
                try:
                    return await attempt(first)
                except ConnectFailed as failed:
                    if not _may_try_other(url, first, failed.kind):
                        raise
                    try:
                        return await attempt("ws" if first == "wss" else "wss")
                    except ConnectFailed as other:
                        no_news = speaks_no_tls(other.kind) or other.kind == "reset"
                        raise (failed if no_news else other) from None
        except TimeoutError:
            raise ConnectFailed("timeout", url.url, f"no answer within {timeout:g} s") from None

    async def _open(self, url: RelayUrl, scheme: str) -> RelayConnection:
        transport = self.transport(url)
        started = time.monotonic()
        try:
            websocket = await transport.session.ws_connect(
                url.websocket(scheme),
                autoping=False,
                compress=_DEFLATE_WINDOW_BITS,
                decode_text=False,
                max_msg_size=self.max_message_bytes,
                timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=CLOSE_SECONDS),
            )
        except BaseException as error:
            await transport.close()
            if isinstance(error, TimeoutError) or not isinstance(error, Exception):
                raise
            kind, detail = failure_kind(error)
            raise ConnectFailed(kind, url.url, detail) from error
        rtt = _milliseconds_since(started)
        link = link_facts(transport.addresses, websocket.get_extra_info("ssl_object"))
        return RelayConnection(url, scheme, rtt, link, websocket, transport)


def _may_try_other(url: RelayUrl, scheme: str, kind: str) -> bool:
    if scheme == "ws":
        return kind in ("refused", "reset", "closed", "http-status", "not-websocket", "protocol")
    # A peer that hangs up on TLS may still speak it. On a port of its own trying ws does no harm;
    # at 443 it would take whoever cuts connections for a reason to go on in the clear at 80.
    return speaks_no_tls(kind) or (kind == "reset" and url.port is not None)


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
