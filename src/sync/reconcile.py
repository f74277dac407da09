"""Finding what the archive lacks of a relay by set reconciliation, NIP-77 (async shell).

A window is proven by it when the relay's set holds nothing that did not come when asked for by
id. A set may lie as a page may: be cut at a limit, or come from an index that knows less than
the relay serves. So it counts only if

- no event that we hold and that the set lacks is still served when asked for by id, and
- it is not cut: nothing was new in it, or it is smaller than another set of this session. If none
  was larger, the window is parted for comparison, or, for a second that REQ shows only in part
  and whose set must show more than REQ did, a wider one is looked at.

Both ends of a window are asked for with a margin of one second, because a relay may leave out
events at its bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bigbrotr import BigBrotr
from nostr.negotiation import Negotiation
from nostr.urls import RelayUrl
from sync.asker import Asker
from sync.by_id import fetch_by_id
from sync.holdings import Holdings, Item
from sync.relay_model import SMALLEST_PLAUSIBLE_CAP
from sync.windows import Window
from sync.writer import SessionWriter

# Relays refuse larger sets: 20,000 to 1,000,000 events is what they are known to take.
MOST_ITEMS = 20_000
# Enough to notice that a set lacks what the relay serves.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of a window.

    Attributes:
        proven: seconds of which the relay has nothing that is not archived.
        left: seconds for which this could not be shown.
        outcome: "done", or why something is left: an outcome of a Negotiation, "withheld" (the
            relay did not send what it said it has), "inconsistent" (it sent what it said it
            has not, or what the filter does not select) or "may-be-cut".
        late: events that the relay had and the archive had not seen there.
    """

    proven: tuple[Window, ...]
    left: tuple[Window, ...]
    outcome: str
    late: int


@dataclass(slots=True)
class _Tally:
    """What a reconciliation has come to so far."""

    proven: list[Window] = field(default_factory=list)
    left: list[Window] = field(default_factory=list)
    outcome: str = "done"
    late: int = 0

    def leave(self, window: Window, why: str) -> None:
        self.left.append(window)
        self.outcome = why if self.outcome == "done" else self.outcome


class Reconciler:
    """Reconciles windows of one relay; events that come are given to the writer, proofs are
    left to the caller.

    Args:
        asker: reaches the relay; what is learnt (`negentropy`) is noted in its model.
        writer: takes every page.
        db: the archive.
        relay: the relay.
        flt: the synchronizer's event filter, without since, until and limit.
        page_limit: events asked for a page.
    """

    def __init__(
        self,
        asker: Asker,
        writer: SessionWriter,
        db: BigBrotr,
        relay: RelayUrl,
        flt: Mapping[str, Any],
        page_limit: int,
    ) -> None:
        self._asker = asker
        self._writer = writer
        self._flt = flt
        self._page_limit = page_limit
        self._holdings = Holdings(db, relay, flt)
        self._largest = 0

    @property
    def usable(self) -> bool:
        """Whether it is worth trying: the relay is not known to speak no NIP-77."""
        return self._asker.model.negentropy is not False

    async def reconcile(self, window: Window, *, shown: int | None = None) -> Reconciliation:
        """Fetch what the relay has in the window and we lack.

        Args:
            window: the seconds.
            shown: for a second that one page cannot show, how many events a page shows.

        Raises SyncAbandoned if the relay does not answer, DatabaseError if the archive is lost.
        """
        tally = _Tally()
        todo = [window]
        while todo:
            part = todo.pop()
            if not self.usable:
                tally.leave(part, "unsupported")
                continue
            todo += await self._reconcile(part, shown, tally)
        return Reconciliation(tuple(tally.proven), tuple(tally.left), tally.outcome, tally.late)

    async def _reconcile(self, window: Window, shown: int | None, tally: _Tally) -> list[Window]:
        """Settle a window in the tally, or return the parts in which to look at it."""
        asked = Window(max(0, window.since - 1), window.until + 1)
        await self._writer.flush()
        ours = await self._holdings.items(asked, MOST_ITEMS)
        if len(ours) > MOST_ITEMS:
            return _halves(window, "overflow", tally)
        selection = {**self._flt, "since": asked.since, "until": asked.until}
        ended = await self._asker.negotiate(selection, ours)
        self._learn(ended)
        if ended.too_many:
            return _halves(window, ended.outcome, tally)
        if ended.outcome != "done":
            tally.leave(window, ended.outcome)
            return []
        fetched = await fetch_by_id(
            self._asker, self._writer, ended.need, selection, self._page_limit
        )
        tally.late += len(fetched.created_at)
        shared = [second for second, id_ in ours if id_ not in ended.have]
        seconds = shared + list(fetched.created_at.values())
        lacking = [id_ for second, id_ in ours if _holds(window, second) and id_ in ended.have]
        if shown is not None:
            await self._look_wider(asked, len(seconds))
        if fetched.withheld:
            tally.leave(window, "withheld")
        elif fetched.outside or await self._still_serves(lacking):
            tally.leave(window, "inconsistent")
        elif self._is_whole(window, shown, seconds, changed=bool(ended.need or lacking)):
            tally.proven.append(window)
        elif shown is None and len(seconds) >= self._largest and (parts := _part(window, seconds)):
            return parts
        else:
            tally.leave(window, "may-be-cut")
        return []

    def _is_whole(
        self, window: Window, shown: int | None, seconds: Sequence[int], *, changed: bool
    ) -> bool:
        """Whether the relay's set, of events at these seconds, was surely not cut."""
        larger_seen = len(seconds) < max(self._largest, SMALLEST_PLAUSIBLE_CAP)
        self._largest = max(self._largest, len(seconds))
        if shown is not None:
            return larger_seen and sum(_holds(window, second) for second in seconds) > shown
        return larger_seen or not changed

    async def _look_wider(self, asked: Window, size: int) -> None:
        """See whether the relay shows sets larger than that of this window. A wider one, of which
        we hold more events, tells: if sets are cut at this size, it is no larger."""
        if self._largest > size:
            return
        await self._writer.flush()
        wide, ours, reach = asked, list[Item](), 1
        while len(ours) <= size and wide.since > 0:
            wide = Window(max(0, asked.since - reach), asked.until + reach)
            ours = await self._holdings.items(wide, MOST_ITEMS)
            reach *= 2
        if not size < len(ours) <= MOST_ITEMS:
            return
        ended = await self._asker.negotiate(
            {**self._flt, "since": wide.since, "until": wide.until}, ours
        )
        if ended.outcome == "done":
            in_both = sum(id_ not in ended.have for _, id_ in ours)
            self._largest = max(self._largest, in_both)

    async def _still_serves(self, ids: Sequence[str]) -> bool:
        """Whether some of the events come when asked for."""
        if not ids:
            return False
        sample = sorted(ids)[: min(_SAMPLE, self._page_limit)]
        fetched = await fetch_by_id(self._asker, self._writer, sample, {}, self._page_limit)
        return bool(fetched.created_at or fetched.refused)

    def _learn(self, ended: Negotiation) -> None:
        model = self._asker.model
        unheard = ended.outcome == "timeout" and not ended.rounds and model.negentropy is None
        if ended.outcome == "done" or ended.too_many:
            self._asker.model = replace(model, negentropy=True)
        elif unheard or ended.outcome in {"unsupported", "malformed"}:
            self._asker.model = replace(model, negentropy=False)


def _holds(window: Window, second: int) -> bool:
    return window.since <= second <= window.until


def _halves(window: Window, why: str, tally: _Tally) -> list[Window]:
    if window.seconds > 1:
        return list(window.halves())
    tally.leave(window, why)
    return []


def _part(window: Window, seconds: Sequence[int]) -> list[Window]:
    """The window in two, each with events; nothing if all of them are in one second."""
    inside = sorted(second for second in seconds if _holds(window, second))
    if not inside or inside[0] == inside[-1]:
        return []
    middle = inside[len(inside) // 2]
    start = middle if middle > inside[0] else next(s for s in inside if s > middle)
    return [Window(window.since, start - 1), Window(start, window.until)]
