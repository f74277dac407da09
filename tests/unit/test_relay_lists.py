"""The lists that BigBrotr comes with."""

from pathlib import Path

import pytest

from nostr.url_lists import scan
from nostr.urls import RelayUrl

REPOSITORY = Path(__file__).parents[2]
LISTS = ("seed_relays.txt", "priority_relays.txt")


def lines(name: str) -> list[str]:
    text = (REPOSITORY / name).read_text(encoding="ascii")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_a_canonical_url_and_unique(name: str) -> None:
    listed = lines(name)
    assert [RelayUrl.parse(line).url for line in listed] == listed
    assert len(set(listed)) == len(listed)
    report = scan((REPOSITORY / name).read_text().splitlines())
    assert [url.url for url in report.accepted] == listed
    assert not report.refused


def test_the_seeds_span_both_networks() -> None:
    networks = [RelayUrl.parse(line).network for line in lines("seed_relays.txt")]
    assert networks.count("clearnet") >= 300
    assert networks.count("tor") >= 5


def test_priority_relays_are_few_and_are_seeds_too() -> None:
    priority = lines("priority_relays.txt")
    assert 20 <= len(priority) <= 30
    assert set(priority) <= set(lines("seed_relays.txt"))
