"""The direction of a walk (pure)."""

from dataclasses import dataclass

from sync.facts import Order
from sync.windows import Window


@dataclass(frozen=True, slots=True)
class Axis:
    """Positions grow toward the end where the walk starts: time, or time mirrored."""

    order: Order

    @property
    def sign(self) -> int:
        return -1 if self.order is Order.OLDEST_FIRST else 1

    def position(self, second: int) -> int:
        return self.sign * second

    def ends(self, window: Window) -> tuple[int, int]:
        """The positions of a window's far and near end."""
        a, b = self.sign * window.since, self.sign * window.until
        return min(a, b), max(a, b)

    def window(self, far: int, near: int) -> Window:
        """The seconds between two positions, cut at the beginning of time."""
        a, b = self.sign * far, self.sign * near
        return Window(max(0, min(a, b)), max(0, a, b))
