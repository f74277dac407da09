"""Events with a right id and signature over everything that JSON can say, for hypothesis."""

import hashlib
import json
from typing import Any, NamedTuple

from coincurve import PrivateKey
from hypothesis import strategies as st

_KEY = PrivateKey(hashlib.sha256(b"bigbrotr export").digest())
_PUBKEY = _KEY.public_key_xonly.format().hex()
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


class Number:
    """A number as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def spelled(value: Any, *, verbatim: bool = False, delete_escaped: bool = False) -> str:
    """JSON text, written here and not by the code under test: control characters as `\\u00xx`,
    or verbatim as in NIP-01's words, which escape only seven characters. Lone surrogates are
    always escaped, for UTF-8 has none."""
    if isinstance(value, str):
        return '"' + "".join(_character(c, verbatim, delete_escaped) for c in value) + '"'
    rest = {"verbatim": verbatim, "delete_escaped": delete_escaped}
    if isinstance(value, list):
        return "[" + ",".join(spelled(item, **rest) for item in value) + "]"
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(
                f"{spelled(key, **rest)}:{spelled(item, **rest)}" for key, item in value.items()
            )
            + "}"
        )
    if isinstance(value, Number):
        return value.text
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _character(char: str, verbatim: bool, delete_escaped: bool) -> str:
    if char in _SHORT:
        return _SHORT[char]
    escaped = (
        (char < " " and not verbatim)
        or "\ud800" <= char <= "\udfff"
        or (char == "\x7f" and delete_escaped)
    )
    return f"\\u{ord(char):04x}" if escaped else char


class OddEvent(NamedTuple):
    """An event as a relay sends it, the bytes that its author hashed, and how to spell them."""

    id: str
    wire: bytes
    serialized: bytes
    spelling: dict[str, bool]


def odd_event(
    tags: list[Any],
    content: str = "",
    created_at: int = 1_700_000_000,
    kind: int = 1,
    **spelling: bool,
) -> OddEvent:
    """An event with a right id and signature."""
    fields = [0, _PUBKEY, created_at, kind, tags, content]
    serialized = spelled(fields, **spelling).encode()
    digest = hashlib.sha256(serialized).digest()
    wire = (
        f'{{"id":"{digest.hex()}","pubkey":"{_PUBKEY}","created_at":{created_at},"kind":{kind},'
        f'"tags":{spelled(tags)},"content":{spelled(content)},'
        f'"sig":"{_KEY.sign_schnorr(digest, digest).hex()}"}}'
    )
    return OddEvent(digest.hex(), wire.encode(), serialized, spelling)


def serialized_again(line: bytes, spelling: dict[str, bool]) -> bytes:
    """The serialization of an event object, read without the code under test."""
    event = json.loads(line, parse_int=Number, parse_float=Number)
    names = ("pubkey", "created_at", "kind", "tags", "content")
    return spelled([0, *(event[name] for name in names)], **spelling).encode()


def _paired(text: str) -> str:
    """A high surrogate before a low one is one character, in JSON as in UTF-16."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


TEXTS = (
    st.text(st.characters(codec=None))
    | st.text(st.sampled_from('\0\x01\x08\t\n\x0b\x0c\r\x1f\x7f\x80\u2028\ufeff\uffff😀\\"/u0'))
    | st.text(st.sampled_from("\ud800\udbff\udc00\udfff\x01\\u"))
).map(_paired)
NUMBERS = st.sampled_from(["0", "-0", "1.0", "1e400", "0.1", str(2**63), str(2**64), "-1E-2"])
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | NUMBERS.map(Number),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
TAGS = st.lists(
    st.lists(TEXTS, max_size=4)
    | st.lists(VALUES, max_size=3)
    | st.tuples(st.sampled_from("etpEdr"), TEXTS).map(list),
    max_size=5,
)
TIMES = st.sampled_from(
    [0, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**21 + 1]
) | st.integers(0, 2**32)
KINDS = st.sampled_from([0, 1, 10_002, 22_241, 65_535])
EVENTS = st.builds(
    odd_event,
    TAGS,
    TEXTS,
    TIMES,
    KINDS,
    verbatim=st.booleans(),
    delete_escaped=st.booleans(),
)

# What examples of hypothesis are too small for.
LARGE = [
    odd_event([["t", "x" * 100_000], ["t", "\0" * 20_000]]),
    odd_event([["d", Number("1.10")], ["t", 2**64, None, True], [{"b": 1, "a": []}]]),
    odd_event([["e", f"{number:064x}"] for number in range(2_000)]),
    odd_event([[] for _ in range(2_000)]),
    odd_event([], "\ud83d" + "é" * 300_000),
    odd_event([], "".join(map(chr, range(0x20))) + "\x7f", verbatim=True, delete_escaped=True),
]
