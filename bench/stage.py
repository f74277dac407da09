"""What the parts need around them: events in files, relays, PostgreSQL with PgBouncer."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp

from bench.dataset import save, sign
from bench.processes import ROOT
from bench.settings import scratch
from components.databases import Cluster, start_cluster
from standalone.processes import accepts_connections, free_port, start, wait_until

CAP = 500
# What postgresql.conf leaves to the size of the host, here one of 16 GB (DATABASE_MEMORY_MB=8192),
# or that has no place on this machine.
_OURS = {
    "max_connections": "100",
    "shared_buffers": "2GB",
    "effective_cache_size": "6GB",
    "maintenance_work_mem": "512MB",
    "deadlock_timeout": "50ms",  # each deadlock that is counted costs this
}
_LEFT_OUT = {"listen_addresses", "huge_pages", "max_worker_processes", "max_parallel_workers"}


@dataclass(frozen=True, slots=True)
class BenchRelay:
    """A running relay. `port` is its own, `delayed` lead to it through added round trips."""

    pid: int
    port: int
    delayed: tuple[int, ...]

    async def counts(self) -> dict[str, int]:
        """Requests and events so far."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/counts") as answer,
        ):
            found: dict[str, int] = {"requests": 0, "events": 0, **await answer.json()}
            return found


def events_file(name: str, times: Sequence[int]) -> Path:
    """A file of signed events at these times, made once."""
    path = scratch(f"{name}-{len(times)}.jsonl")
    if not path.exists():
        part = path.with_suffix(".part")
        save(sign(list(times), name), part)
        part.rename(path)
    return path


@contextmanager
def relay(events: Path, *, rtts: Sequence[int] = (), cap: int = CAP) -> Iterator[BenchRelay]:
    """A relay with these events; a delayed port for each round trip (milliseconds)."""
    port, delayed = free_port(), [free_port() for _ in rtts]
    pairs = [str(value) for pair in zip(delayed, rtts, strict=True) for value in pair]
    command = [sys.executable, "-m", "bench.relay", str(events), str(cap), str(port), *pairs]
    child = start("relay", command, scratch(f"relay-{port}.log"), cwd=ROOT)
    try:
        if not wait_until(partial(accepts_connections, port), child, 60):
            raise RuntimeError(f"the relay does not start:\n{child.tail()}")
        yield BenchRelay(child.process.pid, port, tuple(delayed))
    finally:
        child.stop(2)
        child.log.unlink(missing_ok=True)


@contextmanager
def server() -> Iterator[Cluster]:
    """PostgreSQL as postgresql.conf has it, PgBouncer before it, and the migrated template."""
    cluster = start_cluster(conf_settings((ROOT / "postgresql.conf").read_text()) | _OURS)
    try:
        yield cluster
    finally:
        cluster.stop()


def conf_settings(text: str) -> dict[str, str]:
    """The settings of a postgresql.conf that are not this machine's business (pure)."""
    pairs = (line.partition("#")[0].partition("=") for line in text.splitlines() if "=" in line)
    found = {name.strip(): value.strip().strip("'") for name, _, value in pairs if name.strip()}
    return {
        name: value
        for name, value in found.items()
        if name not in _LEFT_OUT and not name.startswith("log_")
    } | {"autovacuum": "on"}
