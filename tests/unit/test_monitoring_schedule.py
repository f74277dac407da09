"""When a silent relay is asked again."""

import pytest

from constants import SECONDS_PER_DAY, SECONDS_PER_HOUR
from monitoring.schedule import RECHECKS, rest_after_failure

HOUR = SECONDS_PER_HOUR


def rest(failures, *, answered_before=False, frequency=8 * HOUR, chance=0.5):
    return rest_after_failure(
        failures, answered_before=answered_before, frequency=frequency, chance=chance
    )


def test_a_relay_that_never_answered_rests_8_hours_then_twice_as_long_up_to_7_days():
    hours = [rest(failures) / HOUR for failures in range(1, 9)]
    assert hours == [8, 16, 32, 64, 128, 168, 168, 168]


def test_a_relay_that_answered_is_asked_again_soon_before_it_counts_as_dead():
    minutes = [rest(failures, answered_before=True) / 60 for failures in range(1, 6)]
    assert minutes == [15, 30, 60, 8 * 60, 16 * 60]


def test_rechecks_are_not_rarer_than_ordinary_checks():
    for failures in range(1, RECHECKS + 1):
        assert rest(failures, answered_before=True, frequency=60) <= 60


def test_a_dead_relay_is_not_asked_more_often_than_a_living_one():
    assert rest(1, frequency=24 * HOUR) == 24 * HOUR
    assert rest(9, frequency=30 * 24 * HOUR) == 30 * SECONDS_PER_DAY


@pytest.mark.parametrize("answered_before", [True, False])
def test_pauses_differ_by_chance_within_a_quarter(answered_before):
    middle = rest(1, answered_before=answered_before)
    least = rest(1, answered_before=answered_before, chance=0.0)
    most = rest(1, answered_before=answered_before, chance=1.0)
    assert least == round(middle * 0.75)
    assert most == round(middle * 1.25)


def test_any_number_of_failures_has_an_answer():
    assert rest(2_000_000_000, chance=1.0) == 7 * SECONDS_PER_DAY
