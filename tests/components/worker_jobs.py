"""What the worker processes of test_workers do; spawned processes import it by name."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from errors import ConnectFailed


async def handle(task: str) -> tuple[int, str]:
    """Does what the task says; tells its process id and an answer."""
    match task.split(":", 1):
        case ["sleep", seconds]:
            await asyncio.sleep(float(seconds))
        case ["die", _]:
            os._exit(9)
        case ["refuse", url]:
            raise ConnectFailed("refused", url, "nobody there")
        case ["bug", text]:
            raise RuntimeError(text)
        case ["clean", path]:
            try:
                await asyncio.sleep(60)
            finally:
                Path(path).write_text("cleaned up")
    return os.getpid(), task


@asynccontextmanager
async def open_jobs() -> AsyncIterator[Callable[[str], Awaitable[tuple[int, str]]]]:
    yield handle


@asynccontextmanager
async def open_never() -> AsyncIterator[Callable[[str], Awaitable[tuple[int, str]]]]:
    raise ConnectFailed("refused", "the database", "is down")
    yield handle
