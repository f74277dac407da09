"""PgBouncer for the suite: found or fetched, configured as for the server, started."""

import os
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from errors import ComponentMissing
from standalone.debian import Program, find_program
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
class PgBouncer:
    """A running PgBouncer in front of one PostgreSQL, for all its databases."""

    child: Child
    port: int

    def stop(self) -> None:
        """Close all its connections and end it."""
        self.child.stop(10)


def find_pgbouncer(cache: Path | None = None) -> Program:
    """The system's PgBouncer, else one unpacked from Debian's package.

    Raises ComponentMissing when there is none and none can be fetched.
    """
    return find_program("pgbouncer", "pgbouncer", cache)


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
