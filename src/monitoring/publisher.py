"""Publishing what the monitor found (NIP-66) to relays, beside the checks and never before them.

Each relay has its own line, one event for each subject, the newest; a relay that is slow or away
holds up no check and no other relay, and what does not fit is dropped and counted.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from config import KeypairConfig
from constants import LOG_WARNING
from errors import ConnectFailed
from logging_config import fields
from nostr.connection import Dialer, OkReply, RelayConnection
from nostr.keys import sign_event
from nostr.nip66 import Draft
from nostr.urls import RelayUrl

MOST_WAITING = 20_000
"""Events that wait for one relay."""

_IDLE_SECONDS = 5.0  # then the connection is given back
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 900.0
# Refusals that another try may overcome; any other is about the event.
_TRY_AGAIN = frozenset({"rate-limited", "auth-required"})
_TOLD_LENGTH = 200

logger = logging.getLogger(__name__)


class Publisher:
    """Signs drafts and publishes them; an async context manager.

    Args:
        relays: where to publish.
        dialer: how to reach them.
        keypair: whose events they are; without one nothing is published.
        timeout: seconds for an answer.

    Attributes:
        counts: over all relays, events "published", "publications_refused" and
            "publications_dropped".
    """

    def __init__(
        self,
        relays: Sequence[RelayUrl],
        dialer: Dialer,
        keypair: KeypairConfig | None,
        *,
        timeout: float,
    ) -> None:
        self._keypair = keypair
        self.counts: Counter[str] = Counter()
        self._lines = [
            _Line(relay, dialer, keypair.secret_key, timeout, self.counts)
            for relay in relays
            if keypair is not None
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def offer(self, draft: Draft) -> None:
        """Signs an event, which will be published when its turn comes."""
        if self._keypair is None or not self._lines:
            return
        event = sign_event(
            self._keypair.secret_key, draft.kind, draft.tags, draft.content, draft.created_at
        )
        for line in self._lines:
            line.put(f"{draft.kind}:{draft.address}", event)

    async def drain(self, seconds: float) -> None:
        """Waits until everything offered is published or refused, but no longer than that."""
        idle = asyncio.gather(*(line.idle.wait() for line in self._lines))
        try:
            async with asyncio.timeout(seconds):
                await idle
        except TimeoutError:
            pass

    async def __aenter__(self) -> "Publisher":
        self._tasks = [asyncio.create_task(line.run()) for line in self._lines]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Line:
    """What waits for one relay, and the connection to it."""

    def __init__(
        self,
        relay: RelayUrl,
        dialer: Dialer,
        secret_key: str,
        timeout: float,
        counts: Counter[str],
    ) -> None:
        self._relay = relay
        self._dialer = dialer
        self._secret_key = secret_key
        self._timeout = timeout
        self._counts = counts
        self._told: set[str] = set()
        self._waiting: dict[str, dict[str, object]] = {}
        self._filled = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    def put(self, subject: str, event: dict[str, object]) -> None:
        """Takes an event, in place of an older one of the same subject."""
        if subject not in self._waiting and len(self._waiting) >= MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._counts["publications_dropped"] += 1
        self._waiting[subject] = event
        self._filled.set()
        self.idle.clear()

    async def run(self) -> None:
        """Publishes whatever comes, for ever."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._filled.wait()
            before = self._counts.total()
            trouble = await self._session()
            if self._counts.total() > before:
                pause = _FIRST_PAUSE_SECONDS
            if not trouble:
                continue
            details = fields(
                "publication_delayed",
                relay=self._relay,
                reason=trouble,
                waiting=len(self._waiting),
                seconds=pause,
            )
            logger.warning(f"{LOG_WARNING} {details}")
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _session(self) -> str:
        """One connection, until nothing has come for a while; why it ended early, if it did."""
        try:
            async with await self._dialer.connect(self._relay) as connection:
                return await self._publish_all(connection)
        except ConnectFailed as failed:
            return failed.kind
        except Exception:
            # A defect of ours must not end the line, which nobody would notice.
            logger.exception(f"{LOG_WARNING} {fields('publication_broken', relay=self._relay)}")
            return "broken"

    async def _publish_all(self, connection: RelayConnection) -> str:
        while await self._something_waits():
            subject, event = next(iter(self._waiting.items()))
            reply = await self._publish(connection, event)
            if reply is None:
                self._put_last(subject)
                return "disconnected" if connection.closed else "timeout"
            if not reply.accepted and reply.prefix in _TRY_AGAIN:
                self._put_last(subject)
                return reply.prefix
            self._counts["published" if reply.accepted else "publications_refused"] += 1
            if not reply.accepted and reply.prefix not in self._told:
                self._told.add(reply.prefix)
                reason = reply.text[:_TOLD_LENGTH]
                refused = fields("publication_refused", relay=self._relay, reason=reason)
                logger.warning(f"{LOG_WARNING} {refused}")
            self._done(subject, event)
        return ""

    async def _publish(
        self, connection: RelayConnection, event: dict[str, object]
    ) -> OkReply | None:
        reply = await connection.publish(event, timeout=self._timeout)
        refused = reply is not None and reply.prefix == "auth-required" and not reply.accepted
        if refused and await connection.authenticate(self._secret_key, timeout=self._timeout):
            return await connection.publish(event, timeout=self._timeout)
        return reply

    async def _something_waits(self) -> bool:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._filled.wait()
        except TimeoutError:
            return False
        return True

    def _put_last(self, subject: str) -> None:
        """One event that gets no answer must not keep all others waiting."""
        if event := self._waiting.pop(subject, None):
            self._waiting[subject] = event

    def _done(self, subject: str, event: dict[str, object]) -> None:
        if self._waiting.get(subject) is event:
            del self._waiting[subject]
        if not self._waiting:
            self._filled.clear()
            self.idle.set()
