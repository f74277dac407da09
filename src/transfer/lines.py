"""One event as one line of JSON, alone or with the relays that hold it.

    {"id":...,"pubkey":...,"created_at":...,"kind":...,"tags":...,"content":...,"sig":...}
    {"event":{...},"relays":[{"url":"wss://relay.example.com","seen_at":1700000000}]}

The first form is NIP-01's event object, the second wraps it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from nostr.events import SignedEvent, encode_event
from nostr.json_text import decode_exactly, decode_json, lost_nothing


class SeenAt(NamedTuple):
    """A relay that holds the event, and when it was first seen there (Unix seconds)."""

    url: str
    seen_at: int


def encode_line(event: SignedEvent, relays: Sequence[SeenAt] | None = None) -> bytes:
    """The line of an event, with its end; with `relays` (there may be none) in the second form."""
    text = encode_event(event)
    if relays is None:
        return text + b"\n"
    listed = orjson.dumps([{"url": url, "seen_at": seen_at} for url, seen_at in relays])
    return b'{"event":' + text + b',"relays":' + listed + b"}\n"


def decode_line(line: bytes) -> tuple[object, object]:
    """The event object and the list of relays in a line of either form, neither checked yet;
    raises MessageMalformed for what is not JSON."""
    event, relays = _parts(decode_json(line))
    if lost_nothing(event):
        return event, relays
    return _parts(decode_exactly(line))


def _parts(value: Any) -> tuple[object, object]:
    if type(value) is dict and "event" in value and "id" not in value:
        return value["event"], value.get("relays", [])
    return value, []
