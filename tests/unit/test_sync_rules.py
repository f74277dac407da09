"""The small pure parts of synchronization: windows, responses, partitions, the relay model."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostr.connection import EndKind, PageEnd
from nostr.events import SignedEvent
from sync.facts import Order, PageFacts, Request, order_of
from sync.partition import LAST_KIND, partition
from sync.relay_model import Observations, RelayModel
from sync.response import Action, respond
from sync.room import Room
from sync.windows import Window, merge, subtract

windows = st.builds(
    lambda since, length: Window(since, since + length), st.integers(0, 60), st.integers(0, 15)
)


def seconds(parts: list[Window]) -> set[int]:
    return {second for part in parts for second in range(part.since, part.until + 1)}


def event(created_at: int, kind: int = 1, author: str = "a") -> SignedEvent:
    return SignedEvent("0" * 64, author, created_at, kind, [], "", "")


@given(st.lists(windows))
def test_merging_keeps_the_seconds(parts: list[Window]) -> None:
    merged = merge(parts)
    assert seconds(merged) == seconds(parts)
    assert all(a.until + 1 < b.since for a, b in pairwise(merged))


@given(windows, st.lists(windows))
def test_subtracting_is_set_difference(target: Window, parts: list[Window]) -> None:
    assert seconds(subtract(target, parts)) == seconds([target]) - seconds(parts)


@given(windows, windows)
def test_intersection_is_of_sets(a: Window, b: Window) -> None:
    both = a.intersect(b)
    assert seconds([both] if both else []) == seconds([a]) & seconds([b])
    assert a.contains(b) == (seconds([b]) <= seconds([a]))


def test_a_window_cannot_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="cannot end before"):
        Window(2, 1)


def test_every_request_has_since_until_and_limit() -> None:
    request = Request(Window(3, 9), 50, {"kinds": [7]})
    assert request.to_filter({"authors": ["x"]}) == {
        "authors": ["x"],
        "kinds": [7],
        "since": 3,
        "until": 9,
        "limit": 50,
    }


@pytest.mark.parametrize(
    ("times", "order"),
    [
        ([], None),
        ([5], None),
        ([5, 5, 5], None),
        ([5, 4, 4], Order.NEWEST_FIRST),
        ([4, 4, 5], Order.OLDEST_FIRST),
        ([4, 5, 4], Order.NONE),
    ],
)
def test_the_order_of_a_page(times: list[int], order: Order | None) -> None:
    assert order_of([event(second) for second in times]) is order


@pytest.mark.parametrize("kind", list(EndKind))
@pytest.mark.parametrize("prefix", ["", "auth-required", "rate-limited", "error", "restricted"])
@pytest.mark.parametrize("key", [True, False])
def test_only_eose_is_an_answer_and_tries_end(kind: EndKind, prefix: str, key: bool) -> None:
    end = PageEnd(kind, prefix=prefix)
    actions = [respond(end, tries, can_authenticate=key).action for tries in range(6)]
    assert (Action.TAKE in actions) == (kind is EndKind.EOSE)
    assert actions[-1] in {Action.TAKE, Action.NARROW, Action.GIVE_UP}


def test_a_page_is_too_large_only_with_all_the_room_there_is() -> None:
    end = PageEnd(EndKind.OVERFLOW)
    crowded_out = respond(end, 0, can_authenticate=False, had_all_room=False)
    assert crowded_out.action is Action.ASK_ALONE
    assert respond(end, 0, can_authenticate=False, had_all_room=True).action is Action.NARROW


async def test_room_is_shared_out_or_taken_whole_in_the_order_of_asking() -> None:
    room, taken, done = Room(100, places=4, share=25), list[str](), asyncio.Event()

    async def page(name: str, alone: bool) -> None:
        async with room.take(alone=alone) as room_bytes:
            taken.append(f"{name} {room_bytes}")
            await done.wait()

    asked = (("a", False), ("b", False), ("all", True), ("c", False))
    pages = [asyncio.create_task(page(name, alone)) for name, alone in asked]
    await asyncio.sleep(0.01)
    assert taken == ["a 25", "b 25"]
    pages[0].cancel()
    await asyncio.sleep(0.01)
    assert taken == ["a 25", "b 25"]
    done.set()
    await asyncio.wait(pages)
    assert taken[2:] == ["all 100", "c 25"]


async def test_who_leaves_while_waiting_for_room_takes_none() -> None:
    room = Room(100, places=2, share=50)

    async def wait_for_all() -> None:
        async with room.take(alone=True):
            raise AssertionError("there was none")

    async with room.take(alone=False):
        waiting = asyncio.create_task(wait_for_all())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with asyncio.timeout(1), room.take(alone=True) as room_bytes:
        assert room_bytes == 100


def test_giving_up_names_the_reason() -> None:
    closed = PageEnd(EndKind.CLOSED, prefix="restricted", text="members only")
    assert respond(closed, 0, can_authenticate=True).outcome == "restricted"
    wants_key = PageEnd(EndKind.CLOSED, prefix="auth-required")
    assert respond(wants_key, 0, can_authenticate=False).outcome == "auth-required"
    assert respond(PageEnd(EndKind.TIMEOUT), 9, can_authenticate=True).outcome == "timeout"


def test_rate_limits_are_met_with_ever_longer_pauses() -> None:
    end = PageEnd(EndKind.CLOSED, prefix="rate-limited")
    pauses = [respond(end, tries, can_authenticate=False).pause for tries in range(3)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 1


def test_kinds_split_a_second_completely() -> None:
    events = [event(1, kind=k) for k in (1, 1, 7)]
    split = partition({}, {}, events)
    assert split is not None
    assert split.complete
    kinds = {kind for part in split.parts for kind in part.refinement["kinds"]}
    assert kinds == set(range(LAST_KIND + 1))
    assert [part.expected for part in split.parts[:2]] == [2, 1]


def test_a_list_of_kinds_names_one_that_must_not_be_missing_from_the_answer() -> None:
    events = [event(1, kind=k) for k in (1, 1, 7)]
    split = partition({}, {}, events)
    assert split is not None
    lists = [part for part in split.parts if part.is_list]
    assert len(lists) > 1
    assert all(part.refinement["kinds"][-1] == 7 and part.expected == 1 for part in lists)


def test_lists_of_kinds_fit_the_relay_s_messages() -> None:
    split = partition({}, {}, [event(1)], longest_message=4_000)
    assert split is not None
    longest = max(len(str(part.refinement)) for part in split.parts)
    assert longest <= 4_000
    assert sum(len(part.refinement["kinds"]) for part in split.parts) == LAST_KIND + 1


def test_a_filter_s_own_kinds_are_all_there_is_to_split() -> None:
    split = partition({"kinds": [7, 1]}, {}, [event(1, kind=7)])
    assert split is not None
    assert split.complete
    assert sorted(k for part in split.parts for k in part.refinement["kinds"]) == [1, 7]


def test_authors_split_completely_only_if_the_filter_names_them() -> None:
    events = [event(1, author=author) for author in "ab"]
    known = partition({}, {"kinds": [1]}, events)
    assert known is not None
    assert not known.complete
    named = partition({"authors": ["a", "b", "c"]}, {"kinds": [1]}, events)
    assert named is not None
    assert named.complete
    assert len(named.parts) == 3


def test_tags_split_what_authors_cannot_but_never_completely() -> None:
    tagged = [
        SignedEvent(
            "0" * 64, "a", 1, 1, [["t", topic], ["p", "x"], ["long", "y"], [], ["t"]], "", ""
        )
        for topic in ("one", "two", "two")
    ]
    split = partition({}, {"kinds": [1], "authors": ["a"]}, tagged)
    assert split is not None
    assert not split.complete
    assert {part.refinement["#t"][0]: part.expected for part in split.parts} == {"one": 1, "two": 2}
    assert partition({}, split.parts[0].refinement, tagged) is None


def test_there_is_an_end_to_splitting() -> None:
    assert partition({}, {"kinds": [1]}, [event(1), event(1)]) is None
    assert partition({}, {"kinds": [1], "authors": ["a"]}, [event(1)]) is None


def test_a_stored_model_survives_other_versions() -> None:
    model = RelayModel(order=Order.OLDEST_FIRST, until_exclusive=True, lanes=2, scheme="ws")
    assert RelayModel.from_json(model.to_json()) == model
    assert RelayModel.from_json({}) == RelayModel()
    assert RelayModel.from_json({"order": "sideways", "new": 1}) == RelayModel()
    assert RelayModel.from_json({"lanes": 0}).lanes == 1


def test_what_page_sizes_tell_of_the_cap() -> None:
    seen = Observations()
    assert seen.too_small_to_be_cut(19)
    assert not seen.too_small_to_be_cut(20)
    seen.saw(100)
    assert seen.too_small_to_be_cut(99)
    assert not seen.too_small_to_be_cut(100)
    seen.saw_cut(30)
    assert seen.too_small_to_be_cut(29)
    assert not seen.too_small_to_be_cut(30)
    seen.saw_cut(10)
    assert not seen.too_small_to_be_cut(10)


def test_no_page_is_surely_whole_while_events_may_follow_its_eose() -> None:
    seen = Observations(largest=500)
    page = PageFacts(PageEnd(EndKind.EOSE), (), received=3)
    assert seen.too_small_to_be_cut(page.size)
    assert not seen.too_small_to_be_cut(replace(page, settled=False).size)
    assert seen.shows_nothing(0)


def test_refined_pages_are_to_settle_and_all_once_events_came_after_eose() -> None:
    plain = Observations(largest=500)
    assert plain.settle_below == 500
    assert Observations(plain=plain).settle_below > 10**6
    plain.unsteady = True
    assert plain.settle_below > 10**6


def test_a_page_that_proves_by_order_need_not_settle_unless_events_came_after_eose() -> None:
    seen = Observations(largest=500)
    newest_first = Order.NEWEST_FIRST
    assert seen.settle_unless_ordered(newest_first, 1) == 500  # no order was shown yet
    seen.order = newest_first
    assert seen.settle_unless_ordered(newest_first, 1) == 2
    assert seen.settle_unless_ordered(newest_first, 900) == 500
    assert seen.settle_unless_ordered(Order.OLDEST_FIRST, 1) == 500
    seen.unsteady = True
    assert seen.settle_unless_ordered(newest_first, 1) > 10**6
