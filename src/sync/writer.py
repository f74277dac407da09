"""What one session takes from its relay, on the way into the archive: events, proofs, gaps."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from errors import DatabaseError
from nostr.urls import RelayUrl
from sync.group_commit import GroupCommit
from sync.ledger import Gap
from sync.page_check import CheckedPage
from sync.share import Share
from sync.windows import Window

_FLUSH_ON_CANCEL_SECONDS = 3.0


class SessionWriter:
    """Gathers the pages of one relay, which the group commits with those of others.

    A proof is committed with the events of its own page and of all pages before it, never
    without. Awaiting `add` is the back-pressure. What could not be committed is still here, and
    is committed with what comes next.
    """

    def __init__(
        self, group: GroupCommit, relay: RelayUrl, filter_hash: str, target: Window
    ) -> None:
        self._group = group
        self._new_share = partial(Share, relay, filter_hash, target)
        self._share = self._new_share()
        self._under_way = False
        self._failure: Exception | None = None
        self._claimed: list[Window] = []
        self.counts: Counter[str] = Counter()
        self.retractions = 0

    async def add(self, page: CheckedPage, proven: Iterable[Window] = ()) -> None:
        """Take a page and what it proves.

        Raises what kept earlier pages from being committed, if nobody was told.
        """
        self._share.take(page, proven)
        self.counts["received"] += page.facts.received
        self.raise_failure()
        events = len(page.new) + len(page.known) + len(page.raw)
        await self._group.add(self, events, page.text_bytes)
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what kept earlier pages from being committed, if nobody was told."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def prove(self, window: Window) -> None:
        """Take a proof that rests on pages added before."""
        self._share.proven.append(window)

    def gap(self, gap: Gap) -> None:
        """Take seconds that could not be proven."""
        self._share.gaps.append(gap)

    def refusals(self, gaps: Sequence[Gap]) -> None:
        """Take what the relay refuses now; it replaces what it refused before."""
        self._share.refusals = list(gaps)

    async def flush(self) -> None:
        """Commit everything taken so far. If that fails, all of it is still here."""
        self._failure = None
        await self._group.commit(self)

    async def flush_pages(self) -> None:
        """Commit if there is anything to commit."""
        if self._under_way or not self._share.is_empty:
            await self.flush()

    async def flush_in_time(self) -> None:
        """Commit what was taken before a cancelled task ends, if that can be done soon."""
        with suppress(TimeoutError, DatabaseError):
            async with asyncio.timeout(_FLUSH_ON_CANCEL_SECONDS):
                await self.flush_pages()

    async def retract_session(self) -> None:
        """Take back every proof of this session, committed or not."""
        # First of all, and without a pause: however this ends, no later flush claims them.
        self._share.retract()
        self.retractions += 1
        await self.flush()

    def hand_over(self) -> Share:
        share, self._share = self._share, self._new_share()
        share.void = list(self._claimed) if share.retracts else []
        # Claimed from now on: that a commit failed may be a mistake.
        self._claimed += share.proven
        self._under_way = True
        return share

    def committed(self, share: Share, new: int) -> None:
        self._under_way = False
        if share.retracts:
            self._claimed = list(share.proven)
            self.counts["proven_seconds"] = 0
        self.counts["new"] += new
        self.counts["refused"] += share.refused.total()
        self.counts["gaps"] += len(share.gaps)
        self.counts["proven_seconds"] += sum(window.seconds for window in share.proven)

    def give_back(self, share: Share, failure: Exception | None) -> None:
        self._under_way = False
        share.append(self._share)
        self._share = share
        self._failure = failure
