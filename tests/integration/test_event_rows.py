"""The write path: what was there already, poison rows, concurrent writers, the corpus."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import orjson
import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.sample_events import corpus_events, odd_event, sample_event
from event_rows import RawEvent, WriteResult, known_ids, write_events
from nostr.events import SignedEvent, encode_event, parse_event, storage_obstacle
from nostr.filters import filter_hash
from nostr.json_text import decode_exactly
from nostr.urls import RelayUrl
from sync.ledger import Gap, register_filter
from sync.share import Share, write_shares
from sync.windows import Window

RELAY = RelayUrl.parse("wss://relay.example.com")
OTHER = RelayUrl.parse("wss://other.example.com")
NONE: frozenset[str] = frozenset()


async def _write(
    db: BigBrotr,
    events: Sequence[SignedEvent],
    *,
    relay: RelayUrl = RELAY,
    seen_at: int = 100,
    known: Sequence[str] = (),
    raw: Sequence[RawEvent] = (),
    refused: Mapping[str, int] | None = None,
) -> WriteResult:
    return await db.run_in_transaction(
        lambda conn: write_events(
            conn, relay, seen_at, events, known=known, raw=raw, refused=refused
        )
    )


def _raw(event: SignedEvent) -> RawEvent:
    reason = storage_obstacle(event)
    assert reason is not None
    return RawEvent(event.id, encode_event(event), reason)


def _ids(events: Iterable[SignedEvent]) -> frozenset[str]:
    return frozenset(event.id for event in events)


async def _stored(db: BigBrotr) -> dict[str, SignedEvent]:
    """Every archived event as its row says, from both tables."""
    rows = await db.fetch("SELECT id, pubkey, created_at, kind, tags, content, sig FROM events")
    events = [
        SignedEvent(*tuple(row)[:4], orjson.loads(row["tags"]), row["content"], row["sig"])
        for row in rows
    ]
    raw = await db.fetch("SELECT DISTINCT id, raw FROM events_raw")
    events += [parse_event(decode_exactly(row["raw"])) for row in raw]
    return {event.id: event for event in events}


async def _sightings(db: BigBrotr) -> set[tuple[str, str, int]]:
    rows = await db.fetch("SELECT event_id, relay_url, seen_at FROM events_relays")
    return {tuple(row) for row in rows}


# What was there already


async def test_known_events_get_a_sighting(db: BigBrotr) -> None:
    events = [sample_event(number) for number in range(3)]
    ids = [event.id for event in events]
    assert await known_ids(db, []) == set()
    assert await _write(db, events[:2]) == WriteResult(_ids(events[:2]), sightings=2)
    assert await known_ids(db, ids) == set(ids[:2])

    result = await _write(db, events[2:], relay=OTHER, seen_at=200, known=ids[:2])
    assert result == WriteResult(_ids(events[2:]), sightings=3)
    assert await _write(db, events, relay=OTHER, seen_at=300) == WriteResult(NONE, sightings=0)
    assert await _sightings(db) == {
        (ids[0], RELAY.url, 100),
        (ids[1], RELAY.url, 100),
        *((event_id, OTHER.url, 200) for event_id in ids),
    }


async def test_raw_events_are_known_and_sighted(db: BigBrotr) -> None:
    odd = odd_event([["t", "a\0b"]])
    assert await _write(db, [], raw=[_raw(odd)]) == WriteResult(_ids([odd]), sightings=1)
    assert await known_ids(db, [odd.id]) == {odd.id}
    again = await _write(db, [], raw=[_raw(odd)], relay=OTHER)
    assert again == WriteResult(NONE, sightings=1)
    third = RelayUrl.parse("wss://third.example.com")
    assert await _write(db, [], known=[odd.id], relay=third) == WriteResult(NONE, sightings=1)
    rows = await db.fetch("SELECT relay_url, raw, reason FROM events_raw WHERE id = $1", odd.id)
    assert {row["relay_url"] for row in rows} == {RELAY.url, OTHER.url, third.url}
    assert all(row["reason"] == "nul" for row in rows)
    assert all(parse_event(decode_exactly(row["raw"])) == odd for row in rows)


async def test_events_deleted_since_they_were_known_are_reported(db: BigBrotr) -> None:
    events = [sample_event(number) for number in range(3)]
    ids = sorted(event.id for event in events)
    await _write(db, events)
    await db.execute("DELETE FROM events WHERE id = $1", ids[1])
    result = await _write(db, [], relay=OTHER, known=ids)
    assert result == WriteResult(NONE, sightings=2, vanished=frozenset({ids[1]}))


async def test_a_sighting_of_an_event_deleted_meanwhile_fails_the_transaction(
    db: BigBrotr,
) -> None:
    """Nothing may be committed as if the event were there; run_in_transaction tries again."""
    await _write(db, [sample_event(1)])
    attempts = 0

    async def work(conn: asyncpg.Connection) -> None:
        nonlocal attempts
        attempts += 1
        ids = [sample_event(1).id, sample_event(2).id]
        await conn.fetchval("SELECT insert_sightings($1, $2, 1)", ids, OTHER.url)

    await db.execute("SELECT insert_relay($1, 'clearnet', 1)", OTHER.url)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await db.run_in_transaction(work)
    assert attempts == 3
    assert len(await _sightings(db)) == 1


async def test_refused_events_are_counted_by_reason(db: BigBrotr) -> None:
    await _write(db, [], refused={"wrong-id": 2, "malformed": 1, "none": 0}, seen_at=5)
    await _write(db, [], refused={"wrong-id": 3}, seen_at=4)
    rows = await db.fetch("SELECT * FROM refused_events ORDER BY reason")
    assert [tuple(row) for row in rows] == [
        (RELAY.url, "malformed", 1, 5),
        (RELAY.url, "wrong-id", 5, 5),
    ]


async def test_nothing_is_left_of_a_transaction_that_fails(db: BigBrotr) -> None:
    async def work(conn: asyncpg.Connection) -> None:
        await write_events(conn, RELAY, 1, [sample_event(1)], refused={"malformed": 1})
        raise KeyError("the caller's")

    with pytest.raises(KeyError):
        await db.run_in_transaction(work)
    for table in ("relays", "events", "events_relays", "refused_events"):
        assert await db.fetch(f"SELECT FROM {table}") == []


async def test_what_refers_to_few_events_or_relays_never_scans_them(
    cluster: Cluster, database: Database
) -> None:
    """The plans of such checks are kept while the tables grow."""
    owner = await cluster.connect(database.dbname)
    try:
        await owner.execute("ANALYZE")
        for number in range(10):
            async with owner.transaction():
                await write_events(owner, RELAY, 1, [sample_event(number)])
        await owner.execute("SELECT pg_stat_force_next_flush()")
        rows = await owner.fetch(
            "SELECT seq_scan FROM pg_stat_user_tables WHERE relname IN ('events', 'relays')"
        )
        assert [row["seq_scan"] for row in rows] == [0, 0]
    finally:
        await owner.close()


# Poison


@pytest.mark.parametrize(
    ("changes", "sqlstate"),
    [
        ({"kind": 70_000}, "23514"),
        ({"kind": 2**40}, "22000"),
        ({"created_at": 2**70}, "22000"),
        ({"content": "a\0b"}, "22021"),
        ({"tags": [["t", "a\0b"]]}, "22P05"),
        ({"sig": "short"}, "23514"),
    ],
)
async def test_a_poison_row_does_not_fail_its_batch(
    db: BigBrotr, changes: dict[str, Any], sqlstate: str
) -> None:
    events = [sample_event(number) for number in range(100)]
    poison = events[37]._replace(**changes)
    result = await _write(db, [*events[:37], poison, *events[38:]])
    expected = RawEvent(poison.id, encode_event(poison), sqlstate)
    assert result == WriteResult(_ids(events), sightings=100, unstorable=(expected,))
    (row,) = await db.fetch("SELECT id, relay_url, raw, reason FROM events_raw")
    assert tuple(row) == (poison.id, RELAY.url, expected.raw, sqlstate)
    assert len(await db.fetch("SELECT FROM events")) == 99


async def test_several_poison_rows_are_all_found(db: BigBrotr) -> None:
    events = [sample_event(number) for number in range(64)]
    poisoned = {0, 1, 31, 32, 63}
    batch = [
        event._replace(kind=-1) if index in poisoned else event
        for index, event in enumerate(events)
    ]
    result = await _write(db, batch)
    assert {event.id for event in result.unstorable} == {events[index].id for index in poisoned}
    assert await known_ids(db, [event.id for event in events]) == {event.id for event in events}


async def test_an_error_that_is_no_rows_fault_is_raised(
    cluster: Cluster, database: Database, db: BigBrotr
) -> None:
    revoke = "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM bigbrotr_writer"
    cluster.administer(revoke, database=database.dbname)
    with pytest.raises(Exception, match="permission denied"):
        await _write(db, [sample_event(1)])


# Several writers


async def test_four_writers_of_the_same_events_never_deadlock(
    db: BigBrotr, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    events = [sample_event(number, tags=[["t", f"{number}"]]) for number in range(1_500)]

    async def writer(number: int) -> int:
        shuffled = random.Random(number).sample(events, len(events))
        relay = RelayUrl.parse(f"wss://relay{number}.example.com")
        new = 0
        for start in range(0, len(shuffled), 250):
            new += len((await _write(db, shuffled[start : start + 250], relay=relay)).new)
        return new

    assert sum(await asyncio.gather(*map(writer, range(4)))) == len(events)
    assert len(await _sightings(db)) == 4 * len(events)
    assert "transaction_retried" not in caplog.text


async def test_four_groups_of_the_same_events_and_relays_never_deadlock(
    db: BigBrotr, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that a transaction of several relays writes: two of them share all of it."""
    caplog.set_level(logging.INFO)
    events = [sample_event(number, tags=[["t", f"{number}"]]) for number in range(1_000)]
    odd = [odd_event([["t", f"\0{number}"]]) for number in range(5)]
    relays = [RelayUrl.parse(f"wss://relay{number}.example.com") for number in range(6)]
    name, target = filter_hash({}), Window(0, 10_000)
    await register_filter(db, name, {})

    async def writer(number: int) -> int:
        chance = random.Random(number)
        new = 0
        for turn in range(10):
            shares = [
                Share(
                    relay,
                    name,
                    target,
                    events=chance.sample(events, 100),
                    raw=[_raw(event) for event in chance.sample(odd, 3)],
                    refused=Counter(malformed=1, wrong_id=2),
                    proven=[Window(100 * turn, 100 * turn + 50)],
                    gaps=[Gap(Window(100 * turn + 51, 100 * turn + 60), "saturated")],
                    refusals=[Gap(Window(9_000, 9_001), "blocked")],
                )
                for relay in chance.sample(relays, len(relays))
            ]
            new += sum(
                await db.run_in_transaction(lambda conn, these=shares: write_shares(conn, these))
            )
        return new

    new = await asyncio.gather(*map(writer, range(4)))
    archived = await known_ids(db, [event.id for event in (*events, *odd)])
    assert sum(new) == len(archived) > 900
    assert "transaction_retried" not in caplog.text


async def test_a_deadlock_is_retried(db: BigBrotr, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await _write(db, [], refused={"a": 1, "b": 1})
    both_hold_one = asyncio.Barrier(2)
    attempts: list[str] = []

    async def count_in_order(first: str, second: str) -> None:
        async def work(conn: asyncpg.Connection) -> None:
            attempts.append(first)
            update = "UPDATE refused_events SET events = events + 1 WHERE reason = $1"
            await conn.execute(update, first)
            if attempts.count(first) == 1:
                await both_hold_one.wait()
            await conn.execute(update, second)

        await db.run_in_transaction(work)

    await asyncio.gather(count_in_order("a", "b"), count_in_order("b", "a"))
    assert len(attempts) == 3
    assert caplog.text.count("sqlstate=40P01") == 1
    rows = await db.fetch("SELECT events FROM refused_events")
    assert [row["events"] for row in rows] == [3, 3]


# Unaltered


async def test_odd_tags_come_out_as_they_went_in(db: BigBrotr) -> None:
    odd = [
        odd_event([["t", 5], ["t", True], ["t", None], [], ["t"], [0, -7]]),
        odd_event([["t", 2**53 + 1, -(2**63) + 1]]),
        odd_event([["t", "a\0b"]]),
        odd_event([["t", ["nested", {"b": 1, "a": 2}]]]),
        odd_event([["t", "\ud800"]]),
        odd_event([["t"]], "\0"),
    ]
    storable = [event for event in odd if storage_obstacle(event) is None]
    raw = [_raw(event) for event in odd if storage_obstacle(event) is not None]
    assert len(raw) == 4
    await _write(db, storable, raw=raw)
    assert await _stored(db) == {event.id: event for event in odd}


async def test_any_text_comes_out_as_it_went_in(db: BigBrotr) -> None:
    """Characters of all planes and widths, many of them odd ones."""
    chance = random.Random(20)

    def character() -> str:
        ranges = [(1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
        return chr(chance.randint(*chance.choice(ranges)))

    def text() -> str:
        return "".join(character() for _ in range(chance.randrange(40)))

    events = [
        sample_event(
            number,
            content=text(),
            tags=[[chance.choice("tTeE"), text(), text()] for _ in range(chance.randrange(4))],
        )
        for number in range(300)
    ]
    await _write(db, events)
    assert await _stored(db) == {event.id: event for event in events}
    rows = await db.fetch("SELECT id, tagvalues FROM events")
    found = {row["id"]: row["tagvalues"] for row in rows}
    assert found == {event.id: [f"{tag[0]}:{tag[1]}" for tag in event.tags] for event in events}


async def test_every_event_of_the_corpus_comes_out_as_it_went_in(db: BigBrotr) -> None:
    events = corpus_events() + [sample_event(number) for number in range(10)]
    storable = [event for event in events if storage_obstacle(event) is None]
    raw = [_raw(event) for event in events if storage_obstacle(event) is not None]
    unique = {event.id: event for event in events}
    result = await _write(db, storable, raw=raw)
    assert result == WriteResult(_ids(events), sightings=len(unique))

    stored = await _stored(db)
    assert stored == unique
    for event in stored.values():
        # Recomputes the id.
        assert parse_event(decode_exactly(encode_event(event))) == event
