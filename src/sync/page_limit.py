"""How many events a walk asks for (pure)."""

from dataclasses import dataclass


@dataclass(slots=True)
class PageLimit:
    """The limit of a walk's next page.

    Attributes:
        full: that of all walks, unless there is a reason for a lower one.
        asked: that of the next page. Lower where little is expected.
        most: what is not exceeded. Lower where events are large.
    """

    full: int
    asked: int
    most: int

    @property
    def is_full(self) -> bool:
        """Whether what cuts a page is the relay's cap, not a lower limit of ours."""
        return self.asked == self.full

    def may_have_cut(self, received: int) -> bool:
        """Whether a page of so many events may have been cut by a lower limit."""
        return received >= self.asked < self.full

    def double(self) -> bool:
        """Ask for twice as many, where too little was expected; False: no more may be asked for."""
        below = self.asked < self.most
        self.asked = min(self.most, 2 * self.asked)
        return below

    def halve(self, fitted: int) -> None:
        """Ask for half of the events that a page too large had room for."""
        self.asked = self.most = fitted // 2

    def recover(self) -> None:
        """Ask for a little more than what has fitted: the events to come may be smaller."""
        if self.asked == self.most < self.full:
            self.asked = self.most = min(self.full, self.most + self.most // 8 + 1)
