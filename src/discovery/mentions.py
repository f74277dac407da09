"""The relay URLs that one event names. Pure; what comes out is text that nobody checked yet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from errors import MessageMalformed
from nostr.events import decode_json

_RECOMMEND_RELAY = 2  # NIP-01 as it was: the content is the URL
_FOLLOW_LIST = 3  # NIP-02 as it was: the content is an object with URLs as keys

# Kind -> name of the tags whose first value is a relay URL.
_LIST_TAGS: Mapping[int, str] = MappingProxyType(
    {
        10002: "r",  # NIP-65 relay list
        10050: "relay",  # NIP-17 relays for direct messages
        30002: "relay",  # NIP-51 relay set
        30066: "d",  # NIP-66 in an early draft
        30166: "d",  # NIP-66 relay discovery
    }
)
# Tags that may carry a relay hint as their third element (NIP-01, NIP-18).
_HINT_TAGS = frozenset(("a", "e", "p", "q"))

MENTION_KINDS: tuple[int, ...] = tuple(sorted((_RECOMMEND_RELAY, _FOLLOW_LIST, *_LIST_TAGS)))
"""The kinds of events that name relays as their purpose."""

CONTENT_KINDS: tuple[int, ...] = (_RECOMMEND_RELAY, _FOLLOW_LIST)
"""Those of them that name relays in their content."""

MAX_URLS_PER_EVENT = 200
"""More than anybody's list of relays needs; what exceeds it is counted, not looked at."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """What one event names.

    Attributes:
        texts: distinct texts in the place of a relay URL, in order, at most the limit.
        beyond_limit: how many more distinct texts the event holds.
    """

    texts: tuple[str, ...]
    beyond_limit: int = 0


def mentions(kind: int, tags: object, content: str, *, limit: int = MAX_URLS_PER_EVENT) -> Mentions:
    """The texts that stand where an event of this kind names relays, hints included.

    Lists come before hints, so that a long follow list cannot push its own relays out.
    """
    distinct = dict.fromkeys(_listed(kind, tags, content))
    distinct.update(dict.fromkeys(_hinted(tags)))
    texts = tuple(distinct)
    return Mentions(texts[:limit], max(0, len(texts) - limit))


def _listed(kind: int, tags: object, content: str) -> Iterator[str]:
    if kind == _RECOMMEND_RELAY and content.strip():
        yield content
    if kind == _FOLLOW_LIST:
        yield from _relay_map(content)
    if name := _LIST_TAGS.get(kind):
        for tag in _tags(tags):
            if tag[0] == name:
                yield from _text(tag, 1)


def _hinted(tags: object) -> Iterator[str]:
    for tag in _tags(tags):
        if tag[0] in _HINT_TAGS:
            yield from _text(tag, 2)


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
