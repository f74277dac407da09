"""Checking the events of a page: shape, id, filter, signature (the hot path's shell)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errors import EventRefused
from event_rows import RawEvent
from nostr.connection import Page
from nostr.events import (
    SignedEvent,
    encode_event,
    parse_event,
    storage_obstacle,
    verify_signatures,
)
from nostr.filters import matcher
from sync.facts import PageFacts

_SIGNATURES_AT_ONCE = 25  # about a millisecond

KnownIds = Callable[[Sequence[str]], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """A page's events sorted by what becomes of them.

    Attributes:
        facts: what the page says for proofs.
        new: verified events that the archive lacks.
        known: ids of events that the archive has; only the sighting is new.
        raw: verified events that the event columns cannot hold without loss.
        refused: how many were refused, by reason.
        refused_ids: the ids that refused events claimed to have.
        text_bytes: of the text that the relay sent for it.
    """

    facts: PageFacts
    new: tuple[SignedEvent, ...]
    known: tuple[str, ...]
    raw: tuple[RawEvent, ...]
    refused: Mapping[str, int]
    refused_ids: frozenset[str] = frozenset()
    text_bytes: int = 0


class PageChecker:
    """Checks pages, and lets the loop go on after every few signatures, whosever page it is.

    Signatures are checked on the loop's thread: with threads beside it, each waits for the
    interpreter lock of the others, which measures slower. A process a core uses all cores.
    """

    def __init__(self, known_ids: KnownIds) -> None:
        self._known_ids = known_ids
        self._turn = asyncio.Lock()

    async def check(self, page: Page, request: Mapping[str, Any]) -> CheckedPage:
        """Every event of the page is archived, counted as known, or counted as refused."""
        refused: Counter[str] = Counter()
        if page.malformed:
            refused["malformed-frame"] = page.malformed
        claimed: dict[str, object] = {}
        parsed, odd, copies = _parse(page.events, refused, claimed)
        known = await self._known_ids(tuple(parsed)) if parsed else set()
        unknown = {id_: event for id_, event in parsed.items() if id_ not in known}
        for id_ in await self._with_wrong_signatures(tuple(unknown.values())):
            refused["wrong-signature"] += 1
            if right := await self._right_copy(copies.get(id_, ())):
                parsed[id_] = unknown[id_] = right
                refused["repeated"] -= 1
                continue
            claimed[id_] = unknown.pop(id_).created_at
            del parsed[id_]
        matches = matcher(request)
        facts = PageFacts(
            end=page.end,
            events=tuple(filter(matches, parsed.values())),
            received=len(page.events),
            unread=page.unread,
            settled=page.settled and not page.late,
            refused_at=frozenset(at for at in claimed.values() if type(at) is int),
        )
        if outside := len(parsed) - len(facts.events):
            refused["outside-filter"] = outside
        raw = [
            RawEvent(id_, encode_event(unknown[id_]), obstacle)
            for id_ in odd
            if id_ in unknown and (obstacle := storage_obstacle(unknown[id_]))
        ]
        for event in raw:
            del unknown[event.id]
        return CheckedPage(
            facts=facts,
            new=tuple(unknown.values()),
            known=tuple(known),
            raw=tuple(raw),
            refused=refused,
            refused_ids=frozenset(claimed),
            text_bytes=page.received_bytes,
        )

    async def _right_copy(self, copies: Sequence[SignedEvent]) -> SignedEvent | None:
        """The first with a right signature: an event's id says nothing of it."""
        for copy in copies:
            if not await self._with_wrong_signatures([copy]):
                return copy
        return None

    async def _with_wrong_signatures(self, events: Sequence[SignedEvent]) -> list[str]:
        """Their ids."""
        wrong: list[str] = []
        for start in range(0, len(events), _SIGNATURES_AT_ONCE):
            part = events[start : start + _SIGNATURES_AT_ONCE]
            async with self._turn:
                verdicts = verify_signatures(part)
                await asyncio.sleep(0)
            wrong += [event.id for event, right in zip(part, verdicts, strict=True) if not right]
        return wrong


def _parse(
    objects: Sequence[object], refused: Counter[str], claimed: dict[str, object]
) -> tuple[dict[str, SignedEvent], list[str], dict[str, list[SignedEvent]]]:
    """The events with a right id by id, in the order of arrival, each once; the ids of those that
    storage may have an obstacle for; and by id the copies with another signature.

    What is refused is counted by reason; `claimed` gets the ids it claims, and its created_at.
    """
    parsed: dict[str, SignedEvent] = {}
    odd: list[str] = []
    copies: dict[str, list[SignedEvent]] = {}
    for obj in objects:
        try:
            event = obj if type(obj) is SignedEvent else parse_event(obj)
        except EventRefused as error:
            refused[error.reason] += 1
            if isinstance(obj, dict) and isinstance(obj.get("id"), str):
                claimed[obj["id"].lower()] = obj.get("created_at")
            continue
        first = parsed.setdefault(event.id, event)
        if first is not event:
            refused["repeated"] += 1
            if first.sig != event.sig:
                copies.setdefault(event.id, []).append(event)
        elif event is not obj:
            odd.append(event.id)
    return parsed, odd, copies
