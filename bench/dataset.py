"""Signed events to measure with: the same seed always gives the same events."""

import random
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path

import orjson

from nostr.events import SignedEvent
from standalone.signing import Author

START = 1_700_000_000
_AUTHORS = 1_000
_WORDS = ("relay", "event", "note", "zap", "gm", "nostr", "archive", "key", "über", "日本語", "🚀")


def steady(number: int) -> list[int]:
    """One event a second."""
    return [START + second for second in range(number)]


def growing(number: int, seconds: int, seed: int = 1) -> list[int]:
    """Times with a day's rhythm, a growth by ten over the whole and a few bursts of 200 in a
    second; sorted."""
    rng = random.Random(seed)
    bursts = [START + rng.randrange(seconds) for _ in range(number // 10_000)]
    times = [burst for burst in bursts for _ in range(200)]
    steps = 2_000
    weights = list(
        accumulate(
            10 ** (step / steps) * (1.2 + (step % 24 - 12) / 12) * rng.uniform(0.5, 1.5)
            for step in range(steps)
        )
    )
    while len(times) < number:
        step = bisect_left(weights, rng.random() * weights[-1])
        times.append(START + int((step + rng.random()) * seconds / steps))
    return sorted(times)


def sign(times: list[int], seed: str) -> list[SignedEvent]:
    """An event at each of the times: notes, reactions, contact lists, with tags and lengths as
    the network has them."""
    rng = random.Random(seed)
    authors = [Author(f"bench {number}") for number in range(_AUTHORS)]
    kinds = rng.choices((1, 7, 6, 3, 30_023), (60, 25, 10, 4, 1), k=len(times))
    return [_event(rng, rng.choice(authors), kind, time) for kind, time in zip(kinds, times)]  # noqa: B905


def save(events: list[SignedEvent], path: Path) -> Path:
    """One JSON object a line, oldest first."""
    path.write_bytes(b"\n".join(orjson.dumps(event._asdict()) for event in events))
    return path


def load(path: Path) -> list[SignedEvent]:
    """The events of a file of `save`."""
    return [SignedEvent(**orjson.loads(line)) for line in path.read_bytes().splitlines()]


def _event(rng: random.Random, author: Author, kind: int, time: int) -> SignedEvent:
    content = "" if kind == 3 else " ".join(rng.choices(_WORDS, k=int(rng.expovariate(1 / 25)) + 1))
    follows = rng.randrange(30) if kind == 3 else rng.randrange(3)
    tags = [["p", f"{rng.getrandbits(256):064x}"] for _ in range(follows)]
    if kind in (6, 7):
        tags.append(["e", f"{rng.getrandbits(256):064x}", "wss://relay.example.com"])
    if kind == 30_023:
        tags.append(["d", f"{rng.getrandbits(64):x}"])
    return SignedEvent(*author.sign(kind, time, tags, "+" if kind == 7 else content))
