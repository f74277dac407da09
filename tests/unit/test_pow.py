"""NIP-13: proofs of work within a bound."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from nostr.events import event_id
from nostr.pow import Miner, difficulty_named, zero_bits

PUBKEY = "a" * 64
TAGS = [["relay", 'wss://a.example/"nonce","']]
EVENT = (PUBKEY, 1_700_000_000, 20_166, TAGS, 'say "nonce", "')


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize(
    ("id_", "bits"),
    [
        ("0" * 64, 256),
        ("f" * 64, 0),
        ("000000000e9d97a1ab09fc381030b346cdd7a142ad57e6df0b46dc9bef6c7e2d", 36),
        ("00" + "7f" + "0" * 60, 9),
    ],
)
def test_difficulty_is_the_number_of_leading_zero_bits(id_: str, bits: int):
    assert zero_bits(id_) == bits


@pytest.mark.parametrize("difficulty", [1, 8, 13])
async def test_the_tag_gives_the_event_its_difficulty(thread: ThreadPoolExecutor, difficulty: int):
    tag = await Miner(18, thread).nonce_tag(*EVENT, difficulty=difficulty, timeout=30)
    assert tag is not None
    assert (tag[0], tag[2]) == ("nonce", str(difficulty))
    pubkey, created_at, kind, tags, content = EVENT
    assert zero_bits(event_id(pubkey, created_at, kind, [*tags, tag], content)) >= difficulty


async def test_more_than_the_bound_is_not_even_tried(thread: ThreadPoolExecutor):
    assert await Miner(7, thread).nonce_tag(*EVENT, difficulty=8, timeout=30) is None


async def test_it_ends_in_time_and_lets_others_work(thread: ThreadPoolExecutor):
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            await asyncio.sleep(0.001)
            steps += 1

    counting = asyncio.create_task(count())
    started = time.monotonic()
    assert await Miner(200, thread).nonce_tag(*EVENT, difficulty=200, timeout=0.3) is None
    assert time.monotonic() - started < 5
    counting.cancel()
    assert steps > 5


@pytest.mark.parametrize(
    ("text", "difficulty"),
    [
        ("pow: difficulty 12 < 20", 20),
        ("pow: 28 bits needed. (2)", 28),
        ("pow: required a difficulty >= 16", 16),
        ("pow: too little", None),
        ("pow: 0", None),
        ("pow: event 1234567 is too cheap", None),
        ("pow: 257", None),
    ],
)
def test_a_refusal_names_its_difficulty(text: str, difficulty: int | None):
    assert difficulty_named(text) == difficulty
