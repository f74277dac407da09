"""What all services share, with a service that does as it is told."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from errors import DatabaseUnavailable
from service import CycleReport, _Shell
from standalone.processes import free_port

Answer = tuple[int, str]


@dataclass(frozen=True)
class Config:
    health_check_port: int
    log_level: str = "INFO"
    loop_interval_seconds: float = 0.01


class Told:
    """A service whose cycles do `work`, which can look at the published readiness."""

    def __init__(self, work: Callable[["Told", asyncio.Event], Awaitable[None]]) -> None:
        self.port = free_port()
        self.answers: list[Answer] = []
        self._work = work

    async def start(self) -> None:
        await self.look()

    async def cycle(self, stop: asyncio.Event) -> CycleReport:
        await self._work(self, stop)
        return CycleReport()

    async def ready(self) -> bool:
        return True

    def info(self) -> dict[str, object]:
        return {}

    async def close(self) -> None:
        pass

    async def look(self) -> None:
        async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}/ready") as answer:
            body = await answer.json()
            self.answers.append((answer.status, body.get("reason", body["status"])))

    async def run(self, *, once: bool = False) -> int:
        async with asyncio.timeout(20):
            return await _Shell(Config(self.port), self, once=once).run()


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def test_ready_from_the_first_cycle_until_it_is_told_to_stop() -> None:
    async def work(service: Told, stop: asyncio.Event) -> None:
        await service.look()
        end()
        await stop.wait()
        await service.look()

    service = Told(work)
    assert await service.run() == 0
    assert service.answers == [
        (503, "the service is not ready yet"),
        (200, "ready"),
        (503, "the service is stopping"),
    ]


async def test_not_ready_after_a_cycle_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    cycles = 0

    async def work(service: Told, stop: asyncio.Event) -> None:
        nonlocal cycles
        cycles += 1
        if cycles == 1:
            raise DatabaseUnavailable("it is gone")
        await service.look()
        if cycles == 3:
            end()

    service = Told(work)
    assert await service.run() == 0
    assert service.answers[1:] == [(503, "the last cycle failed: it is gone"), (200, "ready")]
    assert "cycle_failed" in caplog.text


async def test_one_cycle_that_fails_is_an_exit_code() -> None:
    async def work(service: Told, stop: asyncio.Event) -> None:
        raise DatabaseUnavailable("it is gone")

    assert await Told(work).run(once=True) == 1
