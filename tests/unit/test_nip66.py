"""Events of NIP-66 from what a check found."""

import json
from typing import Any

import pytest
from nostr_tools import RelayMetadata

from nostr.link import LinkFacts
from nostr.nip11 import normalize_nip11
from nostr.nip66 import announcement, discovery, published_url
from nostr.probe import ProbeFacts, ProbeReport
from nostr.urls import RelayUrl, to_relay

ONION = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"
DOCUMENT = {
    "name": "Éxample",
    "supported_nips": [1, 11, "7D", True, "not a nip", 11],
    "limitation": {"auth_required": True, "payment_required": True, "min_pow_difficulty": 0},
    "tags": ["nostr", "art", "no\nlines", ""],
    "fees": {"admission": []},
}


def report(
    url: str = "wss://a.example",
    nip66: RelayMetadata.Nip66 | None = None,
    document: dict[str, Any] | None = None,
    **facts: Any,
) -> ProbeReport:
    result = nip66 or RelayMetadata.Nip66(True, True, True, 12, 34, 56)
    nip11 = normalize_nip11(document) if document else None
    metadata = RelayMetadata(to_relay(RelayUrl.parse(url)), 1_760_000_000, nip11, result)
    found = {"scheme": "wss", "link": LinkFacts(True, True), **facts}
    return ProbeReport(metadata, "ok", "", ProbeFacts(**found))


def values(tags: list[list[str]], name: str) -> list[str]:
    return [tag[1] for tag in tags if tag[0] == name]


def test_what_was_measured_is_in_the_tags():
    draft = discovery(report(write_outcome="ok", auth_required=False, payment_required=False))
    assert (draft.kind, draft.created_at, draft.content) == (30_166, 1_760_000_000, "")
    assert draft.tags == [
        ["d", "wss://a.example/"],
        ["n", "clearnet"],
        ["rtt-open", "12"],
        ["rtt-read", "34"],
        ["rtt-write", "56"],
        ["R", "!auth"],
        ["R", "!payment"],
        ["R", "!writes"],
        ["R", "!pow"],
    ]
    assert draft.address == "wss://a.example/"


def test_what_was_not_measured_is_not_said():
    draft = discovery(report(nip66=RelayMetadata.Nip66(True, False, False, 12, None, None)))
    assert draft.tags == [["d", "wss://a.example/"], ["n", "clearnet"], ["rtt-open", "12"]]


def test_claims_stand_beside_what_was_measured_and_where_nothing_was():
    measured = discovery(report(document=DOCUMENT, write_outcome="ok", auth_required=False))
    assert values(measured.tags, "R") == ["!auth", "payment", "!writes", "!pow"]
    claimed = discovery(report(document=DOCUMENT))
    assert values(claimed.tags, "R") == ["auth", "payment", "!pow"]
    assert values(claimed.tags, "N") == ["1", "11", "7D"]
    assert values(claimed.tags, "t") == ["nostr", "art"]
    content = json.loads(claimed.content)
    assert content["name"] == "Éxample"
    assert content["limitation"] == DOCUMENT["limitation"]
    assert content["fees"] == DOCUMENT["fees"]
    assert content["supported_nips"] == DOCUMENT["supported_nips"]


@pytest.mark.parametrize(
    ("facts", "requirements"),
    [
        ({"write_outcome": "restricted"}, ["writes"]),
        ({"write_outcome": "payment-required", "payment_required": True}, ["payment", "writes"]),
        ({"write_outcome": "pow", "pow_difficulty": 30}, ["pow"]),
        ({"write_outcome": "ok", "pow_difficulty": 12}, ["!writes", "pow"]),
        ({"write_outcome": "auth-required", "auth_required": True}, ["auth", "writes"]),
        ({"write_outcome": "timeout"}, []),
        ({}, []),
    ],
)
def test_requirements(facts: dict[str, Any], requirements: list[str]):
    assert values(discovery(report(**facts)).tags, "R") == requirements


@pytest.mark.parametrize(
    "claims",
    [
        {"auth_required": "yes", "payment_required": 1, "min_pow_difficulty": "5"},
        {"auth_required": None, "restricted_writes": [], "min_pow_difficulty": True},
    ],
)
def test_claims_of_the_wrong_type_are_none(claims: dict[str, Any]):
    draft = discovery(report(document={"limitation": claims, "tags": [["a"], 1]}))
    assert values(draft.tags, "R") == values(draft.tags, "t") == []


@pytest.mark.parametrize(
    ("url", "scheme", "published"),
    [
        ("wss://a.example", "wss", "wss://a.example/"),
        ("wss://a.example", "ws", "ws://a.example/"),
        ("wss://a.example:8080", "", "wss://a.example:8080/"),
        ("wss://a.example/inbox", "wss", "wss://a.example/inbox"),
        ("wss://a.example/inbox/", "wss", "wss://a.example/inbox/"),
        ("wss://a.example/?x=1", "wss", "wss://a.example/?x=1"),
        (ONION, "ws", ONION.replace("wss", "ws") + "/"),
    ],
)
def test_the_address_is_the_url_normalized_and_leads_back(url: str, scheme: str, published: str):
    relay = RelayUrl.parse(url)
    assert published_url(relay, scheme) == published
    assert RelayUrl.parse(published) == relay


def test_an_onion_relay_is_of_the_network_tor():
    assert values(discovery(report(ONION, scheme="ws")).tags, "n") == ["tor"]


def test_a_document_too_large_to_publish_is_left_out():
    draft = discovery(report(document={"name": "x" * 40_000, "supported_nips": [1]}))
    assert draft.content == ""
    assert values(draft.tags, "N") == ["1"]


def test_tags_are_texts_with_one_value_each():
    draft = discovery(report(document=DOCUMENT, write_outcome="ok"))
    assert all(len(tag) == 2 and all(type(part) is str for part in tag) for tag in draft.tags)


def test_the_announcement_is_in_the_order_of_the_text():
    draft = announcement(frequency=28_800, timeout_ms=20_000, now=7)
    assert (draft.kind, draft.content, draft.created_at) == (10_166, "", 7)
    assert ["frequency", "28800"] in draft.tags
    assert ["timeout", "20000", "open"] in draft.tags
    assert {"open", "read", "write", "auth", "nip11", "dns"} <= set(values(draft.tags, "c"))
    assert draft.address == ""
