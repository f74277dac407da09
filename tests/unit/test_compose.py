"""The compose file, the Dockerfiles and what they are built from, as text: no engine is needed."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import health_gateway

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
PYTHON_SERVICES = ("initializer", "finder", "monitor", "synchronizer", "priority_synchronizer")
# Copies of these can run beside each other, so they have no fixed name.
SCALABLE = ("finder", "monitor", "synchronizer", "priority_synchronizer")
SECRETS = {
    "POSTGRES_PASSWORD",
    "POSTGRES_WRITER_PASSWORD",
    "POSTGRES_READER_PASSWORD",
    "PGBOUNCER_AUTH_PASSWORD",
    "PGBOUNCER_ADMIN_PASSWORD",
    "PGADMIN_DEFAULT_PASSWORD",
    "SECRET_KEY",
}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


def resolved(text: object) -> str:
    """`text` with every variable at its default, `$$` unescaped."""
    return VARIABLE.sub(lambda match: match[3] or "", str(text)).replace("$$", "$")


def passed_on() -> set[str]:
    """Variables without a value in an `environment`: they come from .env, when it sets them."""
    return {
        name
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }


def used_variables() -> set[str]:
    return {match[1] for match in VARIABLE.finditer(TEXT)} | passed_on()


def dockerfile(service: str) -> str:
    return (ROOT / f"Dockerfile.{service}").read_text()


def test_services_are_those_of_the_specification() -> None:
    ours = {"health"}
    named = {"database", "pgbouncer", "torproxy", "pgadmin", *PYTHON_SERVICES}
    assert set(SERVICES) == named | ours


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    uid = service["user"].split(":")[0]
    assert uid.isdecimal()
    assert int(uid) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert "privileged" not in service
    assert "network_mode" not in service
    if name == "pgadmin":  # its image writes beside its code, and its Python has the capability
        assert service["read_only"] is False
        assert service["cap_add"] == ["NET_BIND_SERVICE"]
    else:
        assert service["read_only"] is True
        assert "cap_add" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_limited_and_watched(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert re.fullmatch(r"\d+m", resolved(limits["memory"]))
    assert limits["pids"] > 0
    # A quota and not `cpus`, which the engine refuses on a host with fewer processors.
    assert int(resolved(service["cpu_quota"])) >= service["cpu_period"] == 100_000
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}
    if name == "initializer":
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize(
    ("name", "cpus", "memory"),
    [
        ("database", 4, 4096),
        ("monitor", 6, 4096),
        ("synchronizer", 6, 4096),
        ("priority_synchronizer", 6, 4096),
    ],
)
def test_default_limits_are_those_of_the_specification(name: str, cpus: int, memory: int) -> None:
    service = SERVICES[name]
    assert int(resolved(service["cpu_quota"])) == cpus * service["cpu_period"]
    resources = service["deploy"]["resources"]
    assert resolved(resources["limits"]["memory"]) == f"{memory}m"
    assert resources["reservations"]["memory"] == "512m"


def test_ports_are_those_of_the_specification_on_loopback() -> None:
    published = {
        name: [resolved(port) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert published == {
        "database": ["127.0.0.1:5432:5432"],
        "pgbouncer": ["127.0.0.1:6432:6432"],
        "pgadmin": ["127.0.0.1:8080:8080"],
        "health": [f"127.0.0.1:{port}:{port}" for port in (8081, 8082, 8083, 8084)],
    }


def test_health_ports_lead_to_the_services_of_the_specification() -> None:
    gateway = SERVICES["health"]
    assert gateway["command"][:2] == ["python", "src/health_gateway.py"]
    assert [health_gateway.parse_route(text) for text in gateway["command"][2:]] == [
        health_gateway.Route(8081, "monitor", 8080),
        health_gateway.Route(8082, "synchronizer", 8080),
        health_gateway.Route(8083, "priority_synchronizer", 8080),
        health_gateway.Route(8084, "finder", 8080),
    ]
    for name in SCALABLE:
        assert set(gateway["networks"]) <= set(SERVICES[name]["networks"])
    for name in ("database", "pgbouncer", "torproxy"):
        assert set(gateway["networks"]).isdisjoint(SERVICES[name]["networks"])


def test_names_are_fixed_where_one_container_runs() -> None:
    for name, service in SERVICES.items():
        expected = None if name in SCALABLE else f"${{COMPOSE_PROJECT_NAME}}_{name}"
        assert service.get("container_name") == expected, name


def test_no_two_builds_write_the_same_image() -> None:
    """Compose builds side by side, and the engine refuses the second of a name."""
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert built == [f"${{COMPOSE_PROJECT_NAME}}/{image.split('/')[1]}" for image in built]
    assert len(set(built)) == len(built) == 7


def test_start_order() -> None:
    def waits_for(name: str) -> dict[str, str]:
        needs = SERVICES[name].get("depends_on", {})
        return {other: needed["condition"] for other, needed in needs.items()}

    healthy, done = "service_healthy", "service_completed_successfully"
    assert waits_for("database") == waits_for("torproxy") == waits_for("health") == {}
    assert waits_for("initializer") == {"database": healthy}
    assert waits_for("pgbouncer") == {"database": healthy, "initializer": done}
    for name in SCALABLE:
        assert waits_for(name) == {
            "initializer": done,
            "pgbouncer": healthy,
            "torproxy": "service_started",
        }


def test_tor_and_the_database_share_no_network() -> None:
    assert set(SERVICES["torproxy"]["networks"]).isdisjoint(SERVICES["database"]["networks"])


def test_services_write_as_the_writer_through_pgbouncer() -> None:
    for name in SCALABLE:
        environment = SERVICES[name]["environment"]
        assert environment["POSTGRES_HOST"] == "pgbouncer"
        assert environment["POSTGRES_USER"] == "bigbrotr_writer"


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_reach_only_who_needs_them(name: str) -> None:
    needed = {
        "database": {"POSTGRES_PASSWORD"},
        "pgbouncer": {"PGBOUNCER_AUTH_PASSWORD", "PGBOUNCER_ADMIN_PASSWORD"},
        "torproxy": set(),
        "health": set(),
        "initializer": {
            "POSTGRES_PASSWORD",
            "POSTGRES_WRITER_PASSWORD",
            "POSTGRES_READER_PASSWORD",
            "PGBOUNCER_AUTH_PASSWORD",
        },
        "pgadmin": {"PGADMIN_DEFAULT_PASSWORD"},
        "finder": {"POSTGRES_WRITER_PASSWORD"},
    }.get(name, {"POSTGRES_WRITER_PASSWORD", "SECRET_KEY"})
    service = SERVICES[name]
    handed = {match[1] for match in VARIABLE.finditer(json.dumps(service))}
    handed |= {key for key, value in service.get("environment", {}).items() if value is None}
    assert handed & SECRETS == needed
    assert "env_file" not in service


def test_no_secret_has_a_default_and_the_needed_ones_are_demanded() -> None:
    for match in VARIABLE.finditer(TEXT):
        if match[1] in SECRETS - {"PGADMIN_DEFAULT_PASSWORD"}:
            assert match[2] == ":?", match[0]
        if match[1] == "PGADMIN_DEFAULT_PASSWORD":  # its image refuses an empty one
            assert not match[3]


def secret_variables(name: str) -> set[str]:
    """The variables by which a service is handed a secret."""
    return {
        key
        for key, value in SERVICES[name].get("environment", {}).items()
        if SECRETS & {key, *(match[1] for match in VARIABLE.finditer(str(value)))}
    }


def test_with_files_no_secret_is_in_an_environment() -> None:
    """docker-compose.secrets.yml: what the one file hands over, the other takes back."""
    added = yaml.safe_load((ROOT / "docker-compose.secrets.yml").read_text())
    for name in SERVICES:
        override = added["services"].get(name, {"environment": {}, "secrets": []})
        environment = override["environment"]
        handed = secret_variables(name)
        assert {key for key, value in environment.items() if value == ""} == handed
        files = {key: value for key, value in environment.items() if value != ""}
        assert set(files) == {f"{key}_FILE" for key in handed}
        assert set(files.values()) == {f"/run/secrets/{secret}" for secret in override["secrets"]}
        for key in handed:
            names = {
                match[1] for match in VARIABLE.finditer(str(SERVICES[name]["environment"][key]))
            }
            (secret,) = names or {key}
            assert files[f"{key}_FILE"] == f"/run/secrets/{secret.lower()}"
    assert added["secrets"] == {
        secret.lower(): {"file": f"./secrets/{secret.lower()}"} for secret in SECRETS
    }


def test_every_variable_is_in_env_example() -> None:
    known = set(re.findall(r"^#?\s*(\w+)=", (ROOT / "env.example").read_text(), re.MULTILINE))
    assert used_variables() - known == set()


def test_variables_of_the_services_are_all_passed_on() -> None:
    """No setting of env.example stops at the host."""
    known = set(re.findall(r"^#?\s*(\w+)=", (ROOT / "env.example").read_text(), re.MULTILINE))
    own = {name for name in known if name.split("_")[0] in ("FINDER", "MONITOR", "SYNCHRONIZER")}
    handled = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert own - handled - used_variables() == set()
    for name in own & passed_on():
        if name.startswith("SYNCHRONIZER_"):
            assert f"PRIORITY_{name}" in passed_on()


def test_an_override_of_the_priority_synchronizer_reaches_it() -> None:
    shared = {name for name in passed_on() if name.startswith("SYNCHRONIZER_")}
    environment = SERVICES["priority_synchronizer"]["environment"]
    assert shared
    assert {f"PRIORITY_{name}" for name in shared} <= set(environment)


def start_database(directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the database's entrypoint with a stand-in for the image's that prints its arguments."""
    image_entrypoint = directory / "docker-entrypoint.sh"
    image_entrypoint.write_text('#!/bin/sh\necho "$@"\n')
    image_entrypoint.chmod(0o755)
    command = [
        part.replace("$$", "$").replace("/wal_archive", str(directory / "wal_archive"))
        for part in SERVICES["database"]["entrypoint"]
    ]
    path = f"{directory}:/usr/bin:/bin"
    return subprocess.run(
        command, env={"PATH": path, **environ}, capture_output=True, text=True, timeout=30
    )


def memory_settings(directory: Path, megabytes: int) -> dict[str, int]:
    """The settings that the database is started with, in megabytes."""
    started = start_database(
        directory, POSTGRES_PASSWORD="right", DATABASE_MEMORY_MB=str(megabytes)
    )
    assert started.returncode == 0, started.stderr
    arguments = started.stdout.split()
    assert arguments[0] == "postgres"
    assert "config_file=/etc/postgresql/postgresql.conf" in arguments
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)MB", started.stdout)}


def test_database_is_sized_by_its_memory(tmp_path: Path) -> None:
    written = (ROOT / "postgresql.conf").read_text()
    units = {"MB": 1, "GB": 1024}
    default = memory_settings(tmp_path, 4096)
    assert len(default) == 5
    for name, megabytes in default.items():
        found = re.search(rf"(?m)^{name} = (\d+)(MB|GB)$", written)
        assert found, name
        assert int(found[1]) * units[found[2]] == megabytes, name
    for megabytes in (512, 1024, 65_536):
        sized = memory_settings(tmp_path, megabytes)
        assert sized == {name: value * megabytes // 4096 for name, value in default.items()}


def test_database_has_the_figures_of_the_specification_on_its_host_of_64_gb(
    tmp_path: Path,
) -> None:
    sized = memory_settings(tmp_path, 65_536)
    assert sized["shared_buffers"] == 16 << 10
    assert sized["effective_cache_size"] == 48 << 10


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "POSTGRES_PASSWORD is empty"),
        ("change_me", "POSTGRES_PASSWORD still has the placeholder"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_database_refuses_empty_and_placeholder_passwords(
    tmp_path: Path, value: str, message: str, in_file: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(value + "\n")
    given = {"POSTGRES_PASSWORD_FILE": str(secret)} if in_file else {"POSTGRES_PASSWORD": value}
    refused = start_database(tmp_path, DATABASE_MEMORY_MB="4096", **given)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith(message)
    assert refused.stderr.count("\n") == 1


def test_database_archives_its_log_when_told_where(tmp_path: Path) -> None:
    given = {"POSTGRES_PASSWORD": "right", "DATABASE_MEMORY_MB": "4096"}
    assert "archive_mode" not in start_database(tmp_path, **given).stdout
    assert resolved(SERVICES["database"]["volumes"][1]) == "/dev/null:/wal_archive"
    archive = tmp_path / "wal_archive"
    refused = start_database(tmp_path, WAL_ARCHIVE_DIRECTORY="/srv/wal", **given)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("WAL_ARCHIVE_DIRECTORY is not writable")
    archive.mkdir()
    started = start_database(tmp_path, WAL_ARCHIVE_DIRECTORY="/srv/wal", **given)
    assert "archive_mode=on" in started.stdout.split()


def start_pgbouncer(directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs PgBouncer's entrypoint with `directory` for its tmpfs; prints what it hands on."""
    script = (ROOT / "pgbouncer/entrypoint.sh").read_text()
    entrypoint = directory / "entrypoint.sh"
    entrypoint.write_text(script.replace("/run/pgbouncer", str(directory)))
    return subprocess.run(
        ["sh", entrypoint, "env"],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_pgbouncer_writes_its_secrets_for_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text('ad"min\n')
    started = start_pgbouncer(
        tmp_path,
        PGBOUNCER_AUTH_PASSWORD="a:b\\c$d",
        PGBOUNCER_ADMIN_PASSWORD_FILE=str(tmp_path / "admin"),
        POSTGRES_HOST="db",
        POSTGRES_DB="archive",
    )
    assert started.returncode == 0, started.stderr
    userlist = tmp_path / "userlist.txt"
    assert userlist.read_text() == ('"pgbouncer_auth" "a:b\\c$d"\n"pgbouncer_admin" "ad""min"\n')
    assert userlist.stat().st_mode & 0o077 == 0
    assert (tmp_path / "pgpass").read_text().endswith(":archive:pgbouncer_auth:a\\:b\\\\c$d\n")
    assert (tmp_path / "databases.ini").read_text() == (
        "[databases]\narchive = host=db port=5432 dbname=archive auth_user=pgbouncer_auth\n"
    )
    assert "PGBOUNCER_AUTH_PASSWORD=" not in started.stdout  # not in PgBouncer's own environment


@pytest.mark.parametrize(
    ("value", "message"),
    [("", "PGBOUNCER_AUTH_PASSWORD is empty"), ("change_me_1", "still has the placeholder")],
)
def test_pgbouncer_refuses_empty_and_placeholder_passwords(
    tmp_path: Path, value: str, message: str
) -> None:
    refused = start_pgbouncer(
        tmp_path, PGBOUNCER_AUTH_PASSWORD=value, PGBOUNCER_ADMIN_PASSWORD="right"
    )
    assert refused.returncode == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""


def test_common_part_of_the_dockerfiles_is_the_same() -> None:
    end = "# ---- this service"
    common = {dockerfile(name).split(end)[0] for name in PYTHON_SERVICES}
    assert len(common) == 1
    assert "# ---- the same in all five Dockerfiles" in common.pop()


@pytest.mark.parametrize("name", PYTHON_SERVICES)
def test_dockerfile(name: str) -> None:
    text = dockerfile(name)
    instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert text.count("\nFROM ${PYTHON_IMAGE}") == 2
    assert "USER 1000:1000" in instructions
    assert "/opt/venv/bin/pip install --require-hashes " in text
    assert instructions[-1] == f'CMD ["python", "src/{name}.py"]'
    assert ("HEALTHCHECK" in text) == (name != "initializer")
    assert SERVICES[name]["build"] == {"context": ".", "dockerfile": f"Dockerfile.{name}"}
    assert (ROOT / f"src/{name}.py").is_file()


@pytest.mark.parametrize(
    "path",
    [*(f"Dockerfile.{name}" for name in PYTHON_SERVICES), "pgbouncer/Dockerfile"],
)
def test_dockerfile_builds_on_an_old_buildkit(path: str) -> None:
    text = (ROOT / path).read_text()
    for newer in ("# syntax", "--link", "<<EOF", "--start-interval"):
        assert newer not in text


def test_what_the_images_copy_is_in_the_context() -> None:
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile("monitor"), re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == let_in
    assert ".env" not in let_in


def test_no_service_needs_what_the_images_leave_out() -> None:
    sources = [path for path in (ROOT / "src").rglob("*.py") if "standalone" not in path.parts]
    assert sources
    for path in sources:
        assert not re.search(r"^\s*(from|import) standalone\b", path.read_text(), re.MULTILINE), (
            path
        )


def test_pgbouncer_settings_are_those_of_the_specification() -> None:
    text = (ROOT / "pgbouncer/pgbouncer.ini").read_text()
    settings = dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))
    assert settings["pool_mode"] == "transaction"
    assert settings["auth_type"] == "scram-sha-256"
    assert "auth_user" not in settings  # unknown users of the console would wait for ever
    assert settings["admin_users"] == "pgbouncer_admin"
    assert settings["max_client_conn"] == "1000"
    assert settings["default_pool_size"] == "25"
    assert settings["server_idle_timeout"] == "600"
    assert settings["server_lifetime"] == "3600"
    assert SERVICES["pgbouncer"]["ulimits"]["nofile"] > 1000 + 300


def test_function_that_pgbouncer_asks_is_created() -> None:
    text = (ROOT / "pgbouncer/pgbouncer.ini").read_text()
    called = re.search(r"^auth_query = .* FROM ([\w.]+)\(\$1\)$", text, re.MULTILINE)
    assert called
    schema = "\n".join(path.read_text() for path in sorted((ROOT / "init").glob("*.sql")))
    assert re.search(rf"CREATE (OR REPLACE )?FUNCTION {re.escape(called[1])}\b", schema)
