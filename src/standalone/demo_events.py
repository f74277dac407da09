"""The events of the demo: pure, and the same for the same arguments.

Most look like everyday traffic over five years. The rest are what archives have lost or
altered before: a second with more events than a relay returns, NUL, values too big for an index
entry, thousands of tags, control characters, replaced and deleted events, junk relay URLs.
"""

import random
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from standalone.signing import Author, DemoEvent

BURST = 1_200
MINIMUM_EVENTS = 4_000
_YEAR = 365 * 86_400
_AUTHORS = 60
_BURST_KINDS = (1, 6, 7, 16, 42, 1063, 1111, 1311, 1984, 9735)
_EVERYDAY_KINDS = (1,) * 10 + (7,) * 5 + (6, 6, 9735, 9735, 4, 16, 42, 1063, 1111, 1311, 1984)
_WORDS = (
    *("zap", "relay", "note", "archive", "bitcoin", "key", "until", "second", "events", "kept"),
    *(
        "Käse",
        "日本語",
        "привет",
        "مرحبا",
        "שלום",
        "ไทย",
        "🚀",
        "👩\u200d🚒",
        "ñandú",
        "Ω",
    ),
)

# Found on real lists: none of them is a relay. The finder has to refuse each.
JUNK_URLS = (
    "",
    "wss://",
    "not a relay",
    "http://example.com",
    "https://relay.example.com",
    "mailto:someone@example.com",
    "wss://user:secret@example.com",
    "wss://one.example.com,wss://two.example.com",
    "wss://example.com/with space",
    "wss://exa\u0000mple.com",
    "wss://npub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
    "wss://[object Object]",
    "wss://tooshort.onion",
    "wss://example.com:99999",
    "wss://" + "a" * 3_000 + ".example.com",
    "javascript:alert(1)",
)


@dataclass(frozen=True, slots=True)
class Planned:
    """An event and the numbers (0, 1, 2) of the relays that it is published to."""

    event: DemoEvent
    relays: tuple[int, ...]


def build_events(total: int, now: int, revealed_url: str, dead_url: str) -> list[Planned]:
    """`total` different signed events, none newer than `now`, in order of time.

    Relay lists in them name `revealed_url`, a relay that nothing else names, `dead_url`, where
    nothing answers, and junk. `total` is at least MINIMUM_EVENTS.
    """
    if total < MINIMUM_EVENTS:
        raise ValueError(f"the demo's set needs {MINIMUM_EVENTS} events or more, not {total}")
    rng = random.Random(total)
    authors = [Author(f"demo {number}") for number in range(_AUTHORS)]
    planned = [
        *_everywhere(_peculiar(authors, now)),
        *_everywhere(_relay_lists(authors, now, revealed_url, dead_url)),
        *_everywhere(_profiles(authors, now)),
        *_first_two(_rare_control_characters(authors[0], now)),
        *_spread(rng, _burst(rng, authors, now - _YEAR // 2)),
    ]
    planned += _spread(rng, _everyday(rng, authors, now, total - len(planned)))
    return sorted(planned, key=lambda one: (one.event.created_at, one.event.id))


def events_for(planned: Sequence[Planned], relay: int) -> list[DemoEvent]:
    """The events published to the relay with this number."""
    return [one.event for one in planned if relay in one.relays]


def most_in_one_second(events: Sequence[DemoEvent]) -> int:
    """How many of `events` share the busiest second."""
    seconds: list[int] = []
    for event in events:
        insort(seconds, event.created_at)
    best = run = 0
    for index, second in enumerate(seconds):
        run = run + 1 if index and second == seconds[index - 1] else 1
        best = max(best, run)
    return best


def _everywhere(events: Iterator[DemoEvent]) -> list[Planned]:
    return [Planned(event, (0, 1, 2)) for event in events]


def _first_two(events: Iterator[DemoEvent]) -> list[Planned]:
    return [Planned(event, (0, 1)) for event in events]


def _spread(rng: random.Random, events: Iterator[DemoEvent]) -> list[Planned]:
    """Each on one relay at least: alone on its own one, or on up to two others too."""
    choices = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    weights = (25, 18, 12, 20, 6, 6, 13)
    return [Planned(event, rng.choices(choices, weights)[0]) for event in events]


def _everyday(
    rng: random.Random, authors: Sequence[Author], now: int, amount: int
) -> Iterator[DemoEvent]:
    for number in range(amount):
        author = rng.choice(authors)
        # The network grows: half of it is from the last year.
        created_at = now - int(5 * _YEAR * rng.random() ** 2.3)
        kind = rng.choice(_EVERYDAY_KINDS)
        tags = [["p", rng.choice(authors).pubkey] for _ in range(rng.choice((0, 0, 1, 1, 2, 5)))]
        if rng.random() < 0.3:
            tags.append(["t", rng.choice(_WORDS)])
        if rng.random() < 0.1:
            kind = 30_023
            tags.append(["d", f"article {number}"])
        content = " ".join(rng.choices(_WORDS, k=rng.randint(1, 40)))
        yield author.sign(kind, created_at, tags, f"{content} #{number}")


def _burst(rng: random.Random, authors: Sequence[Author], second: int) -> Iterator[DemoEvent]:
    """More events in one second than any relay returns at once, few of each kind."""
    for number in range(BURST):
        kind = _BURST_KINDS[number % len(_BURST_KINDS)]
        yield rng.choice(authors).sign(kind, second, [], f"in the same second, number {number}")


def _profiles(authors: Sequence[Author], now: int) -> Iterator[DemoEvent]:
    """Two versions of each profile: a relay serves the newer one (NIP-01)."""
    for number, author in enumerate(authors):
        for version in (1, 2):
            created_at = now - 400 * 86_400 + version * 86_400 + number
            content = f'{{"name":"author {number}","about":"version {version}"}}'
            yield author.sign(0, created_at, [], content)


def _relay_lists(
    authors: Sequence[Author], now: int, revealed_url: str, dead_url: str
) -> Iterator[DemoEvent]:
    """Relay lists (kind 10002, NIP-65) with one good URL among the junk, and what a monitor says
    of the dead one (kind 30166, NIP-66)."""
    for number, author in enumerate(authors[:40]):
        junk = [["r", url] for url in JUNK_URLS[number % 4 :: 4]]
        good = [["r", revealed_url, "write"], ["r", dead_url]]
        yield author.sign(10_002, now - 86_400 * number - 3_600, [*junk, *good], "")
    checked = [["d", dead_url], ["n", "clearnet"], ["rtt-open", "12"]]
    yield authors[0].sign(30_166, now - 1_800, checked, "")


def _rare_control_characters(author: Author, now: int) -> Iterator[DemoEvent]:
    """nostr-relay computes other ids for these (it escapes with upper-case digits)."""
    for code in (0x0B, 0x0E, 0x0F, *range(0x1A, 0x20)):
        yield author.sign(1, now - 5_000_000 - code, [], f"control character [{chr(code)}]")


def _peculiar(authors: Sequence[Author], now: int) -> Iterator[DemoEvent]:
    author, other = authors[0], authors[1]
    old = now - 3 * _YEAR
    followed = [["p", Author(f"followed {number}").pubkey] for number in range(200)]
    yield author.sign(1, old + 1, [], "NUL \u0000 in the middle")
    yield author.sign(1, old + 2, [["t", "NUL \u0000 in a tag"]], "")
    yield author.sign(1, old + 3, [], "\u0000")
    yield author.sign(1, old + 4, [["t", random.Random(1).randbytes(8_000).hex()]], "16 kB tag")
    yield author.sign(1, old + 5, [["t", "Ω" * 12_000]], "a tag of 24 kB that compresses well")
    yield author.sign(3, old + 6, [[*tag, "", str(n)] for n in range(10) for tag in followed], "")
    controls = (*range(1, 0x0B), 0x0C, 0x0D, *range(0x10, 0x1A), 0x7F, 0x80)
    yield author.sign(1, old + 7, [], "".join(map(chr, controls)))
    yield author.sign(
        1, old + 8, [], 'tab\t newline\n return\r quote" backslash\\ slash/ \\u0041 \\n'
    )
    yield author.sign(1, old + 9, [], "\u2028\u2029\ufeff\uffff\U0010ffff e\u0301 \u200f\u202e")
    yield author.sign(1, old + 10, [], '{"json":"in json","id":"\\u0000"}')
    yield author.sign(1, old + 11, [], "")
    yield author.sign(1, old + 12, [[""], ["x"], ["t", ""], ["e", "", "", "reply"]], "odd tags")
    yield author.sign(1, old + 13, [["t"] + ["v"] * 300], "a tag with 300 values")
    yield author.sign(30_023, old + 14, [["d", ""]], "# An empty d tag")
    yield author.sign(65_535, old + 15, [], "the greatest kind")
    yield author.sign(1, old + 16, [], "long " * 12_000)
    yield author.sign(1, 1, [], "a clock that was never set")
    yield author.sign(1, 1_000_000_000, [], "older than the protocol")
    for age in (0, 1, 2, 30, 600):
        yield author.sign(1, now - age, [["t", "fresh"]], f"{age} seconds old")
    for number in range(3):
        regretted = other.sign(1, old + 100 + number, [], f"regretted {number}")
        yield regretted
        yield other.sign(5, old + 200 + number, [["e", regretted.id], ["k", "1"]], "deleted")
