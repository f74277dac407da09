"""The pages on running an archive: their commands work as printed, their messages exist.

Commands for Docker itself (build, up, logs) are not for this machine: tests/compose runs them.
docs/backup.md has a test of its own.
"""

import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.documented import Host, create_archive, host
from components.pages import ROOT, blocks, cron_command, read_page
from errors import DatabaseError

NAME = "archive.example.com"
# Said by Docker or PostgreSQL, not by us.
OF_OTHERS = {
    "required variable POSTGRES_PASSWORD is missing a value",
    "port is already allocated",
    "password authentication failed",
    "no such user",
    "permission denied for table",
    "cannot execute INSERT in a read-only transaction",
}


@pytest.fixture
async def machine() -> AsyncIterator[Host]:
    with host() as running:
        await create_archive(running)
        yield running


async def test_commands_in_the_database_container(machine: Host) -> None:
    """Those that are a line each; tests/compose runs the whole blocks."""
    pages = [
        block.text
        for page in ("docker.md", "troubleshooting.md")
        for block in read_page(page)
        if block.language == "bash"
    ]
    found = re.findall(r"(?m)^docker compose exec -T database .*$", "".join(pages))
    run = [machine.run(command) for command in found]
    assert len(run) == 4
    assert "relays" in run[0]


async def test_the_schedule_says_nothing_when_all_is_well(machine: Host) -> None:
    assert machine.run(cron_command("maintenance.md", "Schedule")) == ""


def test_messages_of_the_troubleshooting_page_exist() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    said = {
        message
        for cell in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", cell)
    }
    assert said >= OF_OTHERS
    ours = [
        *ROOT.glob("src/**/*.py"),
        ROOT / "docker-compose.yml",
        ROOT / "pgbouncer/entrypoint.sh",
    ]
    text = re.sub(r'"\s+f?"', "", "\n".join(path.read_text() for path in ours))
    for message in said - OF_OTHERS:
        assert message.replace("'/run/secrets/", "") in text, message


async def test_readers_know_whom_they_talk_to(
    machine: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, ask = blocks("docker.md", "TLS")
    machine.run(make, {"999:999": "$(id -u):$(id -g)"})
    folder = machine.clone / "tls"
    for name in ("ca.key", "server.key"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    (yaml,) = blocks("docker.md", "TLS", "yaml")
    settings = dict(re.findall(r"(ssl\w*)=([^,\]]+)", yaml))
    assert settings.keys() == {"ssl", "ssl_cert_file", "ssl_key_file"}
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    assert handshake(folder, context, NAME)
    assert not handshake(folder, context, "other.example.com")
    assert not handshake(folder, ssl.create_default_context(), NAME)

    if not machine.run("psql -U admin -d bigbrotr -qtAc 'SHOW ssl_library'").strip():
        return  # PostgreSQL of the Python wheel is built without TLS
    with (machine.folder / "postgresql.conf").open("a") as conf:
        conf.writelines(
            f"{name} = '{value.replace('/tls', str(folder))}'\n" for name, value in settings.items()
        )
    machine.run("docker compose down; docker compose up -d")
    query = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    psql = f"{ask.strip()[:-1]} hostaddr=127.0.0.1\" -c '{query}'"
    assert "TLSv1" in machine.run(psql, {"port=5433": f"port={machine.port}"})
    refused = machine.run(f"! {psql}", {"5433": str(machine.port), NAME: "other.example.com"})
    assert "does not match host name" in refused

    # Services elsewhere, by the variables that the page names.
    reader = replace(machine.database("bigbrotr_reader"), min_pool=1, host="localhost")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(folder / "ca.crt"))
    with pytest.raises(DatabaseError, match=r"certificate|hostname"):
        await BigBrotr.from_config(reader).connect()
    monkeypatch.setenv("PGSSLMODE", "verify-ca")
    async with BigBrotr.from_config(reader) as db:
        (row,) = await db.fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert row["ssl"] is True


def handshake(folder: Path, client: ssl.SSLContext, name: str) -> bool:
    """Whether a client that verifies accepts the server's certificate for this name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True
