"""Messages between client and relay: NIP-01, with NIP-42, NIP-45, NIP-67 and NIP-77.

decode_message never trusts a frame: it returns one of the message types, or raises
MessageMalformed. The encoders return the bytes of a text frame.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from errors import MessageMalformed
from nostr.json_text import decode_exactly, decode_json, lost_nothing
from nostr.plain_events import plain_event


class EventMessage(NamedTuple):
    """EVENT: one event for a subscription: a SignedEvent where it is plain, which most are, else
    the decoded JSON, not checked yet."""

    subscription: str
    event: object


@dataclass(frozen=True, slots=True)
class Eose:
    """EOSE: the stored events of a subscription have been sent.

    `hint` is NIP-67's word on completeness: "finish" (nothing was left out), "more" (something
    was) or "" (no information).
    """

    subscription: str
    hint: str


@dataclass(frozen=True, slots=True)
class Closed:
    """CLOSED: the relay ended or refused a subscription; `prefix` is the machine-readable
    reason ("auth-required", "restricted", "rate-limited", ...), "" if there is none."""

    subscription: str
    prefix: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """NOTICE: words for people; nothing may be concluded from them."""

    text: str


@dataclass(frozen=True, slots=True)
class Ok:
    """OK: whether the relay took an event (or an AUTH), and why not; `prefix` as in Closed."""

    event_id: str
    accepted: bool
    prefix: str
    text: str


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: the challenge to sign (NIP-42)."""

    challenge: str


@dataclass(frozen=True, slots=True)
class Count:
    """COUNT: how many events match (NIP-45)."""

    subscription: str
    count: int
    approximate: bool


@dataclass(frozen=True, slots=True)
class NegMessage:
    """NEG-MSG: one round of set reconciliation, in hex (NIP-77)."""

    subscription: str
    payload: str


@dataclass(frozen=True, slots=True)
class NegError:
    """NEG-ERR: the relay refuses to reconcile (NIP-77); `prefix` as in Closed, `max_records`
    how many events it would reconcile, if it says so."""

    subscription: str
    prefix: str
    text: str
    max_records: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a type that this client does not speak."""

    verb: str


Message = (
    EventMessage | Eose | Closed | Notice | Ok | Auth | Count | NegMessage | NegError | Unknown
)


def decode_message(frame: bytes) -> Message:
    """The message in a text frame; raises MessageMalformed where there is none."""
    plain = plain_event(frame)
    if plain is not None:
        return EventMessage(*plain)
    return decode_any_message(frame)


def decode_any_message(frame: bytes) -> Message:
    """decode_message without the short way for plain events."""
    values = decode_json(frame)
    if type(values) is not list or not values or type(values[0]) is not str:
        raise MessageMalformed("frame is not a JSON array that starts with a message type")
    decode = _DECODERS.get(values[0])
    if decode is None:
        return Unknown(values[0])
    try:
        message = decode(values)
    except (IndexError, TypeError) as error:
        raise MessageMalformed(f"{values[0]} message is of the wrong form: {error}") from None
    if type(message) is EventMessage and not lost_nothing(message.event):
        return message._replace(event=_exact_event(frame))
    return message


def split_reason(text: str) -> tuple[str, str]:
    """The machine-readable prefix of an OK, CLOSED or NEG-ERR text, lower-case, and the text."""
    head, colon, _ = text.partition(":")
    prefix = head.strip().lower()
    return (prefix, text) if colon and _PREFIX(prefix) else ("", text)


def encode_req(subscription: str, *filters: Mapping[str, Any]) -> bytes:
    """REQ: asks for stored events, and later ones until CLOSE."""
    return orjson.dumps(("REQ", subscription, *map(dict, filters)))


def encode_close(subscription: str) -> bytes:
    """CLOSE: ends a subscription."""
    return orjson.dumps(("CLOSE", subscription))


def encode_event_message(event: Mapping[str, Any]) -> bytes:
    """EVENT: publishes an event."""
    return orjson.dumps(("EVENT", dict(event)))


def encode_auth(event: Mapping[str, Any]) -> bytes:
    """AUTH: answers a challenge with a signed event of kind 22242 (NIP-42)."""
    return orjson.dumps(("AUTH", dict(event)))


def encode_count(subscription: str, *filters: Mapping[str, Any]) -> bytes:
    """COUNT: asks how many events match (NIP-45)."""
    return orjson.dumps(("COUNT", subscription, *map(dict, filters)))


def encode_neg_open(subscription: str, flt: Mapping[str, Any], payload: bytes) -> bytes:
    """NEG-OPEN: asks to reconcile the events of a filter (NIP-77)."""
    return orjson.dumps(("NEG-OPEN", subscription, dict(flt), payload.hex()))


def encode_neg_message(subscription: str, payload: bytes) -> bytes:
    """NEG-MSG: the next round of a reconciliation."""
    return orjson.dumps(("NEG-MSG", subscription, payload.hex()))


def encode_neg_close(subscription: str) -> bytes:
    """NEG-CLOSE: ends a reconciliation."""
    return orjson.dumps(("NEG-CLOSE", subscription))


def _exact_event(frame: bytes) -> object:
    values = decode_exactly(frame)
    return values[2] if type(values) is list else None


def _string(value: object) -> str:
    if type(value) is not str:
        raise TypeError(f"a {type(value).__name__} where a string belongs")
    return value


def _event(values: list[Any]) -> EventMessage:
    return EventMessage(_string(values[1]), values[2])


def _eose(values: list[Any]) -> Eose:
    words = values[2] if len(values) > 2 and type(values[2]) is list else ()
    hint = next((word for word in ("more", "finish") if word in words), "")
    return Eose(_string(values[1]), hint)


def _closed(values: list[Any]) -> Closed:
    return Closed(_string(values[1]), *split_reason(_optional_text(values, 2)))


def _notice(values: list[Any]) -> Notice:
    return Notice(_string(values[1]))


def _ok(values: list[Any]) -> Ok:
    if type(values[2]) is not bool:
        raise TypeError("the verdict is not a boolean")
    return Ok(_string(values[1]), values[2], *split_reason(_optional_text(values, 3)))


def _auth(values: list[Any]) -> Auth:
    return Auth(_string(values[1]))


def _count(values: list[Any]) -> Count:
    answer = values[2]
    if type(answer) is not dict or type(answer.get("count")) is not int or answer["count"] < 0:
        raise TypeError("no count in the answer")
    return Count(_string(values[1]), answer["count"], answer.get("approximate") is True)


def _neg_message(values: list[Any]) -> NegMessage:
    return NegMessage(_string(values[1]), _string(values[2]))


def _neg_error(values: list[Any]) -> NegError:
    most = values[3] if len(values) > 3 and type(values[3]) is int and values[3] > 0 else None
    return NegError(_string(values[1]), *split_reason(_optional_text(values, 2)), most)


def _optional_text(values: list[Any], index: int) -> str:
    return values[index] if len(values) > index and type(values[index]) is str else ""


_PREFIX = re.compile("[a-z][a-z-]{0,31}").fullmatch
_DECODERS: dict[str, Callable[[list[Any]], Message]] = {
    "EVENT": _event,
    "EOSE": _eose,
    "CLOSED": _closed,
    "NOTICE": _notice,
    "OK": _ok,
    "AUTH": _auth,
    "COUNT": _count,
    "NEG-MSG": _neg_message,
    "NEG-ERR": _neg_error,
}
