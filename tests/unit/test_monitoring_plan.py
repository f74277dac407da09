"""Which relays a cycle checks, and in which order."""

from random import Random

from monitoring.plan import Plan, make_plan
from nostr.urls import RelayUrl

ONION = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"


def plan_of(due, rechecks=(), resting=(), *, tor=True, candidates=()) -> Plan:
    return make_plan(due, rechecks, resting, tor=tor, candidates=candidates, chance=Random(1))


def relays(*urls: str) -> list[RelayUrl]:
    return [RelayUrl.parse(url) for url in urls]


def test_relays_at_rest_are_left_alone_and_counted():
    due = relays("wss://a.example", "wss://b.example")
    plan = plan_of(due, (), {"wss://b.example", "wss://not-due.example"})
    assert [str(relay) for relay in plan.relays] == ["wss://a.example"]
    assert plan.resting == 1


def test_relays_to_be_asked_again_come_first_and_once():
    due = relays("wss://a.example", "wss://b.example")
    plan = plan_of(due, relays("wss://b.example", "wss://c.example"))
    assert [relay.host[0] for relay in plan.relays] == ["b", "c", "a"]


def test_onion_relays_are_skipped_and_counted_without_tor():
    due = relays(ONION, "wss://a.example")
    without = plan_of(due, tor=False)
    assert [relay.host for relay in without.relays] == ["a.example"]
    assert without.skipped_tor == 1
    assert len(plan_of(due).relays) == 2


def test_relays_of_one_host_are_spread_out():
    due = relays(*(f"wss://a.example/{n}" for n in range(3)), "wss://b.example", "wss://c.example")
    hosts = [relay.host[0] for relay in plan_of(due).relays]
    assert sorted(hosts[:3]) == ["a", "b", "c"]
    assert hosts[3:] == ["a", "a"]


def test_relays_that_were_listed_together_are_mixed():
    due = relays(*(f"wss://r{number}.example" for number in range(50)))
    plan = plan_of(due)
    assert list(plan.relays) != due
    assert sorted(plan.relays) == sorted(due)


def test_candidates_come_last_and_are_told_apart():
    due = relays("wss://a.example", "wss://b.example")
    named = relays("wss://c.example", "wss://a.example/inbox", ONION)
    plan = plan_of(due, tor=False, candidates=named)
    urls = [relay.url[6:] for relay in plan.relays]
    assert sorted(urls[:2]) == ["a.example", "b.example"]
    assert urls[2:] == ["c.example", "a.example/inbox"]
    assert plan.candidates == {relay.url for relay in named}
