"""README.md and the pages beside it: links lead somewhere, what is named exists."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from components.pages import ROOT, blocks

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for link in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            target = (page.parent / link).resolve()
            if target not in reached:
                todo.append(target)
    assert set(PAGES) <= reached


def test_tree_of_the_readme_is_that_of_the_repository() -> None:
    section = (ROOT / "README.md").read_text().split("## Where things are")[1]
    inside, outside = section.split("```")[1].split("\ninit/")
    named = set(re.findall(r"\b\w+\.py\b", inside))
    named |= set(re.findall(r"^  (\w+)/", inside, re.MULTILINE))
    there = {path.name for path in (ROOT / "src").iterdir() if path.name[0] not in "._"}
    assert named == there
    for name in re.findall(r"[\w.-]+\.(?:yml|txt|conf|example)", outside):
        assert (ROOT / name).exists(), name


def test_commands_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def test_commands_for_a_fresh_machine_are_two() -> None:
    """tests/e2e/test_demo.py runs what the first of them does, on a smaller set; the other one runs
    this."""
    (block,) = blocks("README.md", "Try it")
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make demo", "make test"]
    command = ["make", "--dry-run", "demo", "test"]
    alone = {"PATH": os.environ["PATH"]}  # whatever make runs these tests
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
    demo, test = done.stdout.splitlines()[-2:]
    assert re.fullmatch(r"PYTHONPATH=src \.venv/bin/python -m standalone\.demo ?", demo)
    assert re.fullmatch(r"\.venv/bin/python -m pytest ?", test)


def words_in(pattern: str, *sources: str) -> set[str]:
    """What the code calls things, read from the code itself."""
    text = "\n".join((ROOT / "src" / source).read_text() for source in sources)
    return set(re.findall(pattern, text))


def test_outcomes_of_the_monitor_are_explained() -> None:
    transport, connection = "nostr/transport.py", "nostr/connection.py"
    kinds = words_in(r'(?:return|else) "([a-z-]+)"', transport)
    kinds |= words_in(r'(?:\d+:|verify_code,) "(tls-[a-z-]+)"', transport)
    kinds |= words_in(r'ConnectFailed\(\s*"([a-z-]+)"', transport, connection)
    assert {"dns", "no-tor", "tls-certificate", "tls-expired", "socks"} <= kinds
    page = (ROOT / "docs/monitor.md").read_text()
    explained = set(re.findall(r"`([a-z-]+)`", page.split("\n## ")[0]))
    assert kinds - explained == set()


def test_reasons_for_refusing_and_for_keeping_raw_are_explained() -> None:
    events = "nostr/events.py"
    refused = words_in(r'EventRefused\("([a-z-]+)"', events)
    refused |= words_in(r'refused\["([a-z-]+)"\]', "sync/page_check.py")
    raw = words_in(r'return "((?:nul|lone|nested|number)[a-z-]*)"', events)
    assert {"malformed", "wrong-id", "wrong-signature"} <= refused
    assert {"nul", "lone-surrogate"} <= raw
    explained = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs/proof.md").read_text()))
    assert (refused | raw) - explained == set()
