"""Leases while the sessions run: lost, unanswered, left behind; and a relay that breaks ours."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import leases
from bigbrotr import BigBrotr
from errors import DatabaseUnavailable
from functions import RelayFailureTracker
from nostr.urls import RelayUrl, to_relay
from sync.dispatch import Dispatcher
from sync.relay_model import RelayModel
from sync.session import SessionReport
from sync.task import SyncTask
from sync.windows import Window

RELAYS = [RelayUrl.parse(f"wss://relay{number}.example.com") for number in range(3)]
Handle = Callable[[SyncTask], Coroutine[Any, Any, SessionReport]]


class OneProcess:
    """Handles tasks here and now, as the workers would."""

    capacity = 10

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.cancelled: list[str] = []

    async def run(self, task: SyncTask) -> SessionReport:
        try:
            return await self._handle(task)
        except asyncio.CancelledError:
            self.cancelled.append(task.url)
            raise


async def done(task: SyncTask) -> SessionReport:
    return SessionReport(task.url, "complete", "", {}, RelayModel())


async def endless(task: SyncTask) -> SessionReport:
    await asyncio.sleep(60)
    return await done(task)


def dispatcher(db: BigBrotr, pool: OneProcess) -> Dispatcher:
    return Dispatcher(db, pool, "us", RelayFailureTracker(), Window(0, 100))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
async def known(db: BigBrotr) -> None:
    await db.insert_relay_batch([to_relay(relay) for relay in RELAYS], inserted_at=1)


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.dispatch._HEARTBEAT_SECONDS", 0.1)


@pytest.mark.usefixtures("fast_heartbeat")
@pytest.mark.parametrize("lost", [1, 3], ids=["one", "all"])
async def test_a_session_whose_lease_was_taken_over_ends(db: BigBrotr, lost: int) -> None:
    pool, stop = OneProcess(endless), asyncio.Event()
    ours = dispatcher(db, pool)
    running = asyncio.create_task(ours.run(RELAYS, stop))
    urls = [relay.url for relay in RELAYS[:lost]]
    async with asyncio.timeout(10):
        while len(ours.running) < 3:
            await asyncio.sleep(0.01)
        await db.execute("UPDATE relay_tasks SET owner = 'them' WHERE relay_url = ANY ($1)", urls)
        while ours.counts["lease_lost"] < lost:
            await asyncio.sleep(0.01)
    assert sorted(pool.cancelled) == urls
    stop.set()
    await running
    rows = await db.fetch("SELECT relay_url FROM relay_tasks WHERE owner = 'them'")
    assert {row["relay_url"] for row in rows} == set(urls), "what is theirs is left to them"


@pytest.mark.usefixtures("fast_heartbeat")
async def test_sessions_end_before_leases_that_cannot_be_renewed(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def no_answer(*_: object) -> set[str]:
        nonlocal asked
        asked += 1
        if asked % 2:
            raise DatabaseUnavailable("gone")
        await asyncio.sleep(60)
        return set()

    monkeypatch.setattr("sync.dispatch.LEASE_SECONDS", 2)
    monkeypatch.setattr(leases, "heartbeat", no_answer)
    pool = OneProcess(endless)
    async with asyncio.timeout(10):
        await dispatcher(db, pool).run(RELAYS[:1], asyncio.Event())
    assert pool.cancelled == [RELAYS[0].url]
    assert asked > 3, "one heartbeat without an answer is no reason yet"


async def test_a_defect_that_one_relay_brings_to_light_does_not_stop_the_others(
    db: BigBrotr,
) -> None:
    async def handle(task: SyncTask) -> SessionReport:
        if task.url == RELAYS[0].url:
            raise RuntimeError("a bug")
        await asyncio.sleep(0.2)
        return await done(task)

    pool = OneProcess(handle)
    ours = dispatcher(db, pool)
    await ours.run(RELAYS, asyncio.Event())
    assert (ours.counts["broken"], ours.counts["complete"], pool.cancelled) == (1, 2, [])
    rows = await db.fetch(
        "SELECT last_outcome, not_before > 0 AS rests FROM relay_tasks ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [
        ("complete", False),
        ("complete", False),
        ("session-broken", True),
    ]


async def test_a_lost_archive_ends_the_round_and_its_leases_can_be_given_back(
    db: BigBrotr,
) -> None:
    async def handle(task: SyncTask) -> SessionReport:
        if task.url == RELAYS[0].url:
            raise DatabaseUnavailable("gone")
        return await endless(task)

    pool = OneProcess(handle)
    with pytest.raises(DatabaseUnavailable):
        await dispatcher(db, pool).run(RELAYS, asyncio.Event())
    assert sorted(pool.cancelled) == [relay.url for relay in RELAYS[1:]]
    urls = [relay.url for relay in RELAYS]
    assert await leases.claim(db, leases.SYNC, urls, "us", limit=3, lease_seconds=60) == []
    await db.execute(
        "INSERT INTO relay_tasks (purpose, relay_url, owner, lease_expires_at, updated_at) "
        "VALUES ('live', $1, 'us', 9000000000, 1)",
        RELAYS[0].url,
    )
    assert await leases.release_owner(db, "us", leases.SYNC) == 3
    assert len(await leases.claim(db, leases.SYNC, urls, "us", limit=3, lease_seconds=60)) == 3
