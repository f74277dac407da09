"""Relays that the suite's containers reach: nostr-sdk's LocalRelay, in containers of its own."""

import asyncio
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from components.deployment import ROOT, Deployment
from components.docker_engine import docker
from standalone.processes import free_port
from standalone.relay_client import publish
from standalone.signing import Author, DemoEvent

_PORT = 7777
_ARCHIVED = "SELECT event_id FROM events_relays WHERE relay_url = $1"
_PROVEN = """
    SELECT coalesce(bool_or(covered @> int8range($2, $3, '[]')), false) AS proven
    FROM sync_coverage WHERE relay_url = $1
"""
_DOCKERFILE = """\
FROM python:3.11-slim-bookworm
COPY requirements.txt /
RUN pip install --require-hashes --no-cache-dir -r /requirements.txt
COPY local_relay.py /
CMD ["python", "/local_relay.py", "7777", "100", "0.0.0.0"]
"""


def build_relay_image(folder: Path, tag: str) -> None:
    """Build the relay's image in the empty `folder`."""
    locked = (ROOT / "requirements-dev.txt").read_text()
    lines = re.search(r"(?m)^nostr-sdk==.*\n(?:    --hash=.*\n)+", locked)
    assert lines
    (folder / "requirements.txt").write_text(lines[0])
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    shutil.copy(ROOT / "src/standalone/local_relay.py", folder)
    docker("build", "--quiet", "--tag", tag, str(folder), timeout=600)


class DockerRelay:
    """A relay with one or more names on the project's network of relays; what it was given is in
    `published`."""

    def __init__(self, project: str, image: str, *names: str) -> None:
        self.urls = [f"wss://{name}:{_PORT}" for name in names]
        self.published: dict[str, DemoEvent] = {}
        self._port = free_port()
        self._author = Author(names[0])
        aliases = [part for name in names for part in ("--network-alias", name)]
        self.container = docker(
            "run", "--detach", "--restart=unless-stopped", "--name", f"{project}-{names[0]}",
            "--network", f"{project}_relays", *aliases,
            "--publish", f"127.0.0.1:{self._port}:{_PORT}", image,
        )  # fmt: skip

    def write(
        self,
        created_at: int,
        content: str,
        *,
        kind: int = 1,
        tags: Sequence[Sequence[str]] = (),
    ) -> DemoEvent:
        """A signed event of the relay's one author."""
        return self._author.sign(kind, created_at, tags, content)

    def publish(self, events: Sequence[DemoEvent], patience: float = 60) -> None:
        """Give the relay these events; it must take them all."""
        deadline = time.monotonic() + patience
        while True:
            try:
                taken = asyncio.run(publish(f"ws://127.0.0.1:{self._port}", events))
                break
            except (OSError, aiohttp.ClientError):
                assert time.monotonic() < deadline, docker("logs", self.container)
                time.sleep(0.25)
        assert taken.accepted == {event.id for event in events}, taken.refused
        self.published |= {event.id: event for event in events}

    def remove(self) -> None:
        """End it; its events are gone."""
        docker("rm", "--force", "--volumes", self.container, check=False)


@dataclass(frozen=True, slots=True)
class Stage:
    """The installation, the relay of the priority list, and one that is a seed by its first name
    and named by an event by its second one. Everything since the second `start` is wanted.
    `first_states`: what the engine said of the containers right after the first start."""

    deployment: Deployment
    priority: DockerRelay
    open: DockerRelay
    start: int
    first_states: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def relays(self) -> dict[str, DockerRelay]:
        """The relay behind each URL that is to be archived."""
        return {
            self.priority.urls[0]: self.priority,
            self.open.urls[0]: self.open,
            self.open.urls[1]: self.open,
        }

    def complete(self, until: int) -> bool:
        """Whether everything ever published is archived from every URL, and proven to be all up
        to the second `until`."""
        for url, relay in self.relays.items():
            rows = self.deployment.fetch(_ARCHIVED, url)
            if not relay.published.keys() <= {row["event_id"] for row in rows}:
                return False
            if not self.deployment.fetch(_PROVEN, url, self.start, until)[0]["proven"]:
                return False
        return True

    def goes_on(self, timeout: float = 120) -> None:
        """New events on the relays are archived and proven, with whatever came before."""
        # Not in the past, of which the synchronizers may have proven that there is nothing more.
        moment = int(time.time()) + 2
        for relay in (self.priority, self.open):
            relay.publish([relay.write(moment + number, f"of {moment}") for number in range(3)])
        self.deployment.until(
            lambda: _unless_down(lambda: self.complete(moment + 2)),
            "what was published is archived and proven",
            timeout,
        )

    def no_pauses(self) -> None:
        """Time passes: relays that failed are tried again at once, not after minutes."""
        self.deployment.sql("UPDATE relay_tasks SET not_before = 0")


def _unless_down(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
