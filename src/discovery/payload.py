"""What an HTTP aggregator's JSON answer says. Pure, for every shape that is known in the field.

["wss://…", …]                                         nostr.watch v1
{"relays": ["wss://…", …], "total", "limit", "offset"}  nostr.watch v2, format=simple
{"relays": [{"relayUrl": "wss://…", …}, …], …}          nostr.watch v2
{"relay": {"relayUrl": "wss://…", …}}                   nostr.watch v2, one relay
[{"url": "wss://…"}, …], {"data": [{"relay_url": …}]}   others
{"wss://…": …, …}                                       maps with URLs as keys
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from errors import AggregatorFailed
from nostr.urls import MAX_URL_BYTES

MAX_URLS_PER_ANSWER = 50_000
"""Five times what a whole list of the network has held."""

LONGEST_TEXT = MAX_URL_BYTES + 1
"""Of a longer text no more is kept: it is refused for being too long anyway."""

_URL_KEYS = ("relayUrl", "relay_url", "url", "relay")
_LIST_KEYS = ("relays", "data", "items", "results", "relay")
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True)
class RelayPage:
    """One page of an aggregator's list.

    Attributes:
        urls: texts in the place of relay URLs, not checked, in order.
        next_offset: where the next page begins, None when this is all.
    """

    urls: tuple[str, ...]
    next_offset: int | None = None


def read_page(document: object, url: str) -> RelayPage:
    """The relay URLs of one parsed answer of the aggregator at `url`; an empty list is an answer.

    Raises:
        AggregatorFailed: "no-relays" when the answer holds no list of relays at all (an error
            message, for instance).
    """
    urls = _find(document, _MAX_DEPTH)
    if urls is None:
        raise AggregatorFailed("no-relays", url, "the answer holds no list of relays")
    kept = tuple(text[:LONGEST_TEXT] for text in urls[:MAX_URLS_PER_ANSWER])
    return RelayPage(kept, _next_offset(document, len(urls)))


def _find(document: object, depth: int) -> tuple[str, ...] | None:
    match document:
        case list():
            texts = tuple(_texts(document))
            return texts if texts or not document else None
        case dict():
            return _find_in_object(document, depth)
        case _:
            return None


def _find_in_object(document: Mapping[str, object], depth: int) -> tuple[str, ...] | None:
    if depth:
        for key in _LIST_KEYS:
            if (found := _find(document.get(key), depth - 1)) is not None:
                return found
    for text in _text_of(document):
        return (text,)
    keys = tuple(key for key in document if key.lower().startswith(("wss://", "ws://")))
    return keys or None


def _texts(items: list[object]) -> Iterator[str]:
    for item in items:
        match item:
            case str():
                yield item
            case dict():
                yield from _text_of(item)


def _text_of(item: Mapping[str, object]) -> Iterator[str]:
    for key in _URL_KEYS:
        match item.get(key):
            case str() as text:
                yield text
                return


def _next_offset(document: object, count: int) -> int | None:
    match document:
        case {"total": int(total), "offset": int(offset)} if count and offset >= 0:
            following = offset + count
            return following if following < total else None
        case _:
            return None
