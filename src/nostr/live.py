"""A live subscription: events as they come, taken in portions by whoever follows."""

import asyncio

from nostr.pages import EndKind, PageEnd


class LiveFeed:
    """Gathers the events of an open subscription until they are taken.

    EOSE does not end it; CLOSED and disconnection do, and so does a follower too slow for the
    relay (OVERFLOW), for what waits here is bounded.
    """

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: list[object] = []
        self._bytes = 0
        self._changed = asyncio.Event()
        self.ended: PageEnd | None = None
        self.malformed = self.unread = 0
        self.last_notice = ""

    def add(self, event: object, size: int) -> bool:
        """Takes an event from the connection; False once the feed has ended."""
        if self.ended is not None:
            return False
        self._events.append(event)
        self._bytes += size
        self._changed.set()
        if len(self._events) > self._max_events or self._bytes > self._max_bytes:
            self.end(PageEnd(EndKind.OVERFLOW))
        return True

    def end(self, end: PageEnd) -> None:
        """Hears how a page would have ended."""
        if end.kind is not EndKind.EOSE and self.ended is None:
            self.ended = end
            self._changed.set()

    async def take(self, timeout: float) -> tuple[object, ...]:
        """What has come; waits up to `timeout` seconds for something, or for the end."""
        if not self._events and self.ended is None:
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                return ()
        self._changed.clear()
        events, self._events, self._bytes = tuple(self._events), [], 0
        return events
