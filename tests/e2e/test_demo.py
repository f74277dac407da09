"""`make demo` and `make run` as a user starts them, on a smaller set."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from standalone.processes import free_port

SOURCE = Path(__file__).parents[2] / "src"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "standalone.demo", "--events", "4000", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_demo_proves_the_archive_complete() -> None:
    done = demo()
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = re.fullmatch(r"demo: archived (\d+) of (\d+) events from 3 relays, 0 missing", last)
    assert verdict is not None, last
    assert verdict[1] == verdict[2]
    assert 3_800 < int(verdict[1]) <= 4_000
    rows = re.findall(r"^(relay-\d) .* 0 +100\.00 ", done.stdout, re.MULTILINE)
    assert rows == ["relay-1", "relay-2", "relay-3"]
    found = re.findall(r"^  found +(\S+): (.*), named by (.*)$", done.stdout, re.MULTILINE)
    states = {url: (state, places) for url, state, places in found}
    assert states["relay-1"] == ("relay", "list seed_relays.txt (1x)")
    assert states["relay-3"][0] == "relay"
    assert states["relay-3"][1].startswith("event 10002 (")
    (dead,) = states.keys() - {"relay-1", "relay-2", "relay-3"}
    assert states[dead][0] == "candidate, no answer"
    assert "nip66 wss://127.0.0.1:" in states[dead][1]
    good = r"^  checked +(\S+): \d+x, last read ok, write ok, over ws"
    checked = re.findall(good, done.stdout, re.MULTILINE)
    assert sorted(checked) == ["relay-1", "relay-2", "relay-3"]
    folder = re.search(r"working in (\S+)", done.stdout)
    assert folder is not None
    assert not Path(folder[1]).exists()


def test_the_demo_fails_when_events_are_missing() -> None:
    done = demo("--time-limit", "0.5")
    folder = re.search(r"working in (\S+)", done.stdout)
    assert folder is not None
    shutil.rmtree(folder[1])
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    found = re.fullmatch(r"demo: archived (\d+) of (\d+) events .* (\d+) missing", last)
    assert found is not None, done.stdout
    assert int(found[3]) == int(found[2]) - int(found[1]) > 0


@pytest.fixture
def data() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bigbrotr-run-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_suite_runs_on_env_restarts_services_and_stops_on_sigterm(data: Path) -> None:
    seeds = data / "seeds.txt"
    seeds.write_text(f"ws://127.0.0.1:{free_port()}\n")
    port = free_port()
    settings = {
        "POSTGRES_PASSWORD": "one",
        "POSTGRES_WRITER_PASSWORD": "two",
        "POSTGRES_READER_PASSWORD": "three",
        "PGBOUNCER_AUTH_PASSWORD": "four",
        "SEED_RELAYS_PATH": str(seeds),
        "SYNCHRONIZER_PRIORITY_RELAYS_PATH": str(seeds),
        "FINDER_AGGREGATOR_URLS": "",
        "FINDER_NIP66_RELAYS": "",
        "ALLOW_PRIVATE_RELAYS": "true",
        "FINDER_PORT": str(port),
    }
    (data / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    program = (
        "import sys, standalone.run as run; from pathlib import Path;"
        f"run.ROOT = Path({str(data)!r}); sys.exit(run.main(['--data', sys.argv[1]]))"
    )
    with (data / "output").open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-c", program, str(data / "archive")],
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
    try:
        said = data / "output"
        finder = data / "archive" / "finder.log"
        _wait_for(said, "running, Ctrl-C stops it", running)
        _wait_for(finder, "cycle_done", running)
        # An ordinary death: it is started again and works.
        os.kill(_listener(port), signal.SIGKILL)
        _wait_for(said, "the finder ended (exit code -9), starting it again in 1 s", running)
        _wait_for(finder, "cycle_done", running, times=2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0, said.read_text()
        assert "service_stopped" in finder.read_text()
    finally:
        running.kill()
        running.wait()


def _wait_for(path: Path, text: str, running: subprocess.Popen[bytes], times: int = 1) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and running.poll() is None:
        if path.exists() and path.read_text().count(text) >= times:
            return
        time.sleep(0.1)
    shown = path.read_text() if path.exists() else "(no such file)"
    raise AssertionError(f"{text!r} did not appear in {path}:\n{shown}")


def _listener(port: int) -> int:
    """The process id of the program that listens on this port."""
    inode = None
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
            inode = fields[9]
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nothing listens on port {port}")
