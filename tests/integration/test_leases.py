"""Claims on relays between several processes."""

import asyncio
import time

import pytest

from bigbrotr import BigBrotr
from leases import MONITOR, SYNC, Claim, claim, heartbeat, release, release_owner

URLS = [f"wss://relay{number:02}.example.com" for number in range(30)]


@pytest.fixture
async def relays(db: BigBrotr) -> list[str]:
    await db.execute("SELECT insert_relays($1, $2, 1)", URLS, ["clearnet"] * len(URLS))
    return URLS


async def _claim(db: BigBrotr, owner: str, limit: int, seconds: int = 60) -> list[Claim]:
    return await claim(db, SYNC, URLS, owner, limit=limit, lease_seconds=seconds)


async def test_no_relay_is_claimed_twice(db: BigBrotr, relays: list[str]) -> None:
    claims = await asyncio.gather(*(_claim(db, f"process {number}", 4) for number in range(12)))
    urls = [claimed.url for batch in claims for claimed in batch]
    assert len(urls) == len(set(urls))
    # SKIP LOCKED may leave rows over that another claim was looking at; nobody waits for them.
    rest = await _claim(db, "last", 100)
    assert sorted(urls + [claimed.url for claimed in rest]) == relays
    assert await _claim(db, "nobody", 100) == []


async def test_limit_and_empty_lists(db: BigBrotr, relays: list[str]) -> None:
    assert len(await _claim(db, "me", 7)) == 7
    assert await _claim(db, "me", 0) == []
    assert await claim(db, SYNC, [], "me", limit=5, lease_seconds=60) == []


async def test_purposes_do_not_meet(db: BigBrotr, relays: list[str]) -> None:
    assert len(await _claim(db, "me", 100)) == 30
    assert len(await claim(db, MONITOR, URLS, "me", limit=100, lease_seconds=60)) == 30


async def test_a_living_lease_keeps_out_everyone(db: BigBrotr, relays: list[str]) -> None:
    await _claim(db, "me", 100)
    assert await _claim(db, "me", 100) == []
    assert await _claim(db, "other", 100) == []


async def test_a_dead_owner_is_succeeded_and_hears_of_it(db: BigBrotr, relays: list[str]) -> None:
    await _claim(db, "dead", 100, seconds=60)
    await db.execute("UPDATE relay_tasks SET lease_expires_at = 1 WHERE relay_url = $1", URLS[3])
    assert [claimed.url for claimed in await _claim(db, "heir", 100)] == [URLS[3]]

    assert await heartbeat(db, SYNC, "dead", URLS[2:5], 60) == {URLS[2], URLS[4]}
    released = await release(
        db, SYNC, "dead", URLS[3], outcome="late", failed=True, not_before=10**10
    )
    assert released is False
    row = await db.fetchone("SELECT * FROM relay_tasks WHERE relay_url = $1", URLS[3])
    assert row is not None
    assert (row["owner"], row["failures"], row["last_outcome"]) == ("heir", 0, "")


async def test_a_heartbeat_renews_a_lease_nobody_took(db: BigBrotr, relays: list[str]) -> None:
    await _claim(db, "me", 1, seconds=0)
    assert await heartbeat(db, SYNC, "me", URLS, 60) == {URLS[0]}
    assert URLS[0] not in {claimed.url for claimed in await _claim(db, "other", 100)}
    assert await heartbeat(db, SYNC, "me", [], 60) == set()


async def test_release_records_how_it_went(db: BigBrotr, relays: list[str]) -> None:
    url = URLS[0]
    for failures in range(3):
        (claimed,) = await _claim(db, "me", 1)
        assert (claimed.url, claimed.failures) == (url, failures)
        await release(
            db, SYNC, "me", url, outcome="timeout", failed=True, not_before=0, learnt={"cap": 500}
        )
    (claimed,) = await _claim(db, "me", 1)
    assert claimed.learnt == {"cap": 500}
    await release(db, SYNC, "me", url, outcome="done", failed=False, not_before=0)
    row = await db.fetchone("SELECT * FROM relay_tasks WHERE relay_url = $1", url)
    assert row is not None
    assert (row["failures"], row["last_outcome"]) == (0, "done")
    assert (row["owner"], row["lease_expires_at"]) == (None, None)
    (claimed,) = await _claim(db, "me", 1)
    assert claimed.learnt == {"cap": 500}


async def test_not_before_is_respected_and_the_longest_due_come_first(
    db: BigBrotr, relays: list[str]
) -> None:
    now = int(time.time())
    await _claim(db, "me", 100)
    for number, url in enumerate(URLS):
        due = now - 100 + number if number >= 10 else now + 1_000
        await release(db, SYNC, "me", url, outcome="x", failed=False, not_before=due)
    assert [claimed.url for claimed in await _claim(db, "me", 5)] == URLS[10:15]
    assert len(await _claim(db, "me", 100)) == 15


async def test_an_ending_process_gives_everything_back(db: BigBrotr, relays: list[str]) -> None:
    await _claim(db, "me", 10)
    await claim(db, MONITOR, URLS, "me", limit=3, lease_seconds=60)
    await _claim(db, "other", 5)
    assert await release_owner(db, "me") == 13
    assert len(await _claim(db, "next", 100)) == 25
