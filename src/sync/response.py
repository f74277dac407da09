"""How to respond to the end of a page: one pure decision table.

Only EOSE is an answer. A timeout, CLOSED, NOTICE or disconnect proves nothing; it is met with
a few patient tries and then with a name for the reason.
"""

from dataclasses import dataclass
from enum import Enum, auto

from nostr.connection import EndKind, PageEnd
from nostr.negotiation import Negotiation

_RATE_LIMIT_PAUSES_SECONDS = (5.0, 15.0, 45.0)
_RECONNECT_PAUSE_SECONDS = 2.0
_MOST_TRIES = 3
_DETAIL_LENGTH = 500
# NIP-01 and NIP-42, and what relays were seen to say. Other words stay in the detail: outcomes
# are counted, and a relay must not invent them.
_PREFIXES = frozenset(
    {
        "auth-required",
        "blocked",
        "contradiction",  # our own: events came after EOSE
        "duplicate",
        "error",
        "invalid",
        "mute",
        "payment-required",
        "pow",
        "rate-limited",
        "restricted",
        "unsupported",
    }
)


class Action(Enum):
    """What to do about a page."""

    TAKE = auto()
    """It is an answer."""
    ASK_AGAIN = auto()
    """After the pause; a closed connection is opened again."""
    ASK_ALONE = auto()
    """While nothing else is asked: it had but a share of the memory that this relay's pages may
    take, or frames came that cannot be read, of whichever page they were."""
    AUTHENTICATE = auto()
    """Sign in (NIP-42), then ask again."""
    NARROW = auto()
    """The window holds more than one page may; ask for its halves."""
    GIVE_UP = auto()
    """Leave this relay for now, with the outcome as the reason."""


@dataclass(frozen=True, slots=True)
class Response:
    """An action, the seconds to wait before it, and the outcome to record on giving up."""

    action: Action
    pause: float = 0.0
    outcome: str = ""


def respond(
    end: PageEnd,
    tries: int,
    *,
    can_authenticate: bool,
    answers: bool = False,
    had_all_room: bool = True,
) -> Response:
    """What to do after a page.

    Args:
        end: how the page ended.
        tries: how often the same request has ended in this way before.
        can_authenticate: a key is at hand.
        answers: the relay has answered other requests. Then it is this window that it cannot
            show: one message in it may be too large for us.
        had_all_room: the page might have taken all the memory that the relay's pages may take.
    """
    match end.kind:
        case EndKind.EOSE:
            return Response(Action.TAKE)
        case EndKind.OVERFLOW if not had_all_room:
            return Response(Action.ASK_ALONE)
        case EndKind.OVERFLOW:
            return Response(Action.NARROW)
        case EndKind.TIMEOUT if tries < 1:
            return Response(Action.ASK_AGAIN)
        case EndKind.TIMEOUT:
            return Response(Action.GIVE_UP, outcome="timeout")
        case EndKind.DISCONNECTED if answers and tries > 0:
            return Response(Action.NARROW)
        case EndKind.DISCONNECTED if tries < _MOST_TRIES:
            return Response(Action.ASK_AGAIN, _RECONNECT_PAUSE_SECONDS * tries)
        case EndKind.DISCONNECTED:
            return Response(Action.GIVE_UP, outcome="disconnected")
        case EndKind.CLOSED:
            return _respond_to_closed(end.prefix, tries, can_authenticate)


def storable(text: str) -> str:
    """A relay's own words, as far as a text column can hold them."""
    return (
        text[:_DETAIL_LENGTH]
        .encode(errors="replace")
        .decode()
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


def end_of_negotiation(ended: Negotiation, tries: int) -> PageEnd | None:
    """The end of a page that would call for the same response; None: it is final."""
    if ended.outcome == "disconnected" and tries == 0:
        return PageEnd(EndKind.DISCONNECTED, text=ended.text)
    if ended.prefix in {"auth-required", "rate-limited"} and not ended.too_many:
        return PageEnd(EndKind.CLOSED, prefix=ended.prefix, text=ended.text)
    return None


def _respond_to_closed(prefix: str, tries: int, can_authenticate: bool) -> Response:
    if prefix == "auth-required":
        if can_authenticate and tries < _MOST_TRIES:
            return Response(Action.AUTHENTICATE)
        return Response(Action.GIVE_UP, outcome="auth-required")
    if prefix == "rate-limited" and tries < len(_RATE_LIMIT_PAUSES_SECONDS):
        return Response(Action.ASK_AGAIN, _RATE_LIMIT_PAUSES_SECONDS[tries])
    if prefix == "error" and tries < 1:
        return Response(Action.ASK_AGAIN, _RECONNECT_PAUSE_SECONDS)
    return Response(Action.GIVE_UP, outcome=prefix if prefix in _PREFIXES else "closed")
