"""The peer that needs an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from bench.processes import ROOT, run_program
from bench.settings import scratch

BIGBROTR = "bigbrotr==6.6.9"
_PACKAGES = (BIGBROTR, "nostr-sdk==0.44.2")


def bigbrotr_python() -> str:
    """The Python of an environment with BigBrotr 6.6.9; made once."""
    folder = scratch("peer-bigbrotr-6.6.9")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"bench: installing {BIGBROTR} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-input", *_PACKAGES]
        subprocess.run(install, check=True)
        ready.touch()
    return str(python)


def stream_with_bigbrotr(
    websockets: Sequence[str], since: int, until: int, limit: int, seconds: float
) -> dict[str, Any]:
    """What BigBrotr 6.6.9 fetches and checks in the time: events, CPU and wall clock."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = str(ROOT / "bench" / "peer_bigbrotr.py")
    arguments = map(str, (since, until, limit, seconds, *websockets))
    return run_program([bigbrotr_python(), program, *arguments], env).answer
