"""Windows of seconds, inclusive at both ends as NIP-01's `since` and `until` are (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The seconds `since` .. `until`, both included."""

    since: int
    until: int

    def __post_init__(self) -> None:
        if self.since > self.until:
            raise ValueError(f"a window cannot end before it starts: {self.since}..{self.until}")

    @property
    def seconds(self) -> int:
        return self.until - self.since + 1

    def halves(self) -> tuple["Window", "Window"]:
        """The older and the newer half of a window of two seconds or more."""
        middle = (self.since + self.until) // 2
        return Window(self.since, middle), Window(middle + 1, self.until)

    def intersect(self, other: "Window") -> "Window | None":
        since, until = max(self.since, other.since), min(self.until, other.until)
        return Window(since, until) if since <= until else None

    def contains(self, other: "Window") -> bool:
        return self.since <= other.since and other.until <= self.until

    def holds(self, second: int) -> bool:
        return self.since <= second <= self.until


def merge(windows: Iterable[Window]) -> list[Window]:
    """The same seconds in the fewest windows, oldest first."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.since <= merged[-1].until + 1:
            merged[-1] = Window(merged[-1].since, max(merged[-1].until, window.until))
        else:
            merged.append(window)
    return merged


def subtract(target: Window, windows: Iterable[Window]) -> list[Window]:
    """The seconds of `target` that are in none of `windows`, oldest first."""
    rest: list[Window] = []
    since = target.since
    for window in merge(windows):
        if window.until < since or window.since > target.until:
            continue
        if window.since > since:
            rest.append(Window(since, window.since - 1))
        since = window.until + 1
    if since <= target.until:
        rest.append(Window(since, target.until))
    return rest
