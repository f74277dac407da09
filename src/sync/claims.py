"""Where the proofs of a plan go."""

from typing import Protocol

from sync.ledger import Gap
from sync.windows import Window


class Claims(Protocol):
    """Where proofs go, and seconds that could not be proven."""

    def prove(self, window: Window) -> None: ...
    def gap(self, gap: Gap) -> None: ...


class NoClaims:
    """For a look at seconds whose proof is not at stake: only the events count."""

    def prove(self, window: Window) -> None:
        """The window is proven already, or is not to be claimed yet."""

    def gap(self, gap: Gap) -> None:
        """What cannot be read again was read before, or will be asked for later."""


class Collected:
    """The proofs of one part of a second."""

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def prove(self, window: Window) -> None:
        self.windows.append(window)

    def gap(self, gap: Gap) -> None:
        """The whole second becomes one, if it does."""
