"""Worker processes for a service (DESIGN: a main process that claims work, N that do it).

Every worker is a spawned process with one event loop. The main process hands out the tasks
itself, each over the worker's own pipe: a queue shared between processes would be left locked
for ever by a worker killed while it reads. A worker that dies takes only its own tasks with
it (`WorkerDied`) and is replaced; when the main process dies, its workers see their pipes
close and end too.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import multiprocessing.process
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Generic

from constants import SHUTDOWN_GRACE_SECONDS
from errors import WorkerDied
from logging_config import fields
from worker_process import (
    Cancel,
    Do,
    Done,
    Failed,
    Opened,
    OpenFailed,
    OpenWorker,
    R,
    Stop,
    T,
    worker_main,
)

_FIRST_RESPAWN_DELAY = 0.5
_MAX_RESPAWN_DELAY = 30.0
# A cancelled task may commit what it has and close its connections.
_CANCEL_SECONDS = 3.5

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Worker(Generic[R]):
    """The main process's view of one worker."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    ready: bool = False
    pending: dict[int, asyncio.Future[R]] = field(default_factory=dict)


class WorkerPool(Generic[T, R]):
    """Runs tasks in worker processes, at most `concurrency` at once in each.

    Args:
        open_worker: picklable; called in each worker process, gives an async context manager
            whose value handles one task. Tasks and reports must be picklable too.
        processes: number of worker processes.
        concurrency: tasks that one worker handles at the same time.
        service_name: the name that the workers' log lines carry.
        log_level: the level of the workers' log lines.
    """

    def __init__(
        self,
        open_worker: OpenWorker[T, R],
        *,
        processes: int,
        concurrency: int,
        service_name: str,
        log_level: str = "INFO",
    ) -> None:
        self._open_worker = open_worker
        self._processes = processes
        self._concurrency = concurrency
        self._service_name = service_name
        self._log_level = log_level
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker[R]] = []
        self._changed = asyncio.Condition()
        self._open_error: BaseException | None = None
        self._next_number = 0
        self._respawn_delay = _FIRST_RESPAWN_DELAY
        self._respawns: set[asyncio.Task[None]] = set()
        self._notices: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def capacity(self) -> int:
        """How many tasks can run at the same time."""
        return self._processes * self._concurrency

    @property
    def process_ids(self) -> list[int]:
        """The process ids of the living workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    async def open(self) -> None:
        """Start the worker processes; tasks wait until one of them is ready."""
        for _ in range(self._processes):
            self._spawn()

    async def __aenter__(self) -> "WorkerPool[T, R]":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(self, task: T) -> R:
        """Have a worker handle the task, waiting for a free place first.

        Cancelling the call cancels the task in its worker, and waits a few seconds for its end.

        Raises:
            WorkerDied: the worker's process ended before the task did.
            Exception: whatever the handler raised, or what kept a worker from opening.
        """
        worker = await self._free_worker()
        number = self._next_number
        self._next_number += 1
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        worker.pending[number] = future
        self._send(worker, Do(number, task))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Whoever cancels may give the work to somebody else next.
            self._send(worker, Cancel(number))
            await asyncio.wait((future,), timeout=_CANCEL_SECONDS)
            raise

    async def close(self, grace: float = SHUTDOWN_GRACE_SECONDS / 2) -> None:
        """Cancel what still runs, let the workers clean up for `grace` seconds, end them."""
        self._closing = True
        for respawn in self._respawns:
            respawn.cancel()
        workers, self._workers = self._workers, []
        loop = asyncio.get_running_loop()
        for worker in workers:
            self._send(worker, Stop())
        deadline = loop.time() + grace
        while any(worker.process.is_alive() for worker in workers) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        for worker in workers:
            loop.remove_reader(worker.pipe.fileno())
            worker.process.kill()
            worker.process.join()
            self._fail_pending(worker, WorkerDied("the worker pool was closed"))
            worker.pipe.close()

    async def _free_worker(self) -> _Worker[R]:
        async with self._changed:
            while True:
                if self._open_error is not None and not any(w.ready for w in self._workers):
                    raise self._open_error
                # One that is about to be ready counts: or the first would get all of few tasks.
                idlest = min(self._workers, key=_load, default=None)
                if idlest and idlest.ready and len(idlest.pending) < self._concurrency:
                    return idlest
                await self._changed.wait()

    def _spawn(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=worker_main,
            args=(theirs, self._open_worker, self._service_name, self._log_level),
            daemon=True,
        )
        process.start()
        theirs.close()
        worker: _Worker[R] = _Worker(process, ours)
        self._workers.append(worker)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive, worker)

    def _receive(self, worker: _Worker[R]) -> None:
        try:
            while worker.pipe.poll():
                self._take(worker, worker.pipe.recv())
        except (EOFError, OSError):
            self._bury(worker)
        self._announce()

    def _take(self, worker: _Worker[R], answer: Opened | OpenFailed | Done[R] | Failed) -> None:
        match answer:
            case Opened():
                worker.ready = True
                self._open_error = None
                self._respawn_delay = _FIRST_RESPAWN_DELAY
            case OpenFailed(error):
                self._open_error = error
            case Done(number, report):
                if not (future := worker.pending.pop(number)).done():
                    future.set_result(report)
            case Failed(number, error):
                if not (future := worker.pending.pop(number)).done():
                    future.set_exception(error)

    def _bury(self, worker: _Worker[R]) -> None:
        asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
        if self._closing:
            return
        self._workers.remove(worker)
        worker.process.join(timeout=1)
        logger.warning(
            fields("worker_died", pid=worker.process.pid, exit_code=worker.process.exitcode)
        )
        self._fail_pending(worker, WorkerDied(f"worker process {worker.process.pid} ended"))
        worker.pipe.close()
        respawn = asyncio.create_task(self._respawn())
        self._respawns.add(respawn)
        respawn.add_done_callback(self._respawns.discard)

    async def _respawn(self) -> None:
        delay = self._respawn_delay
        self._respawn_delay = min(delay * 2, _MAX_RESPAWN_DELAY)
        await asyncio.sleep(delay)
        self._spawn()

    def _announce(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        notice = asyncio.create_task(notify())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    @staticmethod
    def _fail_pending(worker: _Worker[R], error: Exception) -> None:
        for future in worker.pending.values():
            if not future.done():
                future.set_exception(error)
        worker.pending.clear()

    @staticmethod
    def _send(worker: _Worker[R], order: object) -> None:
        # A worker that is gone is noticed, and its tasks failed, where its pipe is read.
        with contextlib.suppress(OSError):
            worker.pipe.send(order)


def _load(worker: _Worker[Any]) -> tuple[int, bool]:
    return len(worker.pending), not worker.ready


def _retrieve(future: "asyncio.Future[R]") -> None:
    """Take note of the error, which nobody may be waiting for any more."""
    if not future.cancelled():
        future.exception()
