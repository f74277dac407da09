"""What passes the sieve between what sources name and the tables of relays and candidates."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import aggregators, relays
from discovery import sieve as rules
from discovery.fetch import MAX_BODY_BYTES
from discovery.mentions import MAX_URLS_PER_EVENT
from discovery.naming import (
    MAX_STANDING_OF_AUTHOR,
    MAX_STANDING_OF_LIST,
    MAX_STANDING_OF_MONITOR,
    Found,
    Naming,
    Occasion,
    Source,
)
from discovery.payload import MAX_URLS_PER_ANSWER
from discovery.sieve import (
    MAX_CANDIDATES,
    MAX_NAMES_PER_DOMAIN,
    TOO_MANY,
    TOO_MANY_IN_EVENT,
    TOO_MANY_OF_DOMAIN,
    TOO_MANY_OF_HOST,
    TOO_MANY_OF_SOURCE,
    Sieve,
    Sifted,
)
from monitoring.candidates import MAX_PER_CYCLE
from nostr.urls import MAX_PATHS_PER_HOST, RelayUrl

ANYWHERE = Source("event", "10002")


def sieve(*known: str, limit: int = 3, **options: bool) -> Sieve:
    options = {"allow_private": False, **options}
    return Sieve([(url, None) for url in known], max_paths_per_host=limit, **options)


def named(texts: Iterable[str], *, by: str = "a", event: str = "1", **more: int) -> Occasion:
    return Occasion(by, tuple((text, ANYWHERE) for text in texts), event, **more)


def sift(s: Sieve, *texts: str) -> Sifted:
    return s.sift([named(texts)])


def urls(sifted: Sifted) -> list[str]:
    return [found.relay.url for found in sifted.fresh]


def test_spellings_of_one_relay_are_one_candidate():
    found = sift(sieve(), "wss://a.example", "WSS://A.Example/", " ws://a.example:80 ")
    assert urls(found) == ["wss://a.example"]
    assert found.known == 2


def test_known_relays_are_not_candidates():
    found = sift(sieve("wss://a.example"), "wss://a.example/", "wss://b.example")
    assert urls(found) == ["wss://b.example"]
    assert found.known == 1


def test_refusals_are_counted_by_reason():
    found = sift(sieve(), "https://a.example", "http://b.example", "wss://u:p@c.example", "hmm")
    assert urls(found) == []
    assert found.refused == Counter({"not-websocket": 3, "userinfo": 1})
    assert not found.times


def test_private_addresses_pass_only_when_allowed():
    assert sift(sieve(), "ws://127.0.0.1:7777").refused == Counter({"private-address": 1})
    allowed = sift(sieve(allow_private=True), "ws://127.0.0.1:7777")
    assert urls(allowed) == ["wss://127.0.0.1:7777"]


def test_a_host_has_few_paths_but_its_plain_url_always_passes():
    spam = [f"wss://spam.example/{n}" for n in range(20_000)]
    found = sift(sieve(), *spam, "wss://spam.example", "wss://other.example/x")
    assert urls(found) == [*spam[:3], "wss://spam.example", "wss://other.example/x"]
    assert found.refused[TOO_MANY_OF_HOST] == 20_000 - 3


def test_paths_that_the_archive_has_count_against_the_limit():
    known = [f"wss://spam.example/{n}" for n in range(3)]
    found = sift(sieve(*known), "wss://spam.example/3")
    assert found.refused[TOO_MANY_OF_HOST] == 1


def test_only_what_is_admitted_becomes_known():
    s = sieve(limit=1)
    first = sift(s, "wss://a.example/1")
    assert urls(sift(s, "wss://a.example/1")) == ["wss://a.example/1"], "sift changes nothing"
    s.admit(first.fresh)
    s.admit(first.fresh)
    again = sift(s, "wss://a.example/1", "wss://a.example/2")
    assert (again.fresh, again.known, again.refused.total()) == ((), 1, 1)


def test_a_stored_url_that_the_rules_refuse_today_is_still_known():
    found = sift(sieve("wss://user@old.example"), "wss://user@old.example")
    assert found.refused == Counter({"userinfo": 1})


def test_a_wildcard_name_cannot_give_any_number_of_candidates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules, "MAX_NAMES_PER_DOMAIN", 4)
    spam = [f"wss://n{n}.wild.example" for n in range(9)]
    hosts = ["wss://one.example", "wss://two.example", "wss://1.2.3.4", "wss://1.2.3.5"]
    found = sift(sieve(), *spam, *hosts)
    assert urls(found) == [*spam[:4], *hosts], "two labels and addresses are no wildcard"
    assert found.refused == Counter({TOO_MANY_OF_DOMAIN: 5})
    for by in ("b", None):
        known = Sieve([(url, by) for url in spam[:4]], allow_private=False)
        assert sift(known, *spam).refused[TOO_MANY_OF_DOMAIN] == 5, "relays count as candidates do"


def test_nobody_has_more_than_some_candidates_standing():
    spam = named([f"wss://n{n}.example" for n in range(9)], by="spammer", max_standing=4)
    other = named(["wss://n8.example", "wss://other.example"], by="b", event="2", max_standing=4)
    s = Sieve([("wss://old.example", "spammer")], allow_private=False)
    found = s.sift([spam, other])
    assert found.fresh == (
        *(Found(RelayUrl.parse(f"wss://n{n}.example"), "spammer") for n in range(3)),
        Found(RelayUrl.parse("wss://n8.example"), "b"),
        Found(RelayUrl.parse("wss://other.example"), "b"),
    )
    assert found.refused == Counter({TOO_MANY_OF_SOURCE: 6})


def test_there_is_an_end_to_candidates_but_not_to_counting():
    s = Sieve([("wss://old.example", "b")], allow_private=False, max_candidates=2)
    found = sift(s, *(f"wss://n{n}.example" for n in range(4)), "wss://old.example")
    assert urls(found) == ["wss://n0.example"]
    assert found.refused == Counter({TOO_MANY: 3})
    assert found.times[Naming("wss://old.example", ANYWHERE)] == 1


def test_each_event_counts_once_for_a_place_and_the_first_is_kept():
    one = named(["wss://a.example", "WSS://a.example/", "wss://b.example"], event="1")
    two = named(["wss://a.example"], event="2", by="b")
    hint = Occasion("c", [("wss://a.example", Source("hint", "p"))], "3")
    found = sieve("wss://b.example").sift([one, two, hint])
    in_list, in_hint = (
        Naming("wss://a.example", ANYWHERE),
        Naming("wss://a.example", Source("hint", "p")),
    )
    assert found.times == {in_list: 2, in_hint: 1, Naming("wss://b.example", ANYWHERE): 1}
    assert (found.first_events[in_list], found.first_events[in_hint]) == ("1", "3")
    assert found.fresh == (Found(RelayUrl.parse("wss://a.example"), "a"),)


def test_what_was_beyond_an_event_s_limit_is_counted():
    assert sieve().sift([named([], beyond_limit=7)]).refused == Counter({TOO_MANY_IN_EVENT: 7})


def test_the_documented_limits_are_those_of_the_code():
    page = (Path(__file__).parents[2] / "docs/discovery.md").read_text()
    for text in (
        f"| {MAX_URLS_PER_EVENT} URLs of an event |",
        f"| {MAX_PATHS_PER_HOST} URLs of a host ",
        f"| {MAX_NAMES_PER_DOMAIN} URLs whose hosts differ ",
        f"| {MAX_STANDING_OF_AUTHOR} candidates that one author ",
        f"{MAX_STANDING_OF_MONITOR:,} for an author of kind 30166",
        f"{MAX_STANDING_OF_LIST:,} for an aggregator or relay",
        f"| {MAX_CANDIDATES:,} candidates in all",
        f"| {MAX_URLS_PER_ANSWER:,} URLs, {MAX_BODY_BYTES >> 20} MiB a page, "
        f"{aggregators.MAX_PAGES} pages",
        f"| {MAX_URLS_PER_ANSWER:,} URLs, {relays._MAX_BYTES_PER_PAGE >> 20} MiB a page, "
        f"{relays.MAX_PAGES} pages",
        f"Up to {MAX_PER_CYCLE} candidates",
    ):
        assert text in page


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_no_order_of_events_gets_more_in_than_the_limits_allow(
    events: list[list[int]], each: int, most: int
):
    s = Sieve([], allow_private=False, max_candidates=most)
    for number, hosts in enumerate(events):
        texts = [f"wss://n{host}.example" for host in hosts]
        by = f"author {number % 3}"
        found = s.sift([named(texts, by=by, event=str(number), max_standing=each)])
        assert len(found.fresh) + found.known + found.refused.total() == len(texts)
        s.admit(found.fresh)
    assert s._tally.candidates <= most
    assert all(count <= each for count in s._tally.standing.values())
