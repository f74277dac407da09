"""Filters: checked, named and matched as NIP-01 has them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ConfigError, FilterInvalid
from nostr.events import parse_event
from nostr.filters import clean_filter, filter_hash, matcher, matches
from scripted_relay import ScriptedRelay, make_event

ID = "a" * 64
OTHER = "b" * 64


def test_what_nip_01_knows_is_kept_and_the_rest_named():
    raw = {
        "ids": [ID, ID],
        "authors": [OTHER],
        "kinds": [1, 0, 1],
        "#e": [ID],
        "#t": ["Nostr", "", "Nostr"],
        "#T": ["x"],
        "since": 0,
        "until": 5,
        "limit": 0,
        "search": "x",
        "#tt": ["y"],
        "#1": ["z"],
        "#": [],
    }
    kept, dropped = clean_filter(raw)
    assert kept == {
        "ids": [ID],
        "authors": [OTHER],
        "kinds": [1, 0],
        "#e": [ID],
        "#t": ["Nostr", ""],
        "#T": ["x"],
        "since": 0,
        "until": 5,
        "limit": 0,
    }
    assert dropped == ("search", "#tt", "#1", "#")
    assert clean_filter({}) == ({}, ())


@pytest.mark.parametrize(
    "raw",
    [
        *({"kinds": value} for value in ([], [True], ["1"], [-1], [65_536], 1, None, "1")),
        *({"ids": value} for value in ([], ["a"], [ID.upper()], [ID[:-1]], ID, [None])),
        *({"authors": value} for value in ([], [OTHER + "0"], ["npub1x"])),
        *({"#e": value} for value in (["x"], [])),
        *({"#p": value} for value in ([OTHER.upper()], "x")),
        *({"#t": value} for value in ([1], [], "x", None)),
        *({"since": value} for value in (True, -1, 1.5, "0", None)),
        *({"until": value} for value in ([1], -1)),
        *({"limit": value} for value in (-1, "500")),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(raw: dict[str, Any]):
    with pytest.raises(FilterInvalid, match=next(iter(raw))):
        clean_filter(raw)
    assert issubclass(FilterInvalid, ConfigError)


@pytest.mark.parametrize("raw", [None, [], "x", 1])
def test_a_filter_is_an_object(raw: Any):
    with pytest.raises(FilterInvalid, match="object"):
        clean_filter(raw)


def test_the_hash_names_what_is_selected():
    same = [
        {"kinds": [1, 2], "#t": ["a", "b"]},
        {"#t": ["b", "a", "b"], "kinds": [2, 1]},
        {"kinds": [1, 2], "#t": ["a", "b"], "since": 1, "until": 2, "limit": 3},
    ]
    assert len(set(map(filter_hash, same))) == 1
    different = [{}, {"kinds": [1]}, {"kinds": [2]}, {"#t": ["1"]}, {"#T": ["1"]}, same[0]]
    assert len(set(map(filter_hash, different))) == len(different)
    assert filter_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


EVENTS = [
    make_event(created_at=at, kind=kind, author=author, tags=tags)
    for at in (5, 10)
    for kind in (1, 7)
    for author in (1, 2)
    for tags in ([], [["t", "x", "y"], ["t"]], [["T", "x"]], [["e", ID], ["t", "y"]])
]
AUTHORS = sorted({event["pubkey"] for event in EVENTS})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "ids": st.lists(st.sampled_from([event["id"] for event in EVENTS]), min_size=1),
            "authors": st.lists(st.sampled_from([*AUTHORS, ID]), min_size=1),
            "kinds": st.lists(st.sampled_from([1, 7, 8]), min_size=1),
            "since": st.integers(4, 11),
            "until": st.integers(4, 11),
            "limit": st.integers(0, 3),
            "#t": st.lists(st.sampled_from(["x", "y", "z"]), min_size=1),
            "#T": st.lists(st.sampled_from(["x", "y"]), min_size=1),
            "#e": st.just([ID]),
        },
    )
)
def test_matching_agrees_with_another_implementation(flt: dict[str, Any]):
    truth = {event["id"] for event in ScriptedRelay(EVENTS).matching(flt)}
    selects = matcher(flt)
    for event in map(parse_event, EVENTS):
        assert selects(event) == matches(event, flt) == (event.id in truth)


def test_a_tag_value_that_is_no_string_matches_nothing():
    event = parse_event(EVENTS[0])._replace(tags=[["t", 1], ["t", ["x"]], [], ["t"]])
    assert not matches(event, {"#t": ["1", "x"]})
