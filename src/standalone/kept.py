"""Processes that a demo left running on purpose: remembered in files, ended by `make stop`."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from standalone.processes import Child

FOLDER = Path(__file__).parents[2] / ".run"
_PATIENCE = 20.0


def remember(name: str, folder: Path, children: Iterable[Child]) -> None:
    """Write down the processes, in the order in which to stop them, and their folder."""
    FOLDER.mkdir(exist_ok=True)
    processes = [
        {
            "name": child.name,
            "pid": child.process.pid,
            "started": start_time(child.process.pid),
            "signal": int(child.stop_signal),
        }
        for child in children
    ]
    record = {"folder": str(folder), "processes": processes}
    (FOLDER / f"{name}-{os.getpid()}.json").write_text(json.dumps(record, indent=2))


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none (or only
    its remains). Tells a process from a later one with the same number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, also parentheses and spaces.
    after_name = text.rpartition(") ")[2].split()
    return None if after_name[0] == "Z" else int(after_name[19])


def stop_kept() -> int:
    """Stop all that was left running; how many processes that were."""
    stopped = 0
    for record in sorted(FOLDER.glob("*.json")):
        content = json.loads(record.read_text())
        for process in content["processes"]:
            stopped += _stop(process["pid"], process["started"], process["signal"])
        shutil.rmtree(content["folder"], ignore_errors=True)
        record.unlink()
    return stopped


def _stop(pid: int, started: int | None, number: int) -> bool:
    if started is None or start_time(pid) != started:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while start_time(pid) == started:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    return True


if __name__ == "__main__":
    print(f"stopped {stop_kept()} processes")
    sys.exit(0)
