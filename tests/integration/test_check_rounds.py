"""Rounds of checks on a real archive: who delays whom, what is stored when, who holds a lease."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from nostr_tools import RelayMetadata

import leases
from bigbrotr import BigBrotr
from errors import DatabaseError, WorkerDied
from functions import RelayFailureTracker
from monitoring import rounds
from monitoring.rounds import CheckRound, Limits
from monitoring.schedule import FIRST_REST_SECONDS
from nostr.probe import ProbeReport
from nostr.urls import RelayUrl, to_relay

Check = Callable[[RelayUrl], Awaitable[ProbeReport]]


def report(relay: RelayUrl, *, answers: bool = True, outcome: str = "") -> ProbeReport:
    result = RelayMetadata.Nip66(
        openable=answers,
        readable=answers,
        writable=False,
        rtt_open=5 if answers else None,
        rtt_read=7 if answers else None,
        rtt_write=None,
    )
    metadata = RelayMetadata(to_relay(relay), int(time.time()), nip66=result)
    return ProbeReport(metadata, outcome or ("ok" if answers else "refused"), "")


async def alive(relay: RelayUrl) -> ProbeReport:
    return report(relay)


async def dead(relay: RelayUrl) -> ProbeReport:
    return report(relay, answers=False)


async def insert(db: BigBrotr, *hosts: str) -> list[RelayUrl]:
    relays = [RelayUrl.parse(f"wss://{host}.example") for host in hosts]
    await db.insert_relay_batch([to_relay(relay) for relay in relays], 1)
    return relays


def a_round(
    db: BigBrotr,
    check: Check,
    *,
    owner: str = "us",
    capacity: int = 4,
    per_host: int = 4,
    tor: int = 4,
) -> CheckRound:
    return CheckRound(
        db,
        check,
        owner=owner,
        limits=Limits(capacity, chunk_size=3, per_host=per_host, tor=tor),
        frequency=8 * 3600,
        tracker=RelayFailureTracker(),
    )


async def checks(db: BigBrotr) -> dict[str, bool]:
    rows = await db.fetch("SELECT relay_url, readable FROM relay_metadata_latest")
    return {row["relay_url"].removeprefix("wss://")[0]: row["readable"] for row in rows}


async def task(db: BigBrotr, relay: RelayUrl) -> dict[str, object]:
    row = await db.fetchone(
        "SELECT owner, failures, not_before, last_outcome, learnt::text AS learnt "
        "FROM relay_tasks WHERE purpose = 'monitor' AND relay_url = $1",
        relay.url,
    )
    assert row is not None
    return dict(row)


async def test_results_good_and_bad_are_stored_and_leases_given_back(db: BigBrotr) -> None:
    good, bad = await insert(db, "good", "bad")
    this = a_round(db, lambda relay: alive(relay) if relay == good else dead(relay))
    started = int(time.time())
    await this.run([good, bad], asyncio.Event())
    assert await checks(db) == {"g": True, "b": False}
    assert this.outcomes == {"ok": 1, "refused": 1}
    assert {name: this.counts[name] for name in ("checked", "open", "readable", "stored")} == {
        "checked": 2,
        "open": 1,
        "readable": 1,
        "stored": 2,
    }
    ok, refused = await task(db, good), await task(db, bad)
    assert (ok["owner"], ok["failures"]) == (None, 0)
    assert abs(int(str(ok["not_before"])) - started - 3600) <= 10
    assert "answered_at" in str(ok["learnt"])
    assert (refused["owner"], refused["failures"], refused["learnt"]) == (None, 1, "{}")
    rest = int(str(refused["not_before"])) - started
    assert 0.74 * FIRST_REST_SECONDS < rest < 1.26 * FIRST_REST_SECONDS


async def test_a_relay_that_answered_before_is_asked_again_soon_and_revives_at_once(
    db: BigBrotr,
) -> None:
    (relay,) = await insert(db, "a")
    await a_round(db, alive).run([relay], asyncio.Event())
    await db.execute("UPDATE relay_tasks SET not_before = 0")
    await asyncio.sleep(1.1)
    now = int(time.time())
    await a_round(db, dead).run([relay], asyncio.Event())
    down = await task(db, relay)
    assert down["failures"] == 1
    assert 11 * 60 < int(str(down["not_before"])) - now < 20 * 60
    await db.execute("UPDATE relay_tasks SET not_before = 0")
    await asyncio.sleep(1.1)
    await a_round(db, alive).run([relay], asyncio.Event())
    up = await task(db, relay)
    assert up["failures"] == 0
    assert await checks(db) == {"a": True}


async def test_a_slow_relay_delays_neither_others_nor_their_results(db: BigBrotr) -> None:
    relays = await insert(db, "slow", *"bcdefghijk")
    release = asyncio.Event()

    async def check(relay: RelayUrl) -> ProbeReport:
        if relay.host.startswith("slow"):
            await release.wait()
        return report(relay)

    running = asyncio.create_task(a_round(db, check).run(relays, asyncio.Event()))
    async with asyncio.timeout(20):
        while len(await checks(db)) < 10:
            await asyncio.sleep(0.05)
        assert not running.done()
        release.set()
        await running
    assert len(await checks(db)) == 11


async def test_no_more_is_claimed_than_is_needed_to_keep_busy(db: BigBrotr) -> None:
    relays = await insert(db, *"abcdefghijklmnop")
    busy = asyncio.Event()
    under_way: list[RelayUrl] = []

    async def check(relay: RelayUrl) -> ProbeReport:
        under_way.append(relay)
        if len(under_way) == 4:
            busy.set()
        await asyncio.sleep(3600)
        return report(relay)

    stop = asyncio.Event()
    running = asyncio.create_task(a_round(db, check, capacity=4).run(relays, stop))
    await busy.wait()
    row = await db.fetchone("SELECT count(*) AS n FROM relay_tasks WHERE owner = 'us'")
    assert row is not None
    assert 4 <= row["n"] <= 4 + 3
    stop.set()
    await running


async def test_stop_abandons_what_runs_and_stores_what_is_done(db: BigBrotr) -> None:
    fast, *slow = await insert(db, "fast", "slow1", "slow2")

    under_way: set[RelayUrl] = set()
    stop = asyncio.Event()

    async def check(relay: RelayUrl) -> ProbeReport:
        under_way.add(relay)
        if len(under_way) == 3:
            stop.set()
        if relay != fast:
            await asyncio.sleep(3600)
        return report(relay)

    running = asyncio.create_task(a_round(db, check).run([fast, *slow], stop))
    async with asyncio.timeout(10):
        await running
    assert await checks(db) == {"f": True}
    owners = await db.fetch("SELECT 1 FROM relay_tasks WHERE owner IS NOT NULL")
    assert owners == []
    assert (await task(db, slow[0]))["failures"] == 0, "an abandoned check says nothing"


@pytest.mark.parametrize("answers", [True, False])
async def test_two_monitors_never_check_one_relay_at_once_or_twice(
    db: BigBrotr, answers: bool
) -> None:
    relays = await insert(db, *(f"r{n}" for n in range(30)))
    under_check: set[RelayUrl] = set()
    seen: list[RelayUrl] = []

    async def check(relay: RelayUrl) -> ProbeReport:
        assert relay not in under_check
        under_check.add(relay)
        seen.append(relay)
        await asyncio.sleep(0.01)
        under_check.remove(relay)
        return report(relay, answers=answers)

    one, two = a_round(db, check, owner="one"), a_round(db, check, owner="two")
    await asyncio.gather(one.run(relays, asyncio.Event()), two.run(relays, asyncio.Event()))
    assert sorted(seen) == sorted(relays), "each is checked by one"
    assert one.counts["left_to_others"] + two.counts["left_to_others"] == 30


async def test_a_lease_that_another_took_over_is_let_go(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_HEARTBEAT_SECONDS", 0.2)
    (relay,) = await insert(db, "a")
    cancelled = asyncio.Event()

    async def check(_: RelayUrl) -> ProbeReport:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()
        raise AssertionError

    this = a_round(db, check)
    running = asyncio.create_task(this.run([relay], asyncio.Event()))
    async with asyncio.timeout(10):
        while not await db.fetch("SELECT 1 FROM relay_tasks WHERE owner = 'us'"):
            await asyncio.sleep(0.05)
        await db.execute("UPDATE relay_tasks SET owner = 'another'")
        await cancelled.wait()
        await running
    assert (await task(db, relay))["owner"] == "another"
    assert this.counts["left_to_others"] == 1


async def test_long_checks_keep_their_lease(db: BigBrotr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(rounds, "LEASE_SECONDS", 2)
    (relay,) = await insert(db, "a")

    async def check(relay: RelayUrl) -> ProbeReport:
        await asyncio.sleep(4)
        return report(relay)

    running = asyncio.create_task(a_round(db, check).run([relay], asyncio.Event()))
    await asyncio.sleep(3.2)
    claims = await leases.claim(
        db, leases.MONITOR, [relay.url], "another", limit=1, lease_seconds=60
    )
    assert claims == []
    await running


@pytest.mark.parametrize("outcome", ["no-tor", "socks", "worker-died", "check-broken"])
async def test_what_says_nothing_of_the_relay_is_not_stored(db: BigBrotr, outcome: str) -> None:
    (relay,) = await insert(db, "a")

    async def check(relay: RelayUrl) -> ProbeReport:
        match outcome:
            case "worker-died":
                raise WorkerDied("killed")
            case "check-broken":
                raise ValueError("a bug")
            case _:
                return report(relay, answers=False, outcome=outcome)

    this = a_round(db, check)
    await this.run([relay], asyncio.Event())
    assert await checks(db) == {}
    assert this.outcomes == {outcome: 1}
    state = await task(db, relay)
    assert (state["owner"], state["failures"], state["last_outcome"]) == (None, 0, outcome)
    assert int(str(state["not_before"])) > time.time(), "but not again in this very moment"


@pytest.mark.parametrize("word", ["event", "no-tor", "worker-died", "any-other-word"])
async def test_a_relay_s_own_words_do_not_become_outcomes(db: BigBrotr, word: str) -> None:
    (relay,) = await insert(db, "a")

    async def check(relay: RelayUrl) -> ProbeReport:
        return report(relay, outcome=word)

    this = a_round(db, check)
    await this.run([relay], asyncio.Event())
    assert this.outcomes == {"other-refusal": 1}
    assert await checks(db) == {"a": True}


@pytest.mark.parametrize("outcome", ["auth-required", "payment-required", "rate-limited"])
async def test_why_an_open_relay_cannot_be_read_is_kept(db: BigBrotr, outcome: str) -> None:
    (relay,) = await insert(db, "a")

    async def check(relay: RelayUrl) -> ProbeReport:
        return report(relay, outcome=outcome)

    await a_round(db, check).run([relay], asyncio.Event())
    state = await task(db, relay)
    assert (state["last_outcome"], state["failures"]) == (outcome, 0), "it answers: not dead"


async def test_a_lost_database_ends_the_round(db: BigBrotr) -> None:
    first, second = await insert(db, "a", "b")
    abandoned = asyncio.Event()

    async def check(relay: RelayUrl) -> ProbeReport:
        if relay == first:
            await db.close()
            return report(relay)
        try:
            await asyncio.sleep(3600)
        finally:
            abandoned.set()
        raise AssertionError

    with pytest.raises(DatabaseError):
        await a_round(db, check).run([first, second], asyncio.Event())
    assert abandoned.is_set()


async def test_relays_of_one_host_are_checked_a_few_at_a_time(db: BigBrotr) -> None:
    paths = [RelayUrl.parse(f"wss://many.example/{number}") for number in range(7)]
    await db.insert_relay_batch([to_relay(relay) for relay in paths], 1)
    under_check: set[RelayUrl] = set()
    most = 0

    async def check(relay: RelayUrl) -> ProbeReport:
        nonlocal most
        under_check.add(relay)
        most = max(most, len(under_check))
        await asyncio.sleep(0.02)
        under_check.remove(relay)
        return report(relay)

    this = a_round(db, check, per_host=2)
    await this.run(paths, asyncio.Event())
    assert most == 2
    assert this.counts["checked"] == 7
