"""Lists of relay URLs, the report on them, and the lists that were read by a person."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from check_relay_list import describe, main
from components.pages import blocks
from nostr.url_lists import MEANINGS, scan
from nostr.urls import RelayUrl, to_relay

SRC = Path(__file__).parents[2] / "src"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def test_a_list_is_read_with_counts():
    report = scan(
        [
            "\ufeff# relays",
            "",
            "wss://a.example.com  # the first",
            "wss://b.example.com/#fragment",
            "WS://A.example.com:80/",
            "wss://127.0.0.1",
            *(f"wss://10.0.0.{n}" for n in range(9)),
            "junk",
            *(f"wss://spam.example.com/{n}" for n in range(5)),
            "wss://spam.example.com",
        ],
        max_paths_per_host=3,
    )
    assert [url.url for url in report.accepted] == [
        "wss://a.example.com",
        "wss://b.example.com",
        *(f"wss://spam.example.com/{n}" for n in range(3)),
        "wss://spam.example.com",
    ]
    assert report.duplicates == 1
    assert report.refused == Counter(
        {"private-address": 10, "not-websocket": 1, "too-many-of-host": 2}
    )
    assert report.examples["private-address"] == (
        "wss://127.0.0.1",
        "wss://10.0.0.0",
        "wss://10.0.0.1",
    )


def test_every_reason_has_a_meaning():
    raised = set(re.findall(r'_Refused\(\s*"([a-z0-9-]+)"', (SRC / "nostr/urls.py").read_text()))
    raised |= {"not-a-string", "white-space"}  # one expression chooses between them
    assert raised | {"too-many-of-host"} == set(MEANINGS)


def test_the_documentation_has_the_same_reasons_and_meanings():
    page = (SRC.parent / "docs/discovery.md").read_text()
    assert dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", page, re.MULTILINE)) == MEANINGS


def test_the_report_names_counts_reasons_meanings_and_examples(tmp_path: Path, capsys):
    path = tmp_path / "list.txt"
    path.write_text("wss://a.example\nws://a.example/\nwss://10.0.0.1\nhttps://b.example\n")
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (f"{path}: 4 URLs, 1 relays (1 clearnet, 0 Tor), 1 repeated, 2 refused")
    assert lines[1].split(": ") == ["      1 private-address", MEANINGS["private-address"]]
    assert lines[2].strip() == "'wss://10.0.0.1'"
    assert main([str(path), "--accepted", "--allow-private"]) == 0
    assert capsys.readouterr().out.split() == ["wss://a.example", "wss://10.0.0.1"]


def test_files_without_a_relay_or_that_cannot_be_read_have_exit_codes(tmp_path: Path, capsys):
    path = tmp_path / "list.txt"
    path.write_text("junk\n")
    assert main([str(path)]) == 1
    assert main([str(tmp_path / "none.txt")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_documented_commands_run(tmp_path: Path):
    (commands,) = blocks("discovery.md", "URL rules")
    (tmp_path / "src").symlink_to(SRC)
    shutil.copy(SRC.parent / "seed_relays.txt", tmp_path)
    (tmp_path / "found.txt").write_text("WSS://B.example:443/\nwss://10.0.0.1\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", commands],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("seed_relays.txt: ")
    assert last == "wss://b.example"


# What was refused, after a person had read the whole report and agreed with it.
READ = {
    "relay_urls_raw.txt": {
        "private-address": 147,
        "bad-host": 15,
        "not-websocket": 5,
        "white-space": 5,
        "names-a-person": 4,
        "onion-not-v3": 4,
        "userinfo": 1,
        "unsupported-network": 1,
        "bad-character": 1,
    },
    "seed_relays.txt": {
        "private-address": 1392,
        "names-a-person": 4,
        "onion-not-v3": 3,
        "bad-host": 1,
    },
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not part of the repository")
def test_lists_from_the_field_are_read_as_a_person_would(name: str):
    lines = (CORPUS / name).read_text(errors="replace").splitlines()
    report = scan(lines)
    assert report.refused == READ[name]
    assert len(report.accepted) + report.duplicates + report.refused.total() == sum(
        1 for line in lines if line.strip() and not line.strip().startswith("#")
    )
    for url in report.accepted:
        assert RelayUrl.parse(url.url) == url
        assert to_relay(url).is_valid
    assert describe(name, report).count("\n") > len(READ[name])
