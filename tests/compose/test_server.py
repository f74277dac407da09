"""docs/docker.md as an operator follows it: from an empty server to the first query, through an
upgrade that keeps the archive, to removal without a trace.

Each test goes on where the one before it ended.
"""

from collections.abc import Iterator

import orjson
import pytest

from components.deployment import HEALTH_PORTS, LASTING, NAMES, own_settings
from components.docker_engine import Engine, docker
from components.pages import blocks, read_page
from components.sample_events import AUTHOR
from components.server import Server, Upstream, kept_images

RELAY = "wss://relay.invalid"
# No relay and no aggregator is asked.
SETTINGS = {"FINDER_AGGREGATOR_URLS": "", "FINDER_NIP66_RELAYS": ""}
LISTS = {
    "seed_relays.txt": f"{RELAY}\n",
    "priority_relays.txt": "# one URL a line\n\n# the last line\n",
}
MIGRATION = """\
CREATE TABLE IF NOT EXISTS upgrades (number INT GENERATED ALWAYS AS IDENTITY);
INSERT INTO upgrades DEFAULT VALUES;
INSERT INTO schema_version (version, name) VALUES (900, 'upgrades') ON CONFLICT DO NOTHING;
"""
ARCHIVE = "archive.jsonl.zst"
READER = "POSTGRES_READER_PASSWORD"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {**own_settings("-server"), **SETTINGS}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Upstream:
    return Upstream(tmp_path_factory.mktemp("upstream"), settings, LISTS)


@pytest.fixture(scope="module")
def server(
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    upstream: Upstream,
) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("srv"), upstream, settings)
    yield server
    server.remove()


@pytest.fixture(scope="module")
def images() -> set[str]:
    """The ids of all images that were ever built here."""
    return set()


def all_is_well(server: Server) -> None:
    assert server.types("docker compose ps").count("(healthy)") == len(LASTING)
    server.becomes_ready()


def built(server: Server) -> set[str]:
    found = {server.inspect(name)["Image"] for name in ("initializer", "pgbouncer", *HEALTH_PORTS)}
    assert len(found) == 6
    return found


def test_from_an_empty_server_to_the_first_query(server: Server, images: set[str]) -> None:
    start, ask = blocks("docker.md", "From an empty server to the first query")
    assert blocks("README.md", "Run it") == [start]
    server.types(start)
    said = server.types(ask).split()
    assert said[said.index("relays") + 2] == "1"
    all_is_well(server)
    assert (server.folder / ".env").stat().st_mode & 0o077 == 0
    images |= built(server)


def test_the_archive_is_asked_from_the_host(server: Server) -> None:
    (ask,) = blocks("README.md", "Ask it")
    queries = [
        block.text
        for block in read_page("README.md")
        if "Ask it" in block.headings and block.language == "sql"
    ]
    said = server.types(ask, password=server.setting(READER), stdin="".join(queries))
    assert said.count(" row") == "".join(queries).count(";") == 5
    (console,) = blocks("docker.md", "Passwords")
    said = server.types(console, password=server.setting("PGBOUNCER_ADMIN_PASSWORD"))
    assert "bigbrotr_reader" in said


def test_the_owner_comes_in_beside_the_server(server: Server) -> None:
    (psql,) = blocks("maintenance.md", "Maintenance")
    assert "(1 row)" in server.types(psql, stdin="SELECT count(*) FROM pg_authid;")


@pytest.mark.parametrize(
    "commands", [*blocks("README.md", "Watch it"), *blocks("docker.md", "Health")]
)
def test_it_is_watched(server: Server, commands: str) -> None:
    said = server.watches(commands, until="SYNCHRONIZER - INFO")
    assert '{"status": "ready"}' in said


def test_events_come_and_go_in_files(server: Server) -> None:
    _, commands = blocks("export.md", "Commands")
    events = [AUTHOR.sign(1, 1_700_000_000 + number, [["t", "nostr"]], "") for number in range(40)]
    lines = [
        orjson.dumps({"event": event._asdict(), "relays": [{"url": RELAY, "seen_at": 1}]})
        for event in events
    ]
    (server.folder / ARCHIVE).write_bytes(b"\n".join(lines))
    _, bring_in = commands.splitlines()
    server.types(bring_in)
    server.types(commands)
    assert server.sql("SELECT count(*) FROM events") == "40"


def test_an_upgrade_keeps_the_archive(server: Server, upstream: Upstream, images: set[str]) -> None:
    before = (server.folder / ARCHIVE).read_bytes()
    own = "wss://of-the-operator.invalid"
    listed = server.folder / "priority_relays.txt"
    listed.write_text(f"{own}\n{listed.read_text()}")
    environment = server.folder / ".env"
    old = server.setting(READER)
    environment.write_text(environment.read_text().replace(old, "changed"))
    theirs = "wss://of-the-release.invalid"
    upstream.release(
        {"init/900_upgrades.sql": MIGRATION},
        {"priority_relays.txt": f"{theirs}\n", "seed_relays.txt": f"{theirs}\n"},
    )

    (commands,) = blocks("docker.md", "Upgrade")
    server.types(commands)
    all_is_well(server)
    assert server.sql("SELECT count(*) FROM upgrades") == "1"
    newest = "SELECT version FROM schema_version ORDER BY version DESC LIMIT 1"
    assert server.fetch(newest)[0]["version"] == 900  # with the password that was changed
    assert theirs in server.sql("SELECT string_agg(url, ' ') FROM relays")
    mounted = server.inside("priority_synchronizer", "cat", "priority_relays.txt")
    assert own in mounted
    assert theirs in mounted
    _, export = blocks("export.md", "Commands")
    server.types(export.splitlines()[0])
    assert (server.folder / ARCHIVE).read_bytes() == before
    now = built(server)
    assert there(images - now) == set()  # the old ones
    images |= now


def there(images: set[str]) -> set[str]:
    """Those of the images that are still on the machine."""
    return images & set(docker("image", "ls", "--all", "--quiet", "--no-trunc").split())


def test_changed_lists_are_handed_over(server: Server) -> None:
    added = "wss://added.invalid"
    for name in LISTS:
        listed = server.folder / name
        replaced = listed.with_suffix(".new")
        replaced.write_text(f"{listed.read_text()}{added}\n")
        replaced.rename(listed)
    (commands,) = blocks("docker.md", "Lists")
    server.types(commands)
    assert added in server.sql("SELECT string_agg(url, ' ') FROM relays")
    for service in ("synchronizer", "priority_synchronizer"):
        assert added in server.inside(service, "cat", "priority_relays.txt")


def test_removal_leaves_nothing(server: Server, images: set[str]) -> None:
    project = server.project
    assert len(server.left()) == len(NAMES) + 1 + 3  # with the volume and the networks
    volumes = {
        mount["Name"]
        for name in NAMES
        for mount in server.inspect(name)["Mounts"]
        if mount["Type"] == "volume"
    }
    assert f"{project}_database" in volumes  # images may ask for nameless ones
    remove, shared = blocks("docker.md", "Remove")
    server.types(remove)
    assert server.left() == []
    assert not volumes & set(docker("volume", "ls", "--quiet").split())
    assert docker("image", "ls", "--quiet", f"{project}/*") == ""
    assert there(images) == set()
    assert not server.folder.exists()

    # What other programs may use. The builder keeps its layers here: they save minutes.
    shared = shared.replace("builder prune -f", "builder prune -f --filter until=87600h")
    public = ("postgres:15-bookworm", "dperson/torproxy:latest")
    with kept_images(*public):
        server.types(shared)
        named = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        assert not set(public) & set(named)
