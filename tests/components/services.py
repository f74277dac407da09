"""The services as real programs, `python src/<name>.py`, with real environment variables."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from components.databases import Database

ROOT = Path(__file__).parents[2]


def environment(database: Database, **more: object) -> dict[str, str]:
    """A service's variables: nothing of the tester's own, private relays allowed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    chosen = {name: str(value) for name, value in more.items()}
    return {
        **kept,
        **database.environment(),
        "HEALTH_CHECK_PORT": "0",
        "ALLOW_PRIVATE_RELAYS": "true",
        "PYTHONUNBUFFERED": "1",
        **chosen,
    }


@dataclass(slots=True)
class Program:
    """A running program; its output is read as it comes."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    _reader: asyncio.Task[None] | None = None

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip())

    async def says(self, text: str, timeout: float = 30.0) -> None:
        """Wait until a line contains the text."""
        deadline = time.monotonic() + timeout
        while not any(text in line for line in self.lines):
            assert self.process.returncode is None, f"ended before {text!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in {timeout} s:\n{self.output}"
            await asyncio.sleep(0.02)

    async def ends(self, timeout: float = 60.0) -> int:
        """Its exit code."""
        try:
            async with asyncio.timeout(timeout):
                code = await self.process.wait()
                if self._reader is not None:
                    await self._reader
                return code
        except TimeoutError:
            raise AssertionError(f"no end in {timeout} s:\n{self.output}") from None

    async def children(self) -> list[int]:
        """Its worker processes."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes()
            except (OSError, ValueError):
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            if parent == self.process.pid and b"spawn_main" in command:
                found.append(int(entry.name))
        return found

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)


@asynccontextmanager
async def running(name: str, env: Mapping[str, str], *arguments: str) -> AsyncIterator[Program]:
    """A program while it is needed; it is killed afterwards if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "src" / f"{name}.py"),
        *arguments,
        env=dict(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    program = Program(process)
    program._reader = asyncio.create_task(program.read())
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await program._reader


async def run(name: str, env: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """A program to its end: exit code and output."""
    async with running(name, env, *arguments) as program:
        code = await program.ends()
    return code, program.output
