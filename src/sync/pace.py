"""How often one relay is asked (pure). Times are seconds of a monotonic clock."""

from dataclasses import dataclass, field

SHORTEST_INTERVAL = 0.05
LONGEST_INTERVAL = 30.0


@dataclass(slots=True)
class Pace:
    """The moments at which requests may be sent; all lanes of a session share it.

    Attributes:
        interval: least time between two requests. A relay that says "rate-limited" doubles it,
            which finds the pace that it bears within a few refusals.
    """

    interval: float = 0.0
    _next: float = field(default=0.0, init=False)
    _slowed_at: float = field(default=float("-inf"), init=False)

    def wait(self, now: float) -> float:
        """How long to wait before asking again; 0.0 gives the moment away, to be used at once."""
        if now < self._next:
            return self._next - now
        self._next = now + self.interval
        return 0.0

    def rest(self, until: float) -> None:
        """Send nothing until then."""
        self._next = max(self._next, until)

    def limited(self, now: float, sent_at: float) -> None:
        """A request of then was refused for being one too many. Those that were on their way when
        the pace was slowed down say nothing new."""
        if sent_at >= self._slowed_at:
            self.interval = min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, 2 * self.interval))
            self._slowed_at = now
