"""Events on relays end up in the archive, unaltered and proven; every endpoint says so."""

import time
from typing import Any

import pytest

from components.deployment import HEALTH_PORTS, READER, Deployment
from components.docker_relays import Stage
from standalone.demo_archive import read_back


def test_all_is_archived_and_proven(stage: Stage, suite: Deployment) -> None:
    until = int(time.time())
    suite.until(lambda: stage.complete(until), "everything is archived and proven", 120)


async def test_every_event_reads_back_as_it_was_signed(stage: Stage, suite: Deployment) -> None:
    published = stage.priority.published | stage.open.published
    reader = await suite.connect(READER)
    try:
        found = await read_back(reader, published)
    finally:
        await reader.close()
    assert found.wrong == {}
    assert found.right == published.keys()


def test_the_finder_found_a_relay_and_the_monitor_checked_all(
    stage: Stage, suite: Deployment
) -> None:
    rows = suite.fetch("SELECT url, inserted_at FROM relays")
    assert {row["url"] for row in rows} == stage.relays.keys()
    readable = suite.fetch("SELECT * FROM readable_relays")
    assert {row["relay_url"] for row in readable} == stage.relays.keys()
    assert stage.deployment.ask("finder", "/")[1]["candidates_found"] >= 1


@pytest.mark.parametrize("service", HEALTH_PORTS)
def test_endpoints(suite: Deployment, service: str) -> None:
    assert suite.ask(service, "/health") == (200, {"status": "healthy"})
    assert suite.ask(service, "/ready") == (200, {"status": "ready"})
    status, info = suite.ask(service, "/")
    assert status == 200
    assert info["cycles"] >= 1
    assert info["endpoints"] == ["/health", "/ready"]


def test_the_priority_relay_is_followed_live(stage: Stage, suite: Deployment) -> None:
    def followed() -> Any:
        return stage.priority.urls[0] in suite.ask("priority_synchronizer", "/")[1]["live"]

    suite.until(followed, "the relay is followed live")
    stage.goes_on()


def test_pgadmin_when_its_profile_is_on(suite: Deployment) -> None:
    assert suite.containers("pgadmin") == []
    suite.compose("--profile", "pgadmin", "up", "--detach", "--wait", "pgadmin")
    try:
        servers = suite.inside("pgadmin", "cat", "/pgadmin4/servers.json")
        assert '"Username": "bigbrotr_reader"' in servers
    finally:
        suite.compose("--profile", "pgadmin", "rm", "--stop", "--force", "--volumes", "pgadmin")
