"""The suite as its users run it: a copy of the clone, `make env`, `docker compose up`.

It has a project name, ports and passwords of its own, and leaves nothing behind.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg

from components.docker_engine import docker, run
from standalone.processes import free_port

ROOT = Path(__file__).parents[2]
HEALTH_PORTS = {
    "monitor": "MONITOR_PORT",
    "synchronizer": "SYNCHRONIZER_PORT",
    "priority_synchronizer": "PRIORITY_SYNCHRONIZER_PORT",
    "finder": "FINDER_PORT",
}
LASTING = ("database", "pgbouncer", "torproxy", "health", *HEALTH_PORTS)
NAMES = (*LASTING, "initializer")
PORTS = ("DATABASE_PORT", "PGBOUNCER_PORT", "PGADMIN_PORT", *HEALTH_PORTS.values())
OWNER, WRITER, READER = "admin", "bigbrotr_writer", "bigbrotr_reader"
PASSWORDS = {
    OWNER: "POSTGRES_PASSWORD",
    WRITER: "POSTGRES_WRITER_PASSWORD",
    READER: "POSTGRES_READER_PASSWORD",
    "pgbouncer_auth": "PGBOUNCER_AUTH_PASSWORD",
    "pgbouncer_admin": "PGBOUNCER_ADMIN_PASSWORD",
}


class Installation:
    """One installation in `folder`, as its .env describes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def project(self) -> str:
        """The name in those of its containers, images, networks and volumes."""
        return self.setting("COMPOSE_PROJECT_NAME")

    def setting(self, name: str) -> str:
        """The value of a variable of .env."""
        found = re.findall(rf"(?m)^{name}=(.*)$", (self.folder / ".env").read_text())
        return str(found[-1])

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret of .env, by its variable."""
        text = (self.folder / ".env").read_text()
        names = re.findall(r"(?m)^(\w*PASSWORD|SECRET_KEY)=\S", text)
        return {name: self.setting(name) for name in names}

    def compose(self, *arguments: str, timeout: float = 600, check: bool = True) -> str:
        """What `docker compose` prints, run as a user runs it."""
        command = ("docker", "compose", *arguments)
        return run(*command, cwd=self.folder, timeout=timeout, check=check).stdout.strip()

    def remove(self) -> None:
        """End everything; containers, networks, volumes and built images are gone then."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "10", check=False)
        images = docker("image", "ls", "-q", f"{self.project}/*").split()
        if images:
            docker("image", "rm", "--force", *set(images), check=False)

    # --- containers ---

    def containers(self, service: str) -> list[str]:
        """The ids of the service's containers, ended ones too, the first of them first."""
        found = self.compose("ps", "--all", "--format", "{{.Name}} {{.ID}}", service).splitlines()
        return [line.split()[1] for line in sorted(found)]

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of the service's first container."""
        return dict(json.loads(docker("inspect", self.containers(service)[0]))[0])

    def healthy(self, service: str) -> bool:
        """Whether the engine's own check of the first container went well."""
        return bool(self.inspect(service)["State"]["Health"]["Status"] == "healthy")

    def inside(self, service: str, *command: str, user: str = "", check: bool = True) -> str:
        """What a command in the service's container prints."""
        chosen = ("--user", user) if user else ()
        return self.compose("exec", "-T", *chosen, service, *command, check=check)

    def logs(self, service: str) -> str:
        """All that the service said."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    # --- health ---

    def ask(self, service: str, path: str = "/ready") -> tuple[int, Any]:
        """The published answer: status and JSON. 0 when nobody listens."""
        port = self.setting(HEALTH_PORTS[service])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, ValueError) as error:
            return 0, str(error)

    def becomes_ready(self, *services: str, timeout: float = 120) -> None:
        """Wait until these services (all, if none is named) are healthy and ready."""
        for service in services or HEALTH_PORTS:
            self.until(
                lambda name=service: self.ask(name)[0] == self.ask(name, "/health")[0] == 200,
                f"{service} is ready",
                timeout,
            )

    def until(self, condition: Callable[[], object], what: str, timeout: float = 60) -> None:
        """Wait until `condition` is true; then tell how everything is, if it is not."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {timeout:g} s: {what}\n{self.report()}")
            time.sleep(0.25)

    def report(self) -> str:
        """How everything is, for people."""
        table = self.compose("ps", "--all", "--format", "{{.Name}}\t{{.Status}}", check=False)
        answers = [
            f"{name} {path}: {self.ask(name, path)}"
            for name in HEALTH_PORTS
            for path in ("/health", "/ready")
        ]
        said = self.compose("logs", "--tail", "12", check=False)
        return "\n".join((table, *answers, said))

    # --- database ---

    async def connect(
        self, user: str, password: str = "", *, port: str = "PGBOUNCER_PORT", dbname: str = ""
    ) -> asyncpg.Connection:
        """A connection to a published port; the password is that of .env unless given."""
        return await asyncpg.connect(
            host="127.0.0.1",
            port=int(self.setting(port)),
            user=user,
            password=password or self.setting(PASSWORDS[user]),
            database=dbname or self.setting("POSTGRES_DB"),
            statement_cache_size=0,
            timeout=20,
        )

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows that a reader gets, through PgBouncer."""

        async def ask() -> list[asyncpg.Record]:
            connection = await self.connect(READER)
            try:
                return list(await connection.fetch(query, *arguments))
            finally:
                await connection.close()

        return asyncio.run(ask())

    def sql(self, statement: str) -> str:
        """What a statement of the owner gives, inside the database's container."""
        options = ("-qtAX", "-v", "ON_ERROR_STOP=1", "-U", OWNER, "-d", self.setting("POSTGRES_DB"))
        return self.inside("database", "psql", *options, "-c", statement)


class Deployment(Installation):
    """One in a copy of the clone; its secrets are in .env, or in files (`make env SECRETS=1`).

    Its containers are looked at more often than those of users, who need not wait for a test.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str], *, secrets_in_files: bool = False
    ) -> None:
        super().__init__(folder)
        copy_clone(folder)
        _replace(folder / "docker-compose.yml", "interval: 10s", "interval: 2s")
        run("make", "env", *(["SECRETS=1"] if secrets_in_files else []), cwd=folder)
        self._written = (folder / ".env").read_text()
        self._settings = {**own_settings("-files" if secrets_in_files else ""), **settings}
        self.set()

    def set(self, **changes: str) -> None:
        """Write .env, with `changes`."""
        self._settings |= changes
        (self.folder / ".env").write_text(f"{self._written}\n{as_lines(self._settings)}")


def own_settings(suffix: str = "") -> dict[str, str]:
    """A project name and ports that nobody else has."""
    project = os.environ.get("COMPOSE_TEST_PROJECT") or f"bigbrotr-test-{secrets.token_hex(3)}"
    return {
        "COMPOSE_PROJECT_NAME": project + suffix,
        **{name: str(free_port()) for name in PORTS},
    }


def as_lines(settings: Mapping[str, str]) -> str:
    """The settings as .env has them."""
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} does not say {old!r} any more"
    path.write_text(text.replace(old, new))


def copy_clone(folder: Path) -> None:
    """What a user gets: the files of the clone, without what git ignores."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in listed.stdout.split("\0"):
        source = ROOT / name
        if name and source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
