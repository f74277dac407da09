"""Which relays one cycle checks, and in which order. Pure."""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from nostr.urls import RelayUrl


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cycle does.

    Attributes:
        relays: what to check, in order.
        resting: due by age, but dead and left alone for now.
        skipped_tor: due, but on the Tor network, which cannot be reached now.
        candidates: the URLs of those to check that are no relays yet.
    """

    relays: tuple[RelayUrl, ...]
    resting: int
    skipped_tor: int
    candidates: frozenset[str] = field(default=frozenset())


def make_plan(
    due: Sequence[RelayUrl],
    rechecks: Iterable[RelayUrl],
    resting: Collection[str],
    *,
    tor: bool,
    candidates: Sequence[RelayUrl] = (),
    chance: Random,
) -> Plan:
    """The plan for the relays that are due by age, those to be asked again early, and candidates.

    Relays to be asked again come first: they are few, and were alive a moment ago. Candidates come
    last: few of them are alive. The others are mixed, so that the dead ones, which take the whole
    of a timeout, do not come all together; relays of one host are spread out.
    """
    wanted = dict.fromkeys(rechecks)
    others = [relay for relay in due if relay.url not in resting]
    chance.shuffle(others)
    wanted.update((relay, None) for relay in others)
    wanted.update(dict.fromkeys(candidates))
    reachable = [relay for relay in wanted if tor or relay.network != "tor"]
    return Plan(
        relays=tuple(_spread(reachable)),
        resting=sum(relay.url in resting for relay in due),
        skipped_tor=len(wanted) - len(reachable),
        candidates=frozenset(candidate.url for candidate in candidates),
    )


def _spread(relays: Iterable[RelayUrl]) -> Iterator[RelayUrl]:
    """First one relay of every host, then a second one of every host that has it, and so on."""
    hosts: defaultdict[str, deque[RelayUrl]] = defaultdict(deque)
    for relay in relays:
        hosts[relay.host].append(relay)
    while hosts:
        for host in tuple(hosts):
            yield hosts[host].popleft()
            if not hosts[host]:
                del hosts[host]
