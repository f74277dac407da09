"""When a relay is checked again. Pure.

A relay that answers is due when its last check is as old as the configured frequency. One that
does not answer rests. If it ever answered, it may be back in a minute (a restart, or a problem
of our own), so it is asked again soon a few times; only then, as a relay that never answered,
it counts as dead and rests for 8 hours, then twice as long each time, up to 7 days.
"""

from constants import SECONDS_PER_DAY, SECONDS_PER_HOUR, SECONDS_PER_MINUTE

FIRST_RECHECK_SECONDS = 15 * SECONDS_PER_MINUTE
RECHECKS = 3
"""How many times a relay that used to answer is asked again before it counts as dead."""

FIRST_REST_SECONDS = 8 * SECONDS_PER_HOUR
LONGEST_REST_SECONDS = 7 * SECONDS_PER_DAY

LONGEST_PLAN_SECONDS = SECONDS_PER_HOUR
"""A relay that answered is left alone for this long, or until it is due if that is sooner, even
by a monitor that still has it on an older list of relays that are due."""

# Each pause is this much shorter or longer, so that relays that died together do not stay in step.
_JITTER = 0.25


def rest_after_failure(
    failures: int, *, answered_before: bool, frequency: float, chance: float
) -> int:
    """Seconds until a relay is asked again that just failed to answer.

    Args:
        failures: checks without an answer since the last one with, this one included.
        answered_before: whether it has ever answered.
        frequency: seconds between two checks of a relay that answers.
        chance: random, from 0.0 to 1.0.
    """
    jitter = 1 - _JITTER + 2 * _JITTER * chance
    rechecks = RECHECKS if answered_before else 0
    if failures <= rechecks:
        pause = min(FIRST_RECHECK_SECONDS * 2.0 ** (failures - 1), frequency)
        return round(pause * jitter)
    doublings = min(failures - rechecks - 1, 32)
    pause = max(FIRST_REST_SECONDS, frequency) * 2.0**doublings
    return round(min(pause * jitter, max(LONGEST_REST_SECONDS, frequency)))
