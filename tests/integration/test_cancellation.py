"""Cancelling at every point where something waits: what is under way is committed or it is not.

Each test runs once to count the steps of the work, then again and again, cancelled at another
step each time. Afterwards nothing may be claimed that is not archived, the next run must
complete, and no task, socket or database connection may be left behind.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leases
from bigbrotr import BigBrotr
from components.sample_events import sample_event
from components.sessions import archived, synchronize, true_ids, unproven
from components.stepping import cancelled_at, nothing_left_behind
from components.worker_jobs import open_jobs
from errors import DatabaseUnavailable
from nostr.filters import filter_hash
from nostr.pages import EndKind, PageEnd
from nostr.urls import RelayUrl, to_relay
from scripted_relay import ScriptedRelay, make_events
from standalone.signing import Author
from sync import ledger
from sync.facts import PageFacts
from sync.group_commit import GroupCommit
from sync.page_check import CheckedPage
from sync.windows import Window
from sync.writer import SessionWriter
from workers import WorkerPool

START = 1_700_000_000
TARGET = Window(START - 10, START + 100)
KEY = Author("archive").secret_key
RELAY = RelayUrl.parse("wss://relay.example.com")


def some_steps(total: int, most: int, seed: int) -> Iterator[int]:
    """Steps from the first to the last: all of them, or `most` of them, evenly and by chance."""
    rng = random.Random(seed)
    width = max(1.0, total / most)
    position = 0.0
    while position < total:
        yield 1 + int(position + rng.random() * (width - 1))
        position += width


@pytest.mark.parametrize(
    "knobs",
    [{}, {"order": "random"}, {"auth": True}, {"drop_after": 50, "drop_times": 1}],
    ids=str,
)
async def test_a_session_cancelled_anywhere_claims_nothing_false_and_can_be_repeated(
    db: BigBrotr, knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.group_commit._MOST_EVENTS", 25)
    monkeypatch.setattr("sync.response._RECONNECT_PAUSE_SECONDS", 0.01)

    async def one_session(step: int) -> int:
        events = make_events(120, per_second=2, author=1 + step)
        async with ScriptedRelay(events, cap=20, **knobs) as relay:
            url = relay.url.url

            async def session() -> None:
                await synchronize(db, url, TARGET, secret_key=KEY, page_limit=20)

            async with nothing_left_behind(db):
                _, steps = await cancelled_at(step, session)
            have, left = await archived(db, url), await unproven(db, url, TARGET)
            for event in events:
                assert event["id"] in have or any(
                    window.since <= event["created_at"] <= window.until for window in left
                ), f"claimed, not archived, after step {step}"
            if step:
                report = await synchronize(db, url, TARGET, secret_key=KEY, page_limit=20)
                assert report.outcome == "complete", f"after step {step}"
            assert await unproven(db, url, TARGET) == []
            assert await archived(db, url) == true_ids(events)
            return steps

    total = await one_session(0)
    for step in some_steps(total, 10 if "order" in knobs else 20, seed=len(knobs)):
        await one_session(step)


def page_of(count: int, start: int) -> CheckedPage:
    facts = PageFacts(end=PageEnd(EndKind.EOSE), events=(), received=count)
    events = tuple(sample_event(number) for number in range(start, start + count))
    return CheckedPage(facts=facts, new=events, known=(), raw=(), refused={"malformed": 1})


async def claimed(db: BigBrotr, name: str) -> list[Window]:
    target = Window(0, 1_000)
    left = await ledger.remaining(db, RELAY.url, name, target)
    return [] if left == [target] else left


async def test_a_flush_cancelled_anywhere_commits_all_or_nothing_and_is_repeated(
    db: BigBrotr,
) -> None:
    async def one_flush(step: int, number: int) -> int:
        name = filter_hash({"kinds": [number]})
        await ledger.register_filter(db, name, {"kinds": [number]})
        writer = SessionWriter(GroupCommit(db), RELAY, name, Window(0, 1_000))
        await writer.add(page_of(5, number * 10), [Window(0, 500)])
        async with nothing_left_behind(db):
            _, steps = await cancelled_at(step, writer.flush)
        ids = [event.id for event in page_of(5, number * 10).new]
        rows = await db.fetch("SELECT FROM events WHERE id = ANY ($1)", ids)
        left = await ledger.remaining(db, RELAY.url, name, Window(0, 1_000))
        both = (len(rows), left[0].since)
        assert both in {(0, 0), (5, 501)}, f"half a batch after step {step}"
        await writer.flush()
        assert len(await db.fetch("SELECT FROM events WHERE id = ANY ($1)", ids)) == 5
        assert await ledger.first_unproven(db, RELAY.url, name, Window(0, 1_000)) == 501
        assert writer.counts["refused"] == 1
        return steps

    total = await one_flush(0, 0)
    for number in range(1, total + 1):
        await one_flush(number, number)


async def test_proofs_taken_back_are_never_claimed_again_whenever_that_is_cancelled(
    db: BigBrotr,
) -> None:
    async def one_retraction(step: int, number: int) -> int:
        name = filter_hash({"kinds": [number]})
        await ledger.register_filter(db, name, {"kinds": [number]})
        writer = SessionWriter(GroupCommit(db), RELAY, name, Window(0, 1_000))
        await writer.add(page_of(2, number * 10), [Window(0, 100)])
        await writer.flush()
        await writer.add(page_of(2, number * 10 + 2), [Window(200, 300)])
        _, steps = await cancelled_at(step, writer.retract_session)
        # What a session does when it is cancelled: commit what it has.
        await writer.flush_in_time()
        assert await claimed(db, name) == [], f"cancelled at step {step}"
        await writer.add(page_of(1, number * 10 + 4), [Window(0, 50)])
        await writer.flush()
        assert await ledger.first_unproven(db, RELAY.url, name, Window(0, 1_000)) == 51
        return steps

    total = await one_retraction(0, 0)
    for number in range(1, total + 1):
        await one_retraction(number, number)


async def test_a_batch_that_fails_keeps_what_came_after_it_and_what_was_taken_back(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = filter_hash({})
    await ledger.register_filter(db, name, {})
    writer = SessionWriter(GroupCommit(db), RELAY, name, Window(0, 1_000))
    await writer.add(page_of(2, 0), [Window(0, 100)])
    commit, held = db.run_in_transaction, asyncio.Event()

    async def fail_late(work: Any) -> Any:
        await held.wait()
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(db, "run_in_transaction", fail_late)
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    retracting = asyncio.create_task(writer.retract_session())
    await asyncio.sleep(0)
    await writer.add(page_of(2, 2), [Window(200, 300)])
    held.set()
    ended = await asyncio.gather(flushing, retracting, return_exceptions=True)
    assert [type(error) for error in ended] == [DatabaseUnavailable] * 2
    monkeypatch.setattr(db, "run_in_transaction", commit)
    await writer.flush()
    left = await ledger.remaining(db, RELAY.url, name, Window(0, 1_000))
    assert left == [Window(301, 1_000), Window(0, 199)], "only what was proven after it counts"
    assert len(await db.fetch("SELECT FROM events")) == 4


async def test_a_claim_cancelled_anywhere_is_held_or_free(db: BigBrotr) -> None:
    urls = [f"wss://relay{number}.example.com" for number in range(3)]
    await db.insert_relay_batch([to_relay(RelayUrl.parse(url)) for url in urls], inserted_at=START)

    async def one_claim(step: int) -> int:
        async def claim() -> None:
            await leases.claim(db, leases.SYNC, urls, "us", limit=3, lease_seconds=60)

        async with nothing_left_behind(db):
            _, steps = await cancelled_at(step, claim)
        ours = await leases.heartbeat(db, leases.SYNC, "us", urls, 60)
        assert ours in (set(), set(urls)), f"half a claim after step {step}"
        assert await leases.release_owner(db, "us") == len(ours)
        others = await leases.claim(db, leases.SYNC, urls, "them", limit=3, lease_seconds=60)
        assert len(others) == 3
        await leases.release_owner(db, "them")
        return steps

    total = await one_claim(0)
    for step in range(1, total + 1):
        await one_claim(step)


async def test_a_page_cancelled_anywhere_leaves_the_connection_of_use(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(30), delay=0.001) as relay:
        async with await relay.dialer().connect(relay.url) as connection:

            async def one_page() -> None:
                await connection.page({"limit": 30}, idle_timeout=5, max_events=100)

            async with nothing_left_behind(db):
                _, total = await cancelled_at(0, one_page)
            for step in range(1, total + 1):
                cancelled, _ = await cancelled_at(step, one_page)
                assert cancelled or step == total, "the last step is the end"
                page = await connection.page({"limit": 30}, idle_timeout=5, max_events=100)
                assert page.end.kind is EndKind.EOSE
                assert len(page.events) == 30
            # A subscription that nobody waits for is closed at the relay too.
            async with asyncio.timeout(5):
                while len(relay.closes) < len(relay.requests):
                    await asyncio.sleep(0.01)


async def test_connecting_cancelled_anywhere_leaves_no_socket(db: BigBrotr) -> None:
    async with ScriptedRelay() as relay:

        async def connect() -> None:
            connection = await relay.dialer().connect(relay.url)
            await connection.close()

        _, total = await cancelled_at(0, connect)
        async with nothing_left_behind(db):
            for step in range(1, total + 1):
                await cancelled_at(step, connect)


async def test_a_cancelled_task_has_ended_in_its_worker_when_the_call_returns(
    tmp_path: Path,
) -> None:
    traces = [tmp_path / str(number) for number in range(2)]
    async with WorkerPool(open_jobs, processes=1, concurrency=2, service_name="TEST") as workers:
        calls = [asyncio.create_task(workers.run(f"clean:{trace}")) for trace in traces]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(workers.run("sleep:0"))
        pid, _ = await asyncio.wait_for(_first_free(workers, calls[0]), 20)
        assert traces[0].read_text() == "cleaned up"
        assert (await waiting)[0] == pid
        calls[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        assert traces[1].read_text() == "cleaned up"
        full = [asyncio.create_task(workers.run("sleep:0.2")) for _ in range(4)]
        await asyncio.sleep(0.05)
        full[3].cancel()  # it has no worker yet
        answers = await asyncio.gather(*full, return_exceptions=True)
        assert [type(answer) for answer in answers[:3]] == [tuple] * 3
        assert isinstance(answers[3], asyncio.CancelledError)


async def _first_free(workers: WorkerPool, busy: "asyncio.Task[Any]") -> tuple[int, str]:
    while not any(worker.pending for worker in workers._workers):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    busy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await busy
    answer: tuple[int, str] = await workers.run("sleep:0")
    return answer
