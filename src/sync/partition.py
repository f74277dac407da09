"""Splitting a second that holds more events than the relay sends on one page (pure).

The kinds split a second completely: those seen are asked for one by one, all others in lists
of many. Authors split it only as far as they are known: there are too many others to name.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nostr.events import SignedEvent

LAST_KIND = 65_535
# A list of kinds this long is a message of about 48 kB, which all relays known to us take.
_KINDS_PER_REQUEST = 8_192


@dataclass(frozen=True, slots=True)
class Part:
    """One share of a second.

    Attributes:
        refinement: filter keys that choose it.
        expected: events of it that are known already.
    """

    refinement: Mapping[str, Any]
    expected: int

    def key(self) -> str:
        """Names the part in the record of gaps."""
        text = json.dumps(self.refinement, separators=(",", ":"))
        return text if len(text) <= 200 else f"{text[:180]}… ({len(text)} characters)"


@dataclass(frozen=True, slots=True)
class Partition:
    """The parts of a second; `complete` if every event must be in one of them."""

    parts: tuple[Part, ...]
    complete: bool


def partition(
    base: Mapping[str, Any], part: Mapping[str, Any], events: Sequence[SignedEvent]
) -> Partition | None:
    """How to split a second, or None if there is no finer way.

    Args:
        base: the synchronizer's filter.
        part: the refinement that is itself too coarse ({} at first).
        events: what came of it.
    """
    kinds = part.get("kinds") or base.get("kinds")
    if kinds is None:
        return Partition(tuple(_by_any_kind(events)), complete=True)
    if len(kinds) > 1:
        return Partition(tuple(_by_kinds(sorted(kinds), events)), complete=True)
    if "authors" in part:
        return None
    authors = Counter(event.pubkey for event in events)
    wanted = base.get("authors")
    if len(authors) < 2 and wanted is None:
        return None
    parts = tuple(
        Part({**part, "authors": [author]}, authors[author]) for author in wanted or authors
    )
    return Partition(parts, complete=wanted is not None)


def _by_any_kind(events: Sequence[SignedEvent]) -> Iterator[Part]:
    return _by_kinds(range(LAST_KIND + 1), events)


def _by_kinds(kinds: Sequence[int], events: Sequence[SignedEvent]) -> Iterator[Part]:
    seen = Counter(event.kind for event in events)
    for kind in sorted(seen):
        yield Part({"kinds": [kind]}, seen[kind])
    others = [kind for kind in kinds if kind not in seen]
    size = min(_KINDS_PER_REQUEST, max(1, len(others) // 2)) if not seen else _KINDS_PER_REQUEST
    for start in range(0, len(others), size):
        yield Part({"kinds": others[start : start + size]}, 0)
