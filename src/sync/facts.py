"""What is asked of a relay, and what its answer says as far as proofs go (pure)."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

from nostr.connection import EndKind, PageEnd
from nostr.events import SignedEvent
from sync.windows import Window


@dataclass(frozen=True, slots=True)
class Request:
    """One REQ to come: always with since, until and limit (some relays answer less with none).

    Attributes:
        window: the seconds asked for.
        limit: the most events asked for.
        refinement: filter keys added to the synchronizer's own filter, to split a second.
    """

    window: Window
    limit: int
    refinement: Mapping[str, Any] = field(default_factory=dict)

    def to_filter(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The NIP-01 filter of the REQ."""
        bounds = {"since": self.window.since, "until": self.window.until, "limit": self.limit}
        return {**base, **self.refinement, **bounds}


@dataclass(frozen=True, slots=True)
class PageFacts:
    """One page after its events were checked.

    Attributes:
        end: how the page ended.
        events: the events that are valid, match the request and came for the first time on
            this page, in the order of their arrival.
        received: the events that the relay sent for it, valid or not: what its own cap counts.
        refused_at: the seconds at which refused events claim to be.
        settled: nothing followed its EOSE within one round trip.
        unread: frames that came meanwhile and cannot be read: events of this page or another one,
            or none.
    """

    end: PageEnd
    events: tuple[SignedEvent, ...]
    received: int
    refused_at: frozenset[int] = frozenset()
    settled: bool = True
    unread: int = 0

    @property
    def is_answer(self) -> bool:
        """Whether the relay ended it itself, with EOSE."""
        return self.end.kind is EndKind.EOSE

    @property
    def size(self) -> int:
        """What may be compared with the sizes at which the relay cuts pages: the most that it may
        have sent, or more than any page holds while the rest of this one may be on its way, or was
        not taken."""
        return self.most_received if self.settled and self.is_answer else sys.maxsize

    @property
    def most_received(self) -> int:
        """All that it may have sent for the page."""
        return self.received + self.unread

    @property
    def has_others(self) -> bool:
        """Whether something came that was not asked for, is not valid, or came before."""
        return len(self.events) < self.received

    def shows(self, second: int) -> bool:
        """Whether something came of this second, valid or not."""
        return second in self.refused_at or any(e.created_at == second for e in self.events)

    def ids(self) -> frozenset[str]:
        return frozenset(event.id for event in self.events)


class Order(StrEnum):
    """In which order the events of a page came."""

    NEWEST_FIRST = "newest-first"
    OLDEST_FIRST = "oldest-first"
    NONE = "none"


def order_of(events: Sequence[SignedEvent]) -> Order | None:
    """The order of a page, or None if all of it lies in one second (every order holds)."""
    times = [event.created_at for event in events]
    newest_first = all(a >= b for a, b in pairwise(times))
    oldest_first = all(a <= b for a, b in pairwise(times))
    if newest_first and oldest_first:
        return None
    if newest_first:
        return Order.NEWEST_FIRST
    return Order.OLDEST_FIRST if oldest_first else Order.NONE


class Verdict(StrEnum):
    """What a plan makes of the page that it was shown."""

    CONTINUE = "continue"
    DONE = "done"
    TURN = "turn"
    """The relay sends in the other order: the rest wants a walk the other way."""
    UNORDERED = "unordered"
    """The relay sends in no order: nothing that order proved in this session holds."""
    NARROW = "narrow"
    """Only refused events came, a full page of them: what they hid may show in the halves."""
    CONTRADICTION = "contradiction"
    """The relay withheld events that it had just sent: its answers prove nothing now."""


@dataclass(frozen=True, slots=True)
class Saturated:
    """A second that may hold more than the relay sends on one page.

    Attributes:
        second: the second.
        events: what came of it.
        page: the page on which they came.
    """

    second: int
    events: tuple[SignedEvent, ...]
    page: PageFacts


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one page.

    Attributes:
        verdict: how the plan goes on.
        proven: windows whose every event, as the relay serves it, has now been received.
        saturated: a second that must be split.
        near_exclusive: newly learnt: whether the moving bound is left out by the relay.
    """

    verdict: Verdict
    proven: tuple[Window, ...] = ()
    saturated: Saturated | None = None
    near_exclusive: bool | None = None
