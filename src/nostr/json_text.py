"""JSON exactly as it came: what orjson cannot read or write without a loss.

orjson is the fast path everywhere. It refuses lone surrogates (`"\\ud800"`), which JavaScript
clients send, and turns integers beyond 64 bits into floats. An event whose id covers such a
value must keep it to the last digit, so this module reads numbers as text where Python's types
would round them, and writes every spelling of a string over which ids are computed in the wild.
"""

import json
import re
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


class Spelling:
    """One way to write JSON text: which characters are escaped besides `"` and `\\`."""

    def __init__(self, *, escape_controls: bool, escape_delete: bool) -> None:
        characters = '"\\\\\n\r\t\b\f\ud800-\udfff'
        if escape_controls:
            characters += "\x00-\x1f"
        if escape_delete:
            characters += "\x7f"
        self._special = re.compile(f"[{characters}]")

    def encode(self, value: Any) -> str:
        """The value as compact JSON text; raises MessageMalformed where nothing could write it."""
        try:
            return self._encode(value)
        except (RecursionError, TypeError, ValueError) as error:
            raise MessageMalformed(f"not a JSON value ({type(error).__name__})") from None

    def _encode(self, value: Any) -> str:
        match value:
            case str():
                return '"' + self._special.sub(_escape, value) + '"'
            case JsonNumber():
                return value.text
            case list() | tuple():
                return "[" + ",".join(map(self._encode, value)) + "]"
            case dict():
                members = (f"{self._encode(k)}:{self._encode(v)}" for k, v in value.items())
                return "{" + ",".join(members) + "}"
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
_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
}
_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=JsonNumber, parse_constant=_refuse_constant
)
