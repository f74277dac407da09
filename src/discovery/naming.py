"""Who named relays, and where: what the finder's sources have in common. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from nostr.urls import RelayUrl

# Standing candidates: those that one author, aggregator or relay was the first to name and that
# have not answered yet. With each that does, another one may be named.
MAX_STANDING_OF_AUTHOR = 200
MAX_STANDING_OF_MONITOR = 5_000
MAX_STANDING_OF_LIST = 20_000


class Source(NamedTuple):
    """The place in which a relay was named, as the table relay_sources has it."""

    source: str
    name: str


class Occasion(NamedTuple):
    """One event, or one answer of an aggregator or relay, and what it names.

    Attributes:
        by: who names: an author's public key, or the URL of an aggregator or relay.
        named: texts in the place of relay URLs, not checked, each with its place.
        event_id: the event, None for an answer.
        max_standing: how many candidates `by` may have standing.
        beyond_limit: how many more texts there were.
    """

    by: str
    named: Sequence[tuple[str, Source]]
    event_id: str | None = None
    max_standing: int = MAX_STANDING_OF_AUTHOR
    beyond_limit: int = 0


class Found(NamedTuple):
    """A relay that the archive did not know, and who named it first."""

    relay: RelayUrl
    by: str


class Naming(NamedTuple):
    """A usable relay URL and a place that named it."""

    url: str
    source: Source
