"""Which relays a cycle checks, and in which order."""

from monitoring.plan import make_plan
from nostr.urls import RelayUrl

ONION = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"


def relays(*urls: str) -> list[RelayUrl]:
    return [RelayUrl.parse(url) for url in urls]


def test_relays_at_rest_are_left_alone_and_counted():
    due = relays("wss://a.example", "wss://b.example")
    plan = make_plan(due, (), {"wss://b.example", "wss://not-due.example"}, tor=True)
    assert [str(relay) for relay in plan.relays] == ["wss://a.example"]
    assert plan.resting == 1


def test_relays_to_be_asked_again_come_first_and_once():
    due = relays("wss://a.example", "wss://b.example")
    plan = make_plan(due, relays("wss://b.example", "wss://c.example"), (), tor=True)
    assert [relay.host[0] for relay in plan.relays] == ["b", "c", "a"]


def test_onion_relays_are_skipped_and_counted_without_tor():
    due = relays(ONION, "wss://a.example")
    without = make_plan(due, (), (), tor=False)
    assert [relay.host for relay in without.relays] == ["a.example"]
    assert without.skipped_tor == 1
    assert len(make_plan(due, (), (), tor=True).relays) == 2


def test_relays_of_one_host_are_spread_out():
    due = relays(*(f"wss://a.example/{n}" for n in range(3)), "wss://b.example", "wss://c.example")
    hosts = [relay.host[0] for relay in make_plan(due, (), (), tor=True).relays]
    assert hosts == ["a", "b", "c", "a", "a"]


def test_candidates_come_last_and_are_told_apart():
    due = relays("wss://a.example", "wss://b.example")
    named = relays("wss://c.example", "wss://a.example/inbox", ONION)
    plan = make_plan(due, (), (), tor=False, candidates=named)
    assert [relay.url[6:] for relay in plan.relays] == [
        *("a.example", "b.example", "c.example", "a.example/inbox")
    ]
    assert plan.candidates == {relay.url for relay in named}
