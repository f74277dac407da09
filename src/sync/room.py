"""How much memory the pages of one relay may take, whatever it sends (async shell)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Room for the pages of one relay that are under way or being checked.

    A page asked for beside others has one share of it. A page that wants it all waits until the
    others are done, and nobody passes those that wait.

    Args:
        total: bytes of events' text for a page alone. Decoded, they take about three times that.
        places: how many pages may be under way beside each other.
        share: bytes of each of those.
    """

    def __init__(self, total: int, places: int, share: int) -> None:
        self._total = total
        self._places = self._free = places
        self.share = share
        self._entry = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def take(self, *, alone: bool) -> AsyncIterator[int]:
        """Waits for a share, or for all of it; the value is the bytes that the page may have."""
        wanted = self._places if alone else 1
        async with self._entry:
            while self._free < wanted:
                self._freed.clear()
                await self._freed.wait()
            self._free -= wanted
        try:
            yield self._total if alone else self.share
        finally:
            self._free += wanted
            self._freed.set()
