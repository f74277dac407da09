"""How many relays are checked side by side."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.waiting import Waiting
from nostr.urls import RelayUrl

ONIONS = (
    "oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion",
    "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion",
)


def relays(host: str, count: int) -> list[RelayUrl]:
    return [RelayUrl.parse(f"wss://{host}/{number}") for number in range(count)]


def test_a_busy_host_keeps_no_other_waiting():
    waiting = Waiting([*relays("a.example", 5), *relays("b.example", 1)], per_host=2, tor=1)
    assert [relay.host[0] for relay in waiting.take(10)] == ["a", "a", "b"]
    assert waiting.take(10) == []
    assert len(waiting) == 3


def test_a_place_of_a_host_goes_to_its_next_relay():
    of_a = relays("a.example", 3)
    waiting = Waiting([*of_a, *relays("b.example", 3)], per_host=1, tor=1)
    first = waiting.take(2)
    waiting.done(of_a[0])
    assert waiting.take(1) == [of_a[1]]
    assert first == [of_a[0], relays("b.example", 1)[0]]


def test_onion_relays_share_their_own_places():
    onions = [*relays(ONIONS[0], 2), *relays(ONIONS[1], 2)]
    waiting = Waiting([*onions, *relays("a.example", 2)], per_host=4, tor=1)
    assert [relay.network for relay in waiting.take(10)] == ["tor", "clearnet", "clearnet"]
    waiting.done(onions[0])
    assert [relay.network for relay in waiting.take(10)] == ["tor"]


@given(
    st.lists(st.sampled_from(["a.example", "b.example", *ONIONS]), max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 10),
    st.integers(),
)
def test_every_relay_is_given_out_once_and_never_too_many(hosts, per_host, tor, most, seed):
    chance = Random(seed)
    listed = [RelayUrl.parse(f"wss://{host}/{number}") for number, host in enumerate(hosts)]
    waiting = Waiting(listed, per_host=per_host, tor=tor)
    out: list[RelayUrl] = []
    given_out: list[RelayUrl] = []
    while waiting or out:
        taken = waiting.take(chance.randint(1, most))
        out += taken
        given_out += taken
        assert max(Counter(relay.host for relay in out).values()) <= per_host
        assert sum(relay.network == "tor" for relay in out) <= tor
        assert out, "relays wait, and nobody holds their place"
        waiting.done(out.pop(chance.randrange(len(out))))
    assert sorted(given_out) == sorted(listed)


@pytest.mark.parametrize("most", [0, -1])
def test_nothing_is_given_out_where_nothing_fits(most):
    waiting = Waiting(relays("a.example", 1), per_host=1, tor=1)
    assert waiting.take(most) == []
