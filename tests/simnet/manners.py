"""Rates that a relay allows, and whether its limits, told or shown, are kept to."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from sync.relay_model import MOST_LANES

# Whoever is told "rate-limited" rests for seconds; what was on its way then is no haste. On a busy
# machine, a near relay is as slow to open as a far one, and gets as many lanes.
POLITE_PAUSE_SECONDS = 2.0
REQUESTS_ON_THEIR_WAY = MOST_LANES
# One lane after the other finds the connection gone, and opens it again.
_CONNECTIONS = 6
_CONNECTIONS_WITHIN_SECONDS = 1.0


class Bucket:
    """So many at once, and so many a second in the long run."""

    def __init__(self, burst: float, a_second: float) -> None:
        self._burst, self._a_second = burst, a_second
        self._left, self._at = burst, time.monotonic()

    def take(self, count: float) -> bool:
        self._refill()
        if self._left < count:
            return False
        self._left -= count
        return True

    def is_empty(self) -> bool:
        self._refill()
        return self._left < self._burst / 4

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._a_second)
        self._at = now


class Manners:
    """What a client did that it knew better than to do.

    Args:
        document: the relay's NIP-11 document, whose limits are those that it was told.

    Attributes:
        times_limited: how often it was told "rate-limited".
    """

    def __init__(self, document: object) -> None:
        limitation = document.get("limitation", {}) if isinstance(document, Mapping) else {}
        self._told = {name: n for name, n in limitation.items() if type(n) is int and n > 0}
        self.times_limited = 0
        self._limited_at: float | None = None
        self._since_limited = 0
        self._opened: deque[float] = deque(maxlen=_CONNECTIONS)
        self._hasty = self._greedy = self._too_many = self._too_long = self._hurried = 0

    def connects(self) -> None:
        """A connection is opened."""
        now = time.monotonic()
        if len(self._opened) == _CONNECTIONS:
            self._hurried += now - self._opened[0] < _CONNECTIONS_WITHIN_SECONDS
        self._opened.append(now)

    def asks(self, flt: Mapping[str, Any], subscriptions: int) -> None:
        """A REQ comes, with so many subscriptions open, itself included."""
        self._greedy += flt.get("limit", 0) > self._told.get("max_limit", 2**63)
        self._too_many += subscriptions > self._told.get("max_subscriptions", 2**63)
        if self._limited_at is None:
            return
        if time.monotonic() - self._limited_at < POLITE_PAUSE_SECONDS:
            self._since_limited += 1
            self._hasty += self._since_limited > REQUESTS_ON_THEIR_WAY
        else:
            self._limited_at = None

    def sends(self, length: int) -> None:
        """A message of so many bytes comes."""
        self._too_long += length > self._told.get("max_message_length", 2**63)

    def limited(self) -> None:
        """The client is told "rate-limited"."""
        self.times_limited += 1
        if self._limited_at is None:
            self._limited_at, self._since_limited = time.monotonic(), 0

    def time_passes(self) -> None:
        """Pauses are over."""
        self._limited_at = None
        self._opened.clear()

    def complaints(self) -> list[str]:
        """What was not polite, in words."""
        found = {
            "requests within the pause after rate-limited": self._hasty,
            "requests with a limit above the one told": self._greedy,
            "requests with more subscriptions open than told": self._too_many,
            "messages longer than told": self._too_long,
            f"connections in less than a second after {_CONNECTIONS} others": self._hurried,
        }
        return [f"{count} {what}" for what, count in found.items() if count]
