"""A server on which an operator types the commands of the pages, and what is to be cloned there."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.deployment import Installation, as_lines, copy_clone
from components.docker_engine import docker, run
from standalone.postgres import find_binaries

URL = "https://github.com/bigbrotr/bigbrotr.git"
PLACE = "/srv/bigbrotr"


class Upstream:
    """The public repository, here a folder. Its settings and lists are those of a test."""

    def __init__(self, folder: Path, settings: Mapping[str, str], lists: Mapping[str, str]) -> None:
        self.bare = folder / "bigbrotr.git"
        self._work = folder / "work"
        copy_clone(self._work)
        self._git("init", "--quiet", "--initial-branch=main")
        self._append("env.example", as_lines(settings))
        self._commit({name: (self._work / name).write_text(text) for name, text in lists.items()})
        run("git", "clone", "--quiet", "--bare", self._work, self.bare)

    def release(self, migration: Mapping[str, str], more: Mapping[str, str]) -> None:
        """A newer commit: these new files, and `more` at the end of these old ones."""
        for name, text in migration.items():
            (self._work / name).write_text(text)
        for name, text in more.items():
            self._append(name, text)
        self._commit(migration)
        self._git("push", "--quiet", str(self.bare), "main")

    def _append(self, name: str, text: str) -> None:
        with (self._work / name).open("a") as file:
            file.write(text)

    def _commit(self, what: Mapping[str, object]) -> None:
        self._git("add", "--all")
        author = ("-c", "user.name=upstream", "-c", "user.email=upstream@example.com")
        self._git(*author, "commit", "--quiet", "--message", ", ".join(what))

    def _git(self, *arguments: str) -> None:
        run("git", *arguments, cwd=self._work)


class Server(Installation):
    """Commands run here as printed, but for the folder, the name and the ports of the installation:
    those of a test are others, for a machine may have a real one."""

    def __init__(self, folder: Path, upstream: Upstream, settings: Mapping[str, str]) -> None:
        super().__init__(folder / "bigbrotr")
        self._name = settings["COMPOSE_PROJECT_NAME"]
        self._printed = {
            PLACE: str(self.folder),
            "'bigbrotr/*'": f"'{self._name}/*'",
            "port=6432": f"port={settings['PGBOUNCER_PORT']}",
            "-p 6432": f"-p {settings['PGBOUNCER_PORT']}",
            "localhost:8081": f"localhost:{settings['MONITOR_PORT']}",
            "localhost:8082": f"localhost:{settings['SYNCHRONIZER_PORT']}",
        }
        self._environment = os.environ | {
            "PATH": f"{os.environ['PATH']}:{find_binaries(None, folder).folder}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{upstream.bare}.insteadOf",
            "GIT_CONFIG_VALUE_0": URL,
        }

    def types(self, commands: str, *, password: str = "", stdin: str | None = None) -> str:
        """What the commands print; each of them must succeed."""
        done = run(
            *self._shell(commands),
            cwd=self._where,
            env=self._environment | {"PGPASSWORD": password},
            stdin=stdin,
            timeout=900,
        )
        return done.stdout

    def watches(self, commands: str, until: str) -> str:
        """What commands that go on for ever print, up to a line with this text; then Ctrl-C."""
        process = subprocess.Popen(
            self._shell(commands),
            cwd=self._where,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        impatient = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
        impatient.start()
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line)
                if until in line:
                    os.killpg(process.pid, signal.SIGINT)
                    break
            else:
                raise AssertionError(f"it never said {until!r}:\n{''.join(said)}")
        finally:
            impatient.cancel()
            process.stdout.close()
            process.wait(30)
        return "".join(said)

    def left(self) -> list[str]:
        """The containers, volumes and networks of the installation that are still there."""
        mine = ("--quiet", "--filter", f"label=com.docker.compose.project={self._name}")
        kinds = (("container", "ls", "--all"), ("volume", "ls"), ("network", "ls"))
        return [name for kind in kinds for name in docker(*kind, *mine).split()]

    def remove(self) -> None:
        """End what a test that failed did not."""
        if (self.folder / ".env").exists():
            super().remove()
            shutil.rmtree(self.folder)
        for volume in self.left():
            docker("volume", "rm", volume, check=False)

    @property
    def _where(self) -> Path:
        return self.folder if self.folder.exists() else self.folder.parent

    def _shell(self, commands: str) -> list[str]:
        for printed, here in self._printed.items():
            commands = commands.replace(printed, here)
        return ["bash", "-euo", "pipefail", "-c", commands]


@contextmanager
def kept_images(*names: str) -> Iterator[None]:
    """These images can be removed meanwhile, and are there again afterwards."""
    kept = {name: f"bigbrotr-test-kept/{number}" for number, name in enumerate(names)}
    for name, other in kept.items():
        docker("tag", name, other)
    try:
        yield
    finally:
        for name, other in kept.items():
            docker("tag", other, name)
            docker("image", "rm", other)
