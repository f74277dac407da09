"""What each container may do, seen from inside, and what the engine was told about it."""

import json
import re

import pytest

from components.deployment import HEALTH_PORTS, LASTING, NAMES, Deployment
from components.docker_engine import docker
from components.docker_relays import Stage

BUILT = ("pgbouncer", "initializer", "health", *HEALTH_PORTS)
NETWORKS = {
    "database": {"data"},
    "initializer": {"data"},
    "pgbouncer": {"data"},
    "torproxy": {"relays"},
    "health": {"health"},
}
# What can be written to; all but the volume of the database is in memory. /wal_archive is the null
# device while WAL_ARCHIVE_DIRECTORY is not set.
WRITABLE = {
    "database": {"/tmp", "/var/lib/postgresql/data", "/run/postgresql", "/wal_archive"},
    "pgbouncer": {"/run/pgbouncer"},
    "torproxy": {"/etc/tor", "/var/lib/tor"},
    "health": set[str](),
}
SECRETS = {
    "database": {"POSTGRES_PASSWORD"},
    "pgbouncer": {"PGBOUNCER_AUTH_PASSWORD", "PGBOUNCER_ADMIN_PASSWORD"},
    "torproxy": set[str](),
    "health": set[str](),
    "finder": {"POSTGRES_WRITER_PASSWORD"},
    "initializer": {
        "POSTGRES_PASSWORD",
        "POSTGRES_WRITER_PASSWORD",
        "POSTGRES_READER_PASSWORD",
        "PGBOUNCER_AUTH_PASSWORD",
    },
}
OF_A_SYNCHRONIZER = {"POSTGRES_WRITER_PASSWORD", "SECRET_KEY"}
# Mounts of the engine itself: name resolution, devices, the kernel's own file systems.
OF_THE_ENGINE = re.compile(
    r"/(dev|proc|sys)(/.*)?|/etc/(hosts|hostname|resolv\.conf)|/sbin/docker-init"
)


def inside(suite: Deployment, service: str, script: str) -> str:
    """What a shell script prints in the container, as the container's own user."""
    if service == "initializer":  # it has ended; another one is made like it
        command = ("run", "--rm", "--no-deps", "-T", service, "sh", "-c", script)
        return suite.compose(*command)
    return suite.inside(service, "sh", "-c", script)


@pytest.mark.parametrize("service", NAMES)
def test_every_process_is_an_ordinary_user_without_capabilities(
    suite: Deployment, service: str
) -> None:
    uid = "999" if service == "database" else "1000"
    # A process may end between its being listed and its being read.
    listed = inside(suite, service, "cat /proc/[0-9]*/status 2>/dev/null || true")
    assert set(re.findall(r"(?m)^Uid:\t(\d+)", listed)) == {uid}
    for sort in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert set(re.findall(rf"(?m)^{sort}:\t(\w+)", listed)) == {"0000000000000000"}
    assert set(re.findall(r"(?m)^NoNewPrivs:\t(\d)", listed)) == {"1"}
    assert set(re.findall(r"(?m)^Seccomp:\t(\d)", listed)) == {"2"}
    # The engine's own init, which hands signals on and buries the dead.
    assert inside(suite, service, "tr '\\0' ' ' </proc/1/cmdline").startswith("/sbin/docker-init")


@pytest.mark.parametrize("service", NAMES)
def test_nothing_can_be_written_but_in_a_few_places(suite: Deployment, service: str) -> None:
    mounts = [line.split() for line in inside(suite, service, "cat /proc/mounts").splitlines()]
    options = {mount[1]: set(mount[3].split(",")) for mount in mounts}
    assert "ro" in options["/"]
    writable = {path for path, given in options.items() if "rw" in given}
    expected = WRITABLE.get(service, {"/tmp"})
    assert {path for path in writable if not OF_THE_ENGINE.fullmatch(path)} == expected
    refused = inside(suite, service, "touch /x /app/x /etc/x 2>&1 || true")
    assert len(re.findall("Read-only file system|No such file", refused)) == 3, refused


@pytest.mark.parametrize("service", NAMES)
def test_ports_and_networks(suite: Deployment, service: str) -> None:
    facts = suite.inspect(service)
    published = {
        inner: [(entry["HostIp"], entry["HostPort"]) for entry in outer or []]
        for inner, outer in facts["HostConfig"]["PortBindings"].items()
    }
    local = {
        "database": {"5432/tcp": "DATABASE_PORT"},
        "pgbouncer": {"6432/tcp": "PGBOUNCER_PORT"},
        "health": {
            "8081/tcp": "MONITOR_PORT",
            "8082/tcp": "SYNCHRONIZER_PORT",
            "8083/tcp": "PRIORITY_SYNCHRONIZER_PORT",
            "8084/tcp": "FINDER_PORT",
        },
    }.get(service, {})
    assert published == {
        inner: [("127.0.0.1", suite.setting(name))] for inner, name in local.items()
    }
    expected = NETWORKS.get(service, {"data", "relays", "health"})
    assert set(facts["NetworkSettings"]["Networks"]) == {
        f"{suite.project}_{name}" for name in expected
    }


@pytest.mark.parametrize(
    ("service", "memory"),
    [
        ("database", 4096),
        ("monitor", 4096),
        ("synchronizer", 4096),
        ("priority_synchronizer", 4096),
        ("finder", 1024),
        ("initializer", 512),
        ("torproxy", 512),
        ("pgbouncer", 256),
        ("health", 256),
    ],
)
def test_limits_hold(suite: Deployment, service: str, memory: int) -> None:
    # Control groups of version 1 or 2.
    limit = inside(
        suite,
        service,
        "cat /sys/fs/cgroup/memory.max 2>/dev/null "
        "|| cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
    )
    assert int(limit) == memory << 20
    host = suite.inspect(service)["HostConfig"]
    assert host["PidsLimit"] > 0
    assert host["CpuQuota"] >= host["CpuPeriod"] == 100_000
    assert host["RestartPolicy"]["Name"] == ("no" if service == "initializer" else "unless-stopped")


@pytest.mark.parametrize("service", LASTING)
def test_the_engine_says_healthy(suite: Deployment, service: str) -> None:
    suite.until(lambda: suite.healthy(service), f"{service} is healthy")


def test_what_waits_for_what(stage: Stage) -> None:
    """The database, then the initializer, then PgBouncer, then the services."""
    first = stage.first_states
    order = ["database", "initializer", "pgbouncer"]
    assert sorted(order, key=lambda name: first[name]["StartedAt"]) == order
    ended = first["initializer"]
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 0)
    assert ended["FinishedAt"] < first["pgbouncer"]["StartedAt"]
    for name in HEALTH_PORTS:
        assert first[name]["StartedAt"] > first["pgbouncer"]["StartedAt"]
    for name in LASTING:
        assert first[name]["Health"]["Status"] == "healthy"


@pytest.mark.parametrize("service", NAMES)
def test_secrets_are_where_they_are_needed_and_nowhere_else(
    suite: Deployment, service: str
) -> None:
    inspected = json.dumps(suite.inspect(service))
    known = {name for name, value in suite.secrets.items() if value in inspected}
    assert known == SECRETS.get(service, OF_A_SYNCHRONIZER)
    said = suite.logs(service)
    assert not [name for name, value in suite.secrets.items() if value in said]


@pytest.mark.parametrize("service", BUILT)
def test_images(suite: Deployment, service: str) -> None:
    image = suite.inspect(service)["Image"]
    history = docker("history", "--no-trunc", image)
    facts = json.loads(docker("image", "inspect", image))[0]
    assert facts["Config"]["User"] == "1000:1000"
    labels = facts["Config"]["Labels"]
    of_image = "finder" if service == "health" else service
    assert labels["org.opencontainers.image.title"] == f"bigbrotr-{of_image}"
    for label in ("description", "vendor", "licenses", "source"):
        assert labels[f"org.opencontainers.image.{label}"]
    for name, value in suite.secrets.items():
        assert value not in history + json.dumps(facts), name


@pytest.mark.parametrize("service", ["initializer", *HEALTH_PORTS])
def test_images_hold_what_runs_and_nothing_else(suite: Deployment, service: str) -> None:
    listed = inside(suite, service, "ls -A /app /app/src").split()
    assert {"src", "init", "seed_relays.txt", "priority_relays.txt"} <= set(listed)
    for absent in (".env", ".git", "tests", "docs", "standalone", "env.example"):
        assert absent not in listed
    packages = inside(suite, service, "ls -d /opt/venv/lib/python3*/site-packages/*.dist-info")
    assert "asyncpg" in packages
    assert not re.search("pytest|ruff|hypothesis|nostr_sdk", packages)
