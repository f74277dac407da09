"""The inside of a worker process, and what it and the main process say to each other."""

import asyncio
import contextlib
import gc
import logging
import pickle
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from errors import BigBrotrError, WorkerDied
from logging_config import fields, setup_logging

T = TypeVar("T")
R = TypeVar("R")

Handler = Callable[[T], Awaitable[R]]
OpenWorker = Callable[[], AbstractAsyncContextManager[Handler[T, R]]]

# Objects made before the collector looks for cycles (Python's own: 700, 10, 10). An event is a
# tree of many objects, and has none.
_COLLECT_AFTER = (20_000, 20, 20)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Do(Generic[T]):
    """Handle a task."""

    number: int
    task: T


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the task of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel every task, clean up and end."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The worker can take tasks."""


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """The worker could not open what it needs."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """A task's report."""

    number: int
    report: R


@dataclass(frozen=True, slots=True)
class Failed:
    """What a task raised."""

    number: int
    error: BaseException


class _WorkerLoop(Generic[T, R]):
    """The inside of a worker process."""

    def __init__(self, pipe: Connection, open_worker: OpenWorker[T, R]) -> None:
        self._pipe = pipe
        self._open_worker = open_worker
        self._running: dict[int, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        try:
            async with self._open_worker() as handle:
                self._send(Opened())
                loop = asyncio.get_running_loop()
                loop.add_reader(self._pipe.fileno(), self._receive, handle)
                await self._stop.wait()
                loop.remove_reader(self._pipe.fileno())
                for task in self._running.values():
                    task.cancel()
                await asyncio.gather(*self._running.values(), return_exceptions=True)
        except Exception as error:
            if not isinstance(error, BigBrotrError):
                logger.exception(fields("worker_failed"))
            self._send(OpenFailed(_portable(error)))

    def _receive(self, handle: Handler[T, R]) -> None:
        try:
            while self._pipe.poll():
                self._obey(self._pipe.recv(), handle)
        except (EOFError, OSError):
            self._stop.set()

    def _obey(self, order: Do[T] | Cancel | Stop, handle: Handler[T, R]) -> None:
        match order:
            case Do(number, task):
                self._running[number] = asyncio.create_task(self._work(number, task, handle))
            case Cancel(number) if number in self._running:
                self._running[number].cancel()
            case Stop():
                self._stop.set()

    async def _work(self, number: int, task: T, handle: Handler[T, R]) -> None:
        try:
            answer: Done[R] | Failed = Done(number, await handle(task))
        except asyncio.CancelledError:
            answer = Failed(number, WorkerDied("the task was cancelled"))
        except Exception as error:
            if not isinstance(error, BigBrotrError):
                logger.exception(fields("task_failed", task=task))
            answer = Failed(number, _portable(error))
        del self._running[number]
        self._send(answer)

    def _send(self, message: object) -> None:
        # A main process that is gone needs no answer; the closed pipe ends this worker.
        with contextlib.suppress(OSError):
            self._pipe.send(message)


def _portable(error: Exception) -> Exception:
    """The error itself if it survives pickling, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return BigBrotrError(f"{type(error).__name__}: {error}")
    return error


def collect_rarely() -> None:
    """Leave what is there by now out of garbage collection, and have it look at the rest less."""
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def worker_main(
    pipe: Connection,
    open_worker: OpenWorker[Any, Any],
    service_name: str,
    log_level: str,
) -> None:
    """The life of a worker process, from its first line to its last."""
    # Ctrl-C reaches the whole process group; the main process says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup_logging(service_name, log_level)
    collect_rarely()

    async def run() -> None:
        await _WorkerLoop(pipe, open_worker).run()

    asyncio.run(run())
