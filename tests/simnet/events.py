"""Signed events of a simulated network, and what a relay may send in their place."""

import json
import random
from functools import cache
from hashlib import sha256
from typing import Any

from coincurve import PrivateKey

Event = dict[str, Any]

START = 1_700_000_000
TARGET = (START, START + 4_000)  # the seconds that are synchronized, both included
AUTHORS = 12
KINDS = (1, 1, 1, 1, 6, 7, 7, 0, 3, 30_023, 1_984, 9_735)
_ODD_CONTENTS = (
    "control \x01\x08\x0b\x0c\x1f and \x7f",
    "nul \x00 in it",
    "separators \u2028 \u2029, astral \U0001f600, combining e\u0301",
    '"quotes" \\ back\\u0041slash / slash',
    "line\r\n\ttab",
    "x" * 20_000,
)
_ODD_TAGS = (
    [[]],
    [["t"]],
    [["t", "nul \x00"]],
    [["", ""], ["e", ""]],
    [["d", "y" * 5_000], ["😀", "not a letter"]],
    [["p", f"{n:064x}"] for n in range(200)],
)


def rng_of(*parts: object) -> random.Random:
    """The random numbers of one thing of one seed."""
    return random.Random("/".join(map(str, parts)))


@cache
def _key(author: int) -> tuple[PrivateKey, str]:
    key = PrivateKey.from_int(1_000 + author)
    return key, key.public_key_xonly.format().hex()


def event_id(event: Event) -> str:
    """The id by NIP-01, in the spelling that every client agrees on."""
    fields = [0, *(event[name] for name in ("pubkey", "created_at", "kind", "tags", "content"))]
    return sha256(
        json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def sign(
    created_at: int,
    kind: int = 1,
    content: str = "",
    tags: list[list[str]] | None = None,
    author: int = 0,
) -> Event:
    """An event with a right id and signature."""
    key, pubkey = _key(author)
    event: Event = {
        "id": "",
        "pubkey": pubkey,
        "created_at": created_at,
        "kind": kind,
        "tags": tags or [],
        "content": content,
        "sig": "",
    }
    event["id"] = event_id(event)
    event["sig"] = key.sign_schnorr(bytes.fromhex(event["id"]), b"\0" * 32).hex()
    return event


def draw_second(rng: random.Random) -> int:
    """A second in or near the target: spread, in a busy hour, or at the target's very edges."""
    since, until = TARGET
    match rng.randrange(8):
        case 0:
            return rng.choice([since, until, since - 1, until + 1])
        case 1 | 2:
            return since + 900 + round(abs(rng.gauss(0, 60)))
        case 3:
            return rng.randint(since - 200, until + 200)
        case _:
            return rng.randint(since, until)


def draw_pool(rng: random.Random, count: int) -> list[Event]:
    """Ordinary events, and among them the oddities that an archive must not alter."""
    events = [
        sign(
            draw_second(rng),
            rng.choice(KINDS),
            f"{rng.random()} {n}",
            author=rng.randrange(AUTHORS),
        )
        for n in range(count)
    ]
    odd = [sign(draw_second(rng), 1, content, author=1) for content in _ODD_CONTENTS]
    odd += [sign(draw_second(rng), 1, "odd tags", tags, author=2) for tags in _ODD_TAGS]
    return events + odd


def draw_burst(rng: random.Random, second: int, count: int, kinds: int) -> list[Event]:
    """So many events in one second, spread over so many kinds."""
    return [
        sign(
            second,
            1 if kinds == 1 else 2_000 + n % kinds,
            f"burst {n} {rng.random()}",
            author=n % 3,
        )
        for n in range(count)
    ]


def wrong_events(rng: random.Random) -> list[object]:
    """One of each kind of thing that is sent as an event and is none."""
    since, until = TARGET

    def right() -> Event:
        return sign(rng.randint(since, until), 1, f"wrong {rng.random()}")

    upper_id, upper_sig, upper_key = right(), right(), right()
    upper_id["id"] = upper_id["id"].upper()
    upper_sig["sig"] = upper_sig["sig"].upper()
    upper_key["pubkey"] = upper_key["pubkey"].upper()
    unsigned = right()
    del unsigned["sig"]
    return [
        {**right(), "content": "changed"},
        {**right(), "sig": "00" * 64},
        {**right(), "id": "f" * 64},
        {**right(), "created_at": until - 3},
        upper_id,
        upper_sig,
        upper_key,
        unsigned,
        {**right(), "kind": "1"},
        {**right(), "kind": True},
        {**right(), "kind": 70_000},
        {**right(), "created_at": 1.7e9},
        {**right(), "created_at": -1},
        {**right(), "created_at": 2**70},
        {**right(), "tags": "t"},
        {**right(), "tags": [["t", {"deep": [[[[]]]]}]]},
        {**right(), "content": None},
        {**right(), "pubkey": "f" * 64},
        sign(rng.randint(since, until), 22_242, "", [["challenge", "x"]]),
        [],
        None,
        "an event",
        7,
    ]


def outside_events(rng: random.Random) -> list[Event]:
    """Valid events that no request of the synchronizer asks for."""
    return [sign(TARGET[0] - 10_000 - n, 1, f"outside {rng.random()}") for n in range(3)]


def junk_events(rng: random.Random, count: int) -> list[Event]:
    """Events with a wrong signature that a relay holds and serves like its others."""
    second = rng.randint(*TARGET)
    return [
        {**sign(second + n % 3, 1, f"junk {n} {rng.random()}"), "sig": "01" * 64}
        for n in range(count)
    ]
