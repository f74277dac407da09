"""requirements*.txt: all of what requirements*.in ask for, each release held by its hashes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A release, then its hashes on lines of their own.
PINNED = re.compile(
    r"^([\w.-]+)==(\S+)(?: ; .+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


def wanted(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    pins = re.findall(r"^([\w.-]+)==([\w.]+)(?: ;.*)?$", text, re.MULTILINE)
    others = [line for line in text.splitlines() if line and line[0] not in "#-"]
    assert len(pins) == len(others), f"{name}: every line has to pin a release"
    return {package.lower().replace(".", "-"): version for package, version in pins}


def locked(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    found = {package: version for package, version, _ in PINNED.findall(text)}
    releases = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(found) == len(releases), f"{name}: a line without hashes"
    return found


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_what_is_asked_for_is_locked(name: str) -> None:
    asked = wanted(f"{name}.in")
    assert asked
    assert asked.items() <= locked(f"{name}.txt").items(), "run `make requirements`"


def test_tests_run_on_what_the_images_hold() -> None:
    assert locked("requirements.txt").items() <= locked("requirements-dev.txt").items()
