"""The commands of documentation pages, run as printed, on a server of its own without containers.

A small program named `docker` takes the place of Docker's: what `docker compose exec` and `run`
would start in the database's container runs here, on this machine's PostgreSQL.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.pages import ROOT
from config_types import DatabaseConfig, RolePasswords
from migrate import migrate
from standalone.postgres import start_postgres
from standalone.processes import Account, free_port, service_account

OWNER = "admin"
DATABASE = "bigbrotr"
PASSWORDS = {
    OWNER: "owner's own",
    "bigbrotr_writer": "writer's",
    "bigbrotr_reader": "reader's",
    "pgbouncer_auth": "auth's",
}
_PLACES = {"/var/lib/postgresql/data": "data", "/wal_archive": "wal", "/srv/bigbrotr": "clone"}
_DOCKER = r"""#!/bin/sh
set -eu
server() {
    pg_ctl -D "$MACHINE/data" -s -w -l "$MACHINE/log" \
        -o "-c config_file=$MACHINE/postgresql.conf" "$@"
}
case "$1 $2" in
"compose up") server status || server start ;;
"compose down") server stop ;;
"volume rm") rm -r "$MACHINE"/data/* ;;
"compose exec" | "compose run")
    shift 2
    while :; do
        case $1 in
        -T | --rm | --no-deps) shift ;;
        --entrypoint) entrypoint=$2; shift 2 ;;
        database) shift; break ;;
        *) echo "docker: what is $1?" >&2; exit 2 ;;
        esac
    done
    exec ${entrypoint:-} "$@" ;;
*) echo "docker: what is $*?" >&2; exit 2 ;;
esac
"""


async def create_archive(machine: "Host") -> None:
    """An empty archive, with the roles and their passwords."""
    machine.run(f"createdb -U {OWNER} {DATABASE}")
    roles = RolePasswords(
        writer=PASSWORDS["bigbrotr_writer"],
        reader=PASSWORDS["bigbrotr_reader"],
        pgbouncer_auth=PASSWORDS["pgbouncer_auth"],
    )
    await migrate(machine.database(), roles)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine on which the commands of a page run, in the folder `clone`."""

    folder: Path
    port: int
    programs: Path
    account: Account | None

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    def database(self, user: str = OWNER) -> DatabaseConfig:
        """How a role reaches the archive."""
        return DatabaseConfig(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=PASSWORDS[user],
            dbname=DATABASE,
        )

    def run(self, commands: str, replacements: Mapping[str, str] | None = None) -> str:
        """Run the commands; their output. Each of them must succeed."""
        for old, new in (replacements or {}).items():
            assert old in commands, f"the page does not say {old!r} any more"
            commands = commands.replace(old, new)
        for place, folder in _PLACES.items():
            commands = re.sub(rf"{place}\b(?!-)", str(self.folder / folder), commands)
        done = subprocess.run(
            ["sh", "-euc", commands],
            cwd=self.clone,
            env={
                "PATH": f"{self.folder / 'bin'}:{self.programs}:{os.environ['PATH']}",
                "MACHINE": str(self.folder),
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGPASSFILE": str(self.folder / "pgpass"),
            },
            user=None if self.account is None else self.account.uid,
            group=None if self.account is None else self.account.gid,
            extra_groups=None if self.account is None else [],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}{self.log()}"
        return done.stdout + done.stderr

    def log(self) -> str:
        """What the server said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""


@contextmanager
def host(more_settings: str = "") -> Iterator[Host]:
    """A machine with a running, empty PostgreSQL; its settings for the archiving of the log are
    those of postgresql.conf."""
    # Not below pytest's own temporary directory: PostgreSQL's user may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="bigbrotr-docs-"))
    account, port = service_account(), free_port()
    quick = {"fsync": "off"}  # it lives as long as its test
    made = start_postgres(folder, OWNER, PASSWORDS[OWNER], quick, log=folder / "first", port=port)
    made.stop()
    conf = (ROOT / "postgresql.conf").read_text()
    commands = "".join(re.findall(r"^(?:archive|restore)_command = .*\n", conf, re.MULTILINE))
    (folder / "postgresql.conf").write_text(
        f"port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
        f"password_encryption = 'scram-sha-256'\nshared_buffers = '32MB'\nfsync = off\n"
        f"{commands.replace('/wal_archive', str(folder / 'wal'))}{more_settings}"
    )
    (folder / "pgpass").write_text("".join(f"*:*:*:{u}:{p}\n" for u, p in PASSWORDS.items()))
    (folder / "bin").mkdir()
    (folder / "bin" / "docker").write_text(_DOCKER)
    (folder / "bin" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    for name in ("clone", "wal"):
        (folder / name).mkdir()
    programs = [*(folder / "bin").iterdir()]
    for path in (folder, *folder.glob("*"), *programs):
        mode = 0o700 if path.is_dir() or path in programs else 0o600
        path.chmod(mode)
        if account is not None:
            account.give(path, mode)
    running = Host(folder, port, made.binaries.folder, account)
    try:
        running.run("docker compose up -d")
        yield running
        running.run("docker compose down")
    finally:
        running.run("pg_ctl -D ../data -s -m immediate stop || true")
        shutil.rmtree(folder)
