"""Several sessions in one transaction, on the real database: all of it, or each share back."""

import asyncio

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.sample_events import sample_event
from components.stepping import cancelled_at, nothing_left_behind
from errors import DatabaseUnavailable
from nostr.filters import filter_hash
from nostr.pages import EndKind, PageEnd
from nostr.urls import RelayUrl
from sync import ledger
from sync.facts import PageFacts
from sync.group_commit import GroupCommit
from sync.ledger import Gap
from sync.page_check import CheckedPage
from sync.windows import Window
from sync.writer import SessionWriter

NAME = filter_hash({})
TARGET = Window(0, 1_000)
PROVEN = Window(0, 500)
LEFT = [Window(501, 1_000)]


def relay(number: int) -> RelayUrl:
    return RelayUrl.parse(f"wss://relay{number}.example.com")


def page(*numbers: int, known: tuple[int, ...] = ()) -> CheckedPage:
    return CheckedPage(
        facts=PageFacts(end=PageEnd(EndKind.EOSE), events=(), received=len(numbers) + len(known)),
        new=tuple(map(sample_event, numbers)),
        known=tuple(sample_event(number).id for number in known),
        raw=(),
        refused={"malformed": 1},
    )


async def writers(db: BigBrotr, count: int) -> list[SessionWriter]:
    await ledger.register_filter(db, NAME, {})
    group = GroupCommit(db)
    return [SessionWriter(group, relay(number), NAME, TARGET) for number in range(count)]


async def left(db: BigBrotr, number: int) -> list[Window]:
    return await ledger.remaining(db, relay(number).url, NAME, TARGET)


async def seen(db: BigBrotr, number: int) -> set[str]:
    rows = await db.fetch(
        "SELECT event_id FROM events_relays WHERE relay_url = $1", relay(number).url
    )
    return {row["event_id"] for row in rows}


def ids(*numbers: int) -> set[str]:
    return {sample_event(number).id for number in numbers}


async def test_sessions_that_wait_are_written_in_one_transaction(db: BigBrotr) -> None:
    sessions = await writers(db, 5)
    for number, session in enumerate(sessions):
        await session.add(page(0, number), [PROVEN])
        session.gap(Gap(Window(900, 900 + number), "saturated"))
    await asyncio.gather(*(session.flush() for session in sessions))
    rows = await db.fetch(
        """
        SELECT DISTINCT xmin::text FROM events_relays
        UNION SELECT xmin::text FROM sync_coverage UNION SELECT xmin::text FROM sync_gaps
        UNION SELECT xmin::text FROM refused_events UNION SELECT xmin::text FROM relays
        """
    )
    assert len(rows) == 1
    for number in range(5):
        assert await seen(db, number) == ids(0, number)
        assert await left(db, number) == [Window(901 + number, 1_000), Window(501, 899)]
    assert sum(session.counts["new"] for session in sessions) == 5, "event 0 counts once"
    assert all(session.counts["refused"] == 1 for session in sessions)


async def test_pages_are_committed_though_their_relays_fall_silent(db: BigBrotr) -> None:
    sessions = await writers(db, 2)
    for number, session in enumerate(sessions):
        await session.add(page(number), [PROVEN])
    async with asyncio.timeout(30):
        while await left(db, 0) != LEFT or await left(db, 1) != LEFT:
            await asyncio.sleep(0.05)
    assert [await seen(db, number) for number in range(2)] == [ids(0), ids(1)]


async def test_a_share_that_postgresql_refuses_is_given_back_and_no_other(db: BigBrotr) -> None:
    sessions = await writers(db, 3)
    for number, session in enumerate(sessions):
        await session.add(page(number), [PROVEN])
    sessions[1].gap(Gap(Window(900, 900), "saturated", "a\0b"))
    ended = await asyncio.gather(*(session.flush() for session in sessions), return_exceptions=True)
    assert [error is None for error in ended] == [True, False, True]
    assert [await left(db, number) for number in range(3)] == [LEFT, [TARGET], LEFT]
    assert await seen(db, 1) == set()
    sessions[1]._share.gaps.clear()
    await sessions[1].flush()
    assert (await left(db, 1), await seen(db, 1)) == (LEFT, ids(1))
    assert [session.counts["refused"] for session in sessions] == [1, 1, 1]


async def test_a_silent_session_is_told_with_its_next_page(db: BigBrotr) -> None:
    session, other = await writers(db, 2)
    await session.add(page(1), [PROVEN])
    session.gap(Gap(Window(900, 900), "saturated", "a\0b"))
    await other.flush()
    async with asyncio.timeout(30):
        while session._failure is None:
            await asyncio.sleep(0.02)
    with pytest.raises(asyncpg.CharacterNotInRepertoireError):
        await session.add(page(2))
    session._share.gaps.clear()
    await session.flush()
    assert (await left(db, 0), await seen(db, 0)) == (LEFT, ids(1, 2))


async def test_what_rests_on_a_vanished_event_is_void_for_that_relay_only(db: BigBrotr) -> None:
    first, second = await writers(db, 2)
    await first.add(page(1, known=(2,)), [PROVEN])
    await second.add(page(3), [PROVEN])
    await asyncio.gather(first.flush(), second.flush())
    assert (await left(db, 0), await seen(db, 0)) == ([TARGET], ids(1))
    assert (await left(db, 1), await seen(db, 1)) == (LEFT, ids(3))


async def test_a_cancelled_session_harms_neither_the_others_nor_its_own_share(
    db: BigBrotr, cluster: Cluster, database: Database
) -> None:
    sessions = await writers(db, 3)
    for number, session in enumerate(sessions):
        await session.add(page(number), [PROVEN])
    blocker = await cluster.connect(database.dbname)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE sync_coverage IN EXCLUSIVE MODE")
            flushes = [asyncio.create_task(session.flush()) for session in sessions]
            await _blocked(db)
            flushes[1].cancel()
            await asyncio.wait((flushes[1],))
            await sessions[1].add(page(10))
            last = asyncio.create_task(sessions[1].flush_in_time())
        await asyncio.gather(flushes[0], flushes[2], last)
    finally:
        await blocker.close()
    assert [await left(db, number) for number in range(3)] == [LEFT] * 3
    assert [await seen(db, number) for number in range(3)] == [ids(0), ids(1, 10), ids(2)]


async def test_a_connection_lost_in_its_midst_loses_and_doubles_nothing(
    db: BigBrotr, cluster: Cluster, database: Database
) -> None:
    sessions = await writers(db, 3)
    for number, session in enumerate(sessions):
        await session.add(page(number), [PROVEN])
    blocker = await cluster.connect(database.dbname)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE sync_coverage IN EXCLUSIVE MODE")
            flushes = [asyncio.create_task(session.flush()) for session in sessions]
            await blocker.execute(f"SELECT pg_terminate_backend({await _blocked(db)})")
            ended = await asyncio.gather(*flushes, return_exceptions=True)
    finally:
        await blocker.close()
    assert [type(error) for error in ended] == [DatabaseUnavailable] * 3
    assert [await left(db, number) for number in range(3)] == [[TARGET]] * 3
    assert await db.fetch("SELECT FROM events") == []
    await asyncio.gather(*(session.flush() for session in sessions))
    assert [await left(db, number) for number in range(3)] == [LEFT] * 3
    assert [await seen(db, number) for number in range(3)] == [ids(0), ids(1), ids(2)]
    rows = await db.fetch("SELECT events FROM refused_events")
    assert [row["events"] for row in rows] == [1, 1, 1]


async def _blocked(db: BigBrotr) -> int:
    """The backend that waits for a lock, once there is one."""
    async with asyncio.timeout(30):
        while True:
            row = await db.fetchone("SELECT pid FROM pg_locks WHERE NOT granted")
            if row is not None:
                return int(row["pid"])
            await asyncio.sleep(0.02)


async def test_a_group_closed_anywhere_has_committed_all_or_nothing(db: BigBrotr) -> None:
    async def one_end(step: int, first: int) -> int:
        group = GroupCommit(db)
        name = filter_hash({"kinds": [first]})
        await ledger.register_filter(db, name, {"kinds": [first]})
        sessions = [SessionWriter(group, relay(number), name, TARGET) for number in range(2)]

        async def end() -> None:
            for number, session in enumerate(sessions):
                await session.add(page(first + number), [PROVEN])
            try:
                await asyncio.gather(*(session.flush() for session in sessions))
            except asyncio.CancelledError:
                await group.close()
                raise

        async with nothing_left_behind(db):
            _, steps = await cancelled_at(step, end)
        for number, session in enumerate(sessions):
            rest = await ledger.remaining(db, relay(number).url, name, TARGET)
            both = (rest, bool(ids(first + number) & await seen(db, number)))
            assert both in (([TARGET], False), (LEFT, True)), f"half a share after step {step}"
            await session.flush()
            assert ids(first + number) <= await seen(db, number)
            assert await ledger.remaining(db, relay(number).url, name, TARGET) == LEFT
        return steps

    total = await one_end(0, 0)
    for step in range(1, total + 1):
        await one_end(step, 10 * step)
