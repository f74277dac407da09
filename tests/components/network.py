"""A network that can be cut: a TCP proxy that freezes, drops and refuses on command."""

import asyncio
from contextlib import suppress
from types import TracebackType

_CHUNK = 65_536


class Wire:
    """Leads from a free port of the loopback interface to `target`.

    While `frozen` no byte goes through and nothing is closed, as behind a dead router; new
    connections are taken and hang. `cut` drops every connection, and refuses new ones until
    `heal`.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    def drop(self) -> None:
        """End every connection at once, with a reset."""
        for writer in self._writers:
            writer.transport.abort()

    async def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await asyncio.sleep(0)

    async def heal(self) -> None:
        """Take connections again, at the same port."""
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", self.port)
        self.thaw()

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            back, there = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(there)
            ways = [
                asyncio.create_task(self._pump(reader, there)),
                asyncio.create_task(self._pump(back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # what the connection's own callback would complain of
        finally:
            for end in (writer, there):
                if end is not None:
                    end.close()
                    self._writers.discard(end)
            self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                await self._open.wait()
                sink.write(chunk)
                await sink.drain()
