"""Everything that fails around the services, and what they say meanwhile. Nothing is lost.

docs/docker.md has the table of what each answer means; here each of its rows is brought about.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.deployment import HEALTH_PORTS, LASTING, Deployment
from components.docker_engine import Engine, docker, run
from components.docker_relays import Stage
from components.pages import blocks

HEALTHY = (200, {"status": "healthy"})


def says(suite: Deployment, service: str, reason: str) -> bool:
    """Whether the service is alive but not ready for this reason."""
    assert suite.ask(service, "/health") == HEALTHY
    status, body = suite.ask(service)
    return status == 503 and body["status"] == "not ready" and reason in body["reason"]


def all_say(suite: Deployment, reason: str, timeout: float = 30) -> None:
    for service in HEALTH_PORTS:
        suite.until(lambda name=service: says(suite, name, reason), f"{service}: {reason}", timeout)


@contextmanager
def nobody_dies(suite: Deployment) -> Iterator[None]:
    """The services stay the very processes that they are, and /health says so all the while."""
    before = {name: suite.inspect(name)["State"]["StartedAt"] for name in HEALTH_PORTS}
    wrong: list[Any] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            answers = [(name, suite.ask(name, "/health")) for name in HEALTH_PORTS]
            wrong.extend(answer for answer in answers if answer[1] != HEALTHY)
            time.sleep(0.3)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    assert wrong == []
    assert before == {name: suite.inspect(name)["State"]["StartedAt"] for name in HEALTH_PORTS}


def test_database_restarted(stage: Stage, suite: Deployment) -> None:
    with nobody_dies(suite):
        suite.compose("stop", "database")
        all_say(suite, "database")
        suite.compose("start", "database")
        suite.becomes_ready()
    stage.goes_on()


def test_database_killed(stage: Stage, suite: Deployment) -> None:
    """No checkpoint, no farewell: the postmaster is gone, and the engine starts it again."""
    with nobody_dies(suite):
        began = suite.inspect("database")["State"]["StartedAt"]
        kill = "kill -9 $(head -1 $PGDATA/postmaster.pid)"
        suite.inside("database", "sh", "-c", kill, check=False)
        suite.until(
            lambda: suite.inspect("database")["State"]["StartedAt"] != began, "it starts again"
        )
        suite.becomes_ready()
    stage.goes_on()


def test_database_silent(stage: Stage, suite: Deployment) -> None:
    """It accepts connections and answers nothing."""
    with nobody_dies(suite):
        suite.compose("pause", "database")
        try:
            all_say(suite, "database: no answer in 2 s")
        finally:
            suite.compose("unpause", "database")
        suite.becomes_ready()
    stage.goes_on()


def test_pgbouncer_restarted(stage: Stage, suite: Deployment) -> None:
    with nobody_dies(suite):
        suite.compose("stop", "pgbouncer")
        all_say(suite, "pgbouncer:6432")
        suite.compose("start", "pgbouncer")
        suite.becomes_ready()
    stage.goes_on()


def test_torproxy_gone(stage: Stage, suite: Deployment) -> None:
    """Not ready, for onion relays are out of reach; the others are archived all the same."""
    with nobody_dies(suite):
        suite.compose("stop", "torproxy")
        all_say(suite, "Tor: no SOCKS5 proxy answers at torproxy:9050")
        stage.goes_on()
        suite.compose("start", "torproxy")
        suite.becomes_ready()


def test_cycles_that_fail(stage: Stage, suite: Deployment) -> None:
    """The database answers, but not what it is asked for."""
    with nobody_dies(suite):
        suite.sql("REVOKE SELECT ON relays FROM bigbrotr_writer")
        try:
            all_say(suite, "the last cycle failed: ")
        finally:
            suite.sql("GRANT SELECT ON relays TO bigbrotr_writer")
        suite.becomes_ready()
    stage.goes_on()


def test_started_before_the_database(suite: Deployment) -> None:
    suite.compose("stop", "database")
    suite.compose("restart", "finder")
    suite.until(lambda: suite.ask("finder", "/health") == HEALTHY, "it is alive")
    assert says(suite, "finder", "the service is not ready yet")
    suite.compose("start", "database")
    suite.becomes_ready()


def test_cut_off_from_the_database(stage: Stage, suite: Deployment) -> None:
    container, network = suite.containers("synchronizer")[0], f"{suite.project}_data"
    with nobody_dies(suite):
        docker("network", "disconnect", network, container)
        suite.until(lambda: says(suite, "synchronizer", "pgbouncer"), "it says so", 60)
        assert suite.ask("priority_synchronizer")[0] == 200
        docker("network", "connect", "--alias", "synchronizer", network, container)
        suite.becomes_ready()
    stage.goes_on()


def test_cut_off_from_the_relays(stage: Stage, suite: Deployment) -> None:
    """A relay that cannot be reached is no fault of the service, but nothing of it is claimed."""
    network = f"{suite.project}_relays"
    containers = [suite.containers(name)[0] for name in ("synchronizer", "priority_synchronizer")]
    with nobody_dies(suite):
        for container in containers:
            docker("network", "disconnect", network, container)
        moment = int(time.time()) + 2
        for relay in (stage.priority, stage.open):
            relay.publish([relay.write(moment, "written while nobody could read it")])
        suite.until(
            lambda: suite.ask("priority_synchronizer", "/")[1]["last_cycle"].get("failed"),
            "the relay fails",
            90,
        )
        assert not stage.complete(moment)
        for container in containers:
            docker("network", "connect", network, container)
        suite.becomes_ready()
    stage.no_pauses()
    stage.goes_on()


def test_cut_off_from_the_health_ports(suite: Deployment) -> None:
    container, network = suite.containers("finder")[0], f"{suite.project}_health"
    docker("network", "disconnect", network, container)
    try:
        status, body = suite.ask("finder", "/health")
        assert (status, body["status"]) == (503, "unreachable")
    finally:
        docker("network", "connect", "--alias", "finder", network, container)
    suite.becomes_ready("finder")


def test_frozen(suite: Deployment) -> None:
    suite.compose("pause", "finder")
    try:
        status, body = suite.ask("finder", "/health")
        assert (status, body["status"]) == (503, "unreachable")
        assert "no answer" in body["reason"]
    finally:
        suite.compose("unpause", "finder")
    suite.becomes_ready("finder")


def test_told_to_stop(suite: Deployment) -> None:
    """It says so for as long as something holds it up, here a silent database; then it is gone."""
    suite.compose("pause", "database")
    try:
        suite.until(lambda: says(suite, "finder", "database"), "the database is silent")
        suite.until(lambda: suite.ask("finder", "/")[1]["cycle_running"], "a cycle hangs")
        stopping = threading.Thread(target=suite.compose, args=("stop", "finder"))
        stopping.start()
        suite.until(lambda: says(suite, "finder", "the service is stopping"), "it says so")
        stopping.join()
    finally:
        suite.compose("unpause", "database")
    assert suite.inspect("finder")["State"]["ExitCode"] == 0
    assert suite.ask("finder", "/health") == (
        503,
        {"status": "unreachable", "reason": "no container of finder runs"},
    )
    # Compose starts nothing whose database was not found healthy again.
    suite.until(lambda: suite.healthy("database"), "the database is healthy")
    suite.compose("start", "finder")
    suite.becomes_ready()


def test_wrong_setting(suite: Deployment) -> None:
    """It ends at every start, and its log says why."""
    suite.set(FINDER_FREQUENCY_HOUR="never")
    try:
        suite.compose("up", "--detach", "--no-deps", "finder")
        suite.until(lambda: suite.inspect("finder")["RestartCount"] > 0, "it ends and starts again")
        status, body = suite.ask("finder", "/health")
        assert (status, body["status"]) == (503, "unreachable")
        assert "FINDER_FREQUENCY_HOUR is 'never'" in suite.logs("finder")
    finally:
        suite.set(FINDER_FREQUENCY_HOUR="8")
        suite.compose("up", "--detach", "--no-deps", "finder")
    suite.becomes_ready("finder")


def test_health_ports_gone(stage: Stage, suite: Deployment) -> None:
    suite.compose("stop", "health")
    assert {suite.ask(name)[0] for name in HEALTH_PORTS} == {0}
    stage.goes_on()
    suite.compose("start", "health")
    suite.becomes_ready()


# The main process is the first that the kernel would choose; then memory runs out.
_RUN_OUT_OF_MEMORY = """
import os, re
for entry in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{entry}/cmdline", "rb") as file:
        if b"src/synchronizer.py" in file.read().replace(b"\\0", b" ").split(b" "):
            with open(f"/proc/{entry}/oom_score_adj", "w") as file:
                file.write("1000")
held = []
while True:
    held.append(bytearray(os.urandom(1 << 20)) * 64)
"""


def test_out_of_memory(stage: Stage, suite: Deployment) -> None:
    """The kernel kills the main process, its workers with it; the engine starts it again."""
    before = suite.inspect("synchronizer")
    suite.set(SYNCHRONIZER_MEMORY_MB="512")
    try:
        suite.compose("up", "--detach", "--wait", "--no-deps", "synchronizer")
        suite.becomes_ready("synchronizer")
        container = suite.containers("synchronizer")[0]
        assert container != before["Id"]
        began = time.time()
        docker("exec", container, "python", "-c", _RUN_OUT_OF_MEMORY, check=False)
        suite.until(lambda: suite.inspect("synchronizer")["RestartCount"] > 0, "it starts again")
        events = docker(
            "events", "--since", f"{began:.0f}", "--until", f"{time.time():.0f}",
            "--filter", f"container={container}", "--format", "{{.Action}}",
        )  # fmt: skip
        assert "oom" in events.split()
        suite.becomes_ready("synchronizer")
    finally:
        suite.set(SYNCHRONIZER_MEMORY_MB="4096")
        suite.compose("up", "--detach", "--wait", "--no-deps", "synchronizer")
    stage.goes_on()


def test_three_synchronizers(stage: Stage, suite: Deployment) -> None:
    (commands,) = blocks("docker.md", "More than one")
    run("sh", "-euc", commands, cwd=suite.folder)
    try:
        assert len(suite.containers("synchronizer")) == 3
        suite.becomes_ready()
        status, body = suite.ask("synchronizer")
        assert status == 200
        assert sorted(body["containers"]) == [
            f"{suite.project}-synchronizer-{number}" for number in (1, 2, 3)
        ]
        stage.goes_on()
        # One of them dies; the others take its relays over.
        docker("kill", suite.containers("synchronizer")[0])
        suite.until(lambda: len(suite.ask("synchronizer")[1]["containers"]) == 2, "two are left")
        stage.no_pauses()
        stage.goes_on()
    finally:
        suite.compose("up", "--detach", "--wait", "--scale", "synchronizer=1")
    suite.becomes_ready()
    assert suite.ask("synchronizer") == (200, {"status": "ready"})


def test_sized_by_one_variable(stage: Stage, suite: Deployment) -> None:
    """The database starts in half a gigabyte; the archive is the same."""
    assert suite.sql("SHOW shared_buffers") == "1GB"
    assert suite.sql("SHOW effective_cache_size") == "3GB"
    suite.set(DATABASE_MEMORY_MB="512")
    try:
        suite.compose("up", "--detach", "--wait", "--no-deps", "database")
        assert suite.inspect("database")["HostConfig"]["Memory"] == 512 << 20
        assert suite.sql("SHOW shared_buffers") == "128MB"
        assert suite.sql("SHOW effective_cache_size") == "384MB"
        assert suite.sql("SHOW maintenance_work_mem") == "32MB"
        suite.becomes_ready()
        stage.goes_on()
    finally:
        suite.set(DATABASE_MEMORY_MB="4096")
        suite.compose("up", "--detach", "--wait", "--no-deps", "database")
    suite.becomes_ready()
    assert not suite.inspect("database")["State"]["OOMKilled"]


def test_host_rebooted(stage: Stage, suite: Deployment, engine: Engine) -> None:
    """Everything ends at once, and comes back in any order, without Compose."""
    if engine.ours:
        engine.restart()
    else:  # others may need it: the same for our containers alone
        everyone = [name for service in LASTING for name in suite.containers(service)]
        docker("kill", *everyone)
        docker("start", *sorted(everyone))
    suite.until(lambda: suite.ask("monitor", "/health")[0], "somebody answers", 60)
    suite.becomes_ready(timeout=240)
    for service in LASTING:
        suite.until(lambda name=service: suite.healthy(name), f"{service} is healthy")
    stage.no_pauses()
    stage.goes_on()
