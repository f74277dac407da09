"""Looking again at what is proven: events that appear late are found, on a schedule."""

import time

import pytest
from nostr_tools import RelayMetadata

from bigbrotr import BigBrotr
from components.relays import StartRelay
from components.sessions import archived, synchronize, true_ids, unproven
from nostr.urls import to_relay
from scripted_relay import ScriptedRelay, make_event, make_events
from standalone.relay_client import publish
from standalone.signing import Author
from sync.dispatch import claimed_limits
from sync.facts import Order
from sync.limits import RelayLimits
from sync.relay_model import RelayModel
from sync.windows import Window

START = 1_700_000_000
DAY = 86_400
TARGET = Window(START, START + 30 * DAY)


async def time_passes(db: BigBrotr, seconds: int) -> None:
    await db.execute("UPDATE sync_coverage SET verified_at = verified_at - $1::bigint", seconds)


async def rounds(db: BigBrotr) -> int:
    row = await db.fetchone("SELECT rounds FROM sync_coverage")
    assert row is not None
    return int(row["rounds"])


async def test_late_events_are_found_when_the_round_is_due(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(100)) as relay:
        url = relay.url.url
        await synchronize(db, url, TARGET, reverify_seconds=14 * DAY)
        late = make_event(created_at=TARGET.until - 5 * DAY, content="late")
        very_late = make_event(created_at=START + DAY, content="very late")
        relay.events += [late, very_late]
        asked = len(relay.requests)

        await synchronize(db, url, TARGET, reverify_seconds=14 * DAY)
        assert len(relay.requests) == asked, "not due yet"

        await time_passes(db, 14 * DAY)
        report = await synchronize(db, url, TARGET, reverify_seconds=14 * DAY)
        assert report.outcome == "complete"
        assert late["id"] in await archived(db, url)
        assert very_late["id"] not in await archived(db, url), "the first round looks not so far"
        assert min(request["since"] for request in relay.requests[asked:]) > START + DAY
        assert await rounds(db) == 1

        for _ in range(3):
            await time_passes(db, 14 * DAY)
            await synchronize(db, url, TARGET, reverify_seconds=14 * DAY)
        assert await archived(db, url) == true_ids(relay.events)
        assert await rounds(db) == 4
        assert await unproven(db, url, TARGET) == []


async def test_a_relay_that_fails_its_round_loses_no_proof(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(100)) as relay:
        url = relay.url.url
        await synchronize(db, url, TARGET, reverify_seconds=14 * DAY)
        await time_passes(db, 14 * DAY)
        relay.eose = "never"
        report = await synchronize(db, url, TARGET, reverify_seconds=14 * DAY, idle_timeout=0.3)
        assert report.outcome == "timeout"
        assert await unproven(db, url, TARGET) == []
        assert await rounds(db) == 0, "the round is still due"


async def test_zero_days_means_never(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(10)) as relay:
        await synchronize(db, relay.url.url, TARGET)
        await time_passes(db, 1_000 * DAY)
        asked = len(relay.requests)
        await synchronize(db, relay.url.url, TARGET)
        assert len(relay.requests) == asked


async def test_the_limits_of_the_latest_document_are_honoured(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(300)) as relay:
        now = int(time.time())
        documents = [{"max_limit": 5}, {"max_limit": 70, "max_subscriptions": 2}]
        for age, limitation in enumerate(reversed(documents)):
            metadata = RelayMetadata(
                relay=to_relay(relay.url),
                generated_at=now - age,
                nip11=RelayMetadata.Nip11(name="x", limitation=limitation),
            )
            await db.insert_relay_metadata(metadata, now)
        limits = await claimed_limits(db, [relay.url.url, "wss://other.example.com"])
        assert limits == {relay.url.url: RelayLimits(max_limit=70, max_subscriptions=2)}
        claimed = limits[relay.url.url]
        report = await synchronize(
            db, relay.url.url, TARGET, page_limit=claimed.page_limit(500), lanes=claimed.lanes(4)
        )
        assert report.outcome == "complete"
        assert {request["limit"] for request in relay.requests} == {70}


async def test_an_unchanged_relay_costs_a_round_trip_and_a_changed_one_the_difference(
    db: BigBrotr, local_relay: StartRelay
) -> None:
    """Real relay software, NIP-77: not one event is downloaded again."""
    author = Author("late")
    events = [author.sign(1, START + n, [], f"note {n}") for n in range(2_000)]
    relay = await local_relay(events)
    target = Window(START, START + 5_000)
    first = await synchronize(db, relay.url, target, reverify_seconds=14 * DAY)
    await time_passes(db, 14 * DAY)
    unchanged = await synchronize(
        db, relay.url, target, reverify_seconds=14 * DAY, model=first.model
    )
    assert unchanged.outcome == "complete"
    assert unchanged.model.negentropy is True
    assert unchanged.counts["requests"] <= 2
    assert unchanged.counts.get("received", 0) == 0

    late = [author.sign(1, START + 7 * n, [], f"late {n}") for n in range(3)]
    await publish(relay.websocket, late)
    await time_passes(db, DAY)
    changed = await synchronize(
        db, relay.url, target, reverify_seconds=14 * DAY, model=unchanged.model
    )
    assert changed.counts["new"] == 3
    assert changed.counts["received"] <= 10
    assert {event.id for event in late} <= await archived(db, relay.url)
    assert await rounds(db) == 2


@pytest.mark.parametrize("order", ["desc", "random"])
async def test_a_relay_that_looked_unordered_is_given_another_chance(
    db: BigBrotr, order: str
) -> None:
    async with ScriptedRelay(make_events(300), cap=50, order=order) as relay:
        url, again = relay.url.url, 14 * DAY
        unordered = RelayModel(order=Order.NONE)
        target = Window(START, START + 200)
        await synchronize(db, url, target, reverify_seconds=again, model=unordered)
        await time_passes(db, again)
        report = await synchronize(
            db, url, Window(START, START + 400), reverify_seconds=again, model=unordered
        )
        assert report.outcome == "complete"
        assert report.model.order is (Order.NONE if order == "random" else Order.NEWEST_FIRST)
        assert await archived(db, url) == true_ids(relay.events)
        assert await unproven(db, url, Window(START, START + 400)) == []


async def test_a_relay_may_come_to_speak_nip_77(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(100)) as relay:
        url, again = relay.url.url, 14 * DAY
        await synchronize(db, url, TARGET, reverify_seconds=again)
        await time_passes(db, again)
        silent = await synchronize(db, url, TARGET, reverify_seconds=again)
        assert silent.model.negentropy is False

        relay.negentropy = True
        await time_passes(db, again)
        walked = len(relay.requests)
        spoken = await synchronize(db, url, TARGET, reverify_seconds=again, model=silent.model)
        assert spoken.model.negentropy is True
        assert len(relay.requests) == walked, "reconciled, not walked"
