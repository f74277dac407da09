"""A Docker engine to run the suite on: the machine's own, else that of the lab beside the clone."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Lets a machine without an image registry run Compose; only our own machines have it.
LAB = Path(__file__).parents[3] / "shared" / "docker-lab"

# What the compose file names.
_IMAGES = ("debian", "python", "postgres", "torproxy", "pgadmin4")
_LAB_SECONDS = 900


class EngineMissing(AssertionError):
    """There is neither Docker nor the lab."""


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 120,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """A command's result, as text; with `check`, its failure is shown with all it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(env) if env is not None else None,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        words = " ".join(str(part) for part in command)
        raise AssertionError(f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def docker(*arguments: str, timeout: float = 120, check: bool = True) -> str:
    """What `docker` prints."""
    return run("docker", *arguments, timeout=timeout, check=check).stdout.strip()


def engine_answers() -> bool:
    """Whether there is an engine."""
    try:
        return run("docker", "version", timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Engine:
    """The engine in use; `ours` when these tests started it and may restart it."""

    def __init__(self, *, ours: bool) -> None:
        self.ours = ours

    def restart(self) -> None:
        """End the engine and start it again, as when the host is booted anew."""
        assert self.ours
        run(LAB / "down", timeout=120)
        run(LAB / "up", *_IMAGES, timeout=_LAB_SECONDS)


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with Compose; the lab's is ended afterwards if it was started here.

    Raises EngineMissing.
    """
    # Docker would ask for buildx to build several images at once.
    os.environ.setdefault("COMPOSE_BAKE", "false")
    found = engine_answers()
    if (LAB / "up").exists():
        run(LAB / "up", *_IMAGES, timeout=_LAB_SECONDS)
    elif not found:
        raise EngineMissing("these tests need Docker with Compose: install and start it")
    run("docker", "compose", "version")
    try:
        yield Engine(ours=not found)
    finally:
        if not found:
            run(LAB / "down", timeout=120)
