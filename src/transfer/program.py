"""What export and import have in common as programs: signals, errors, exit codes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from bigbrotr import BigBrotr
from config_types import DatabaseConfig
from errors import BigBrotrError, ConfigError, RelayUrlRefused
from migrate import check_schema

_COMMAND_SECONDS = 6 * 3_600.0  # sorting what a filter selects may take long


def run_program(name: str, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """The exit code: that of `work`, 1 when it cannot go on, 2 for a wrong argument or setting,
    130 or 143 after SIGINT or SIGTERM. Errors are one line on stderr."""
    try:
        return asyncio.run(_until_stopped(work()))
    except (ConfigError, RelayUrlRefused) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except BigBrotrError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


@asynccontextmanager
async def archive(config: DatabaseConfig, connections: int) -> AsyncIterator[BigBrotr]:
    """The archive, its schema checked, for as long as the statements of a program may take."""
    patient = replace(config, min_pool=1, max_pool=connections, command_timeout=_COMMAND_SECONDS)
    async with BigBrotr.from_config(patient) as db:
        await check_schema(db)
        yield db


async def _until_stopped(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        # Everything is cleaned up, but a thread may still wait for the other end of a pipe.
        os._exit(128 + received[0])
