"""Asking for one second and nothing else, where its neighbours hide it (pure).

Other plans ask for a second more at both ends, for it is not known whether the relay includes
them. What fills such a page, refused events above all, may be the neighbours'. A page of the second
alone proves it if something of that second came, which shows that the relay leaves
out neither end, and if the page is too small to have been cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sync.facts import Order, PageFacts, Request, Saturated, Step, Verdict
from sync.relay_model import Observations, RelayModel
from sync.windows import Window


@dataclass(slots=True)
class Alone:
    """One second, asked for exactly once."""

    claim: Window
    order: Order
    limit: int
    seen: Observations
    refinement: Mapping[str, Any] = field(default_factory=dict, init=False)

    @property
    def settle_below(self) -> int:
        """Pages of fewer events are to settle."""
        return self.seen.settle_below

    def request(self, _model: RelayModel) -> Request:
        """The page to ask for."""
        return Request(self.claim, self.limit)

    def remaining(self) -> Window:
        """The second."""
        return self.claim

    def ask_for_less(self, _page: PageFacts) -> bool:
        """A second needs whole pages: its parts are smaller."""
        return False

    def pages_left(self) -> float:
        """A second is not shared between lanes."""
        return 0.0

    def split(self, lanes: int, worth: int) -> "list[Self]":
        """A second is not shared between lanes."""
        return []

    def judge(self, facts: PageFacts) -> Step:
        """What the page that answered `request` proves. It must have ended in EOSE."""
        if not facts.is_answer:
            raise ValueError(f"a page that ended in {facts.end.kind} proves nothing")
        self.seen.saw(facts.received)
        second = self.claim.since
        finished = facts.end.hint == "finish"
        # Unless it shows, the second may be left out at a bound, and what is finished is another.
        if facts.shows(second) and (finished or self.seen.too_small_to_be_cut(facts.size)):
            return Step(Verdict.DONE, (self.claim,))
        if not facts.events:
            return Step(Verdict.NARROW)
        return Step(Verdict.DONE, saturated=Saturated(second, facts.events, facts))
