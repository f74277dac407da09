"""The server's side of negentropy V1, written for clarity alone (shared with nothing in src/)."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import sha256

INFINITY = 2**64 - 1
Bound = tuple[int, bytes]
END: Bound = (INFINITY, b"")


class NegentropyServer:
    """Answers messages about a fixed set of (created_at, id in hex).

    `frame_bytes` limits its answers; what does not fit is left for the next round.
    """

    def __init__(self, items: Iterable[tuple[int, str]], frame_bytes: int = 10**9) -> None:
        self._items = sorted((second, bytes.fromhex(id_)) for second, id_ in items)
        self._frame_bytes = frame_bytes

    def answer(self, message: bytes) -> bytes:
        if message[0] != 0x61:
            return b"\x61"
        answer = Answer()
        lower: Bound = (0, b"")
        for upper, mode, payload in read_ranges(message):
            mine = self._between(lower, upper)
            if mode == 2:
                self._list(answer, mine, upper)
            elif mode == 1 and payload != fingerprint(mine):
                self._split(answer, mine, upper)
            else:
                answer.skip(upper)
            if answer.size > self._frame_bytes:
                rest = self._between(answer.bound, END)
                answer.add(END, 1, fingerprint(rest))
                break
            lower = upper
        return answer.encoded()

    def _between(self, lower: Bound, upper: Bound) -> list[Bound]:
        return self._items[bisect_left(self._items, lower) : bisect_left(self._items, upper)]

    def _list(self, answer: "Answer", mine: list[Bound], upper: Bound) -> None:
        room = max(1, (self._frame_bytes - answer.size) // 32)
        if len(mine) > room:
            mine, upper = mine[:room], mine[room]
            answer.add(upper, 2, ids(mine))
            answer.size = self._frame_bytes + 1
        else:
            answer.add(upper, 2, ids(mine))

    def _split(self, answer: "Answer", mine: list[Bound], upper: Bound) -> None:
        if len(mine) < 32:
            answer.add(upper, 2, ids(mine))
            return
        size = -(-len(mine) // 16)
        parts = [mine[at : at + size] for at in range(0, len(mine), size)]
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            answer.add(following[0] if following else upper, 1, fingerprint(part))


class Answer:
    """A message being written."""

    def __init__(self) -> None:
        self._ranges = b""
        self._second = 0
        self._skip: Bound | None = None
        self.bound: Bound = (0, b"")
        self.size = 0

    def skip(self, upper: Bound) -> None:
        self._skip = upper

    def add(self, upper: Bound, mode: int, payload: bytes) -> None:
        if self._skip is not None:
            skip, self._skip = self._skip, None
            self.add(skip, 0, b"")
        second, prefix = upper
        step = 0 if second == INFINITY else 1 + second - self._second
        self._second = second
        self._ranges += varint(step) + varint(len(prefix)) + prefix + varint(mode) + payload
        self.bound = upper
        self.size = len(self._ranges)

    def encoded(self) -> bytes:
        return b"\x61" + self._ranges


def read_ranges(message: bytes) -> Iterator[tuple[Bound, int, object]]:
    """(upper bound, mode, payload) of a message that is taken to be right."""
    at, second = 1, 0

    def number() -> int:
        nonlocal at
        value = 0
        while True:
            byte = message[at]
            at += 1
            value = value * 128 + byte % 128
            if byte < 128:
                return value

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        assert at <= len(message)
        return message[at - size : at]

    while at < len(message):
        step = number()
        second = INFINITY if step == 0 else second + step - 1
        prefix = take(number())
        mode = number()
        if mode == 0:
            payload: object = None
        elif mode == 1:
            payload = take(16)
        else:
            assert mode == 2
            payload = [take(32) for _ in range(number())]
        yield (second, prefix), mode, payload


def fingerprint(items: list[Bound]) -> bytes:
    total = sum(int.from_bytes(id_, "little") for _, id_ in items) % 2**256
    return sha256(total.to_bytes(32, "little") + varint(len(items))).digest()[:16]


def ids(items: list[Bound]) -> bytes:
    return varint(len(items)) + b"".join(id_ for _, id_ in items)


def varint(number: int) -> bytes:
    digits = []
    while True:
        digits.insert(0, number % 128 + (128 if digits else 0))
        number //= 128
        if not number:
            return bytes(digits)
