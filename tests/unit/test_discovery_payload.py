"""The shapes in which aggregators answer, and what is no list of relays."""

import json
from pathlib import Path

import pytest

from discovery.payload import MAX_URLS_PER_ANSWER, read_page
from errors import AggregatorFailed

A, B = "wss://a.example/", "ws://b.example"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "aggregators"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], ()),
        ([A, B], (A, B)),
        ([A, None, 5, {}, [B], {"name": "x"}], (A,)),
        ({"relays": []}, ()),
        ({"relays": [A, B], "total": 2, "limit": 50, "offset": 0}, (A, B)),
        ({"relays": [{"relayUrl": A, "rtt": {}}, {"url": B}]}, (A, B)),
        ([{"url": A}, {"relay_url": B}, {"relay": A}], (A, B, A)),
        ({"data": [{"relay_url": A}]}, (A,)),
        ({"status": "ok", "data": {"relays": [A]}}, (A,)),
        ({"url": "https://site.example", "relays": [A]}, (A,)),
        ({"relay": {"relayUrl": A}}, (A,)),
        ({A: {"read": True}, B: {}, "other": 1}, (A, B)),
    ],
)
def test_every_known_shape_is_read(document, expected):
    assert read_page(document, "https://x.example").urls == expected


@pytest.mark.parametrize(
    "document",
    [
        None,
        "wss://a.example",
        7,
        True,
        {},
        [1, 2],
        [[A]],
        {"error": {"code": "RELAY_NOT_FOUND", "message": "Relay not found"}},
        {"message": "Payment Required"},
        {"data": {"data": {"data": {"data": [A]}}}},
    ],
)
def test_what_holds_no_list_is_said_to(document):
    with pytest.raises(AggregatorFailed) as caught:
        read_page(document, "https://x.example")
    assert caught.value.reason == "no-relays"
    assert "https://x.example" in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "following"),
    [
        ({"total": 5, "limit": 2, "offset": 0}, 2),
        ({"total": 5, "limit": 2, "offset": 2}, 4),
        ({"total": 4, "limit": 2, "offset": 2}, None),
        ({"total": 5, "offset": -2}, None),
        ({"total": "5", "offset": 0}, None),
        ({"total": 5}, None),
        ({}, None),
    ],
)
def test_the_next_page_begins_where_this_one_ends(numbers, following):
    assert read_page({"relays": [A, B], **numbers}, "u").next_offset == following


def test_an_empty_page_has_no_next_one():
    assert read_page({"relays": [], "total": 9, "offset": 0}, "u").next_offset is None


def test_an_endless_list_is_cut():
    urls = [f"wss://{n}.example" for n in range(MAX_URLS_PER_ANSWER + 5)]
    assert len(read_page(urls, "u").urls) == MAX_URLS_PER_ANSWER


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not part of the repository")
def test_the_payloads_of_the_corpus_are_read():
    counts = {}
    for file in CORPUS.glob("*.json"):
        if file.name != "nip66_tags_seen_2026.json":
            try:
                counts[file.name] = len(read_page(json.loads(file.read_text()), file.name).urls)
            except AggregatorFailed as error:
                counts[file.name] = error.reason
    assert counts.pop("nostr_watch_v1_empty.json") == 0
    assert counts.pop("nostr_watch_v2_relays_state_404.json") == "no-relays"
    assert counts.pop("nostr_watch_v2_relays_simple.json") == 4
    assert counts.pop("nostr_watch_v2_relays_state.json") == 1
    assert len(counts) >= 6
    assert all(type(count) is int and count >= 2 for count in counts.values())
