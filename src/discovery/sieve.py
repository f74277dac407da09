"""Which of the texts that sources name are relays that the archive does not know. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from errors import RelayUrlRefused
from nostr.urls import MAX_PATHS_PER_HOST, RelayUrl

TOO_MANY_OF_HOST = "too-many-of-host"
TOO_MANY_IN_EVENT = "too-many-in-event"

# Above the number of relays, so that a cycle parses most texts once.
_MEMORY = 50_000
_LONGEST_REMEMBERED = 2_048


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of some texts.

    Attributes:
        fresh: relays that the archive does not have, in order, each once.
        known: how many of the texts were relays that it has, or were repeated.
        refused: how many of the texts were refused, by reason.
    """

    fresh: tuple[RelayUrl, ...] = ()
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Sieve:
    """Holds what is known, so that sources can be sifted one after the other.

    Args:
        known: the canonical URLs of the archive's relays.
        allow_private: whether relays on private addresses are wanted.
        max_paths_per_host: how many URLs with a path, query or port of their own a host may have,
            the known ones included. The plain URL of a host always passes.
    """

    def __init__(
        self,
        known: Iterable[str],
        *,
        allow_private: bool,
        max_paths_per_host: int = MAX_PATHS_PER_HOST,
    ) -> None:
        self._allow_private = allow_private
        self._limit = max_paths_per_host
        self._parsed: dict[str, RelayUrl | str] = {}
        self._known: set[str] = set()
        self._per_host: Counter[str] = Counter()
        for url in known:
            match self._parse(url, allow_private=True):
                case RelayUrl() as relay:
                    self.admit((relay,))
                case _:
                    self._known.add(url)
        self._parsed.clear()

    def sift(self, texts: Iterable[str]) -> Sifted:
        """What is new among the texts. Changes nothing: `admit` what was stored."""
        fresh: dict[RelayUrl, None] = {}
        per_host: Counter[str] = Counter()
        known = 0
        refused: Counter[str] = Counter()
        for text in texts:
            match self._parse(text, allow_private=self._allow_private):
                case str() as reason:
                    refused[reason] += 1
                case relay if relay.url in self._known or relay in fresh:
                    known += 1
                case relay if self._is_full(relay, per_host):
                    refused[TOO_MANY_OF_HOST] += 1
                case relay:
                    fresh[relay] = None
                    per_host[relay.host] += not _is_plain(relay)
        return Sifted(tuple(fresh), known, refused)

    def admit(self, relays: Iterable[RelayUrl]) -> None:
        """From now on these relays are known."""
        for relay in relays:
            if relay.url not in self._known:
                self._known.add(relay.url)
                self._per_host[relay.host] += not _is_plain(relay)

    def _is_full(self, relay: RelayUrl, per_host: Counter[str]) -> bool:
        taken = self._per_host[relay.host] + per_host[relay.host]
        return taken >= self._limit and not _is_plain(relay)

    def _parse(self, text: str, *, allow_private: bool) -> RelayUrl | str:
        """The relay, or the reason why the text is none."""
        if (result := self._parsed.get(text)) is not None:
            return result
        try:
            result = RelayUrl.parse(text, allow_private=allow_private)
        except RelayUrlRefused as error:
            result = error.reason
        if len(text) <= _LONGEST_REMEMBERED:
            if len(self._parsed) >= _MEMORY:
                self._parsed.clear()
            self._parsed[text] = result
        return result


def _is_plain(relay: RelayUrl) -> bool:
    return relay.port is None and not relay.path
