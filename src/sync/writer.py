"""Committing what a relay's pages brought: events and the proof they make, in one transaction."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import asyncpg

from bigbrotr import BigBrotr
from errors import DatabaseError
from event_rows import RawEvent, write_events
from nostr.events import SignedEvent
from nostr.urls import RelayUrl
from sync.ledger import Gap, add_proven, drop_refusals, record_gaps, retract
from sync.page_check import CheckedPage
from sync.windows import Window

_FLUSH_EVENTS = 1_000
_FLUSH_BYTES = 2 * 1024 * 1024
_FLUSH_SECONDS = 2.0
_FLUSH_ON_CANCEL_SECONDS = 3.0


@dataclass(slots=True)
class _Batch:
    """What is committed together."""

    events: list[SignedEvent] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    raw: list[RawEvent] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    proven: list[Window] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    refusals: list[Gap] | None = None
    text_bytes: int = 0
    retracts: bool = False

    @property
    def size(self) -> int:
        return len(self.events) + len(self.known) + len(self.raw)

    @property
    def is_large(self) -> bool:
        return self.size >= _FLUSH_EVENTS or self.text_bytes >= _FLUSH_BYTES

    @property
    def is_empty(self) -> bool:
        return self == _Batch()

    def take(self, page: CheckedPage) -> None:
        self.events += page.new
        self.known += page.known
        self.raw += page.raw
        self.refused.update(page.refused)
        self.text_bytes += page.text_bytes

    def retract(self) -> None:
        """What the session has proven so far is void, here and in the ledger."""
        self.proven.clear()
        self.retracts = True

    def append(self, other: "_Batch") -> None:
        if other.retracts:
            self.retract()
        self.events += other.events
        self.known += other.known
        self.raw += other.raw
        self.refused += other.refused
        self.text_bytes += other.text_bytes
        self.proven += other.proven
        self.gaps += other.gaps
        self.refusals = other.refusals if other.refusals is not None else self.refusals


class SessionWriter:
    """Gathers the pages of one relay and commits them by size and by time.

    A proof is committed with the events of its own page and of all pages before it, never
    without. Awaiting `add` is the back-pressure: it returns once a due batch is committed.
    """

    def __init__(self, db: BigBrotr, relay: RelayUrl, filter_hash: str, target: Window) -> None:
        self._db = db
        self._relay = relay
        self._filter_hash = filter_hash
        self._target = target
        self._lock = asyncio.Lock()
        self._flushed_at = time.monotonic()
        self._batch = _Batch()
        self._session_proofs: list[Window] = []
        self.counts: Counter[str] = Counter()
        self.retractions = 0

    async def add(self, page: CheckedPage, proven: Iterable[Window] = ()) -> None:
        """Take a page and what it proves, and commit if a batch is due."""
        self._batch.take(page)
        self._batch.proven += proven
        self.counts["received"] += page.facts.received
        overdue = time.monotonic() - self._flushed_at > _FLUSH_SECONDS
        if self._batch.is_large or overdue:
            await self.flush()

    def prove(self, window: Window) -> None:
        """Take a proof that rests on pages added before."""
        self._batch.proven.append(window)

    def gap(self, gap: Gap) -> None:
        """Take seconds that could not be proven."""
        self._batch.gaps.append(gap)

    def refusals(self, gaps: Sequence[Gap]) -> None:
        """Take what the relay refuses now; it replaces what it refused before."""
        self._batch.refusals = list(gaps)

    async def flush(self) -> None:
        """Commit everything taken so far. If that fails, all of it is still here."""
        async with self._lock:
            batch, self._batch = self._batch, _Batch()
            try:
                new = await self._db.run_in_transaction(lambda c: self._commit(c, batch))
            except BaseException:
                batch.append(self._batch)
                self._batch = batch
                raise
            self._flushed_at = time.monotonic()
            if batch.retracts:
                self._session_proofs.clear()
                self.counts["proven_seconds"] = 0
            self._session_proofs += batch.proven
            self.counts["new"] += new
            self.counts["refused"] += batch.refused.total()
            self.counts["gaps"] += len(batch.gaps)
            self.counts["proven_seconds"] += sum(window.seconds for window in batch.proven)

    async def flush_pages(self) -> None:
        """Commit if there is anything to commit."""
        if not self._batch.is_empty:
            await self.flush()

    async def flush_in_time(self) -> None:
        """Commit what was taken before a cancelled task ends, if that can be done soon."""
        with suppress(TimeoutError, DatabaseError):
            async with asyncio.timeout(_FLUSH_ON_CANCEL_SECONDS):
                await self.flush_pages()

    async def retract_session(self) -> None:
        """Take back every proof of this session, committed or not."""
        # First of all, and without a pause: however this ends, no later flush claims them.
        self._batch.retract()
        self.retractions += 1
        await self.flush()

    async def _commit(self, connection: asyncpg.Connection, batch: _Batch) -> int:
        relay_url, filter_hash = self._relay.url, self._filter_hash
        written = await write_events(
            connection,
            self._relay,
            int(time.time()),
            batch.events,
            known=batch.known,
            raw=batch.raw,
            refused=batch.refused,
        )
        if batch.retracts:
            await retract(connection, relay_url, filter_hash, self._session_proofs)
        # An event counted as known was deleted meanwhile (retention): what it proved is void.
        proven = [] if written.vanished else batch.proven
        await add_proven(connection, relay_url, filter_hash, proven, self._target)
        if batch.refusals is not None:
            await drop_refusals(connection, relay_url, filter_hash)
        if gaps := batch.gaps + (batch.refusals or []):
            await record_gaps(connection, relay_url, filter_hash, gaps)
        return written.new
