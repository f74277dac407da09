"""Pages: what one REQ brought, and how it ended."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_MAX_BYTES = 64 * 1024 * 1024


class EndKind(StrEnum):
    """How a page ended. Only EOSE says anything about what the relay holds."""

    EOSE = "eose"
    CLOSED = "closed"  # the relay refused or ended the subscription
    TIMEOUT = "timeout"  # nothing came for the idle time, or the whole took too long
    DISCONNECTED = "disconnected"
    OVERFLOW = "overflow"  # more events or bytes came than the page may hold


@dataclass(frozen=True, slots=True)
class PageEnd:
    """The end of a page. `hint` is NIP-67's ("finish", "more" or ""); `prefix` and `text` are
    those of CLOSED, and `text` otherwise says what is known about the end (the last NOTICE for
    a timeout, the close code for a disconnection)."""

    kind: EndKind
    hint: str = ""
    prefix: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What one REQ brought: the events as EventMessage has them, in the order of their arrival.
    `unread` counts frames in the meantime that were no messages, and so may have been events of
    this page or of another one; `malformed` is its share of them, each counted for one page.
    `received_bytes` counts the text of the page's events, `rtt` the milliseconds to its first
    answer of any kind. A small page is given one more round trip after EOSE: it is `settled` then,
    and `late` are events that came only meanwhile."""

    end: PageEnd
    events: tuple[object, ...]
    malformed: int
    received_bytes: int
    rtt: int = 0
    late: tuple[object, ...] = ()
    settled: bool = False
    unread: int = 0


class PageCollector:
    """Gathers a page while the connection reads. One idle timer serves the whole page: when it
    fires too early it is set again for the rest of the time."""

    def __init__(
        self,
        *,
        idle_timeout: float,
        max_events: int,
        max_bytes: int,
        total_timeout: float = float("inf"),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_timeout = idle_timeout
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: list[object] = []
        self._received_bytes = 0
        self._started = self._last_heard = self._loop.time()
        self._first_heard: float | None = None
        self._give_up_at = self._started + total_timeout
        self._timer = self._loop.call_later(min(idle_timeout, total_timeout), self._check_idle)
        self._ended: asyncio.Future[PageEnd] = self._loop.create_future()
        self.malformed = self.unread = 0
        self.last_notice = ""

    def add(self, event: object, size: int) -> bool:
        """Whether the event was for this page: False once it has ended."""
        if self._ended.done():
            return False
        received_bytes = self._received_bytes + size
        if len(self._events) >= self._max_events or received_bytes > self._max_bytes:
            self.end(PageEnd(EndKind.OVERFLOW))
            return True
        self._last_heard = self._loop.time()
        if self._first_heard is None:
            self._first_heard = self._last_heard
        self._received_bytes = received_bytes
        self._events.append(event)
        return True

    def end(self, end: PageEnd) -> None:
        """Ends the page; nothing is added any more."""
        if not self._ended.done():
            self._ended.set_result(end)
            self._first_heard = self._first_heard or self._loop.time()

    async def page(self) -> Page:
        """Waits for the end."""
        try:
            end = await self._ended
        finally:
            self._timer.cancel()
        rtt = round(((self._first_heard or self._started) - self._started) * 1000)
        events = tuple(self._events)
        return Page(end, events, self.malformed, self._received_bytes, rtt, unread=self.unread)

    def _check_idle(self) -> None:
        due = min(self._last_heard + self._idle_timeout, self._give_up_at)
        rest = due - self._loop.time()
        if rest <= 0:
            self.end(PageEnd(EndKind.TIMEOUT, text=self.last_notice))
        else:
            self._timer = self._loop.call_later(rest, self._check_idle)
