"""What has been learnt of a relay (pure).

`RelayModel` outlives the session and chooses requests; it never proves anything.
`Observations` are what this session saw with its own eyes, and are forgotten with it; `Sights`
keeps them.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sync.facts import Order
from sync.pace import LONGEST_INTERVAL, SHORTEST_INTERVAL

# No relay is known to cap pages below this; real ones start at 20.
SMALLEST_PLAUSIBLE_CAP = 20
# REQs in flight on one connection, unless a relay is known to bear fewer. A far relay gets more:
# one for so many milliseconds that opening the connection took, since each of them spends that
# long on the way. It is asked no more often a second than a near one.
LANES = 4
MOST_LANES = 16
_MILLISECONDS_A_LANE = 20


@dataclass(frozen=True, slots=True)
class RelayModel:
    """Learnt habits of one relay.

    Attributes:
        order: the order in which it sends stored events.
        until_exclusive: it leaves out events at `until`; None: not known yet.
        since_exclusive: it leaves out events at `since`; None: not known yet.
        lanes: REQs that it bears at the same time on one connection.
        scheme: "wss" or "ws", whichever opened last.
        needs_auth: it served only after NIP-42 authentication.
        negentropy: it speaks NIP-77; None: not known yet.
        interval: seconds between two requests that it bears; 0.0: it never complained.
    """

    order: Order = Order.NEWEST_FIRST
    until_exclusive: bool | None = None
    since_exclusive: bool | None = None
    lanes: int = LANES
    scheme: str | None = None
    needs_auth: bool = False
    negentropy: bool | None = None
    interval: float = 0.0

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "RelayModel":
        """A stored model; what this version does not know or cannot read is left out."""
        names = {field.name for field in fields(cls)}
        known = {name: value for name, value in stored.items() if name in names}
        try:
            known["order"] = Order(known.get("order", Order.NEWEST_FIRST))
            known["lanes"] = max(1, int(known.get("lanes", LANES)))
            known["interval"] = min(max(0.0, float(known.get("interval", 0.0))), LONGEST_INTERVAL)
        except (TypeError, ValueError):
            return cls()
        return cls(**known)

    @property
    def most_lanes(self) -> int:
        """REQs in flight if it turns out to be far."""
        return MOST_LANES if self.lanes >= LANES else self.lanes

    def lanes_at(self, opening: int) -> int:
        """REQs in flight, where opening the connection took so many milliseconds."""
        return min(max(self.lanes, opening // _MILLISECONDS_A_LANE), self.most_lanes)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def doubted(self) -> "RelayModel":
        """Without what may have changed, or been a moment's misfortune: it may have learnt NIP-77
        since, bear more requests, and a single event out of place makes it look as if it sent in
        no order."""
        order = Order.NEWEST_FIRST if self.order is Order.NONE else self.order
        interval = self.interval / 2 if self.interval > SHORTEST_INTERVAL else 0.0
        return replace(
            self,
            order=order,
            lanes=min(2 * self.lanes, LANES),
            negentropy=self.negentropy or None,
            interval=interval,
        )

    def exclusive(self, order: Order) -> bool | None:
        """Whether the bound that a walk of this order moves is left out by the relay."""
        return self.since_exclusive if order is Order.OLDEST_FIRST else self.until_exclusive

    @property
    def is_exclusive(self) -> bool:
        """Whether it leaves out either end of what it is asked for, as far as is known."""
        return bool(self.until_exclusive or self.since_exclusive)

    def with_exclusive(self, order: Order, exclusive: bool) -> "RelayModel":
        if order is Order.OLDEST_FIRST:
            return replace(self, since_exclusive=exclusive)
        return replace(self, until_exclusive=exclusive)


@dataclass(slots=True)
class Observations:
    """What this session's pages of one form of filter show; proofs may rest on it, unlike on a
    `RelayModel`.

    Attributes:
        order: the order of a page that held more than one second.
        largest: the largest page seen; what may have been of another page does not count.
        smallest_cut: the smallest page that is known to have been cut, because the relay gave
            more for the same window when asked again below it.
        unsteady: events came after the EOSE of their page: no page is believed before it has
            settled.
        disordered: refined pages came in another order than plain ones: order proves nothing.
        smallest_cap: no page is cut to fewer events than this.
        longest_list: values of the longest list in a filter that was seen to choose something.
        oldest_chosen: pages that come oldest first hold the oldest events of their window.
        plain: for a refined filter, what pages without the refinement show. A relay may cap
            refined pages lower, hardly higher: where plain ones were cut, refined ones may be.
    """

    order: Order | None = None
    largest: int = 0
    smallest_cut: int | None = None
    unsteady: bool = False
    disordered: bool = False
    smallest_cap: int = SMALLEST_PLAUSIBLE_CAP
    longest_list: int = 0
    oldest_chosen: bool = False
    plain: "Observations | None" = None

    @property
    def whole_below(self) -> int:
        """A page of fewer events, with nothing below it, was surely sent whole."""
        return min(self.may_be_cut_from, max(self.largest, self.smallest_cap))

    @property
    def settle_below(self) -> int:
        """Pages of fewer events may be judged by their size: what may follow them must come
        first. Refined ones may be compared with larger ones later."""
        return sys.maxsize if self.unsteady or self.plain is not None else self.whole_below

    def settle_unless_ordered(self, order: Order, anchors: int) -> int:
        """Pages of fewer events are to settle, where a page of more than its `anchors` proves by
        the order in which it comes."""
        if self.unsteady or self.order is not order:
            return self.settle_below
        return min(self.settle_below, anchors + 1)

    @property
    def may_be_cut_from(self) -> int:
        """Pages of so many events are not whole for sure, however large others are."""
        own = sys.maxsize if self.smallest_cut is None else self.smallest_cut
        return own if self.plain is None else min(own, self.plain.may_be_cut_from)

    @property
    def oldest_are_chosen(self) -> bool:
        """As this form of filter shows, or plain ones."""
        return self.oldest_chosen or (self.plain is not None and self.plain.oldest_chosen)

    def saw(self, received: int) -> None:
        self.largest = max(self.largest, received)

    def saw_cut(self, received: int) -> None:
        if self.smallest_cut is None or received < self.smallest_cut:
            self.smallest_cut = received

    def too_small_to_be_cut(self, size: int) -> bool:
        """Whether a page of this size, with nothing below it, was surely sent whole."""
        return size < self.whole_below

    def shows_nothing(self, size: int) -> bool:
        """Whether a page without one usable event means that there is none."""
        return not size or self.too_small_to_be_cut(size)


class Sights:
    """A session's observations, apart for each form of filter (the keys of its refinement).

    `page_limit` is what pages are asked for: the relay cuts them there, if nowhere else.
    """

    def __init__(self, page_limit: int) -> None:
        self._smallest_cap = min(page_limit, SMALLEST_PLAUSIBLE_CAP)
        self.plain = Observations(smallest_cap=self._smallest_cap)
        self._refined: dict[frozenset[str], Observations] = {}

    def of(self, refinement: Mapping[str, Any]) -> Observations:
        """What pages of this form show."""
        if not refinement:
            return self.plain
        unseen = Observations(smallest_cap=self._smallest_cap, plain=self.plain)
        return self._refined.setdefault(frozenset(refinement), unseen)
