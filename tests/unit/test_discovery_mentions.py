"""What is taken from an event as the text of a relay URL, and how much of it."""

import json
from pathlib import Path

import pytest

from discovery import mentions as rules
from discovery.mentions import LIST_KINDS, MAX_URLS_PER_EVENT
from discovery.naming import MAX_STANDING_OF_AUTHOR, MAX_STANDING_OF_MONITOR, Occasion, Source

A, B, C = "wss://a.example", "wss://b.example/path", "ws://c.example"
ID, PUBKEY = "1d" * 32, "ab" * 32
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def mentions(kind: int, tags: object, content: str = "") -> Occasion:
    return rules.mentions(ID, PUBKEY, kind, tags, content)


def texts(kind: int, tags: object, content: str = "") -> tuple[str, ...]:
    return tuple(text for text, _ in mentions(kind, tags, content).named)


@pytest.mark.parametrize(
    ("kind", "tags", "content", "expected"),
    [
        (10002, [["r", A], ["r", B, "read"], ["alt", C]], "", (A, B)),
        (10002, [["relay", A]], "", ()),
        (10050, [["relay", A], ["r", B]], "", (A,)),
        (30002, [["d", "set"], ["relay", A]], "", (A,)),
        (30166, [["d", A], ["n", "clearnet"], ["r", B]], "", (A,)),
        (30066, [["d", A]], "", (A,)),
        (2, [], f" {A} ", (f" {A} ",)),
        (2, [], "  ", ()),
        (3, [["p", "00"]], json.dumps({A: {"read": True}, B: {}}), (A, B)),
        (3, [], "not a map", ()),
        (3, [], "{broken", ()),
        (3, [], f'["{A}"]', ()),
        (3, [], '{"wss://\\ud800.example": 1}', ("wss://\ud800.example",)),
        (3, [["p", "00", A, "name"], ["p", "01", ""], ["p", "02"]], "", (A,)),
        (10002, [["e", "00", A], ["a", "1:2:3", B], ["q", "00", C], ["r", C]], "", (C, A, B)),
        (1, [["r", A]], A, ()),
        (1, [["e", "00", A]], "", (A,)),
    ],
)
def test_texts_are_taken_from_where_the_kind_has_them(kind, tags, content, expected):
    assert texts(kind, tags, content) == expected


@pytest.mark.parametrize(
    "tags", [None, {}, "r", 5, [None, 1, "r", {}, [], [1], ["r"], ["r", None], ["r", 7], ["r", ""]]]
)
def test_tags_of_any_form_do_no_harm(tags):
    assert texts(10002, tags) == ()


def test_a_text_counts_once():
    assert texts(10002, [["r", A]] * 500 + [["p", "00", A]]) == (A,)


def test_each_text_has_its_place_and_a_list_counts_before_a_hint():
    tags = [["e", "00", A], ["p", "00", C], ["q", "00", "wss://q.example"], ["r", A], ["r", B]]
    assert dict(mentions(10002, tags).named) == {
        A: Source("event", "10002"),
        B: Source("event", "10002"),
        C: Source("hint", "p"),
        "wss://q.example": Source("hint", "q"),
    }


def test_an_event_is_named_by_its_author_and_monitors_may_name_more():
    found = mentions(10002, [["r", A]])
    assert (found.by, found.event_id) == (PUBKEY, ID)
    assert found.max_standing == MAX_STANDING_OF_AUTHOR
    assert mentions(30166, [["d", A]]).max_standing == MAX_STANDING_OF_MONITOR


def test_a_spam_list_is_cut_and_counted():
    spam = [["r", f"wss://spam.example/{n}"] for n in range(100_000)]
    found = mentions(10002, spam)
    assert len(found.named) == MAX_URLS_PER_EVENT
    assert found.beyond_limit == 100_000 - MAX_URLS_PER_EVENT


def test_hints_cannot_push_a_follow_list_s_own_relays_out():
    hints = [["p", "00", f"wss://hint{n}.example"] for n in range(1_000)]
    assert texts(3, hints, json.dumps({A: {}}))[0] == A


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not part of the repository")
def test_events_of_the_corpus_name_relays():
    per_kind = dict.fromkeys(LIST_KINDS, 0)
    for file in CORPUS.glob("events__*.jsonl"):
        for line in file.read_text().splitlines():
            event = json.loads(line)
            if event["kind"] in per_kind:
                found = texts(event["kind"], event["tags"], event["content"])
                per_kind[event["kind"]] += len(found)
    assert per_kind[10002] == 141
    assert per_kind[3] > 300
    assert per_kind[30166] == 3
    assert all(per_kind[kind] for kind in (2, 10050, 30066))
