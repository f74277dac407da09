"""NIP-13: proof of work for the few events that we write ourselves."""

import asyncio
import re
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256

from nostr.json_text import encode_json

# Between two looks at the clock: about a millisecond.
_ROUND = 1_024
MAX_BITS = 256


@dataclass(frozen=True, slots=True)
class Miner:
    """Does proofs of work of up to `max_difficulty` leading zero bits in an executor: each bit
    doubles the work, and 18 take a core some 0.3 seconds."""

    max_difficulty: int
    executor: Executor

    async def nonce_tag(
        self,
        pubkey: str,
        created_at: int,
        kind: int,
        tags: list[list[str]],
        content: str,
        *,
        difficulty: int,
        timeout: float,
    ) -> list[str] | None:
        """The tag that gives the event, with it as its last tag, an id of `difficulty` zero bits;
        None if that is above the bound, or not done within `timeout` seconds."""
        if difficulty > self.max_difficulty:
            return None
        deadline = time.monotonic() + timeout
        event = (pubkey, created_at, kind, tags, content)
        mining = asyncio.get_running_loop().run_in_executor(
            self.executor, _mine, event, difficulty, deadline
        )
        try:
            async with asyncio.timeout(timeout):
                return await mining
        except TimeoutError:
            return None


def zero_bits(event_id: str) -> int:
    """The difficulty of an id: how many zero bits it starts with."""
    return MAX_BITS - int(event_id, 16).bit_length()


def difficulty_named(text: str) -> int | None:
    """The difficulty that a refusal asks for, "pow: 12 bits, 20 needed": its largest number that
    can be one; None if there is none."""
    numbers = [int(digits) for digits in re.findall(r"(?<!\d)\d{1,3}(?!\d)", text)]
    return max((number for number in numbers if 0 < number <= MAX_BITS), default=None)


def _mine(
    event: tuple[str, int, int, list[list[str]], str], difficulty: int, deadline: float
) -> list[str] | None:
    pubkey, created_at, kind, tags, content = event
    text = encode_json(
        (0, pubkey, created_at, kind, [*tags, ["nonce", "", str(difficulty)]], content)
    )
    after = b'","%d"]],%b]' % (difficulty, encode_json(content))
    start = sha256(text.removesuffix(after))
    shift = MAX_BITS - difficulty
    nonce = 0
    while time.monotonic() < deadline:
        for _ in range(_ROUND):
            attempt = start.copy()
            attempt.update(b"%d%b" % (nonce, after))
            if not int.from_bytes(attempt.digest()) >> shift:
                return ["nonce", str(nonce), str(difficulty)]
            nonce += 1
    return None
