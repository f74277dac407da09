"""The write test: one small ephemeral event that says what it is, and what became of it."""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from nostr.connection import OkReply, RelayConnection
from nostr.keys import public_key, sign_event
from nostr.pow import Miner, difficulty_named

KIND = 20_166  # ephemeral (NIP-01): relays pass it on and do not keep it
CONTENT = "BigBrotr relay monitor: this is a write test, please ignore it"

_REFUSALS = frozenset(
    (
        *("auth-required", "blocked", "duplicate", "error", "invalid", "mute", "pow"),
        *("rate-limited", "restricted", "unsupported"),
    )
)
_TOLD_LENGTH = 200
_about_money = re.compile(r"\b(?:pay|paid|payments?|invoice)\b", re.IGNORECASE).search


class Keypair(Protocol):
    """Who signs: `secret_key` is 64 hex digits."""

    @property
    def secret_key(self) -> str: ...


class WriteTest:
    """A write test on one connection.

    `outcome` is "ok", or why the event was not taken: "payment-required", a prefix of NIP-01 or
    NIP-42, "other-refusal", "timeout" or "disconnected"; `detail` is what the relay said,
    `pow_difficulty` the proof of work that it asked for, in bits.
    """

    def __init__(
        self,
        connection: RelayConnection,
        keypair: Keypair,
        miner: Miner | None,
        *,
        timeout: float,
        now: int,
    ) -> None:
        self._connection = connection
        self._keypair = keypair
        self._miner = miner
        self._timeout = timeout
        self._now = now
        self._tags = [["relay", connection.url.url]]
        self.outcome = ""
        self.detail = ""
        self.pow_difficulty: int | None = None

    async def run(
        self,
        sign_in: Callable[[], Awaitable[bool]],
        claimed_difficulty: Callable[[], Awaitable[int | None]],
    ) -> int | None:
        """The milliseconds to the relay's yes, None if it did not say yes. `sign_in` is called
        when it asks for that, and `claimed_difficulty` when it asks for a proof of work without
        saying how much."""
        reply, rtt = await self._publish()
        if reply is not None and reply.prefix == "auth-required" and await sign_in():
            reply, rtt = await self._publish()
        if reply is not None and reply.prefix == "pow" and not reply.accepted:
            self.pow_difficulty = difficulty_named(reply.text) or await claimed_difficulty()
            if await self._work():
                reply, rtt = await self._publish()
        self.outcome = self._outcome(reply)
        if reply is not None and reply.accepted:
            return rtt
        self.detail = f"write: {reply.text[:_TOLD_LENGTH] or 'refused' if reply else 'no answer'}"
        return None

    async def _publish(self) -> tuple[OkReply | None, int]:
        secret_key = self._keypair.secret_key
        event = sign_event(secret_key, KIND, self._tags, CONTENT, self._now)
        started = time.monotonic()
        reply = await self._connection.publish(event, timeout=self._timeout)
        return reply, round((time.monotonic() - started) * 1000)

    async def _work(self) -> bool:
        """Whether the event has the proof of work now that the relay wants."""
        if self._miner is None or self.pow_difficulty is None:
            return False
        tag = await self._miner.nonce_tag(
            public_key(self._keypair.secret_key),
            self._now,
            KIND,
            self._tags,
            CONTENT,
            difficulty=self.pow_difficulty,
            timeout=self._timeout,
        )
        self._tags += [tag] if tag else []
        return tag is not None

    def _outcome(self, reply: OkReply | None) -> str:
        if reply is None:
            return "disconnected" if self._connection.closed else "timeout"
        if reply.accepted:
            return "ok"
        if asks_for_money(reply.text):
            return "payment-required"
        return reply.prefix if reply.prefix in _REFUSALS else "other-refusal"


def asks_for_money(text: str) -> bool:
    """Whether a refusal is about payment; paid relays say so in words only."""
    return _about_money(text) is not None
