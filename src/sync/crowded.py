"""Seconds that may hold more than the relay sends on one page (async shell around `partition`)."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from errors import SyncAbandoned
from nostr.events import SignedEvent
from sync.alone import Alone
from sync.asker import Asker
from sync.claims import Claims
from sync.facts import PageFacts, Request, Saturated
from sync.ledger import Gap
from sync.partition import Part, partition, together
from sync.reconcile import Reconciler
from sync.relay_model import Sights
from sync.windows import Window
from sync.writer import SessionWriter

# Ends that may be due to the form of a request: long lists, unusual keys.
_REFUSALS_OF_A_FORM = frozenset(
    {"invalid", "unsupported", "error", "closed", "timeout", "disconnected"}
)


class CrowdedSeconds:
    """Proves a second part by part, then by NIP-77, or records it as a gap.

    Args:
        asker: gets pages.
        writer: takes every page.
        flt: the synchronizer's event filter, without since, until and limit.
        page_limit: events asked for a page.
        seen: what this session's pages show, by form of filter.
        prove_part: asks for one part of a second; whether it was proven.
        reconciler: for seconds that no finer request splits; None: they are left as gaps.
    """

    def __init__(
        self,
        asker: Asker,
        writer: SessionWriter,
        flt: Mapping[str, Any],
        page_limit: int,
        seen: Sights,
        prove_part: Callable[[Window, Part], Awaitable[bool]],
        reconciler: Reconciler | None,
    ) -> None:
        self._asker = asker
        self._writer = writer
        self._flt = flt
        self._page_limit = page_limit
        self._seen = seen
        self._prove_part = prove_part
        self._reconciler = reconciler
        # Of each form of refinement, one that chooses much, until it has been asked for.
        self._widest: dict[frozenset[str], Mapping[str, Any]] = {}

    async def prove(self, saturated: Saturated, part: Mapping[str, Any], claims: Claims) -> bool:
        """Whether the second, or the part of it that a refinement chooses, was proven.

        Raises SyncAbandoned if the relay does not answer, DatabaseError if the archive is lost.
        """
        second = Window(saturated.second, saturated.second)
        retractions = self._writer.retractions
        if part:
            if await self._was_sent_whole(saturated, part):
                return True
        elif (left := await self._without_neighbours(second, saturated)) is None:
            return True
        else:
            saturated = left
        proven = await self._by_parts(second, saturated, part)
        if self._writer.retractions > retractions:
            return False  # some parts were proven by what no longer holds
        if not proven and not part:
            proven = await self._by_set(second, saturated)
        if not proven and not part:
            claims.gap(_gap(second, saturated.page))
        return proven

    async def _by_parts(
        self, second: Window, saturated: Saturated, part: Mapping[str, Any]
    ) -> bool:
        split = partition(self._flt, part, saturated.events, self._asker.longest_message)
        if split is None:
            return False
        wide = together(split.parts, self._asker.longest_message)
        self._widest.setdefault(frozenset(wide), wide)
        proven = split.complete
        for share in split.parts:
            share_proven = False
            with self._refusing_a_form():
                share_proven = await self._prove_part(second, share)
                share_proven = share_proven and await self._takes_list(share, saturated.events)
            proven = proven and share_proven
            if share.is_list and not share_proven:
                break  # the other lists are no shorter
        return proven

    async def _takes_list(self, share: Part, events: Sequence[SignedEvent]) -> bool:
        """Whether a list from which nothing is expected may be believed when it brings nothing:
        some relays do not understand long ones. One is asked for, of all time, with a kind that the
        relay is known to have, if there is one."""
        kinds = share.refinement.get("kinds", ())
        seen = self._seen.of(share.refinement)
        if share.expected or not share.is_list or len(kinds) <= seen.longest_list:
            return True
        page = await self._ask_of_all_time({"kinds": [*kinds, *(e.kind for e in events[:1])]}, 1)
        if page.is_answer and page.events:
            seen.longest_list = len(kinds)
        return len(kinds) <= seen.longest_list

    async def _without_neighbours(self, second: Window, saturated: Saturated) -> Saturated | None:
        """What is left to be split once the second was asked for alone, if other things came on
        its page; None if that proved it."""
        model = self._asker.model
        if saturated.page.most_received == len(saturated.events) or model.is_exclusive:
            return saturated
        plan = Alone(second, model.order, self._page_limit, self._seen.plain)
        page = await self._asker.ask(
            plan.request(model).to_filter(self._flt),
            self._writer.add,
            settle_below=plan.settle_below,
        )
        if not page.facts.is_answer:
            await self._writer.add(page)
            return Saturated(second.since, page.facts.events, page.facts)
        step = plan.judge(page.facts)
        await self._writer.add(page)
        return None if step.proven else step.saturated or saturated

    async def _was_sent_whole(self, saturated: Saturated, part: Mapping[str, Any]) -> bool:
        """Whether the page of a part was smaller than others of its form, so that the relay did
        not cut it. One page of all time is asked for, to see how large they get."""
        seen = self._seen.of(part)
        if saturated.page.size >= seen.may_be_cut_from:
            return False
        if wide := self._widest.get(frozenset(part)):
            self._widest[frozenset(part)] = {}
            with self._refusing_a_form():
                page = await self._ask_of_all_time(wide, self._page_limit)
                if page.is_answer:
                    seen.saw(page.received)
        return seen.too_small_to_be_cut(saturated.page.size)

    async def _ask_of_all_time(self, refinement: Mapping[str, Any], limit: int) -> PageFacts:
        request = Request(Window(0, int(time.time())), limit, refinement)
        page = await self._asker.ask(request.to_filter(self._flt), self._writer.add)
        await self._writer.add(page)
        return page.facts

    async def _by_set(self, second: Window, saturated: Saturated) -> bool:
        """Whether NIP-77 shows and gets all of a second that one page cannot hold."""
        if self._reconciler is None or not self._reconciler.usable:
            return False
        shown = max(len(saturated.events), self._seen.plain.largest)
        return (await self._reconciler.reconcile(second, shown=shown)).outcome == "done"

    @contextmanager
    def _refusing_a_form(self) -> Iterator[None]:
        """A relay that refuses so fine a request has refused this request, not the others."""
        try:
            yield
        except SyncAbandoned as error:
            if error.outcome not in _REFUSALS_OF_A_FORM or self._asker.given_up is not None:
                raise


def _gap(second: Window, page: PageFacts) -> Gap:
    if page.is_answer:
        return Gap(second, "saturated", f"{page.received} events a page")
    return Gap(second, "overflow", f"no end after {page.received} events")
