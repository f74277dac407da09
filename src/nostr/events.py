"""Checking events: shape, id and signature (NIP-01), and what the archive's columns can hold.

This is the hot path. An event is never changed here: what parse_event returns serializes back
to the id it came with.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import Any, NamedTuple

from coincurve import PublicKeyXOnly

from errors import EventRefused, MessageMalformed
from nostr.json_text import (
    JsonNumber,
    decode_json,
    encode_json,
    other_spellings,
)

__all__ = [
    "AUTH_KIND",
    "MAX_BIGINT",
    "MAX_KIND",
    "SignedEvent",
    "decode_json",
    "encode_event",
    "event_id",
    "parse_event",
    "storage_obstacle",
    "verify_signatures",
]

MAX_KIND = 65_535
AUTH_KIND = 22_242
MAX_BIGINT = 2**63 - 1
_LONGEST_TIME = 100  # digits
_PARSED_KEYS = 8_192  # 100 bytes each; saves a square root per event of a known author


class SignedEvent(NamedTuple):
    """An event of NIP-01 with a right id. Times are Unix seconds; id, pubkey and sig are
    lower-case hex. Tag values are strings, except in rare events whose authors signed others."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: list[list[Any]]
    content: str
    sig: str


def parse_event(obj: object) -> SignedEvent:
    """The event in a decoded JSON object (or one that was parsed already), its shape and id
    checked, its signature not yet.

    Raises EventRefused with the reason "malformed", "auth-event" (kind 22242 is never stored,
    NIP-42) or "wrong-id".
    """
    if type(obj) is SignedEvent:
        return obj
    if type(obj) is not dict:
        raise EventRefused("malformed", "not an object")
    try:
        event = SignedEvent(
            obj["id"],
            obj["pubkey"],
            _whole(obj["created_at"]),
            obj["kind"],
            obj["tags"],
            obj["content"],
            obj["sig"],
        )
    except KeyError as missing:
        raise EventRefused("malformed", f"no {missing}") from None
    wrong = _wrong_field(event)
    if wrong:
        raise EventRefused("malformed", f"{wrong} is of the wrong form")
    if event.kind == AUTH_KIND:
        raise EventRefused("auth-event")
    if not _id_is_right(event):
        if not _HEX_ID(event.id):
            raise EventRefused("malformed", "id is of the wrong form")
        raise EventRefused("wrong-id")
    return event


def verify_signatures(events: Sequence[SignedEvent]) -> list[bool]:
    """Whether each event's BIP-340 signature is its author's. libsecp256k1 runs without the
    interpreter lock."""
    return [_signature_is_right(event) for event in events]


def storage_obstacle(event: SignedEvent) -> str | None:
    """Why the events table would alter or refuse this event, or None when it holds it losslessly.

    Text and jsonb have no NUL ("nul") and no lone surrogate ("lone-surrogate"); jsonb reorders
    objects ("nested-tag") and rewrites fractions ("number"); BIGINT ends at 2**63 - 1
    ("number-out-of-range").
    """
    if event.created_at > MAX_BIGINT:
        return "number-out-of-range"
    try:
        text = event.content + "".join(chain.from_iterable(event.tags))
    except TypeError:  # a value that is no string
        strings = [event.content, *chain.from_iterable(event.tags)]
        obstacle = next(filter(None, map(_value_obstacle, strings)), None)
        if obstacle:
            return obstacle
        text = "".join(value for value in strings if type(value) is str)
    if "\0" in text:
        return "nul"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "lone-surrogate"
    return None


def encode_event(event: SignedEvent) -> bytes:
    """The event as a JSON object that decodes to the same event."""
    return encode_json(event._asdict())


def event_id(pubkey: str, created_at: int, kind: int, tags: list[list[Any]], content: str) -> str:
    """The id of an event that we write ourselves, in the spelling that every client agrees on."""
    return sha256(encode_json((0, pubkey, created_at, kind, tags, content))).hexdigest()


def _wrong_field(event: SignedEvent) -> str:
    """The name of the first field of the wrong type or form, "" if there is none; the id's
    form is left to its comparison with a digest."""
    id_, pubkey, created_at, kind, tags, content, sig = event
    if type(id_) is not str:
        return "id"
    if type(pubkey) is not str or not _HEX_KEY(pubkey):
        return "pubkey"
    if type(created_at) is not int or created_at < 0:
        return "created_at"
    if type(kind) is not int or not 0 <= kind <= MAX_KIND:
        return "kind"
    if type(content) is not str:
        return "content"
    if type(sig) is not str or not _HEX_SIGNATURE(sig):
        return "sig"
    if type(tags) is not list or not set(map(type, tags)) <= _LISTS:
        return "tags"
    return ""


def _whole(value: Any) -> Any:
    """A time beyond 64 bits as the integer that it is; anything else as it is."""
    if type(value) is JsonNumber and value.text.isdecimal() and len(value.text) <= _LONGEST_TIME:
        return int(value.text)
    return value


def _id_is_right(event: SignedEvent) -> bool:
    """Compares the id with the digest of the usual serialization, then of the rarer ones."""
    fields = (0, event.pubkey, event.created_at, event.kind, event.tags, event.content)
    try:
        text = encode_json(fields)
    except MessageMalformed as error:
        raise EventRefused("malformed", str(error)) from None
    return sha256(text).hexdigest() == event.id or any(
        sha256(other).hexdigest() == event.id for other in other_spellings(text)
    )


def _signature_is_right(event: SignedEvent) -> bool:
    try:
        key = _public_key(event.pubkey)
    except ValueError:  # no point of the curve has this x
        return False
    return key.verify(bytes.fromhex(event.sig), bytes.fromhex(event.id))


@lru_cache(maxsize=_PARSED_KEYS)
def _public_key(pubkey: str) -> PublicKeyXOnly:
    return PublicKeyXOnly(bytes.fromhex(pubkey))


def _value_obstacle(value: object) -> str | None:
    if type(value) in (list, dict):
        return "nested-tag"
    if type(value) in (float, JsonNumber):
        return "number"
    if type(value) is int and not -MAX_BIGINT - 1 <= value <= MAX_BIGINT:
        return "number"
    return None


_LISTS = frozenset({list})
_HEX_KEY = re.compile("[0-9a-f]{64}").fullmatch
_HEX_ID = _HEX_KEY
_HEX_SIGNATURE = re.compile("[0-9a-f]{128}").fullmatch
