"""Child processes of the suite: started with a log file, watched, ended in order.

PostgreSQL and PgBouncer refuse to run as root. Started by root, the suite runs them under
an account without privileges (`service_account`) in directories that account can reach.
"""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    """A system user, by its numbers."""

    name: str
    uid: int
    gid: int

    def give(self, path: Path, mode: int) -> None:
        """Make `path` this user's own, with the permissions `mode`."""
        os.chown(path, self.uid, self.gid)
        path.chmod(mode)

    def can_reach(self, path: Path) -> bool:
        """Whether this user may enter every directory above `path` and read `path`."""
        resolved = path.resolve()
        return all(
            self._allowed(step, 0o1 if step != resolved or step.is_dir() else 0o4)
            for step in (resolved, *resolved.parents)
        )

    def _allowed(self, path: Path, bit: int) -> bool:
        facts = path.stat()
        if facts.st_uid == self.uid:
            return bool(facts.st_mode & (bit << 6))
        if facts.st_gid == self.gid:
            return bool(facts.st_mode & (bit << 3))
        return bool(facts.st_mode & bit)


def service_account() -> Account | None:
    """The user for PostgreSQL and PgBouncer; None when this process may run them itself."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return Account(name, known[name].pw_uid, known[name].pw_gid)
    return Account("65534", 65534, 65534)


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(slots=True)
class Child:
    """A running program of the suite and the file with its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    asked: bool = False

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return self.process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """The end of its output."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def limit_log(self, size: int) -> None:
        """Move output of more than `size` bytes to a file ending in .old, the last one kept.

        What is written in between is lost; the program goes on writing to the same file.
        """
        if self.log.exists() and self.log.stat().st_size > size:
            shutil.copyfile(self.log, self.log.with_suffix(".old"))
            os.truncate(self.log, 0)

    def wait(self, timeout: float) -> int:
        """Its exit code once it ends; after `timeout` seconds it is stopped."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.stop()

    def ask_to_stop(self) -> None:
        """Send its stop signal, once, without waiting."""
        if self.alive and not self.asked:
            self.asked = True
            self.process.send_signal(self.stop_signal)

    def stop(self, patience: float = 15.0) -> int:
        """Ask it to stop, kill its process group after `patience` seconds; the exit code."""
        self.ask_to_stop()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    outlive_parent: bool = False,
) -> Child:
    """Start `command` in a session of its own, as `account` when given.

    Unless `outlive_parent`, it is told to stop when the thread that started it ends, however
    that happens, so that a killed test run leaves no servers behind.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            # Only a system call between fork and exec: safe beside threads.
            preexec_fn=None if outlive_parent else _die_with_parent(stop_signal),  # noqa: PLW1509
        )
    return Child(name, process, log, stop_signal)


def _die_with_parent(number: signal.Signals) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))

    return prepare


def wait_until(ready: Callable[[], bool], child: Child, timeout: float) -> bool:
    """Wait for `ready`; False when `child` ends first or `timeout` seconds pass."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if ready():
            return True
        if not child.alive:
            return False
        time.sleep(0.02)
    return False


def accepts_connections(port: int) -> bool:
    """Whether something listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
