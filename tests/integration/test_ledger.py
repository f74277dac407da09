"""Coverage rows that somebody edited, or that a clock which was ahead has written."""

import time

import pytest

from bigbrotr import BigBrotr
from nostr.filters import filter_hash
from nostr.urls import RelayUrl, to_relay
from sync import ledger
from sync.ledger import Gap
from sync.windows import Window

RELAY = RelayUrl.parse("wss://relay.example.com")
NAME = filter_hash({})
DAY = 86_400


async def edited(db: BigBrotr, covered: str, *, updated_at: int) -> None:
    """One row of the ledger, as a hand would write it."""
    await db.insert_relay(to_relay(RELAY), inserted_at=1)
    await ledger.register_filter(db, NAME, {})
    await db.execute(
        "INSERT INTO sync_coverage (relay_url, filter_hash, covered, updated_at) "
        "VALUES ($1, $2, $3::text::int8multirange, $4)",
        RELAY.url,
        NAME,
        covered,
        updated_at,
    )


async def prove(db: BigBrotr, window: Window, target: Window) -> None:
    await db.run_in_transaction(
        lambda conn: ledger.add_proven(conn, RELAY.url, NAME, [window], target)
    )


async def left(db: BigBrotr, target: Window) -> list[Window]:
    return await ledger.remaining(db, RELAY.url, NAME, target)


@pytest.mark.parametrize("covered", ["{[1000,9000000000)}", "{[1000,9223372036854775807)}"])
async def test_coverage_of_the_future_does_not_count_and_never_will(
    db: BigBrotr, covered: str
) -> None:
    now = int(time.time())
    changed = now - 10 * DAY
    await edited(db, covered, updated_at=changed)
    target = Window(1_000, now + DAY)
    assert await left(db, target) == [Window(changed, now + DAY)]
    assert await ledger.first_unproven(db, RELAY.url, NAME, target) == changed
    # The next proof does not make it true.
    await prove(db, Window(changed, changed + 99), target)
    assert await left(db, target) == [Window(changed + 100, now + DAY)]
    assert await ledger.first_unproven(db, RELAY.url, NAME, target) == changed + 100


async def test_no_second_is_proven_before_it_is_over(db: BigBrotr) -> None:
    now = int(time.time())
    await edited(db, "{}", updated_at=now)
    target = Window(now - 100, now + DAY)
    await prove(db, target, target)
    (rest,) = await left(db, target)
    assert now <= rest.since <= int(time.time())
    assert rest.until == target.until


async def test_a_change_in_the_future_counts_no_further_than_the_present(db: BigBrotr) -> None:
    """As after a step back of the database's own clock."""
    now = int(time.time())
    await edited(db, f"{{[1000,{now + DAY})}}", updated_at=now + 2 * DAY)
    (rest,) = await left(db, Window(1_000, now + DAY))
    assert now <= rest.since <= int(time.time())


async def test_empty_overlapping_and_scattered_ranges_are_just_sets(db: BigBrotr) -> None:
    now = int(time.time())
    await edited(db, "{[5,10), [7,20), empty, [30,31)}", updated_at=now)
    target = Window(0, 39)
    assert await left(db, target) == [Window(31, 39), Window(20, 29), Window(0, 4)]
    await db.execute("UPDATE sync_coverage SET covered = '{}', target = 'empty'")
    assert await left(db, target) == [target]
    await prove(db, Window(0, 9), target)
    assert await left(db, target) == [Window(10, 39)]


async def test_a_gap_tried_in_the_future_is_tried_again(db: BigBrotr) -> None:
    now, target = int(time.time()), Window(0, 9)
    await edited(db, "{[0,5)}", updated_at=now)
    await db.run_in_transaction(
        lambda conn: ledger.record_gaps(conn, RELAY.url, NAME, [Gap(Window(5, 9), "saturated", "")])
    )
    assert await left(db, target) == []
    await db.execute("UPDATE sync_gaps SET last_tried_at = $1", now + 30 * DAY)
    assert await left(db, target) == [Window(5, 9)]
