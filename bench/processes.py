"""CPU seconds and memory of processes, children included."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat. `own` and `reaped` are CPU seconds: of the process itself,
    and of its children that have ended."""

    parent: int
    own: float
    reaped: float


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended: CPU and wall clock in seconds, children included, and its output."""

    cpu: float
    wall: float
    output: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object in its last line."""
        document: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return document


def parse_stat(text: str) -> Stat:
    """The fields of /proc/PID/stat; the name in parentheses may hold anything."""
    fields = text.rpartition(")")[2].split()
    user, system, child_user, child_system = (int(value) / _TICKS for value in fields[11:15])
    return Stat(int(fields[1]), user + system, child_user + child_system)


def descendants(stats: Mapping[int, Stat], root: int) -> set[int]:
    """The process and all below it."""
    found = {root} & stats.keys()
    while more := {pid for pid, stat in stats.items() if stat.parent in found} - found:
        found |= more
    return found


def tree_cpu(root: int) -> float:
    """CPU seconds so far of a process and all its children, ended ones included."""
    stats = dict(_all_stats())
    return sum(stats[pid].own + stats[pid].reaped for pid in descendants(stats, root))


def children(root: int) -> set[int]:
    """The live processes below a process."""
    return descendants(dict(_all_stats()), root) - {root}


def resident_megabytes(pid: int) -> float:
    """Resident memory; 0 for a process that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run_program(command: Sequence[str], env: Mapping[str, str] | None = None) -> Ran:
    """Runs a program to its end. Raises RuntimeError with its output when it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        list(command),
        env=None if env is None else dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    return Ran(usage.ru_utime + usage.ru_stime, wall, output)


def run_module(module: str, *arguments: object) -> Ran:
    """Runs a module of ours in a process of its own."""
    return run_program([sys.executable, "-m", module, *map(str, arguments)])


def _all_stats() -> Iterator[tuple[int, Stat]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), parse_stat((entry / "stat").read_text())
            except (OSError, IndexError, ValueError):
                continue
