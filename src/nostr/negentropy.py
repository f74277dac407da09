"""Negentropy protocol V1, the client's side (pure): what does the other set have that ours lacks?

The format is in the appendix of NIP-77. A message is a version byte and consecutive ranges of
items, each given by its upper bound; a range says "skip", a fingerprint of the sender's items,
or their ids. The client splits every range whose fingerprint differs from its own, until the
server lists the ids of what is left.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import accumulate

from errors import MessageMalformed

VERSION = 0x61
# 131,072 bytes is the message size that most relays take; in hex this needs 120,000 of them.
FRAME_BYTES = 60_000
SMALLEST_FRAME_BYTES = 4_096
# Relays are known to answer with 500,000 bytes.
MAX_MESSAGE_BYTES = 1_000_000
# More ranges than this fit no honest message; fingerprints take 19 bytes at least.
MAX_RANGES = MAX_MESSAGE_BYTES // 19

ID_BYTES = 32
_FINGERPRINT_BYTES = 16
_BUCKETS = 16
# Room for one range split into buckets, and for the fingerprint of all that is left.
_SPLIT_BYTES = 2_048
_MODULUS = 1 << 256
_INFINITY = (1 << 64) - 1
_MAX_VARINT_BYTES = 10
_SKIP, _FINGERPRINT, _IDS = 0, 1, 2

# A second and the beginning of an id: ranges end before the first item that is not below.
_Bound = tuple[int, bytes]
_END: _Bound = (_INFINITY, b"")


class Negentropy:
    """One reconciliation: `initiate`, then `reconcile` with each answer until it returns None.

    Args:
        items: (created_at, id in hex) of every item of our set, in any order.
        frame_bytes: the longest message to produce, in bytes before hex; at least
            SMALLEST_FRAME_BYTES.

    Raises ValueError for an item that is none.
    """

    def __init__(self, items: Iterable[tuple[int, str]], *, frame_bytes: int = FRAME_BYTES) -> None:
        if frame_bytes < SMALLEST_FRAME_BYTES:
            raise ValueError(
                f"frame_bytes must be {SMALLEST_FRAME_BYTES} or more, got {frame_bytes}"
            )
        self._items = sorted({_item(created_at, id_) for created_at, id_ in items})
        self._sums = list(
            accumulate((int.from_bytes(id_, "little") for _, id_ in self._items), initial=0)
        )
        self._full = frame_bytes - _SPLIT_BYTES
        self._have: set[bytes] = set()
        self._need: set[bytes] = set()

    @property
    def have(self) -> frozenset[str]:
        """Ids that are ours and, as far as is known by now, not the other's."""
        return frozenset(id_.hex() for id_ in self._have)

    @property
    def need(self) -> frozenset[str]:
        """Ids that are the other's and, as far as is known by now, not ours."""
        return frozenset(id_.hex() for id_ in self._need)

    @property
    def need_count(self) -> int:
        return len(self._need)

    def initiate(self) -> bytes:
        """The first message."""
        message = _Message()
        self._split(message, 0, len(self._items), _END)
        return message.encoded()

    def reconcile(self, answer: bytes) -> bytes | None:
        """Takes the server's answer; the next message, or None if the sets are reconciled.

        Raises MessageMalformed if the answer is no message of V1.
        """
        message = _Message()
        lower = 0
        for bound, mode, payload in _ranges(answer):
            upper = bisect_left(self._items, bound, lower)
            if mode == _FINGERPRINT and payload[0] != self._fingerprint(lower, upper):
                self._split(message, lower, upper, bound)
            else:
                if mode == _IDS:
                    self._compare(lower, upper, payload)
                message.skip(bound)
            lower = upper
            if message.size > self._full and bound != _END:
                # What is left of the answer is dropped, and asked for again as one range.
                message.fingerprint(_END, self._fingerprint(lower, len(self._items)))
                break
        return message.encoded() if message.asks else None

    def _split(self, message: "_Message", lower: int, upper: int, bound: _Bound) -> None:
        count = upper - lower
        if count < 2 * _BUCKETS:
            message.ids(bound, [id_ for _, id_ in self._items[lower:upper]])
            return
        for bucket in range(1, _BUCKETS + 1):
            end = lower + count * bucket // _BUCKETS
            start = lower + count * (bucket - 1) // _BUCKETS
            until = bound if bucket == _BUCKETS else self._bound_before(end)
            message.fingerprint(until, self._fingerprint(start, end))

    def _bound_before(self, index: int) -> _Bound:
        """The shortest bound between an item and the one before it."""
        (second_before, id_before), (second, id_) = self._items[index - 1], self._items[index]
        if second != second_before:
            return second, b""
        shared = next(at for at in range(ID_BYTES) if id_[at] != id_before[at])
        return second, id_[: shared + 1]

    def _compare(self, lower: int, upper: int, theirs: list[bytes]) -> None:
        ours = {id_ for _, id_ in self._items[lower:upper]}
        others = set(theirs)
        self._have |= ours - others
        self._need |= others - ours

    def _fingerprint(self, lower: int, upper: int) -> bytes:
        total = (self._sums[upper] - self._sums[lower]) % _MODULUS
        digest = sha256(total.to_bytes(ID_BYTES, "little") + _varint(upper - lower)).digest()
        return digest[:_FINGERPRINT_BYTES]


class _Message:
    """A message being written: neighbouring ranges to skip become one, the last is left out."""

    def __init__(self) -> None:
        self._out = bytearray([VERSION])
        self._second = 0
        self._skipped: _Bound | None = None

    @property
    def size(self) -> int:
        return len(self._out)

    @property
    def asks(self) -> bool:
        """Whether there is anything in it to answer."""
        return len(self._out) > 1

    def encoded(self) -> bytes:
        return bytes(self._out)

    def skip(self, bound: _Bound) -> None:
        self._skipped = bound

    def fingerprint(self, bound: _Bound, fingerprint: bytes) -> None:
        self._range(bound, _FINGERPRINT)
        self._out += fingerprint

    def ids(self, bound: _Bound, ids: list[bytes]) -> None:
        self._range(bound, _IDS)
        self._out += _varint(len(ids)) + b"".join(ids)

    def _range(self, bound: _Bound, mode: int) -> None:
        if self._skipped is not None:
            skipped, self._skipped = self._skipped, None
            self._range(skipped, _SKIP)
        second, prefix = bound
        if second == _INFINITY:
            self._out += _varint(0)
        else:
            self._out += _varint(1 + second - self._second)
            self._second = second
        self._out += _varint(len(prefix)) + prefix + _varint(mode)


class _Reader:
    """Bytes being read; raises MessageMalformed at their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise MessageMalformed("negentropy message ends in the middle of a range")
        self._at += size
        return taken

    def varint(self) -> int:
        value = 0
        for _ in range(_MAX_VARINT_BYTES):
            byte = self.take(1)[0]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise MessageMalformed("negentropy message holds a number beyond 64 bits")


def _ranges(message: bytes) -> Iterator[tuple[_Bound, int, list[bytes]]]:
    """Upper bound, mode and payload (a fingerprint or ids) of each range of a message."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise MessageMalformed(f"negentropy message of {len(message)} bytes")
    reader = _Reader(message)
    if reader.take(1)[0] != VERSION:
        raise MessageMalformed(f"negentropy message of another version: {message[:1].hex()}")
    last: _Bound = (0, bytes(ID_BYTES))
    for _ in range(MAX_RANGES):
        if reader.ended:
            return
        bound, full = _read_bound(reader, last[0])
        if full < last:
            raise MessageMalformed("negentropy message with bounds out of order")
        last = full
        mode = reader.varint()
        yield bound, mode, _read_payload(reader, mode)
    if not reader.ended:
        raise MessageMalformed(f"negentropy message of more than {MAX_RANGES} ranges")


def _read_bound(reader: _Reader, last_second: int) -> tuple[_Bound, _Bound]:
    """A bound as it is searched for, and padded so that bounds compare."""
    step = reader.varint()
    second = last_second + step - 1 if step and last_second < _INFINITY else _INFINITY
    if second > _INFINITY:
        raise MessageMalformed("negentropy message with a bound beyond 64 bits")
    size = reader.varint()
    if size > ID_BYTES:
        raise MessageMalformed(f"negentropy message with a bound of {size} bytes")
    prefix = reader.take(size)
    return (second, prefix), (second, prefix.ljust(ID_BYTES, b"\0"))


def _read_payload(reader: _Reader, mode: int) -> list[bytes]:
    match mode:
        case 0:
            return []
        case 1:
            return [reader.take(_FINGERPRINT_BYTES)]
        case 2:
            count = reader.varint()
            if count > MAX_MESSAGE_BYTES // ID_BYTES:
                raise MessageMalformed(f"negentropy message with a list of {count} ids")
            ids = reader.take(count * ID_BYTES)
            return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
        case _:
            raise MessageMalformed(f"negentropy message with a range of mode {mode}")


def _varint(value: int) -> bytes:
    """Base 128, most significant digit first, the high bit set on all digits but the last."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def _item(created_at: int, id_: str) -> tuple[int, bytes]:
    raw = bytes.fromhex(id_)
    if len(raw) != ID_BYTES or not 0 <= created_at < _INFINITY:
        raise ValueError(f"not an item of a set: {created_at}, {id_!r}")
    return created_at, raw
