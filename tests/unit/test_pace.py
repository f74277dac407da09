"""How often one relay is asked."""

import pytest

from sync.pace import LONGEST_INTERVAL, SHORTEST_INTERVAL, Pace
from sync.relay_model import LANES, MOST_LANES, RelayModel


def test_a_relay_that_never_complained_is_asked_at_once() -> None:
    pace = Pace()
    assert [pace.wait(100.0) for _ in range(5)] == [0.0] * 5


def test_requests_keep_their_distance_whoever_sends_them() -> None:
    pace = Pace(interval=2.0)
    assert pace.wait(100.0) == 0.0
    assert pace.wait(100.5) == 1.5
    assert pace.wait(102.0) == 0.0
    assert pace.wait(102.0) == 2.0


def test_a_rest_holds_for_all() -> None:
    pace = Pace()
    pace.rest(110.0)
    pace.rest(105.0)
    assert pace.wait(100.0) == 10.0
    assert pace.wait(110.0) == 0.0


def test_refusals_of_what_was_on_its_way_slow_it_down_once() -> None:
    pace = Pace()
    for _ in range(4):
        pace.limited(101.0, sent_at=100.0)
    assert pace.interval == SHORTEST_INTERVAL
    pace.limited(103.0, sent_at=102.0)
    assert pace.interval == 2 * SHORTEST_INTERVAL
    for second in range(200, 230):
        pace.limited(second + 0.5, sent_at=second)
    assert pace.interval == LONGEST_INTERVAL


def test_what_was_learnt_is_kept_and_doubted() -> None:
    learnt = RelayModel.from_json(RelayModel(interval=1.0).to_json())
    assert learnt.interval == 1.0
    assert RelayModel.from_json({"interval": -1}).interval == 0.0
    assert RelayModel.from_json({"interval": 10**9}).interval == LONGEST_INTERVAL
    assert RelayModel.from_json({"interval": "often"}) == RelayModel()
    doubts = [learnt := learnt.doubted() for _ in range(8)]
    assert (doubts[0].interval, doubts[-1].interval) == (0.5, 0.0)


def test_a_relay_that_was_overloaded_once_gets_its_lanes_back_by_and_by() -> None:
    learnt = RelayModel(lanes=1)
    doubts = [learnt := learnt.doubted() for _ in range(3)]
    assert [model.lanes for model in doubts] == [2, LANES, LANES]


@pytest.mark.parametrize(
    ("learnt", "opening", "lanes"),
    [(LANES, 40, LANES), (LANES, 200, 10), (LANES, 600, MOST_LANES), (1, 600, 1)],
)
def test_a_far_relay_that_never_complained_gets_more_lanes(
    learnt: int, opening: int, lanes: int
) -> None:
    assert RelayModel(lanes=learnt).lanes_at(opening) == lanes
