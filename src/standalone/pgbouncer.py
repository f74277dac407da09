"""PgBouncer for the suite: found or fetched, configured as for the server, started.

Where it is not installed, its Debian packages are downloaded and unpacked into a cache
directory, which needs no root, changes nothing on the system and starts no daemon.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from errors import ComponentMissing
from standalone.postgres import Postgres
from standalone.processes import (
    Account,
    Child,
    accepts_connections,
    free_port,
    service_account,
    start,
    wait_until,
)

AUTH_USER = "pgbouncer_auth"
SERVER_CONFIGURATION = Path(__file__).parents[2] / "pgbouncer" / "pgbouncer.ini"
_PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Program:
    """A PgBouncer program and the directory of the libraries it needs ("" for the system's)."""

    path: Path
    libraries: str = ""


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A running PgBouncer in front of one PostgreSQL, for all its databases."""

    child: Child
    port: int

    def stop(self) -> None:
        """Close all its connections and end it."""
        self.child.stop(10)


def cache_folder() -> Path:
    """Where downloaded programs are kept; the service account can reach it."""
    if os.geteuid() == 0:
        return Path("/var/cache/bigbrotr")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bigbrotr"


def find_pgbouncer(cache: Path | None = None) -> Program:
    """The system's PgBouncer, else the unpacked one of `cache`, else a fresh download.

    Raises ComponentMissing when there is none and none can be fetched.
    """
    installed = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if installed is not None:
        return Program(Path(installed))
    folder = (cache or cache_folder()) / f"pgbouncer-{platform.machine()}"
    return _unpacked(folder) or fetch_pgbouncer(folder)


def fetch_pgbouncer(folder: Path) -> Program:
    """Download PgBouncer and the libraries this system lacks (Debian, Ubuntu) into `folder`.

    Raises ComponentMissing when that does not work here.
    """
    print(f"suite: PgBouncer is not installed, fetching it into {folder}", flush=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Complete or not there at all, also when this is interrupted or done twice at once.
        with TemporaryDirectory(dir=folder.parent) as work:
            _fetch(Path(work))
            shutil.rmtree(folder, ignore_errors=True)
            (Path(work) / "root").rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        last = str(detail).strip().splitlines()[-1:] or [""]
        raise ComponentMissing(
            f"PgBouncer is not installed and cannot be fetched ({last[0]}); "
            "install the package pgbouncer"
        ) from error
    found = _unpacked(folder)
    if found is None:
        raise ComponentMissing("PgBouncer cannot be fetched: its package holds no program")
    return found


def _fetch(work: Path) -> None:
    work.chmod(0o755)
    downloads = work / "packages"
    downloads.mkdir()
    try:
        _download([], downloads)
    except subprocess.SubprocessError:
        # No package lists, as in container images, or lists too old.
        _download(_own_package_lists(work), downloads)
    for package in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(work / "root")], work)


def _download(options: list[str], downloads: Path) -> None:
    install = ["install", "--no-install-recommends", "pgbouncer"]
    simulation = _run(["apt-get", *options, "--simulate", *install], downloads)
    packages = {"pgbouncer", *missing_packages(simulation)}
    _run(["apt-get", *options, "download", *sorted(packages)], downloads)


def missing_packages(simulation: str) -> list[str]:
    """The packages that `apt-get --simulate install` says it would install."""
    return re.findall(r"^Inst (\S+) \(", simulation, re.MULTILINE)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        check=True,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"LC_ALL": "C"},
    )
    return done.stdout


def _own_package_lists(folder: Path) -> list[str]:
    """Options that make apt-get use its own lists in `folder`, which needs no root; updated."""
    for name in ("lists/partial", "archives/partial"):
        (folder / "apt" / name).mkdir(parents=True)
    options = [
        f"-oDir::State::Lists={folder}/apt/lists",
        f"-oDir::Cache={folder}/apt",
        f"-oDir::Cache::Archives={folder}/apt/archives",
        "-oAPT::Sandbox::User=",
    ]
    _run(["apt-get", *options, "update"], folder)
    return options


def _unpacked(folder: Path) -> Program | None:
    for relative in ("usr/sbin/pgbouncer", "sbin/pgbouncer"):
        program = folder / relative
        if program.exists():
            libraries = {str(found.parent) for found in folder.rglob("*.so.*")}
            return Program(program, ":".join(sorted(libraries)))
    return None


def configuration(
    template: str, port: int, server_port: int, user_list: Path, settings: Mapping[str, str]
) -> str:
    """The text of a pgbouncer.ini: the server's own (`template`) with this machine's places.

    What differs from the server: addresses and files, no console, and every database of
    PostgreSQL instead of one.
    """
    lines = [line for line in template.splitlines() if not line.startswith("%include")]
    parsed = ConfigParser(interpolation=None, comment_prefixes=(";", "#"))
    parsed.read_string("\n".join(lines))
    options = dict(parsed["pgbouncer"]) | {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_file": str(user_list),
        "admin_users": "",
    }
    text = "\n".join(f"{name} = {value}" for name, value in (options | dict(settings)).items())
    every_database = f"* = host=127.0.0.1 port={server_port} auth_user={AUTH_USER}"
    return f"[databases]\n{every_database}\n\n[pgbouncer]\n{text}\n"


def start_pgbouncer(
    folder: Path,
    postgres: Postgres,
    auth_password: str,
    *,
    log: Path,
    settings: Mapping[str, str] | None = None,
    port: int | None = None,
    outlive_parent: bool = False,
) -> PgBouncer:
    """Start PgBouncer in front of `postgres`, with its configuration in `folder`.

    `auth_password` is the password of the role `pgbouncer_auth`, the only one it knows.

    Raises ComponentMissing when PgBouncer cannot be found, fetched or started.
    """
    account = service_account()
    program = find_pgbouncer()
    template = SERVER_CONFIGURATION.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    user_list = _private(folder / "userlist.txt", f'"{AUTH_USER}" "{auth_password}"\n', account)
    if account is not None:
        account.give(folder, 0o755)
    env = {**os.environ, "LD_LIBRARY_PATH": program.libraries} if program.libraries else None
    for _ in range(1 if port else _PORT_ATTEMPTS):
        chosen = port or free_port()
        text = configuration(template, chosen, postgres.port, user_list, settings or {})
        ini = _private(folder / "pgbouncer.ini", text, account)
        command = [str(program.path), str(ini)]
        child = start(
            "pgbouncer",
            command,
            log,
            env=env,
            account=account,
            cwd=folder,
            outlive_parent=outlive_parent,
        )
        if wait_until(partial(accepts_connections, chosen), child, 20):
            return PgBouncer(child, chosen)
        child.stop()
    raise ComponentMissing(f"PgBouncer in {folder} does not start:\n{child.tail()}")


def _private(path: Path, text: str, account: Account | None) -> Path:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    if account is not None:
        account.give(path, 0o400)
    return path
