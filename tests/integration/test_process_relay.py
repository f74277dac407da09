"""The specification's functions for one relay, with nostr-tools' own types."""

import time

import pytest
from nostr_tools import Client, Filter, Relay

from bigbrotr import BigBrotr
from components.sessions import archived, true_ids
from errors import RelayError
from nostr.connection import EndKind
from nostr.urls import to_relay
from process_relay import (
    RawEventBatch,
    get_start_time_async,
    insert_batch,
    process_batch,
    process_relay,
)
from scripted_relay import ScriptedRelay, make_event, make_events

START = 1_700_000_000


def client_of(relay: ScriptedRelay, timeout: int = 5) -> Client:
    return Client(to_relay(relay.url), timeout=timeout)


async def test_process_relay_archives_the_filter_s_window(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(300), cap=40) as relay:
        flt = Filter(kinds=[1], since=START + 50, until=START + 249, limit=100)
        await process_relay(db, client_of(relay), flt)
        inside = {e["id"] for e in relay.events if START + 50 <= e["created_at"] <= START + 249}
        assert inside <= await archived(db, relay.url.url)
        assert flt.limit == 100, "the caller's filter is left as it was"
        first = await get_start_time_async(
            START + 50, db, to_relay(relay.url), event_filter={"kinds": [1]}
        )
        assert first == START + 250


async def test_process_relay_says_when_the_relay_did_not_answer(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(30), eose="never") as relay:
        with pytest.raises(RelayError, match="timeout"):
            await process_relay(db, client_of(relay, 1), Filter(since=START, until=START + 50))
        assert await archived(db, relay.url.url) == true_ids(relay.events)
        assert await get_start_time_async(START, db, to_relay(relay.url)) == START


async def test_start_time_ignores_sightings_of_newer_events(db: BigBrotr) -> None:
    """The ancestor resumed after any event that shared the newest seen_at."""
    relay = Relay("wss://relay.example.com")
    newer = make_event(created_at=START + 10_000)
    assert await insert_batch(db, [newer], relay, int(time.time())) == 1
    assert await get_start_time_async(START, db, relay) == START


async def test_insert_batch_counts_what_it_refuses(db: BigBrotr) -> None:
    relay = Relay("wss://relay.example.com")
    good = make_events(3)
    bad = [{**good[0], "content": "changed"}, {**good[1], "sig": "00" * 64}, {"id": 1}]
    nul = make_event(created_at=START, content="\x00")
    assert await insert_batch(db, [*good, *bad[::2], nul], relay, 5) == 4
    assert await insert_batch(db, [*good, nul], relay, 6) == 0
    other = make_event(created_at=START + 99)
    assert await insert_batch(db, [{**other, "sig": "00" * 64}], relay, 7) == 0
    rows = await db.fetch("SELECT reason, events FROM refused_events")
    assert {r["reason"]: r["events"] for r in rows} == {
        "wrong-id": 1,
        "malformed": 1,
        "wrong-signature": 1,
    }


@pytest.mark.parametrize(("eose", "end"), [("always", EndKind.EOSE), ("never", EndKind.TIMEOUT)])
async def test_process_batch_tells_eose_from_a_timeout(eose: str, end: EndKind) -> None:
    async with ScriptedRelay(make_events(10), eose=eose) as relay:
        flt = Filter(since=START, until=START + 100, limit=50)
        batch = await process_batch(client_of(relay, 1), flt)
        assert batch.end is not None
        assert batch.end.kind is end
        assert {event["id"] for event in batch.raw_events} == true_ids(relay.events)
        assert (batch.min_created_at, batch.max_created_at) == (START, START + 9)


def test_raw_event_batch_takes_what_fits() -> None:
    batch = RawEventBatch(since=10, until=20, limit=2)
    assert batch.is_empty()
    assert not batch.append({"created_at": 9})
    assert not batch.append({"created_at": "15"})
    assert not batch.append({})
    assert batch.append({"created_at": 15})
    assert batch.append({"created_at": 12})
    assert not batch.append({"created_at": 13})
    assert batch.is_full()
    assert (batch.min_created_at, batch.max_created_at) == (12, 15)
