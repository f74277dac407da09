"""What passes the sieve between what sources name and the table of relays."""

from collections import Counter

from discovery.sieve import TOO_MANY_OF_HOST, Sieve


def sieve(*known: str, limit: int = 3, allow_private: bool = False) -> Sieve:
    return Sieve(known, allow_private=allow_private, max_paths_per_host=limit)


def urls(sifted) -> list[str]:
    return [relay.url for relay in sifted.fresh]


def test_spellings_of_one_relay_are_one_candidate():
    found = sieve().sift(["wss://a.example", "WSS://A.Example/", " ws://a.example:80 "])
    assert urls(found) == ["wss://a.example"]
    assert found.known == 2


def test_known_relays_are_not_candidates():
    found = sieve("wss://a.example").sift(["wss://a.example/", "wss://b.example"])
    assert urls(found) == ["wss://b.example"]
    assert found.known == 1


def test_refusals_are_counted_by_reason():
    found = sieve().sift(["https://a.example", "http://b.example", "wss://u:p@c.example", "hmm"])
    assert urls(found) == []
    assert found.refused == Counter({"not-websocket": 3, "userinfo": 1})


def test_private_addresses_pass_only_when_allowed():
    assert sieve().sift(["ws://127.0.0.1:7777"]).refused == Counter({"private-address": 1})
    allowed = sieve(allow_private=True).sift(["ws://127.0.0.1:7777"])
    assert urls(allowed) == ["wss://127.0.0.1:7777"]


def test_a_host_has_few_paths_but_its_plain_url_always_passes():
    spam = [f"wss://spam.example/{n}" for n in range(20_000)]
    found = sieve().sift([*spam, "wss://spam.example", "wss://other.example/x"])
    assert urls(found) == [*spam[:3], "wss://spam.example", "wss://other.example/x"]
    assert found.refused[TOO_MANY_OF_HOST] == 20_000 - 3


def test_paths_that_the_archive_has_count_against_the_limit():
    known = [f"wss://spam.example/{n}" for n in range(3)]
    found = sieve(*known).sift(["wss://spam.example/3"])
    assert found.refused[TOO_MANY_OF_HOST] == 1


def test_only_what_is_admitted_becomes_known():
    s = sieve(limit=1)
    first = s.sift(["wss://a.example/1"])
    assert urls(s.sift(["wss://a.example/1"])) == ["wss://a.example/1"], "sift changes nothing"
    s.admit(first.fresh)
    s.admit(first.fresh)
    again = s.sift(["wss://a.example/1", "wss://a.example/2"])
    assert (again.fresh, again.known, again.refused.total()) == ((), 1, 1)


def test_a_stored_url_that_the_rules_refuse_today_is_still_known():
    found = sieve("wss://user@old.example").sift(["wss://user@old.example"])
    assert found.refused == Counter({"userinfo": 1})
