"""What a relay says it bears (NIP-11 `limitation`, pure): honoured, and never taken as proof."""

from collections.abc import Mapping
from dataclasses import dataclass

# Claims outside these bounds are nonsense: a limit of 0 would stop us, a huge one says nothing.
_SMALLEST_PAGE = 1
_SMALLEST_MESSAGE = 1_024
# Bytes of a message that all relays known to us take, claimed or not.
LONGEST_MESSAGE = 50_000


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The limits that concern reading; None where the relay claims none.

    Attributes:
        max_limit: events a page; asking for more is clamped silently.
        max_subscriptions: subscriptions open at the same time on one connection.
        max_message_length: bytes of a message that it takes from a client.
    """

    max_limit: int | None = None
    max_subscriptions: int | None = None
    max_message_length: int | None = None

    @classmethod
    def from_limitation(cls, limitation: object) -> "RelayLimits":
        """The limits in a NIP-11 `limitation` object; whatever is no sane number is ignored."""
        if not isinstance(limitation, Mapping):
            return cls()
        return cls(
            _at_least(_SMALLEST_PAGE, limitation.get("max_limit")),
            _at_least(1, limitation.get("max_subscriptions")),
            _at_least(_SMALLEST_MESSAGE, limitation.get("max_message_length")),
        )

    def page_limit(self, wanted: int) -> int:
        """The `limit` to ask for."""
        return wanted if self.max_limit is None else min(wanted, self.max_limit)

    def lanes(self, wanted: int) -> int:
        """How many REQs to have in flight, leaving one subscription to spare."""
        if self.max_subscriptions is None:
            return wanted
        return max(1, min(wanted, self.max_subscriptions - 1))

    @property
    def longest_message(self) -> int:
        """Bytes of the longest message to send."""
        return min(LONGEST_MESSAGE, self.max_message_length or LONGEST_MESSAGE)


def _at_least(smallest: int, claimed: object) -> int | None:
    return claimed if type(claimed) is int and claimed >= smallest else None
