"""Checking the events of a page: shape, id, filter, signature (the hot path's shell)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
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
    """

    facts: PageFacts
    new: tuple[SignedEvent, ...]
    known: tuple[str, ...]
    raw: tuple[RawEvent, ...]
    refused: Mapping[str, int]
    refused_ids: frozenset[str] = frozenset()


class PageChecker:
    """Checks pages; signatures in a thread pool (libsecp256k1 releases the GIL)."""

    def __init__(self, known_ids: KnownIds, executor: Executor) -> None:
        self._known_ids = known_ids
        self._executor = executor

    async def check(self, page: Page, request: Mapping[str, Any]) -> CheckedPage:
        """Every event of the page is archived, counted as known, or counted as refused."""
        refused: Counter[str] = Counter()
        if page.malformed:
            refused["malformed-frame"] = page.malformed
        claimed: dict[str, object] = {}
        parsed = _parse(page.events, refused, claimed)
        known = await self._known_ids(tuple(parsed)) if parsed else set()
        unknown = [event for event in parsed.values() if event.id not in known]
        for event in await self._with_wrong_signatures(unknown):
            refused["wrong-signature"] += 1
            claimed[event.id] = event.created_at
            del parsed[event.id]
        matches = matcher(request)
        facts = PageFacts(
            end=page.end,
            events=tuple(event for event in parsed.values() if matches(event)),
            received=len(page.events) + page.malformed,
            refused_at=frozenset(at for at in claimed.values() if type(at) is int),
        )
        if outside := len(parsed) - len(facts.events):
            refused["outside-filter"] = outside
        verified = [event for event in unknown if event.id in parsed]
        raw = [
            RawEvent(event.id, encode_event(event), obstacle)
            for event in verified
            if (obstacle := storage_obstacle(event))
        ]
        raw_ids = {event.id for event in raw}
        return CheckedPage(
            facts=facts,
            new=tuple(event for event in verified if event.id not in raw_ids),
            known=tuple(known),
            raw=tuple(raw),
            refused=refused,
            refused_ids=frozenset(claimed),
        )

    async def _with_wrong_signatures(self, events: Sequence[SignedEvent]) -> list[SignedEvent]:
        if not events:
            return []
        loop = asyncio.get_running_loop()
        verdicts = await loop.run_in_executor(self._executor, verify_signatures, events)
        return [event for event, right in zip(events, verdicts, strict=True) if not right]


def _parse(
    objects: Sequence[object], refused: Counter[str], claimed: dict[str, object]
) -> dict[str, SignedEvent]:
    """The events with a right id by id, in the order of arrival, each once.

    What is refused is counted by reason; `claimed` gets the ids it claims, and its created_at.
    """
    parsed: dict[str, SignedEvent] = {}
    for obj in objects:
        try:
            event = parse_event(obj)
        except EventRefused as error:
            refused[error.reason] += 1
            if isinstance(obj, dict) and isinstance(obj.get("id"), str):
                claimed[obj["id"].lower()] = obj.get("created_at")
            continue
        if event.id in parsed:
            refused["repeated"] += 1
        else:
            parsed[event.id] = event
    return parsed
