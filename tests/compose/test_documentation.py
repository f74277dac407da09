"""The commands of the pages that need Docker: backups and restores, secrets in files, TLS."""

import json
from collections.abc import Iterator

import pytest

from components.deployment import Deployment
from components.docker_engine import Engine, docker
from components.docker_engine import run as run_program
from components.pages import blocks, cron_command

# Nothing but what the tests need: no relay is asked.
SETTINGS = {
    "FINDER_AGGREGATOR_URLS": "",
    "FINDER_NIP66_RELAYS": "",
    "DATABASE_MEMORY_MB": "1024",
}
DATA = "SELECT count(*), md5(string_agg(url, ' ' ORDER BY url)) FROM relays"


def run(suite: Deployment, commands: str) -> str:
    """The commands in the clone, on the volume of this installation."""
    commands = commands.replace("bigbrotr_database", f"{suite.project}_database")
    commands = commands.replace("/srv/bigbrotr", str(suite.folder))
    return run_program("sh", "-euc", commands, cwd=suite.folder, timeout=600).stdout


def test_commands_in_the_database(suite: Deployment) -> None:
    for commands in blocks("troubleshooting.md", "Troubleshooting, by symptom"):
        assert run(suite, commands), commands
    run(suite, cron_command("maintenance.md", "Schedule"))
    run(suite, cron_command("backup.md", "On a schedule"))
    assert len(list(suite.folder.glob("bigbrotr-[1-7].dump"))) == 1


@pytest.fixture(scope="module")
def of_files(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """An installation whose secrets are in files, and whose log is archived."""
    archive = tmp_path_factory.mktemp("wal")
    archive.chmod(0o777)  # for user 999, whoever runs the tests
    settings = SETTINGS | {"WAL_ARCHIVE_DIRECTORY": str(archive)}
    deployment = Deployment(tmp_path_factory.mktemp("clone"), settings, secrets_in_files=True)
    (deployment.folder / "seed_relays.txt").write_text("wss://relay.invalid\n")
    (deployment.folder / "priority_relays.txt").write_text("")
    try:
        deployment.compose("up", "--detach", "--wait", timeout=900)
        yield deployment
        deployment.inside("database", "sh", "-c", "rm -f /wal_archive/*", check=False)
    finally:
        deployment.remove()


def test_secrets_of_files_are_in_no_environment(of_files: Deployment) -> None:
    secrets = {
        path.name: path.read_text().strip() for path in (of_files.folder / "secrets").iterdir()
    }
    assert len(secrets) == 7
    known = json.dumps([of_files.inspect(name) for name in _services(of_files)])
    said = of_files.compose("logs", "--no-color")
    for name, value in secrets.items():
        assert value not in known, name
        assert value not in said, name
    assert of_files.sql("SELECT count(*) FROM relays") == "1"
    # Without that file the placeholder is all there is, and nothing starts.
    (of_files.folder / "docker-compose.secrets.yml").rename(of_files.folder / "away.yml")
    try:
        of_files.set(COMPOSE_FILE="docker-compose.yml")
        for name in ("database", "initializer", "pgbouncer", "monitor"):
            with pytest.raises(AssertionError, match="still has the placeholder"):
                of_files.compose("run", "--rm", "--no-deps", name)
    finally:
        (of_files.folder / "away.yml").rename(of_files.folder / "docker-compose.secrets.yml")
        of_files.set(COMPOSE_FILE="docker-compose.yml:docker-compose.secrets.yml")


def _services(suite: Deployment) -> list[str]:
    return suite.compose("ps", "--all", "--services").split()


def test_a_moment_comes_back_from_the_log(of_files: Deployment) -> None:
    _, base_backup, clean_up, restore = blocks(
        "backup.md", "To any moment, with the write-ahead log"
    )
    add = "SELECT insert_relay('wss://{}.example', 'clearnet', 1)"
    of_files.sql(add.format("before"))
    run(of_files, base_backup)
    run(of_files, clean_up)
    of_files.sql(add.format("after"))
    before = of_files.sql(DATA)
    moment = of_files.sql("SELECT clock_timestamp()")
    of_files.sql("DELETE FROM relays")  # the accident
    assert of_files.sql(DATA) != before

    run(of_files, restore.replace("2026-11-25 12:00:00+00", moment))
    assert of_files.sql(DATA) == before
    of_files.sql(add.format("since"))


def test_a_dump_goes_into_an_empty_server(of_files: Deployment) -> None:
    dump, _, restore = blocks("backup.md", "A dump")
    before = of_files.sql(DATA)
    run(of_files, dump)
    of_files.inside("database", "sh", "-c", "rm -f /wal_archive/*")  # a new server, a new log
    of_files.compose("down", "--volumes")
    run(of_files, restore)
    assert of_files.sql(DATA) == before
    of_files.compose("up", "--detach", "--wait")
    assert of_files.sql("SELECT failed_count FROM pg_stat_archiver") == "0"


def test_readers_come_in_by_tls(of_files: Deployment) -> None:
    make, ask = blocks("docker.md", "TLS")
    (override,) = blocks("docker.md", "TLS", "yaml")
    # The folder is the tester's, who need not be root.
    run(of_files, make.replace("sudo chown 999:999 tls/server.key", ""))
    image = of_files.inspect("database")["Image"]
    mount = f"{of_files.folder}/tls:/tls"
    give = ("--user", "0", "--entrypoint", "chown", image, "999:999", "/tls/server.key")
    docker("run", "--rm", "-v", mount, *give)
    override = override.replace('"0.0.0.0:5433:5432"', '"127.0.0.1::5432"')
    (of_files.folder / "docker-compose.override.yml").write_text(override)
    files = of_files.setting("COMPOSE_FILE")
    of_files.set(COMPOSE_FILE=f"{files}:docker-compose.override.yml")
    of_files.compose("up", "--detach", "--wait", "database")
    password = (of_files.folder / "secrets/postgres_reader_password").read_text().strip()
    query = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    inside = ask.strip().replace("port=5433", "port=5432").replace("tls/ca.crt", "/tmp/ca.crt")
    certificate = (of_files.folder / "tls/ca.crt").read_text()
    script = f"""
cat >/tmp/ca.crt <<'END'
{certificate}END
export PGPASSWORD={password} PGHOSTADDR=127.0.0.1
{inside} -qtAc '{query}'
{inside.replace("archive.example.com", "other.example.com")} -c '{query}' 2>&1 || true
"""
    said = of_files.inside("database", "sh", "-ec", script)
    assert said.startswith("TLSv1")
    assert "does not match host name" in said
