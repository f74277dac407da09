"""No block of README.md and docs/ can be read by people that no test takes from its page and runs.

Which test that is, the tests' own source says: `first, _ = blocks(page, heading)` takes the first
block under a heading and leaves the second to others.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from components.pages import PAGES, ROOT, Block, read_page

TO_RUN = {"bash", "crontab", "yaml"}
# Queries are taken by page, in test_documented_queries.py; the rest is to be looked at.
OTHERS = {"sql", "json", "mermaid", "text"}
_LANGUAGES = {"blocks": "bash", "cron_command": "crontab"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a test takes: the blocks of a language under a heading, but for the places `left`."""

    page: str
    heading: str
    language: str
    left: frozenset[int] = frozenset()

    def covers(self, block: Block, of_page: Sequence[Block]) -> bool:
        found = [
            other
            for other in of_page
            if self.heading in other.headings and self.language == other.language
        ]
        return any(other is block and place not in self.left for place, other in enumerate(found))


def claims(source: str) -> Iterator[Claim]:
    left: dict[ast.AST, frozenset[int]] = {}
    for node in ast.walk(ast.parse(source)):  # an assignment comes before what it assigns
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=value):
                ignored = [place for place, name in enumerate(names) if ast.unparse(name) == "_"]
                left[value] = frozenset(ignored)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _LANGUAGES:
                words = [*map(ast.literal_eval, arguments), _LANGUAGES[name]]
                yield Claim(*words[:3], left.get(node, frozenset()))


@pytest.fixture(scope="module")
def taken() -> list[Claim]:
    return [claim for path in ROOT.glob("tests/*/test_*.py") for claim in claims(path.read_text())]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_taken_by_a_test(page: str, taken: list[Claim]) -> None:
    of_page = list(read_page(page))
    for block in of_page:
        assert block.language in TO_RUN | OTHERS, f"{page}: what is this?\n{block.text}"
        if block.language in TO_RUN:
            found = any(claim.page == page and claim.covers(block, of_page) for claim in taken)
            assert found, f"no test runs this of {page}:\n{block.text}"


def test_pages_in_folders_of_docs_have_no_blocks() -> None:
    """Those of docs/benchmarks are written by a program."""
    for path in (ROOT / "docs").glob("*/**/*.md"):
        assert "```" not in path.read_text(), path


def test_a_block_that_no_test_takes_is_seen() -> None:
    source = 'first, _ = blocks("a.md", "Top")\nrun(cron_command("a.md", "Low"))'
    found = list(claims(source))
    assert found == [Claim("a.md", "Top", "bash", frozenset({1})), Claim("a.md", "Low", "crontab")]
    of_page = [
        Block(("Title", "Top"), "bash", ""),
        Block(("Title", "Top", "Low"), "bash", ""),
        Block(("Title", "Top", "Low"), "crontab", ""),
        Block(("Title", "Top", "Low"), "yaml", ""),
        Block(("Title", "Other"), "bash", ""),
    ]
    covered = [any(claim.covers(block, of_page) for claim in found) for block in of_page]
    assert covered == [True, False, True, False, False]
