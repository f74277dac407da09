"""NIP-77 on a connection: every relay known to us, and hostile ones."""

import asyncio
from typing import Any

import pytest

from components.relays import StartRelay
from nostr import negotiation
from nostr.connection import Dialer, RelayConnection
from nostr.negotiation import Negotiation
from nostr.urls import RelayUrl
from scripted_relay import Event, ScriptedRelay, make_events
from standalone.signing import Author

START = 1_700_000_000
# What strfry and most others take.
MESSAGE_LIMIT = 131_072


def items_of(events: list[Event]) -> list[tuple[int, str]]:
    return [(event["created_at"], event["id"]) for event in events]


def invented(count: int, *, start: int = START, seconds: int = 1_000) -> list[tuple[int, str]]:
    """Items that no relay has."""
    return [(start + n % seconds, f"{n * 2**240 + n:064x}") for n in range(count)]


async def ask(relay: ScriptedRelay, ours: list[tuple[int, str]], **settings: Any) -> Negotiation:
    async with await relay.dialer().connect(relay.url) as connection:
        answer = await connection.negotiate({}, ours, **{"timeout": 5.0, **settings})
        await until_closed(relay, connection)
        return answer


async def until_closed(relay: ScriptedRelay, connection: RelayConnection) -> None:
    """Every negotiation ends with NEG-CLOSE, if there still is a connection."""
    async with asyncio.timeout(5):
        while not relay.closes and not connection.closed:
            await asyncio.sleep(0.005)


async def test_local_relay(local_relay: StartRelay) -> None:
    author = Author("negotiation")
    events = [author.sign(1, START + n // 400, [], f"n{n}") for n in range(3_000)]
    relay = await local_relay(events, cap=100)
    url = RelayUrl.parse(relay.url, allow_private=True)
    dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0)
    all_of_it = [(event.created_at, event.id) for event in events]
    async with await dialer.connect(url) as connection:
        same = await connection.negotiate({}, all_of_it, timeout=5.0)
        assert same == Negotiation("done", rounds=1)

        nothing = await connection.negotiate({}, [], timeout=5.0)
        assert nothing.need == relay.accepted

        ours = [*all_of_it[:100], *all_of_it[107:], *invented(3)]
        differing = await connection.negotiate({}, ours, timeout=5.0)
        assert differing.outcome == "done"
        assert differing.need == {id_ for _, id_ in all_of_it[100:107]}
        assert differing.have == {id_ for _, id_ in invented(3)}
        assert differing.rounds <= 4

        second = {"kinds": [1], "since": START + 2, "until": START + 2}
        burst = await connection.negotiate(second, all_of_it[800:900], timeout=5.0)
        assert burst.need == {id_ for _, id_ in all_of_it[900:1_200]}

        different = await connection.negotiate({}, invented(3_000), timeout=5.0)
        assert different.need == relay.accepted
        assert len(different.have) == 3_000


async def test_a_large_set_of_ours_against_an_empty_relay(local_relay: StartRelay) -> None:
    relay = await local_relay()
    url = RelayUrl.parse(relay.url, allow_private=True)
    dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0)
    async with await dialer.connect(url) as connection:
        answer = await connection.negotiate({}, invented(60_000), timeout=5.0)
        assert (answer.outcome, len(answer.have)) == ("done", 60_000)


async def test_a_relay_that_does_not_speak_it(nostr_relay: StartRelay) -> None:
    relay = await nostr_relay()
    url = RelayUrl.parse(relay.url, allow_private=True)
    dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0)
    async with await dialer.connect(url) as connection:
        answer = await connection.negotiate({}, invented(10), timeout=1.0)
        assert answer.outcome in {"timeout", "unsupported"}
        assert answer.rounds == 0
        assert not connection.closed


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, {"outcome": "unsupported"}),
        ({"negentropy": "ERROR: bad msg: negentropy disabled"}, {"outcome": "unsupported"}),
        ({"negentropy": "ERROR: bad msg: unknown cmd"}, {"outcome": "unsupported"}),
        ({"negentropy": "unsupported: no NIP-77"}, {"outcome": "unsupported"}),
        ({"negentropy": "error: negentropy disabled"}, {"outcome": "unsupported"}),
        ({"negentropy": "old"}, {"outcome": "unsupported"}),
        ({"negentropy": "silent"}, {"outcome": "timeout"}),
        ({"negentropy": "ERROR: slow down"}, {"outcome": "timeout"}),
        ({"negentropy": "ERROR: too many concurrent NEG requests"}, {"outcome": "refused"}),
        (
            {"negentropy": "blocked: not for you"},
            {"outcome": "refused", "prefix": "blocked", "too_many": False},
        ),
        (
            {"negentropy": "blocked: too many query results"},
            {"outcome": "refused", "too_many": True, "max_records": None},
        ),
        (
            {"negentropy": "rate-limited: too many negentropy items"},
            {"outcome": "refused", "too_many": True},
        ),
        (
            {"negentropy": "blocked: RESULTS_TOO_BIG"},
            {"outcome": "refused", "too_many": True},
        ),
        (
            {"negentropy": "rate-limited: too many requests"},
            {"outcome": "refused", "too_many": False},
        ),
        (
            {"negentropy": True, "neg_records": 99},
            {"outcome": "refused", "too_many": True, "max_records": 99},
        ),
        ({"negentropy": "closed: idle"}, {"outcome": "refused", "prefix": "closed"}),
        ({"auth": True}, {"outcome": "refused", "prefix": "auth-required"}),
        ({"message_limit": 100}, {"outcome": "disconnected"}),
    ],
    ids=str,
)
async def test_refusals(knobs: dict[str, Any], expected: dict[str, Any]) -> None:
    async with ScriptedRelay(make_events(100), **knobs) as relay:
        answer = await ask(relay, invented(10), timeout=0.3)
        assert {name: getattr(answer, name) for name in expected} == expected
        assert (answer.need, answer.have) == (frozenset(), frozenset())
        if expected["outcome"] != "disconnected":
            assert len(relay.closes) == 1


async def test_messages_stay_below_what_relays_take() -> None:
    events = make_events(3_000, per_second=3)
    ours = invented(7_000)  # listed in full once the relay has split its set
    async with ScriptedRelay(events, negentropy=True, message_limit=MESSAGE_LIMIT) as relay:
        answer = await ask(relay, ours)
        assert answer.outcome == "done"
        assert answer.need == {event["id"] for event in events}
        relay.closes.clear()
        too_long = await ask(relay, ours, frame_bytes=1_000_000)
        assert too_long.outcome == "disconnected", "one message would not have held it"


async def test_answers_in_small_frames() -> None:
    events = make_events(500)
    async with ScriptedRelay(events, negentropy=True, neg_frame=2_000) as relay:
        answer = await ask(relay, items_of(events[:100]))
        assert answer.need == {event["id"] for event in events[100:]}
        assert relay.neg_messages == answer.rounds > 5


async def test_more_ids_than_wanted() -> None:
    async with ScriptedRelay(make_events(500), negentropy=True) as relay:
        answer = await ask(relay, [], max_ids=499)
        assert (answer.outcome, answer.too_many) == ("overflow", True)


class Hostile(ScriptedRelay):
    """Answers every message with the same bytes."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(make_events(10), negentropy=True)
        self.payload = payload

    def _neg_server(self, flt: dict[str, Any]) -> Any:
        return self

    def answer(self, _: bytes) -> bytes:
        return self.payload


@pytest.mark.parametrize(
    "payload", [b"", b"\x61\x05", b"\x61\x00\x00\x07", b"\x61" + bytes(1_500_000)], ids=len
)
async def test_malformed_answers(payload: bytes) -> None:
    async with Hostile(payload) as relay:
        answer = await ask(relay, invented(100))
        assert answer.outcome == "malformed"
        assert answer.text


async def test_a_relay_that_never_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "MAX_ROUNDS", 20)
    never = b"\x61\x00\x00\x01" + bytes(16)
    async with Hostile(never) as relay:
        answer = await ask(relay, invented(100))
        assert (answer.outcome, answer.rounds) == ("malformed", 20)


async def test_disconnection_in_the_middle() -> None:
    async with ScriptedRelay(negentropy="silent") as relay:
        asking = asyncio.create_task(ask(relay, invented(10)))
        while not relay.negotiations:
            await asyncio.sleep(0.005)
        await relay.drop_all()
        assert (await asking).outcome == "disconnected"


async def test_cancelling_closes_too() -> None:
    async with ScriptedRelay(negentropy="silent") as relay:
        async with await relay.dialer().connect(relay.url) as connection:
            asking = asyncio.create_task(connection.negotiate({}, [], timeout=5.0))
            while not relay.negotiations:
                await asyncio.sleep(0.005)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until_closed(relay, connection)
            assert len(relay.closes) == 1


async def test_pages_and_negotiations_share_a_connection() -> None:
    events = make_events(200)
    async with ScriptedRelay(events, negentropy=True) as relay:
        async with await relay.dialer().connect(relay.url) as connection:
            page, answer = await asyncio.gather(
                connection.page({"limit": 500}, idle_timeout=5.0, max_events=1_000),
                connection.negotiate({}, items_of(events[:-1]), timeout=5.0),
            )
            assert len(page.events) == 200
            assert answer.need == {events[-1]["id"]}
