"""JSON exactly as it came: what orjson cannot read or write without a loss.

orjson is the fast path everywhere. It refuses lone surrogates (`"\\ud800"`), which JavaScript
clients send, and turns integers beyond 64 bits into floats. An event whose id covers such a
value must keep it to the last digit, so this module reads numbers as text where Python's types
would round them, and writes them so.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NoReturn

import orjson

from errors import MessageMalformed

_MAX_INT_LENGTH = 20  # of a signed 64-bit integer, as text


class JsonNumber(float):
    """A JSON number that no 64-bit integer holds; `text` is how it was written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "JsonNumber":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type["JsonNumber"], tuple[str]]:
        return type(self), (self.text,)


def decode_json(frame: bytes) -> object:
    """The value that a frame of JSON holds; raises MessageMalformed, whatever the frame is."""
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError:
        return decode_exactly(frame)


def decode_exactly(frame: bytes) -> object:
    """Like decode_json, slower, with every fraction and large integer kept as JsonNumber."""
    try:
        return _DECODER.decode(frame.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MessageMalformed(f"frame is not JSON ({type(error).__name__})") from None


def has_only_strings(tags: object) -> bool:
    """Whether a tags array holds nothing but arrays of strings (so orjson lost nothing)."""
    if type(tags) is not list:
        return True
    try:
        return set(map(type, chain.from_iterable(tags))) <= _STRINGS
    except TypeError:
        return True


def lost_nothing(event: object) -> bool:
    """Whether orjson read an event object without rounding a number; else decode_exactly."""
    return type(event) is not dict or (
        type(event.get("created_at")) is not float and has_only_strings(event.get("tags"))
    )


def encode_json(value: object) -> bytes:
    """Compact JSON with `\\u00xx` for control characters, as JavaScript and Python write it, and
    every JsonNumber as it came; raises MessageMalformed for what is nested too deep."""
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        return _encode(value).encode()
    except (RecursionError, TypeError, ValueError) as error:
        raise MessageMalformed(f"not a JSON value ({type(error).__name__})") from None


def other_spellings(text: bytes) -> Iterator[bytes]:
    """The other ways to write text of encode_json over which ids are computed in the wild:
    control characters verbatim (NIP-01's words), 0x7f escaped, or both."""
    verbatim = text
    if b"\\u00" in text:
        # No UTF-8 has the byte 0xff, so it can stand for an escaped backslash meanwhile.
        verbatim = text.replace(b"\\\\", b"\xff")
        for character, escape in _CONTROL_ESCAPES:
            verbatim = verbatim.replace(escape, character)
        verbatim = verbatim.replace(b"\xff", b"\\\\")
        if verbatim != text:
            yield verbatim
    if b"\x7f" in text:
        yield text.replace(b"\x7f", b"\\u007f")
        if verbatim != text:
            yield verbatim.replace(b"\x7f", b"\\u007f")


def _encode(value: Any) -> str:
    match value:
        case str():
            return '"' + _ESCAPED.sub(_escape, value) + '"'
        case JsonNumber():
            return value.text
        case list() | tuple():
            return "[" + ",".join(map(_encode, value)) + "]"
        case dict():
            return "{" + ",".join(f"{_encode(k)}:{_encode(v)}" for k, v in value.items()) + "}"
        case int() if type(value) is int:
            return str(value)
        case _:
            return orjson.dumps(value).decode()


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT_ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _integer(text: str) -> int | JsonNumber:
    if len(text) <= _MAX_INT_LENGTH and text != "-0":
        number = int(text)
        if -(2**63) <= number < 2**63:
            return number
    return JsonNumber(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRINGS = frozenset({str})
_ESCAPED = re.compile('["\\\\\x00-\x1f\ud800-\udfff]')
_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
}
_CONTROL_ESCAPES = [(bytes([code]), b"\\u%04x" % code) for code in range(32)]
_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=JsonNumber, parse_constant=_refuse_constant
)
