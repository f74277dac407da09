"""Relays that wait for their check, and how many of them may be checked side by side. Pure."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable

from nostr.urls import RelayUrl


class Waiting:
    """Gives relays out in their order, sparing hosts and the Tor network that are busy.

    Args:
        relays: what is to be checked.
        per_host: how many relays of one host may be out at once.
        tor: how many onion relays may be out at once. Their circuits are slow, and must not take
            the places of everybody else.
    """

    def __init__(self, relays: Iterable[RelayUrl], *, per_host: int, tor: int) -> None:
        self._next = deque(relays)
        self._per_host = per_host
        self._tor = tor
        self._out: Counter[str] = Counter()
        self._tor_out = 0
        self._of_busy_host: defaultdict[str, deque[RelayUrl]] = defaultdict(deque)
        self._of_busy_tor: deque[RelayUrl] = deque()
        self._left = len(self._next)

    def __len__(self) -> int:
        """How many have not been given out."""
        return self._left

    def take(self, most: int) -> list[RelayUrl]:
        """The next relays that may be checked now; `done` must be told of each."""
        taken: list[RelayUrl] = []
        while self._next and len(taken) < most:
            relay = self._next.popleft()
            if self._out[relay.host] >= self._per_host:
                self._of_busy_host[relay.host].append(relay)
            elif relay.network == "tor" and self._tor_out >= self._tor:
                self._of_busy_tor.append(relay)
            else:
                self._out[relay.host] += 1
                self._tor_out += relay.network == "tor"
                taken.append(relay)
        self._left -= len(taken)
        return taken

    def done(self, relay: RelayUrl) -> None:
        """A relay that was given out is checked, or will not be."""
        self._out[relay.host] -= 1
        if not self._out[relay.host]:
            del self._out[relay.host]
        if relay.network == "tor":
            self._tor_out -= 1
            if self._of_busy_tor:
                self._next.appendleft(self._of_busy_tor.popleft())
        if held := self._of_busy_host.get(relay.host):
            self._next.appendleft(held.popleft())
            if not held:
                del self._of_busy_host[relay.host]
