"""The variables: what the code and the compose file read, env.example and README.md agree."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import config
from errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = (REPOSITORY / "env.example").read_text()
# `NAME=value`, or `#NAME=value` where the value is the default.
ASSIGNMENTS = re.findall(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE, re.MULTILINE)
LOADERS = (
    config.load_finder_config,
    config.load_initializer_config,
    config.load_monitor_config,
    config.load_priority_synchronizer_config,
    config.load_synchronizer_config,
)
SECRETS = {
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    "POSTGRES_OWNER_PASSWORD",
    "POSTGRES_READER_PASSWORD",
    "POSTGRES_WRITER_PASSWORD",
    "PGBOUNCER_AUTH_PASSWORD",
}
# Their commented values are examples, for there is no default or it depends on the place.
NO_DEFAULTS = {
    "TORPROXY_HOST",
    "POSTGRES_HOST",
    "POSTGRES_OWNER_USER",
    "POSTGRES_OWNER_PASSWORD",
    "POSTGRES_DIRECT_HOST",
}


class Watched(dict[str, str]):
    """An environment that remembers which variables were asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@pytest.fixture
def required(tmp_path: Path) -> dict[str, str]:
    priority = tmp_path / "priority.txt"
    priority.touch()
    return {
        "POSTGRES_HOST": "h",
        "POSTGRES_USER": "u",
        "POSTGRES_PASSWORD": "p",
        "SYNCHRONIZER_PRIORITY_RELAYS_PATH": str(priority),
    }


def read_by_config(required: dict[str, str]) -> set[str]:
    environ = Watched(required | {"TORPROXY_HOST": "t", "POSTGRES_OWNER_PASSWORD": "o"})
    for load in LOADERS:
        load(environ)
    assert {name for name in environ.asked if name.endswith("_FILE")} == {
        f"{secret}_FILE" for secret in SECRETS
    }
    # The initializer has no pool variables; nothing is read without its prefix.
    assert not environ.asked & {"DB_MIN_POOL", "DB_MAX_POOL", "DB_COMMAND_TIMEOUT"}
    return {name for name in environ.asked if not name.endswith("_FILE")}


def used_by_compose() -> set[str]:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    substituted = set(re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)", text))
    services = yaml.safe_load(text)["services"].values()
    return substituted | {
        name
        for service in services
        for name, value in service.get("environment", {}).items()
        if value is None
    }


def documented() -> Iterator[str]:
    """Names in the first cells of README.md's tables, with what shorthand stands for."""
    names = [name for _, name, _ in ASSIGNMENTS]
    for row in re.findall(r"^\|([^|]*)\|", (REPOSITORY / "README.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`([A-Z][A-Z0-9_]*\*?)`", row):
            if name.endswith("*"):
                yield from (full for full in names if full.startswith(name[:-1]))
            else:
                yield name


def test_env_example_has_what_is_read_and_nothing_else(required: dict[str, str]) -> None:
    names = [name for _, name, _ in ASSIGNMENTS]
    assert len(set(names)) == len(names)
    assert set(names) == read_by_config(required) | used_by_compose()


def test_readme_explains_the_same_variables() -> None:
    assert set(documented()) == {name for _, name, _ in ASSIGNMENTS}


def test_commented_values_are_the_defaults(required: dict[str, str]) -> None:
    shown = {
        name: value
        for mark, name, value in ASSIGNMENTS
        if mark and name not in NO_DEFAULTS | set(required)
    }
    shown.pop("PRIORITY_SYNCHRONIZER_PRIORITY_RELAYS_PATH")
    for load in LOADERS:
        assert load(required | shown) == load(required)


def test_commented_values_are_the_defaults_of_the_compose_file() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    defaults = dict(re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*):?-([^}]+)\}", text))
    shown = {name: value for mark, name, value in ASSIGNMENTS if mark}
    assert {name: defaults[name] for name in defaults if name in shown} == {
        name: shown[name] for name in defaults if name in shown
    }


def test_the_example_itself_is_refused_until_it_is_edited(required: dict[str, str]) -> None:
    example = {name: value for mark, name, value in ASSIGNMENTS if not mark}
    for load in LOADERS:
        with pytest.raises(ConfigError, match="POSTGRES_PASSWORD still has the placeholder"):
            load(required | example)
        edited = {
            name: "s3cret" if value == "CHANGE_ME" else value for name, value in example.items()
        }
        load(required | edited)
