"""Probing a relay as NIP-66 has it: can it be opened, read and written, and how fast."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Protocol

from nostr_tools.core.relay_metadata import RelayMetadata

from errors import ConnectFailed
from nostr.connection import Dialer, EndKind, OkReply, Page, RelayConnection
from nostr.keys import sign_event
from nostr.nip11 import fetch_nip11
from nostr.urls import RelayUrl, to_relay

WRITE_TEST_KIND = 20_166  # ephemeral (NIP-01): relays pass it on and do not keep it
WRITE_TEST_CONTENT = "BigBrotr relay monitor: this is a write test, please ignore it"

_READ_TEST = {"kinds": [1], "limit": 1}
_READ_TEST_EVENTS = 100
_ABOUT_MONEY = re.compile(r"\b(?:pay|paid|payments?|invoice)\b", re.IGNORECASE).search
_ANSWERS_HTTP = frozenset({"http-status", "not-websocket", "closed"})


class Keypair(Protocol):
    """Who signs: `secret_key` is 64 hex digits."""

    @property
    def secret_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """A relay's state. `outcome` is "ok" for a readable relay, else why it is not: a kind of
    ConnectFailed, "auth-required", "payment-required", another prefix of CLOSED, "closed",
    "timeout" or "disconnected"; `detail` is what the relay said, for people."""

    metadata: RelayMetadata
    outcome: str
    detail: str


async def probe(
    url: RelayUrl, dialer: Dialer, *, timeout: float, keypair: Keypair | None, now: int
) -> ProbeReport:
    """Opens, reads and, with a keypair, writes; and asks for the NIP-11 document. Each step has
    `timeout` seconds; RTTs are milliseconds; `now` is the time of the check. Never raises for
    what a relay does.
    """
    try:
        connection = await dialer.connect(url)
    except ConnectFailed as failed:
        nip11 = None
        if failed.kind in _ANSWERS_HTTP:
            nip11 = (await fetch_nip11(url, dialer, timeout=timeout)).nip11
        metadata = RelayMetadata(to_relay(url), now, nip11, RelayMetadata.Nip66())
        return ProbeReport(metadata, _connect_outcome(failed), failed.detail)
    tests = _Tests(connection, timeout, keypair)
    async with connection, asyncio.TaskGroup() as group:
        asking = fetch_nip11(url, dialer, timeout=timeout, prefer_scheme=connection.scheme)
        document = group.create_task(asking)
        nip66 = group.create_task(tests.run(now))
    metadata = RelayMetadata(to_relay(url), now, document.result().nip11, nip66.result())
    return ProbeReport(metadata, tests.outcome, "; ".join(tests.details))


class _Tests:
    """The tests of one open connection."""

    def __init__(
        self, connection: RelayConnection, timeout: float, keypair: Keypair | None
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._keypair = keypair
        self._signed_in = False
        self.outcome = ""
        self.details: list[str] = []

    async def run(self, now: int) -> RelayMetadata.Nip66:
        rtt_read = await self._read()
        rtt_write = await self._write(now) if self._keypair else None
        return RelayMetadata.Nip66(
            openable=True,
            readable=rtt_read is not None,
            writable=rtt_write is not None,
            rtt_open=self._connection.rtt_open,
            rtt_read=rtt_read,
            rtt_write=rtt_write,
        )

    async def _read(self) -> int | None:
        page = await self._page()
        if page.end.prefix == "auth-required" and await self._sign_in():
            page = await self._page()
        # An event answers the question even where the relay never says EOSE.
        if page.end.kind in (EndKind.EOSE, EndKind.OVERFLOW) or page.events:
            self.outcome = "ok"
            return page.rtt
        self.outcome = _refusal(page.end.prefix, page.end.text) or page.end.kind.value
        self.details.append(f"read: {page.end.text or page.end.kind.value}")
        return None

    async def _page(self) -> Page:
        return await self._connection.page(
            _READ_TEST, idle_timeout=self._timeout, max_events=_READ_TEST_EVENTS
        )

    async def _write(self, now: int) -> int | None:
        started = time.monotonic()
        reply = await self._publish(now)
        if reply is not None and reply.prefix == "auth-required" and await self._sign_in():
            started = time.monotonic()
            reply = await self._publish(now)
        if reply is not None and reply.accepted:
            return round((time.monotonic() - started) * 1000)
        self.details.append(f"write: {reply.text or 'refused' if reply else 'no answer'}")
        return None

    async def _publish(self, now: int) -> OkReply | None:
        assert self._keypair is not None
        tags = [["relay", self._connection.url.url]]
        event = sign_event(self._keypair.secret_key, WRITE_TEST_KIND, tags, WRITE_TEST_CONTENT, now)
        return await self._connection.publish(event, timeout=self._timeout)

    async def _sign_in(self) -> bool:
        """Whether signing in worked, tried once."""
        if self._keypair is None or self._signed_in:
            return False
        self._signed_in = True
        return await self._connection.authenticate(self._keypair.secret_key, timeout=self._timeout)


def _refusal(prefix: str, text: str) -> str:
    """The outcome that a CLOSED means; paid relays say so in words only."""
    return "payment-required" if _ABOUT_MONEY(text) else prefix


def _connect_outcome(failed: ConnectFailed) -> str:
    return "payment-required" if failed.detail == "HTTP 402" else failed.kind
