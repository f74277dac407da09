"""`make env`: a fresh .env, good as it is, and never instead of an old one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from config import load_initializer_config, load_monitor_config
from errors import ConfigError
from nostr.keys import public_key
from standalone import dotenv
from standalone.run import make_plan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make env` uses of a clone."""
    (tmp_path / "src/standalone").mkdir(parents=True)
    for name in ("Makefile", "env.example", "src/standalone/new_env.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make_env(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--silent", "env", *arguments], cwd=clone, capture_output=True, text=True
    )


def secrets_of(variables: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if name.endswith("_PASSWORD") or name == "SECRET_KEY"
    }


def test_it_is_good_as_it_is(clone: Path) -> None:
    done = make_env(clone)
    assert done.returncode == 0, done.stderr
    path = clone / ".env"
    assert path.stat().st_mode & 0o777 == 0o600
    written = dict(dotenv.read(path))
    secrets = secrets_of(written)
    assert len(secrets) == 7
    assert len(set(secrets.values())) == len(secrets)
    assert all(len(value) >= 48 for value in secrets.values())
    assert written["PUBLIC_KEY"] == public_key(written["SECRET_KEY"])
    assert not any(value in done.stdout + done.stderr for value in secrets.values())

    example = dict(dotenv.read(clone / "env.example"))
    assert written.keys() == example.keys()
    same = example.keys() - secrets.keys() - {"PUBLIC_KEY"}
    assert {name: written[name] for name in same} == {name: example[name] for name in same}

    assert load_initializer_config({**written, "POSTGRES_HOST": "h"}).role_passwords.reader
    assert load_monitor_config({**written, "POSTGRES_HOST": "h"}).keypair
    assert make_plan(written, clone).passwords.owner == written["POSTGRES_PASSWORD"]


def test_each_is_another(clone: Path) -> None:
    first, second = [], []
    for secrets in (first, second):
        assert make_env(clone).returncode == 0
        secrets += secrets_of(dict(dotenv.read(clone / ".env"))).values()
        (clone / ".env").unlink()
    assert set(first).isdisjoint(second)


def test_an_existing_one_is_left_alone(clone: Path) -> None:
    (clone / ".env").write_text("POSTGRES_DB=mine\n")
    refused = make_env(clone)
    assert refused.returncode != 0
    assert "env: .env is there already and stays as it is" in refused.stderr
    assert (clone / ".env").read_text() == "POSTGRES_DB=mine\n"
    assert not (clone / ".env.new").exists()


def test_secrets_in_files(clone: Path) -> None:
    done = make_env(clone, "SECRETS=1")
    assert done.returncode == 0, done.stderr
    written = dict(dotenv.read(clone / ".env"))
    assert written["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.secrets.yml"
    # With what is left in .env nothing starts, should docker-compose.secrets.yml be forgotten.
    left = secrets_of(written)
    assert left.pop("SECRET_KEY") == left.pop("PGADMIN_DEFAULT_PASSWORD") == ""
    assert left == {name: f"CHANGE_ME_IN_secrets/{name.lower()}" for name in left}
    assert {path.name for path in (clone / "secrets").iterdir()} == {
        name.lower() for name in secrets_of(written)
    }
    with pytest.raises(ConfigError, match="still has the placeholder"):
        make_plan(written, clone)
    assert (clone / "secrets").stat().st_mode & 0o777 == 0o700
    text = (clone / ".env").read_text()
    for path in (clone / "secrets").iterdir():
        assert re.fullmatch("[0-9a-f]{48,64}\n", path.read_text())
        assert path.stat().st_mode & 0o777 == 0o644  # users 999, 1000 and 5050 read them
        assert path.read_text().strip() not in text

    files = {f"{name}_FILE": f"{clone}/secrets/{name.lower()}" for name in secrets_of(written)}
    given = {name: written[name] for name in ("POSTGRES_USER", "PUBLIC_KEY")}
    loaded = load_monitor_config({**given, **files, "POSTGRES_HOST": "h"})
    assert loaded.keypair
    assert loaded.keypair.secret_key == (clone / "secrets/secret_key").read_text().strip()

    (clone / ".env").unlink()
    refused = make_env(clone, "SECRETS=1")
    assert "secrets/ is there already" in refused.stderr
    assert not (clone / ".env").exists()
