"""When and how far back proven windows are looked at again; what NIP-11 limits change."""

import pytest

from sync.limits import RelayLimits
from sync.verification import VerificationState, due, next_window
from sync.windows import Window

DAY = 86_400
TARGET = Window(0, 1_000 * DAY - 1)


def test_every_second_round_reaches_twice_as_far() -> None:
    reach = [
        next_window(VerificationState(0, rounds), TARGET, 14 * DAY).seconds // (14 * DAY)
        for rounds in range(8)
    ]
    assert reach == [1, 2, 1, 4, 1, 2, 1, 8]


def test_a_round_ends_at_the_target_s_ends() -> None:
    everything = next_window(VerificationState(0, 2**20 - 1), TARGET, 14 * DAY)
    assert everything == TARGET
    assert next_window(VerificationState(0, 0), Window(5, 5), DAY) == Window(5, 5)


@pytest.mark.parametrize(
    ("days", "reconciles", "expected"),
    [(13, False, False), (14, False, True), (0, True, False), (1, True, True)],
)
def test_relays_that_reconcile_are_asked_more_often(
    days: int, reconciles: bool, expected: bool
) -> None:
    state = VerificationState(verified_at=100, rounds=3)
    assert due(state, 100 + days * DAY, 14 * DAY, reconciles=reconciles) is expected


def test_zero_means_never() -> None:
    assert not due(VerificationState(0, 0), 10**10, 0, reconciles=True)


def test_limits_are_honoured() -> None:
    limits = RelayLimits.from_limitation(
        {"max_limit": 200, "max_subscriptions": 3, "max_message_length": 65_536}
    )
    assert limits.page_limit(500) == 200
    assert limits.page_limit(100) == 100
    assert limits.lanes(4) == 2
    assert limits.max_message_length == 65_536


@pytest.mark.parametrize(
    "limitation",
    [None, [], "x", {}, {"max_limit": 0, "max_subscriptions": -1, "max_message_length": 5}]
    + [{"max_limit": value, "max_subscriptions": value} for value in (True, "500", 5.0, None)],
)
def test_nonsense_limits_nothing(limitation: object) -> None:
    limits = RelayLimits.from_limitation(limitation)
    assert limits.page_limit(500) == 500
    assert limits.lanes(4) == 4


def test_one_subscription_is_still_one_lane() -> None:
    assert RelayLimits(max_subscriptions=1).lanes(4) == 1
