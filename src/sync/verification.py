"""When to look again at what is proven already (pure).

Events appear late: back-dated, or copied to a relay years after they were signed. The recent
past is looked at most often, the whole past ever more rarely: round n covers as many spans as
the largest power of two that divides n, so every second round reaches twice as far back.
"""

from dataclasses import dataclass

from sync.windows import Window

# By set reconciliation (NIP-77) an unchanged relay costs one round trip, so it is asked more
# often than one whose events must all be downloaded again.
_RECONCILED_TIMES_AS_OFTEN = 14


@dataclass(frozen=True, slots=True)
class VerificationState:
    """How far re-verification of one relay and filter has come.

    Attributes:
        verified_at: Unix time of the last round, or of the first complete proof.
        rounds: rounds done so far.
    """

    verified_at: int
    rounds: int


def due(state: VerificationState, now: int, span_seconds: int, *, reconciles: bool) -> bool:
    """Whether the next round is due. `span_seconds` 0 means never."""
    if span_seconds <= 0:
        return False
    times_as_often = _RECONCILED_TIMES_AS_OFTEN if reconciles else 1
    return now - state.verified_at >= span_seconds // times_as_often


def next_window(state: VerificationState, target: Window, span_seconds: int) -> Window:
    """The part of the target that the next round looks at: its newest seconds."""
    number = state.rounds + 1
    spans = number & -number
    return Window(max(target.since, target.until - spans * span_seconds + 1), target.until)
