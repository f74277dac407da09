"""Child processes: started, stopped, restarted, never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from errors import ConfigError
from standalone import kept
from standalone.processes import Account, Child, free_port, start, wait_until
from standalone.run import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Restart, Supervisor
from standalone.run import next_restart as restart

SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)",
)


def is_up(child: Child) -> bool:
    return wait_until(lambda: "up" in child.tail(), child, 20)


def test_a_child_stops_on_request(tmp_path: Path) -> None:
    child = start("sleeper", SLEEPER, tmp_path / "log")
    assert is_up(child)
    assert child.alive
    assert child.stop() == -signal.SIGTERM
    assert not child.alive
    assert child.tail() == "up"


def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    child = start("stubborn", STUBBORN, tmp_path / "log")
    assert is_up(child)
    assert child.stop(patience=0.2) == -signal.SIGKILL


def test_a_long_log_starts_anew_while_the_program_writes_on(tmp_path: Path) -> None:
    program = "import sys\nfor line in open(sys.argv[1]): print(line.strip(), flush=True)"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = start("writer", (sys.executable, "-c", program, str(pipe)), tmp_path / "a.log")
    with pipe.open("w", buffering=1) as lines:
        lines.write("first\n")
        assert wait_until(lambda: child.tail() == "first", child, 20)
        child.limit_log(100)
        assert child.tail() == "first"
        child.limit_log(3)
        lines.write("second\n")
        assert wait_until(lambda: child.tail() == "second", child, 20)
    assert child.wait(20) == 0
    assert child.log.read_text() == "second\n"
    assert (tmp_path / "a.old").read_text() == "first\n"


def test_waiting_has_an_end(tmp_path: Path) -> None:
    child = start("sleeper", SLEEPER, tmp_path / "log")
    assert is_up(child)
    assert child.wait(0.05) == -signal.SIGTERM


def test_waiting_for_a_child_that_ends_returns_at_once(tmp_path: Path) -> None:
    child = start("failing", (sys.executable, "-c", "raise SystemExit(3)"), tmp_path / "log")
    assert not wait_until(lambda: False, child, 30)
    assert child.wait(1) == 3


@pytest.mark.parametrize("outlives", [False, True])
def test_children_end_with_their_parent_unless_told_otherwise(
    tmp_path: Path, outlives: bool
) -> None:
    program = (
        "import sys, time; from pathlib import Path; from standalone.processes import start;"
        f"child = start('c', {SLEEPER!r}, Path(sys.argv[1]), outlive_parent={outlives});"
        "print(child.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + (0.5 if outlives else 20)
    while time.monotonic() < deadline and kept.start_time(pid) is not None:
        time.sleep(0.02)
    assert (kept.start_time(pid) is not None) == outlives
    if outlives:
        os.kill(pid, signal.SIGKILL)


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(5)}) > 1


def test_an_account_reaches_what_its_permissions_allow(tmp_path: Path) -> None:
    stranger = Account("stranger", 54_321, 54_321)
    inner = tmp_path / "inner"
    inner.mkdir(mode=0o755)
    file = inner / "file"
    file.touch(mode=0o644)
    allowed = [path.stat().st_mode for path in inner.parents]
    if all(mode & 0o1 for mode in allowed):
        assert stranger.can_reach(file)
    inner.chmod(0o700)
    assert not stranger.can_reach(file)
    assert Account("owner", inner.stat().st_uid, 54_321).can_reach(file)


def test_kept_processes_are_remembered_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "run")
    work = tmp_path / "work"
    work.mkdir()
    child = start("sleeper", SLEEPER, work / "log", outlive_parent=True)
    assert is_up(child)
    kept.remember("demo", work, [child])
    assert kept.stop_kept() == 1
    assert child.wait(1) == -signal.SIGTERM
    assert not work.exists()
    assert kept.stop_kept() == 0


def test_a_later_process_with_the_same_number_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "run")
    child = start("sleeper", SLEEPER, tmp_path / "log")
    kept.remember("demo", tmp_path / "none", [child])
    record = next((tmp_path / "run").glob("*.json"))
    content = json.loads(record.read_text())
    content["processes"][0]["started"] -= 1
    record.write_text(json.dumps(content))
    assert kept.stop_kept() == 0
    assert child.alive
    child.stop()


class FakeSuite:
    """Starts sleepers or programs that end at once with a chosen exit code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Child] = {}
        self.exit_codes: dict[str, int | None] = {}
        self.starts: list[str] = []

    def start_service(self, name: str, settings: dict[str, str]) -> None:
        self.starts.append(name)
        code = self.exit_codes.get(name)
        ending = f"print('{name}: reason'); raise SystemExit({code})"
        command = SLEEPER if code is None else (sys.executable, "-c", ending)
        child = start(name, command, self.folder / name)
        if code is not None:
            child.wait(20)
        self.services[name] = child

    def stop(self) -> None:
        for child in self.services.values():
            child.stop()


def test_a_service_that_ends_is_started_again_after_a_pause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = FakeSuite(tmp_path)
    suite.exit_codes = {"finder": 1}
    supervisor = Supervisor(suite, {"finder": {}, "monitor": {}})  # type: ignore[arg-type]
    supervisor.step(100.0)
    assert suite.starts == ["finder", "monitor"]
    assert "finder ended (exit code 1)" in capsys.readouterr().out
    supervisor.step(100.0 + FIRST_PAUSE / 2)
    assert suite.starts == ["finder", "monitor"]
    supervisor.step(100.0 + FIRST_PAUSE)
    assert suite.starts == ["finder", "monitor", "finder"]
    supervisor.step(100.0 + 2 * FIRST_PAUSE)
    assert len(suite.starts) == 3
    suite.stop()


def test_a_service_that_refuses_its_settings_ends_the_run(tmp_path: Path) -> None:
    suite = FakeSuite(tmp_path)
    suite.exit_codes = {"monitor": 2}
    supervisor = Supervisor(suite, {"monitor": {}})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="monitor: reason"):
        supervisor.step(0.0)


def test_pauses_double_up_to_a_limit_and_start_anew_after_a_steady_run() -> None:
    pauses = []
    previous: Restart | None = None
    for _ in range(12):
        previous = restart(previous, started=0.0, now=1.0)
        pauses.append(previous.pause)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert restart(previous, started=0.0, now=STEADY_SECONDS).pause == FIRST_PAUSE
