"""Probing a relay as NIP-66 has it: can it be opened, read and written, and how fast."""

import asyncio
from dataclasses import dataclass, field

from nostr_tools.core.relay_metadata import RelayMetadata

from errors import ConnectFailed
from nostr.connection import Dialer, EndKind, Page, RelayConnection
from nostr.link import LinkFacts
from nostr.nip11 import Nip11Result, fetch_nip11
from nostr.pow import MAX_BITS, Miner
from nostr.urls import RelayUrl, to_relay
from nostr.write_check import Keypair, WriteTest, asks_for_money

_READ_TEST = {"kinds": [1], "limit": 1}
_READ_TEST_EVENTS, _READ_TEST_BYTES = 100, 5 * 1024 * 1024
_TOLD_LENGTH = 200
_ANSWERS_HTTP = frozenset({"http-status", "not-websocket", "closed"})


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """What a probe found that NIP-66's results have no place for.

    Attributes:
        scheme: "wss" or "ws", how it was opened; "" if it was not.
        link: addresses and certificate of an open relay.
        document_outcome: "ok", or why there is no NIP-11 document (see Nip11Result); "" if it was
            not asked for.
        write_outcome: see WriteTest; "" if writing was not tested.
        auth_required: whether it had us sign in to read or write; None if that was not seen.
        payment_required: True if it refused us for not paying, False if it let us write.
        pow_difficulty: the proof of work it asked for to write, in bits (NIP-13).
    """

    scheme: str = ""
    link: LinkFacts = field(default_factory=LinkFacts)
    document_outcome: str = ""
    write_outcome: str = ""
    auth_required: bool | None = None
    payment_required: bool | None = None
    pow_difficulty: int | None = None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """A relay's state. `outcome` is "ok" for a readable relay, else why it is not: a kind of
    ConnectFailed, "auth-required", "payment-required", another prefix of CLOSED, "closed",
    "timeout" or "disconnected"; `detail` is what the relay said, for people."""

    metadata: RelayMetadata
    outcome: str
    detail: str
    facts: ProbeFacts = field(default_factory=ProbeFacts)


async def probe(
    url: RelayUrl,
    dialer: Dialer,
    *,
    timeout: float,
    keypair: Keypair | None,
    now: int,
    miner: Miner | None = None,
) -> ProbeReport:
    """Opens, reads and, with a keypair, writes; and asks for the NIP-11 document. Each step has
    `timeout` seconds; RTTs are milliseconds; `now` is the time of the check. `miner` does the
    proof of work that a relay may ask for. Never raises for what a relay does.
    """
    try:
        connection = await dialer.connect(url)
    except ConnectFailed as failed:
        document = Nip11Result(None, "")
        if failed.kind in _ANSWERS_HTTP:
            document = await fetch_nip11(url, dialer, timeout=timeout)
        metadata = RelayMetadata(to_relay(url), now, document.nip11, RelayMetadata.Nip66())
        facts = ProbeFacts(document_outcome=document.outcome)
        return ProbeReport(metadata, _connect_outcome(failed), failed.detail, facts)
    async with connection, asyncio.TaskGroup() as group:
        asking = group.create_task(
            fetch_nip11(url, dialer, timeout=timeout, prefer_scheme=connection.scheme)
        )
        tests = _Tests(connection, timeout, keypair, miner, asking)
        nip66 = group.create_task(tests.run(now))
    document = asking.result()
    metadata = RelayMetadata(to_relay(url), now, document.nip11, nip66.result())
    return ProbeReport(metadata, tests.outcome, "; ".join(tests.details), tests.facts(document))


class _Tests:
    """The tests of one open connection."""

    def __init__(
        self,
        connection: RelayConnection,
        timeout: float,
        keypair: Keypair | None,
        miner: Miner | None,
        document: asyncio.Task[Nip11Result],
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._keypair = keypair
        self._miner = miner
        self._document = document
        self._write: WriteTest | None = None
        self._signed_in = False
        self._asked_to_sign_in: bool | None = None
        self.outcome = ""
        self.details: list[str] = []

    async def run(self, now: int) -> RelayMetadata.Nip66:
        rtt_read = await self._read()
        rtt_write = await self._test_writing(self._keypair, now) if self._keypair else None
        return RelayMetadata.Nip66(
            openable=True,
            readable=rtt_read is not None,
            writable=rtt_write is not None,
            rtt_open=self._connection.rtt_open,
            rtt_read=rtt_read,
            rtt_write=rtt_write,
        )

    def facts(self, document: Nip11Result) -> ProbeFacts:
        """What is known when all tests are done."""
        write_outcome = self._write.outcome if self._write else ""
        payment_required = False if write_outcome == "ok" else None
        if "payment-required" in (self.outcome, write_outcome):
            payment_required = True
        return ProbeFacts(
            scheme=self._connection.scheme,
            link=self._connection.link,
            document_outcome=document.outcome,
            write_outcome=write_outcome,
            auth_required=self._asked_to_sign_in,
            payment_required=payment_required,
            pow_difficulty=self._write.pow_difficulty if self._write else None,
        )

    async def _read(self) -> int | None:
        page = await self._page()
        if page.end.prefix == "auth-required" and await self._sign_in():
            page = await self._page()
        # An event answers the question even where the relay never says EOSE.
        if page.end.kind in (EndKind.EOSE, EndKind.OVERFLOW) or page.events:
            self.outcome = "ok"
            self._asked_to_sign_in = self._asked_to_sign_in or False
            return page.rtt
        self.outcome = _refusal(page.end.prefix, page.end.text) or page.end.kind.value
        self.details.append(f"read: {page.end.text[:_TOLD_LENGTH] or page.end.kind.value}")
        return None

    async def _page(self) -> Page:
        return await self._connection.page(
            _READ_TEST,
            idle_timeout=self._timeout,
            max_events=_READ_TEST_EVENTS,
            max_bytes=_READ_TEST_BYTES,
            total_timeout=2 * self._timeout,
        )

    async def _test_writing(self, keypair: Keypair, now: int) -> int | None:
        write = self._write = WriteTest(
            self._connection, keypair, self._miner, timeout=self._timeout, now=now
        )
        rtt = await write.run(self._sign_in, self._claimed_difficulty)
        self.details += [write.detail] if write.detail else []
        return rtt

    async def _claimed_difficulty(self) -> int | None:
        """What the document claims (NIP-11)."""
        nip11 = (await self._document).nip11
        claim = (nip11.limitation or {}).get("min_pow_difficulty") if nip11 else None
        return claim if type(claim) is int and 0 < claim <= MAX_BITS else None

    async def _sign_in(self) -> bool:
        """Whether signing in worked, tried once."""
        self._asked_to_sign_in = True
        if self._keypair is None or self._signed_in:
            return False
        self._signed_in = True
        reply = await self._connection.authenticate(self._keypair.secret_key, timeout=self._timeout)
        return reply is not None and reply.accepted


def _refusal(prefix: str, text: str) -> str:
    return "payment-required" if asks_for_money(text) else prefix


def _connect_outcome(failed: ConnectFailed) -> str:
    return "payment-required" if failed.detail == "HTTP 402" else failed.kind
