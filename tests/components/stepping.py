"""Cancelling a coroutine at its n-th step, whichever of its tasks makes that step."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from bigbrotr import BigBrotr

T = TypeVar("T")


@dataclass(slots=True)
class _Count:
    """Steps made so far, and what is called before step `at` (0: never)."""

    steps: int = 0
    at: int = 0
    then: Callable[[], object] = lambda: None


_counting: ContextVar[_Count | None] = ContextVar("counting", default=None)


class _Counted(Coroutine[Any, Any, T]):
    """A coroutine whose every resumption is counted."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], count: _Count) -> None:
        self._coroutine = coroutine
        self._count = count

    def send(self, value: Any) -> Any:
        self._count.steps += 1
        if self._count.steps == self._count.at:
            asyncio.get_running_loop().call_soon(self._count.then)
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()


def _factory(loop: Any, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    count = _counting.get()
    counted = coroutine if count is None else _Counted(coroutine, count)
    return asyncio.Task(counted, loop=loop, **options)


async def cancelled_at(step: int, work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[bool, int]:
    """Run `work` and cancel it soon after its step (0: never), counting those of the tasks that
    it starts. Returns whether it was cancelled, and the steps. It must not end well after it was
    asked to stop in its midst, nor with another error."""
    loop = asyncio.get_running_loop()
    count = _Count(at=step)
    before = loop.get_task_factory()
    loop.set_task_factory(_factory)
    token = _counting.set(count)
    try:
        task = loop.create_task(work())
    finally:
        _counting.reset(token)
    asked: list[bool] = []
    count.then = lambda: asked.append(task.cancel())
    try:
        await asyncio.wait((task,), timeout=30)
    finally:
        loop.set_task_factory(before)
    assert task.done(), f"still running 30 s after step {step}"
    if not task.cancelled():
        task.result()
        assert not any(asked), f"the cancellation at step {step} was swallowed"
    return task.cancelled(), count.steps


def open_files() -> int:
    """File descriptors of this process, sockets included."""
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def nothing_left_behind(db: BigBrotr) -> AsyncIterator[None]:
    """What runs inside leaves no task and no open file, and gives every connection back."""
    assert db._pool is not None
    tasks, files = asyncio.all_tasks(), open_files()
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        more_tasks = asyncio.all_tasks() - tasks
        # The pool may have fewer connections or up to its maximum of more.
        most = files + db._pool.get_max_size()
        idle = db._pool.get_idle_size() == db._pool.get_size()
        if not more_tasks and idle and open_files() <= most:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"left behind: {more_tasks}, {open_files() - files} files, idle={idle}")
