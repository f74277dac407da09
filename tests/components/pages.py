"""The fenced blocks of README.md and docs/, for the tests that run them as printed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


@dataclass(frozen=True, slots=True)
class Block:
    """A block, the language that its fence names, and the headings above it, the title first."""

    headings: tuple[str, ...]
    language: str
    text: str


def read_page(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    headings: list[str] = []
    inside: list[str] | None = None
    language = ""
    for line in PAGES[page].read_text().splitlines(keepends=True):
        if line.startswith("```"):
            if inside is None:
                language, inside = line[3:].strip(), []
            else:
                yield Block(tuple(headings), language, "".join(inside))
                inside = None
        elif inside is not None:
            inside.append(line)
        elif found := re.match(r"(#+) (.*)", line):
            headings[len(found[1]) - 1 :] = [found[2]]
    assert inside is None, f"{page} ends within a block"


def blocks(page: str, heading: str, language: str = "bash") -> list[str]:
    """The blocks under a heading and those under it, in order.

    tests/unit/test_docs_are_run.py looks for calls of this: write page and heading out in them.
    """
    found = [
        block.text
        for block in read_page(page)
        if heading in block.headings and block.language == language
    ]
    assert found, f"{page} has no block of {language} under {heading!r}"
    return found


def cron_command(page: str, heading: str) -> str:
    """The command of the crontab line under a heading, as cron hands it to the shell."""
    (line,) = blocks(page, heading, "crontab")
    return line.split(maxsplit=5)[5].replace("\\%", "%")
