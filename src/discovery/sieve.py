"""Which of the texts that sources name are relays that the archive does not know. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from discovery.naming import Found, Naming, Occasion
from errors import RelayUrlRefused
from nostr.addresses import is_address
from nostr.urls import MAX_PATHS_PER_HOST, RelayUrl

TOO_MANY_IN_EVENT = "too-many-in-event"
TOO_MANY_OF_HOST = "too-many-of-host"
TOO_MANY_OF_DOMAIN = "too-many-of-domain"
TOO_MANY_OF_SOURCE = "too-many-of-source"
TOO_MANY = "too-many-candidates"

MAX_NAMES_PER_DOMAIN = 500
"""URLs whose hosts differ in the first label only, relays among them. The busiest domain of relays
has some 150, public suffixes fewer; a wildcard name gives any number, and may answer to each."""

MAX_CANDIDATES = 100_000
"""Standing candidates in all, ten times the relays that the network is said to have."""

# Above the number of relays, so that a cycle parses most texts once.
_MEMORY = 50_000
_LONGEST_REMEMBERED = 2_048


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of what some occasions named.

    Attributes:
        fresh: relays that the archive does not have, in order, each once.
        known: how many of the texts were relays that it has, or were repeated.
        refused: how many of the texts were refused, by reason.
        times: how many occasions named a usable relay in a place, fresh or known.
        first_events: the first of them, where it was an event.
    """

    fresh: tuple[Found, ...] = ()
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    times: Counter[Naming] = field(default_factory=Counter)
    first_events: dict[Naming, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Tally:
    """How many there are: paths of a host and names of a domain; standing candidates of who named
    them, and in all."""

    paths: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    standing: Counter[str] = field(default_factory=Counter)
    candidates: int = 0

    def add(self, relay: RelayUrl, by: str | None) -> None:
        """Count a relay (`by` None) or a candidate."""
        self.paths[relay.host] += not relay.is_plain
        self.names[_domain(relay.host)] += 1
        if by is not None:
            self.standing[by] += 1
            self.candidates += 1


class Sieve:
    """Holds what is known, so that sources can be sifted one after the other.

    Args:
        known: the canonical URLs of the archive's relays, each with None, and of its candidates,
            each with who named it first.
        allow_private: whether relays on private addresses are wanted.
        max_paths_per_host: how many URLs with a path, query or port of their own a host may have,
            the known ones included. The plain URL of a host always passes.
        max_candidates: how many candidates there may be.
    """

    def __init__(
        self,
        known: Iterable[tuple[str, str | None]],
        *,
        allow_private: bool,
        max_paths_per_host: int = MAX_PATHS_PER_HOST,
        max_candidates: int = MAX_CANDIDATES,
    ) -> None:
        self._allow_private = allow_private
        self._max_paths = max_paths_per_host
        self._max_candidates = max_candidates
        self._parsed: dict[str, RelayUrl | str] = {}
        self._known: set[str] = set()
        self._tally = _Tally()
        for url, by in known:
            self._known.add(url)
            match self._parse(url, allow_private=True):
                case RelayUrl() as relay:
                    self._tally.add(relay, by)
        self._parsed.clear()

    def sift(self, occasions: Iterable[Occasion]) -> Sifted:
        """What is new in the occasions. Changes nothing: `admit` what was stored."""
        fresh: dict[RelayUrl, str] = {}
        now = _Tally()
        known = 0
        refused: Counter[str] = Counter()
        times: Counter[Naming] = Counter()
        first_events: dict[Naming, str] = {}
        for occasion in occasions:
            refused[TOO_MANY_IN_EVENT] += occasion.beyond_limit
            counted: set[Naming] = set()
            for text, source in occasion.named:
                relay = self._parse(text, allow_private=self._allow_private)
                match relay:
                    case str() as reason:
                        refused[reason] += 1
                        continue
                if relay.url in self._known or relay in fresh:
                    known += 1
                elif obstacle := self._obstacle(relay, occasion, now):
                    refused[obstacle] += 1
                    continue
                else:
                    fresh[relay] = occasion.by
                    now.add(relay, occasion.by)
                counted.add(Naming(relay.url, source))
            times.update(counted)
            if occasion.event_id is not None:
                for naming in counted:
                    first_events.setdefault(naming, occasion.event_id)
        return Sifted(
            tuple(Found(relay, by) for relay, by in fresh.items()),
            known,
            +refused,
            times,
            first_events,
        )

    def admit(self, found: Iterable[Found]) -> None:
        """From now on these relays are known, as candidates."""
        for relay, by in found:
            if relay.url not in self._known:
                self._known.add(relay.url)
                self._tally.add(relay, by)

    def _obstacle(self, relay: RelayUrl, occasion: Occasion, now: _Tally) -> str | None:
        """Why a relay may not become a candidate, `now` counting those that shall."""
        before, host, domain = self._tally, relay.host, _domain(relay.host)
        if not relay.is_plain and before.paths[host] + now.paths[host] >= self._max_paths:
            return TOO_MANY_OF_HOST
        if domain and before.names[domain] + now.names[domain] >= MAX_NAMES_PER_DOMAIN:
            return TOO_MANY_OF_DOMAIN
        by = occasion.by
        if before.standing[by] + now.standing[by] >= occasion.max_standing:
            return TOO_MANY_OF_SOURCE
        return TOO_MANY if before.candidates + now.candidates >= self._max_candidates else None

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


def _domain(host: str) -> str:
    """The host without its first label; "" for an address, and for a name of two labels."""
    parent = host.partition(".")[2]
    if "." not in parent or is_address(host):
        return ""
    return parent
