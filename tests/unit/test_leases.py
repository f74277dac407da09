"""Who may claim a relay, and when a failed one is due again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leases import TaskState, may_claim, next_attempt

FREE = TaskState(None, None, 0)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (FREE, True),
        (TaskState(None, None, 100), True),
        (TaskState(None, None, 101), False),
        (TaskState("other", 101, 0), False),
        (TaskState("other", 100, 0), True),
        (TaskState("other", 50, 101), False),
    ],
)
def test_may_claim_at_second_100(state: TaskState, expected: bool) -> None:
    assert may_claim(state, 100) is expected


def test_no_failure_means_now() -> None:
    assert next_attempt(0, 1_000, first=300, cap=3_600, random=lambda: 0.5) == 1_000


@pytest.mark.parametrize(
    ("failures", "share", "pause"),
    [
        (1, 0.0, 150),
        (1, 0.5, 225),
        (2, 0.0, 150),
        (2, 0.5, 375),
        (5, 0.5, 1_875),
        (9_999, 0.5, 1_875),
    ],
)
def test_pauses_double_up_to_the_cap(failures: int, share: float, pause: int) -> None:
    assert next_attempt(failures, 0, first=300, cap=3_600, random=lambda: share) == pause


@given(
    st.integers(1, 10_000),
    st.integers(1, 86_400),
    st.integers(1, 864_000),
    st.floats(0, 1, exclude_max=True),
)
def test_pauses_stay_within_bounds(failures: int, first: int, cap: int, share: float) -> None:
    pause = next_attempt(failures, 0, first=first, cap=cap, random=lambda: share)
    assert max(1, min(first, cap) // 2) <= pause <= cap
