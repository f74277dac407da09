"""The relay URLs that one event names. Pure; what comes out is text that nobody checked yet."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from discovery.naming import (
    MAX_STANDING_OF_AUTHOR,
    MAX_STANDING_OF_MONITOR,
    Occasion,
    Source,
)
from errors import MessageMalformed
from nostr.events import decode_json

_RECOMMEND_RELAY = 2  # NIP-01 as it was: the content is the URL
_FOLLOW_LIST = 3  # NIP-02 as it was: the content is an object with URLs as keys
MONITOR_KINDS = (30066, 30166)
"""NIP-66 relay discovery, in an early draft and as it is."""

# Kind -> name of the tags whose first value is a relay URL.
_LIST_TAGS: Mapping[int, str] = MappingProxyType(
    {
        10002: "r",  # NIP-65 relay list
        10050: "relay",  # NIP-17 relays for direct messages
        30002: "relay",  # NIP-51 relay set
        **dict.fromkeys(MONITOR_KINDS, "d"),
    }
)
# Tags that may carry a relay hint as their third element (NIP-01, NIP-18).
_HINT_TAGS = frozenset(("a", "e", "p", "q"))

LIST_KINDS: tuple[int, ...] = tuple(sorted((_RECOMMEND_RELAY, _FOLLOW_LIST, *_LIST_TAGS)))
"""The kinds of events that name relays as their purpose."""

CONTENT_KINDS: tuple[int, ...] = (_RECOMMEND_RELAY, _FOLLOW_LIST)
"""Those of them that name relays in their content."""

MAX_URLS_PER_EVENT = 200
"""More than anybody's list of relays needs; what exceeds it is counted, not looked at."""


def mentions(
    event_id: str,
    pubkey: str,
    kind: int,
    tags: object,
    content: str,
    *,
    limit: int = MAX_URLS_PER_EVENT,
) -> Occasion:
    """The distinct texts that stand where an event of this kind names relays, hints included.

    Lists come before hints, so that a long follow list cannot push its own relays out; and a text
    that is in both counts as listed.
    """
    distinct: dict[str, Source] = {}
    listed = Source("event", str(kind))
    for text in _listed(kind, tags, content):
        distinct.setdefault(text, listed)
    for text, tag in _hinted(tags):
        distinct.setdefault(text, Source("hint", tag))
    named = tuple(distinct.items())
    return Occasion(
        by=pubkey,
        named=named[:limit],
        event_id=event_id,
        max_standing=MAX_STANDING_OF_MONITOR if kind in MONITOR_KINDS else MAX_STANDING_OF_AUTHOR,
        beyond_limit=max(0, len(named) - limit),
    )


def _listed(kind: int, tags: object, content: str) -> Iterator[str]:
    if kind == _RECOMMEND_RELAY and content.strip():
        yield content
    if kind == _FOLLOW_LIST:
        yield from _relay_map(content)
    if name := _LIST_TAGS.get(kind):
        for tag in _tags(tags):
            if tag[0] == name:
                yield from _text(tag, 1)


def _hinted(tags: object) -> Iterator[tuple[str, str]]:
    for tag in _tags(tags):
        if tag[0] in _HINT_TAGS:
            for text in _text(tag, 2):
                yield text, str(tag[0])


def _relay_map(content: str) -> Iterator[str]:
    """The keys of a JSON object; most follow lists have an empty or unrelated content today."""
    if not content.lstrip().startswith("{"):
        return
    try:
        document = decode_json(content.encode())
    except (MessageMalformed, UnicodeEncodeError):
        return
    match document:
        case dict():
            yield from document


def _tags(tags: object) -> Iterator[list[object]]:
    match tags:
        case list():
            for tag in tags:
                match tag:
                    case [str(), *_]:
                        yield tag


def _text(tag: list[object], position: int) -> Iterator[str]:
    match tag[position : position + 1]:
        case [str() as text] if text.strip():
            yield text
