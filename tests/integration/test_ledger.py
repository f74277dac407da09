"""Coverage rows that somebody edited, or that a clock which was ahead has written."""

import time

import pytest

from bigbrotr import BigBrotr
from components.sample_events import sample_event
from event_rows import write_events
from nostr.filters import filter_hash
from nostr.urls import RelayUrl, to_relay
from sync import ledger
from sync.ledger import Entry, Gap
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


async def record(db: BigBrotr, entry: Entry) -> None:
    await db.run_in_transaction(lambda conn: ledger.record(conn, [entry]))


async def prove(db: BigBrotr, window: Window, target: Window) -> None:
    await record(db, Entry(RELAY.url, NAME, target, [window]))


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


@pytest.mark.parametrize(
    ("covered", "change", "shown"),
    [
        ("{[1000,9000000000)}", 0, 100),
        ("{[1000,9223372036854775807)}", 0, 100),
        ("{[1000,9000000000)}", -500, 50),
        ("{[500,1100), [1050,1300), [900,1700)}", -500, 50),
        ("{[9000000000,9000001000)}", 0, 0),
    ],
)
async def test_progress_shows_no_coverage_of_the_future(
    db: BigBrotr, covered: str, change: int, shown: float
) -> None:
    """`change`: seconds from the end of the target to the row's last change."""
    await edited(db, covered, updated_at=2_000 + change)
    await db.execute("UPDATE sync_coverage SET target = '[1000,2000)'")
    (row,) = await db.fetch("SELECT proven_percent, covered_seconds FROM sync_progress")
    assert (row["proven_percent"], row["covered_seconds"]) == (shown, 10 * shown)
    told = await ledger.progress(db, NAME)
    assert told["complete"] == (shown == 100)
    # What is shown as proven is just what is not asked for again.
    rest = await left(db, Window(1_000, 1_999))
    assert sum(window.seconds for window in rest) == 1_000 - 10 * shown


async def test_progress_of_a_clock_that_was_ahead_ends_at_the_present(db: BigBrotr) -> None:
    now = int(time.time())
    await edited(db, f"{{[{now - 1_000},{now + 1_000})}}", updated_at=now + DAY)
    await db.execute(
        "UPDATE sync_coverage SET target = int8range($1, $2)", now - 1_000, now + 1_000
    )
    (row,) = await db.fetch("SELECT covered_seconds FROM sync_progress")
    assert 1_000 <= row["covered_seconds"] < 1_100


async def test_progress_says_all_of_a_relay_that_is_behind(db: BigBrotr) -> None:
    await edited(db, "{[1000,1500), [1600,2000)}", updated_at=int(time.time()))
    await db.execute("UPDATE sync_coverage SET target = '[1000,2000)', verified_at = 1234")
    blocked = Gap(Window(1_500, 1_529), "blocked", "go away")
    await record(db, Entry(RELAY.url, NAME, Window(1_000, 1_999), gaps=[blocked]))
    await db.execute(
        "INSERT INTO relay_tasks (purpose, relay_url, last_outcome, learnt, updated_at) "
        """VALUES ('sync', $1, 'blocked', '{"lanes": 1, "order": "oldest-first"}', 1)""",
        RELAY.url,
    )
    assert await ledger.progress(db, NAME) == {
        "relays": 1,
        "complete": 0,
        "with_gaps": 1,
        "behind": [
            {
                "relay_url": RELAY.url,
                "proven_percent": 90.0,
                "gaps": 1,
                "gap_seconds": 30,
                "target_from": 1_000,
                "target_until": 1_999,
                "verified_at": 1_234,
                "last_outcome": "blocked",
                "learnt": {"lanes": 1, "order": "oldest-first"},
            }
        ],
    }
    assert (await ledger.progress(db, filter_hash({"kinds": [1]})))["relays"] == 0


async def test_coverage_of_one_filter_is_none_of_another(db: BigBrotr) -> None:
    now = int(time.time())
    await edited(db, "{[1000,2000)}", updated_at=now)
    target = Window(1_000, 1_999)
    for flt in ({"kinds": [1]}, {"kinds": [1, 2]}, {"#t": ["kinds"]}):
        name = filter_hash(flt)
        assert await ledger.remaining(db, RELAY.url, name, target) == [target]
        assert await ledger.first_unproven(db, RELAY.url, name, target) == 1_000
    assert await left(db, target) == []


async def test_an_earlier_start_asks_for_what_lies_before_and_no_more(db: BigBrotr) -> None:
    await edited(db, "{[1000,2000)}", updated_at=int(time.time()))
    assert await left(db, Window(500, 1_999)) == [Window(500, 999)]
    await prove(db, Window(500, 599), Window(500, 1_999))
    assert await left(db, Window(500, 1_999)) == [Window(600, 999)]
    assert await left(db, Window(1_500, 2_499)) == [Window(2_000, 2_499)]


async def test_a_gap_tried_in_the_future_is_tried_again(db: BigBrotr) -> None:
    now, target = int(time.time()), Window(0, 9)
    await edited(db, "{[0,5)}", updated_at=now)
    await record(db, Entry(RELAY.url, NAME, target, gaps=[Gap(Window(5, 9), "saturated")]))
    assert await left(db, target) == []
    await db.execute("UPDATE sync_gaps SET last_tried_at = $1", now + 30 * DAY)
    assert await left(db, target) == [Window(5, 9)]


async def test_events_that_relays_drop_do_not_speak_against_an_empty_page(db: BigBrotr) -> None:
    now = int(time.time())
    passing = [sample_event(n, kind=kind) for n, kind in enumerate((0, 3, 10_002, 20_166, 39_999))]
    lasting = [sample_event(10 + n, kind=kind) for n, kind in enumerate((1, 9_999, 40_000))]
    for event in passing + lasting:
        rows, expected = [event], event in lasting
        await db.run_in_transaction(lambda conn, rows=rows: write_events(conn, RELAY, now, rows))
        seconds = Window(event.created_at, event.created_at)
        assert await ledger.seen_lately(db, RELAY.url, seconds) is expected
