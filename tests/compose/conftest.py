"""One installation of the suite for all tests here, and two relays that its containers reach."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.deployment import NAMES, Deployment
from components.docker_engine import Engine, running_engine
from components.docker_relays import DockerRelay, Stage, build_relay_image

# Short pauses, so that a test need not wait for the next cycle.
SETTINGS = {
    "ALLOW_PRIVATE_RELAYS": "true",
    "FINDER_AGGREGATOR_URLS": "",
    "FINDER_NIP66_RELAYS": "",
    "FINDER_LOOP_INTERVAL_MINUTES": "0.05",
    "MONITOR_FREQUENCY_HOUR": "0.01",
    "MONITOR_NUM_CORES": "1",
    "MONITOR_LOOP_INTERVAL_MINUTES": "0.05",
    "MONITOR_REQUEST_TIMEOUT": "5",
    "SYNCHRONIZER_NUM_CORES": "1",
    "SYNCHRONIZER_LAG_SECONDS": "0",
    "SYNCHRONIZER_LOOP_INTERVAL_MINUTES": "0.05",
    "SYNCHRONIZER_REQUEST_TIMEOUT": "5",
    "SYNCHRONIZER_DB_COMMAND_TIMEOUT": "10",
}
EVENTS = 300


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture(scope="session")
def stage(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Up and ready; the relays had their first events before."""
    start = int(time.time()) - 3_600
    settings = SETTINGS | {"SYNCHRONIZER_START_TIMESTAMP": str(start)}
    deployment = Deployment(tmp_path_factory.mktemp("clone"), settings)
    image = f"{deployment.project}/relay"
    relays: list[DockerRelay] = []
    try:
        build_relay_image(tmp_path_factory.mktemp("relay"), image)
        # The networks have to be there for the relays, and the relays for the first cycle.
        deployment.compose("create", timeout=900)
        names = (("relay-priority",), ("relay-open", "relay-found"))
        relays.extend(DockerRelay(deployment.project, image, *of_one) for of_one in names)
        stage = Stage(deployment, *relays, start)
        _write_lists(deployment.folder, stage)
        _first_events(stage)
        deployment.compose("up", "--detach", "--wait")
        stage.first_states.update({name: deployment.inspect(name)["State"] for name in NAMES})
        yield stage
    finally:
        for relay in relays:
            relay.remove()
        deployment.remove()


@pytest.fixture
def suite(stage: Stage) -> Deployment:
    """The installation, healthy and ready."""
    stage.deployment.becomes_ready()
    return stage.deployment


def _write_lists(folder: Path, stage: Stage) -> None:
    # In place: the files are mounted already.
    (folder / "priority_relays.txt").write_text(stage.priority.urls[0] + "\n")
    (folder / "seed_relays.txt").write_text(stage.open.urls[0] + "\n")


def _first_events(stage: Stage) -> None:
    for relay in (stage.priority, stage.open):
        moments = [stage.start + 10 * number for number in range(EVENTS)]
        events = [relay.write(moment, f"event of {moment}") for moment in moments]
        relay.publish(events)
    found = [["r", stage.open.urls[1]]]
    stage.priority.publish([stage.priority.write(stage.start + 5, "", kind=10002, tags=found)])
