"""What the suite reads and writes as text: .env, pgbouncer.ini, versions, package lists."""

import socket
from configparser import ConfigParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ConfigError, PortTaken
from standalone import dotenv, run
from standalone.debian import missing_packages
from standalone.pgbouncer import SERVER_CONFIGURATION, configuration
from standalone.postgres import major_version
from standalone.processes import free_port

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("  NAME = value  ", "value"),
        ("export NAME=value", "value"),
        ("NAME=", ""),
        ("NAME= # nothing", ""),
        ("NAME=value # comment", "value"),
        ("NAME=pass#word", "pass#word"),
        ("NAME='single # quoted'", "single # quoted"),
        ('NAME="double # quoted" # comment', "double # quoted"),
        ("NAME=a=b", "a=b"),
        ('NAME={"kinds":[1]}', '{"kinds":[1]}'),
    ],
)
def test_env_lines(line: str, value: str) -> None:
    assert dotenv.parse(line) == {"NAME": value}


def test_env_comments_and_blank_lines_are_nothing() -> None:
    assert dotenv.parse("# a\n\n  # b\nA=1\nA=2\n") == {"A": "2"}


@pytest.mark.parametrize("line", ["NAME", "=value", "1NAME=x", "two words=x"])
def test_env_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ConfigError, match=r"my\.env line 2 "):
        dotenv.parse(f"A=1\n{line}", "my.env")


def test_missing_env_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run `make env`"):
        dotenv.read(tmp_path / ".env")


def test_env_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        dotenv.read(path)


def test_the_example_is_read_and_its_placeholders_refused() -> None:
    variables = dotenv.read(REPOSITORY / "env.example")
    assert variables["POSTGRES_USER"] == "admin"
    with pytest.raises(ConfigError, match="POSTGRES_PASSWORD still has the placeholder"):
        run.make_plan(variables, Path("unused"))


@given(
    st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), st.from_regex(r"[a-z0-9:/.-]*", fullmatch=True)
)
def test_plain_values_survive(name: str, value: str) -> None:
    assert dotenv.parse(f"{name}={value}") == {name: value}


def test_plan_takes_names_and_passwords(tmp_path: Path) -> None:
    environ = {
        "POSTGRES_USER": "chief",
        "POSTGRES_DB": "nostr",
        "POSTGRES_PASSWORD": "a",
        "POSTGRES_WRITER_PASSWORD": "b",
        "POSTGRES_READER_PASSWORD": "c",
        "PGBOUNCER_AUTH_PASSWORD": "d",
    }
    plan = run.make_plan(environ, tmp_path)
    assert (plan.owner, plan.dbname, plan.folder) == ("chief", "nostr", tmp_path)
    passwords = plan.passwords
    assert (passwords.owner, passwords.writer, passwords.reader, passwords.pgbouncer_auth) == (
        *("a", "b", "c", "d"),
    )
    assert "'a'" not in repr(plan)


def test_services_do_not_get_the_suites_passwords() -> None:
    environ = {
        "POSTGRES_PASSWORD": "x",
        "PGBOUNCER_AUTH_PASSWORD": "x",
        "PGADMIN_DEFAULT_PASSWORD": "x",
        "LOG_LEVEL": "DEBUG",
    }
    assert run.service_settings(environ) == {"LOG_LEVEL": "DEBUG"}


def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match="MONITOR_PORT"):
            run.choose_port("MONITOR_PORT", {"MONITOR_PORT": str(port)})
    assert run.choose_port("MONITOR_PORT", {"MONITOR_PORT": str(port)}) == port


def test_of_a_range_of_ports_the_first_is_taken() -> None:
    port = free_port()
    assert run.choose_port("MONITOR_PORT", {"MONITOR_PORT": f"{port}-65535"}) == port


def test_data_goes_where_it_is_told(tmp_path: Path) -> None:
    assert run.data_folder(str(tmp_path)) == tmp_path
    assert run.data_folder(None).is_absolute()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x"])
def test_a_port_out_of_range_is_named(port: str) -> None:
    with pytest.raises(ConfigError, match="FINDER_PORT"):
        run.choose_port("FINDER_PORT", {"FINDER_PORT": port})


def read_ini(text: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_pgbouncer_differs_from_the_servers_in_places_only() -> None:
    template = SERVER_CONFIGURATION.read_text()
    made = read_ini(configuration(template, 7000, 7001, Path("/x/users"), {}))
    lines = [line for line in template.splitlines() if not line.startswith("%include")]
    server = read_ini("\n".join(line for line in lines if not line.startswith(";")))
    differing = {
        name
        for name in {*made["pgbouncer"], *server["pgbouncer"]}
        if made["pgbouncer"].get(name) != server["pgbouncer"].get(name)
    }
    assert differing == {"listen_addr", "listen_port", "auth_file", "admin_users"}
    assert made["pgbouncer"]["pool_mode"] == "transaction"
    assert made["pgbouncer"]["auth_type"] == "scram-sha-256"
    assert made["pgbouncer"]["listen_port"] == "7000"
    assert "port=7001" in made["databases"]["*"]
    assert "auth_user=pgbouncer_auth" in made["databases"]["*"]


def test_pgbouncer_settings_can_be_replaced() -> None:
    template = SERVER_CONFIGURATION.read_text()
    made = configuration(template, 1, 2, Path("u"), {"server_idle_timeout": "9"})
    assert read_ini(made)["pgbouncer"]["server_idle_timeout"] == "9"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
        ("postgres (PostgreSQL) 18beta1", 18),
        ("postgres (PostgreSQL) 9.6.24", 9),
        ("postgres (EnterpriseDB) 15.1", 0),
        ("", 0),
    ],
)
def test_versions_of_postgresql(text: str, version: int) -> None:
    assert major_version(text) == version


def test_missing_packages_are_those_apt_would_install() -> None:
    simulation = (
        "NOTE: This is only a simulation!\n"
        "Inst libevent-2.1-7 (2.1.12-stable-8 Debian:12/stable [amd64])\n"
        "Inst pgbouncer (1.18.0-1 Debian:12/stable [amd64])\n"
        "Conf pgbouncer (1.18.0-1 Debian:12/stable [amd64])\n"
    )
    assert missing_packages(simulation) == ["libevent-2.1-7", "pgbouncer"]
