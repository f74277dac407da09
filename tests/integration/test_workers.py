"""Worker processes: tasks out, reports back, and every way in which a process can end."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from components.worker_jobs import open_jobs, open_never
from errors import BigBrotrError, ConnectFailed, WorkerDied
from workers import WorkerPool


def pool(processes: int = 2, concurrency: int = 3, opener=open_jobs) -> WorkerPool:
    return WorkerPool(opener, processes=processes, concurrency=concurrency, service_name="TEST")


async def test_tasks_are_spread_over_all_processes() -> None:
    async with pool() as workers:
        answers = await asyncio.gather(*(workers.run("sleep:0.2") for _ in range(12)))
        assert len({pid for pid, _ in answers}) == 2
        assert os.getpid() not in {pid for pid, _ in answers}


async def test_few_tasks_do_not_all_go_to_the_process_that_is_ready_first() -> None:
    async with pool() as workers:
        answers = await asyncio.gather(*(workers.run("sleep:0.2") for _ in range(2)))
        assert len({pid for pid, _ in answers}) == 2


async def test_errors_come_home_whole() -> None:
    async with pool(1) as workers:
        with pytest.raises(ConnectFailed, match="nobody there") as refused:
            await workers.run("refuse:wss://relay.example.com")
        assert refused.value.kind == "refused"
        with pytest.raises(RuntimeError, match="a bug"):
            await workers.run("bug:a bug")


async def test_a_killed_process_fails_only_its_own_tasks_and_is_replaced() -> None:
    async with pool(2, 1) as workers:
        both = [asyncio.create_task(workers.run("sleep:1")) for _ in range(2)]
        await asyncio.sleep(0)
        while len(workers.process_ids) < 2 or not all(_busy(workers)):
            await asyncio.sleep(0.02)
        os.kill(workers.process_ids[0], signal.SIGKILL)
        results = await asyncio.gather(*both, return_exceptions=True)
        assert sum(isinstance(result, WorkerDied) for result in results) == 1
        again = await asyncio.gather(*(workers.run("sleep:0.1") for _ in range(4)))
        assert len(again) == 4


def _busy(workers: WorkerPool) -> list[bool]:
    return [bool(worker.pending) for worker in workers._workers]


async def test_a_worker_that_dies_of_its_task_is_reported() -> None:
    async with pool(1) as workers:
        with pytest.raises(WorkerDied):
            await workers.run("die:now")
        assert (await workers.run("sleep:0"))[1] == "sleep:0"


async def test_cancelling_a_call_cancels_its_task(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with pool(1) as workers:
        await workers.run("sleep:0")
        call = asyncio.create_task(workers.run(f"clean:{mark}"))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            while not mark.exists():
                await asyncio.sleep(0.02)
        assert (await workers.run("sleep:0"))[1] == "sleep:0"


async def test_closing_lets_tasks_clean_up(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    workers = pool(1)
    await workers.open()
    call = asyncio.create_task(workers.run(f"clean:{mark}"))
    while not any(_busy(workers)):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    await workers.close()
    assert mark.read_text() == "cleaned up"
    with pytest.raises(BigBrotrError):
        await call


async def test_a_worker_that_cannot_open_says_why() -> None:
    async with pool(1, opener=open_never) as workers:
        started = time.monotonic()
        with pytest.raises(ConnectFailed, match="is down"):
            await workers.run("sleep:0")
        assert time.monotonic() - started < 30
