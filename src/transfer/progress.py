"""A line about how far a program is, every few seconds."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN = 3.0


class Progress:
    """Writes lines to stderr, so that stdout can carry the events."""

    def __init__(
        self, name: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._stream = stream or sys.stderr
        self._clock = clock
        self._started = self._shown = clock()

    def show(self, done: int, details: str, *, last: bool = False) -> None:
        """Tell that `done` events are done, unless the line before is too recent."""
        now = self._clock()
        if not last and now - self._shown < _SECONDS_BETWEEN:
            return
        self._shown = now
        rate = done / max(now - self._started, 0.001)
        mark = "done: " if last else ""
        self.say(f"{mark}{done:,} events, {details}, {rate:,.0f} events/s")

    def say(self, text: str) -> None:
        """Write a line."""
        print(f"{self._name}: {text}", file=self._stream, flush=True)
