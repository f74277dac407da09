"""The demo's event set: the same each time, valid, and with all the peculiar cases."""

from collections import Counter

import pytest

from nostr.events import SignedEvent, parse_event, verify_signatures
from standalone.demo_events import (
    JUNK_URLS,
    Planned,
    build_events,
    events_for,
    most_in_one_second,
)
from standalone.signing import Author

NOW = 1_790_000_000
REVEALED = "ws://127.0.0.1:7777"
DEAD = "ws://127.0.0.1:1"


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return build_events(4_000, NOW, REVEALED, DEAD)


def test_same_arguments_give_the_same_events(planned: list[Planned]) -> None:
    assert build_events(4_000, NOW, REVEALED, DEAD) == planned


def test_every_event_is_different_and_valid(planned: list[Planned]) -> None:
    events = [parse_event(one.event._asdict()) for one in planned]
    assert len({event.id for event in events}) == 4_000
    assert all(verify_signatures(events))


def test_a_damaged_event_is_noticed(planned: list[Planned]) -> None:
    event = SignedEvent(*planned[0].event)
    other = SignedEvent(*planned[1].event)
    assert verify_signatures([event._replace(sig=other.sig)]) == [False]


def test_nothing_is_from_the_future(planned: list[Planned]) -> None:
    times = [one.event.created_at for one in planned]
    assert max(times) == NOW
    assert min(times) == 1
    assert times == sorted(times)


def test_relays_overlap_and_none_has_all(planned: list[Planned]) -> None:
    ids = [{event.id for event in events_for(planned, number)} for number in range(3)]
    assert len(ids[0] | ids[1] | ids[2]) == 4_000
    for number in range(3):
        others = ids[(number + 1) % 3] | ids[(number + 2) % 3]
        assert ids[number] & others
        assert ids[number] - others


def test_one_second_holds_more_than_a_relay_returns_but_no_kind_does(
    planned: list[Planned],
) -> None:
    for number, cap in ((0, 500), (1, 300)):
        events = events_for(planned, number)
        assert most_in_one_second(events) > cap
        fullest = Counter((event.created_at, event.kind) for event in events).most_common(1)
        assert fullest[0][1] < cap


def test_peculiar_events_are_there(planned: list[Planned]) -> None:
    events = [one.event for one in planned]
    values = [value for event in events for tag in event.tags for value in tag]
    contents = "".join(event.content for event in events)
    assert "\0" in contents
    assert any("\0" in value for value in values)
    assert max(map(len, values)) > 10_000
    assert any(event.kind == 3 and len(event.tags) == 2_000 for event in events)
    assert {chr(code) for code in range(0x20)} <= set(contents)
    assert any(ord(character) > 0xFFFF for character in contents)
    assert max(event.created_at for event in events) >= NOW - 600
    assert {event.kind for event in events} >= {0, 1, 3, 5, 7, 10_002, 30_023, 65_535}


def test_only_relay_lists_name_the_third_relay(planned: list[Planned]) -> None:
    naming = [one.event for one in planned if REVEALED in str(one.event)]
    assert naming
    assert {event.kind for event in naming} == {10_002}
    named = {tag[1] for event in naming for tag in event.tags}
    assert named == {*JUNK_URLS, REVEALED, DEAD}


def test_a_set_too_small_for_its_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="4000"):
        build_events(3_999, NOW, REVEALED, DEAD)


def test_authors_sign_what_they_are_asked_to() -> None:
    event = Author("a").sign(7, 5, [("e", "x")], "+")
    assert event[2:6] == (5, 7, [["e", "x"]], "+")
    assert event.pubkey == Author("a").pubkey != Author("b").pubkey
    assert verify_signatures([parse_event(event._asdict())]) == [True]
