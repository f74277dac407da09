"""How a relay is asked in a session (pure)."""

from dataclasses import dataclass

from sync.limits import LONGEST_MESSAGE
from sync.relay_model import MOST_LANES


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a relay is asked.

    Attributes:
        page_limit: events asked for a page (`limit`).
        idle_timeout: seconds without a message after which a page is given up.
        lanes: requests in flight at the most.
        longest_message: bytes of a message that the relay takes.
        budget_seconds: a session ends after so long, to go on in the next cycle.
        reverify_seconds: how old proofs may grow before the relay is looked at again; 0: any.
        secret_key: hex; signs NIP-42 authentication. None: relays that want it are left.
    """

    page_limit: int = 500
    idle_timeout: float = 20.0
    lanes: int = MOST_LANES
    longest_message: int = LONGEST_MESSAGE
    budget_seconds: float = 3_600.0
    reverify_seconds: int = 0
    secret_key: str | None = None

    @property
    def max_page_events(self) -> int:
        """Events after which a page without an end is given up."""
        return max(4 * self.page_limit, 2_000)
