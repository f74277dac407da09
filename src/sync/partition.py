"""Splitting a second that holds more events than the relay sends on one page (pure).

The kinds split a second completely: those seen are asked for one by one, all others in lists
of many. Authors and tags split it only as far as they are known: there are too many others to
name.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nostr.events import SignedEvent
from sync.limits import LONGEST_MESSAGE

LAST_KIND = 65_535
_HEX_64 = re.compile("[0-9a-f]{64}").fullmatch
_BYTES_PER_KIND = 6  # five digits and a comma
_BYTES_PER_VALUE = 67  # of authors and tags: mostly hex
_OTHER_BYTES = 1_000  # room for the rest of the message, but for the filter's own lists


@dataclass(frozen=True, slots=True)
class Part:
    """One share of a second.

    Attributes:
        refinement: filter keys that choose it.
        expected: events of it that are known already.
    """

    refinement: Mapping[str, Any]
    expected: int

    @property
    def is_list(self) -> bool:
        """Whether the part is named by a list of many values."""
        return any(len(values) > 1 for values in self.refinement.values())


@dataclass(frozen=True, slots=True)
class Partition:
    """The parts of a second; `complete` if every event must be in one of them."""

    parts: tuple[Part, ...]
    complete: bool


def partition(
    base: Mapping[str, Any],
    part: Mapping[str, Any],
    events: Sequence[SignedEvent],
    longest_message: int = LONGEST_MESSAGE,
) -> Partition | None:
    """How to split a second, or None if there is no finer way.

    Args:
        base: the synchronizer's filter.
        part: the refinement that is itself too coarse ({} at first).
        events: what came of it.
        longest_message: bytes that a request may have.
    """
    at_once = max(1, (longest_message - _OTHER_BYTES) // _BYTES_PER_KIND)
    kinds = part.get("kinds") or base.get("kinds")
    if kinds is None:
        return Partition(tuple(_by_kinds(range(LAST_KIND + 1), events, at_once)), complete=True)
    if len(kinds) > 1:
        return Partition(tuple(_by_kinds(sorted(kinds), events, at_once)), complete=True)
    if "authors" not in part:
        authors = Counter(event.pubkey for event in events)
        wanted = base.get("authors")
        if wanted is not None or len(authors) > 1:
            return Partition(
                tuple(_by_value(part, "authors", {a: authors[a] for a in wanted or authors})),
                complete=wanted is not None,
            )
    if any(key.startswith("#") for key in part):
        return None
    tags = _most_telling_tag(events)
    return Partition(tuple(_by_value(part, *tags)), complete=False) if tags else None


def together(parts: Sequence[Part], longest_message: int = LONGEST_MESSAGE) -> dict[str, Any]:
    """One refinement of the same form that chooses several parts at once: as many as a request
    has room for, lists left out."""
    most = max(1, (longest_message - _OTHER_BYTES) // _BYTES_PER_VALUE)
    values: dict[str, dict[Any, None]] = {}
    for part in parts:
        for key, chosen in part.refinement.items():
            if not part.is_list:
                values.setdefault(key, {}).update(dict.fromkeys(chosen))
    return {key: list(chosen)[:most] for key, chosen in values.items()}


def _by_value(part: Mapping[str, Any], key: str, values: Mapping[str, int]) -> Iterator[Part]:
    for value, expected in values.items():
        yield Part({**part, key: [value]}, expected)


def _most_telling_tag(events: Sequence[SignedEvent]) -> tuple[str, Counter[str]] | None:
    """The tag filter with the most different values, unless all events have the same one."""
    seen: dict[str, Counter[str]] = {}
    for event in events:
        firsts = {(tag[0], tag[1]) for tag in event.tags if _is_indexed(tag)}
        for letter, value in firsts:
            seen.setdefault(f"#{letter}", Counter())[value] += 1
    key = max(seen, key=lambda name: len(seen[name]), default=None)
    return (key, seen[key]) if key is not None and len(seen[key]) > 1 else None


def _is_indexed(tag: Sequence[Any]) -> bool:
    """NIP-01: the first value of a tag with a single letter for a name can be asked for."""
    if len(tag) < 2 or not isinstance(tag[0], str) or not isinstance(tag[1], str):
        return False
    if tag[0] in {"e", "p"} and not _HEX_64(tag[1]):
        return False  # a filter with it would be refused
    return len(tag[0]) == 1 and tag[0].isascii() and tag[0].isalpha()


def _by_kinds(kinds: Sequence[int], events: Sequence[SignedEvent], at_once: int) -> Iterator[Part]:
    seen = Counter(event.kind for event in events)
    for kind in sorted(seen):
        yield Part({"kinds": [kind]}, seen[kind])
    others = [kind for kind in kinds if kind not in seen]
    # A list of which nothing came must get shorter, or splitting it would not end.
    size = at_once if seen else min(at_once, max(1, len(others) // 2))
    # A list with a kind that has events cannot come back empty, unless the relay takes no lists.
    canary = min(seen, key=lambda kind: (seen[kind], kind)) if len(seen) > 1 else None
    known, expected = ([], 0) if canary is None else ([canary], seen[canary])
    for start in range(0, len(others), size):
        yield Part({"kinds": [*others[start : start + size], *known]}, expected)
