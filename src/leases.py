"""Claiming relays, so that no two processes work on one relay at once.

A claim is a row of relay_tasks with an owner and the time at which the lease ends unless it is
renewed. The clock is the database's, so hosts need not agree on the time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from bigbrotr import BigBrotr

SYNC = "sync"
MONITOR = "monitor"
LIVE = "live"
# No lease and no pause is as long: where one is, the clock was ahead when it was written.
FARTHEST_SECONDS = 31 * 86_400

_NOW = "SELECT floor(extract(epoch FROM now()))::bigint"
_ADD_MISSING = """
    INSERT INTO relay_tasks (purpose, relay_url, updated_at)
    SELECT $1, given.url, $3
    FROM unnest($2::text[]) AS given (url)
    WHERE NOT EXISTS (
        SELECT FROM relay_tasks
        WHERE purpose = $1 AND relay_url = given.url COLLATE "C"
    )
    ORDER BY given.url COLLATE "C"
    ON CONFLICT (purpose, relay_url) DO NOTHING
"""
_LOCK_DUE = """
    SELECT relay_url, owner, lease_expires_at, not_before, failures, learnt
    FROM relay_tasks
    WHERE purpose = $1
      AND relay_url = ANY ($2::text[])
      AND (not_before <= $3 OR not_before > $5)
      AND (lease_expires_at IS NULL OR lease_expires_at <= $3 OR lease_expires_at > $5)
    ORDER BY not_before, relay_url
    LIMIT $4
    FOR UPDATE SKIP LOCKED
"""
_TAKE = """
    UPDATE relay_tasks
    SET owner = $3, lease_expires_at = $4, heartbeat_at = $5, updated_at = $5
    WHERE purpose = $1 AND relay_url = ANY ($2::text[])
"""
_RENEW = """
    UPDATE relay_tasks
    SET heartbeat_at = floor(extract(epoch FROM now()))::bigint,
        lease_expires_at = floor(extract(epoch FROM now()))::bigint + $4
    WHERE purpose = $1 AND owner = $2 AND relay_url = ANY ($3::text[])
    RETURNING relay_url
"""
_RELEASE = """
    UPDATE relay_tasks AS task
    SET owner = NULL,
        lease_expires_at = NULL,
        heartbeat_at = NULL,
        failures = CASE WHEN given.failed THEN task.failures + 1 ELSE 0 END,
        last_outcome = given.outcome,
        not_before = given.not_before,
        learnt = coalesce(given.learnt, task.learnt),
        updated_at = floor(extract(epoch FROM now()))::bigint
    FROM unnest($3::text[], $4::text[], $5::boolean[], $6::bigint[], $7::jsonb[])
         AS given (url, outcome, failed, not_before, learnt)
    WHERE task.purpose = $1 AND task.owner = $2 AND task.relay_url = given.url COLLATE "C"
    RETURNING task.relay_url
"""
_RELEASE_OWNER = """
    UPDATE relay_tasks
    SET owner = NULL, lease_expires_at = NULL, heartbeat_at = NULL
    WHERE owner = $1 AND purpose = coalesce($2, purpose)
    RETURNING relay_url
"""


@dataclass(frozen=True, slots=True)
class TaskState:
    """What decides whether a relay may be claimed. Times are Unix seconds."""

    owner: str | None
    lease_expires_at: int | None
    not_before: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A relay that is ours to work on until the lease ends. `failures` in a row so far, `learnt`
    as it was last released."""

    url: str
    failures: int
    learnt: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Release:
    """How the work on a relay went. `not_before` is when it may be claimed again (Unix seconds);
    `learnt` None keeps what was learnt before."""

    url: str
    outcome: str
    failed: bool
    not_before: int
    learnt: Mapping[str, Any] | None = None


def may_claim(state: TaskState, now: int) -> bool:
    """Whether anyone may claim the relay now: it is due, and no lease on it is alive. A living
    lease keeps out its own owner as well, who has the relay already. A time that is impossibly
    far away means that the clock was stepped back since, and counts as past."""
    farthest = now + FARTHEST_SECONDS
    if now < state.not_before <= farthest:
        return False
    return state.lease_expires_at is None or not now < state.lease_expires_at <= farthest


def next_attempt(
    failures: int, now: int, *, first: int, cap: int, random: Callable[[], float]
) -> int:
    """When to try again after so many failures in a row: after a random part of a pause that
    starts at `first` seconds and doubles up to `cap`, but never before half of `first`.
    `random` gives numbers from 0 up to 1."""
    if failures <= 0:
        return now
    ceiling = min(cap, first << min(failures - 1, 32))
    floor = min(first, ceiling) / 2
    pause = floor + random() * (ceiling - floor)
    return now + max(1, round(pause))


async def database_time(db: BigBrotr) -> int:
    """The time on the clock that leases go by."""
    row = await db.fetchone(_NOW)
    assert row is not None
    return int(row[0])


async def claim(
    db: BigBrotr,
    purpose: str,
    urls: Sequence[str],
    owner: str,
    *,
    limit: int,
    lease_seconds: int,
) -> list[Claim]:
    """Claims up to `limit` of the relays for `owner`, the longest due first; stale leases are
    taken over."""
    if not urls or limit < 1:
        return []

    async def work(conn: asyncpg.Connection) -> list[Claim]:
        now = int(await conn.fetchval(_NOW))
        await conn.execute(_ADD_MISSING, purpose, sorted(set(urls)), now)
        farthest = now + FARTHEST_SECONDS
        rows = await conn.fetch(_LOCK_DUE, purpose, list(urls), now, limit, farthest)
        claims = [
            Claim(row["relay_url"], row["failures"], json.loads(row["learnt"]))
            for row in rows
            if may_claim(TaskState(row["owner"], row["lease_expires_at"], row["not_before"]), now)
        ]
        if claims:
            taken = [claimed.url for claimed in claims]
            await conn.execute(_TAKE, purpose, taken, owner, now + lease_seconds, now)
        return claims

    return await db.run_in_transaction(work)


async def heartbeat(
    db: BigBrotr, purpose: str, owner: str, urls: Sequence[str], lease_seconds: int
) -> set[str]:
    """Renews the leases of `owner` on the relays; returns those that are still its own. Work on
    the others must stop: somebody else may have them."""
    if not urls:
        return set()
    rows = await db.fetch(_RENEW, purpose, owner, list(urls), lease_seconds)
    return {row["relay_url"] for row in rows}


async def release(
    db: BigBrotr,
    purpose: str,
    owner: str,
    url: str,
    *,
    outcome: str,
    failed: bool,
    not_before: int,
    learnt: Mapping[str, Any] | None = None,
) -> bool:
    """`release_all` for one relay. Returns False, and changes nothing, when the lease was not
    the owner's any more."""
    one = Release(url, outcome, failed, not_before, learnt)
    ours = await db.run_in_transaction(lambda conn: release_all(conn, purpose, owner, [one]))
    return url in ours


async def release_all(
    conn: asyncpg.Connection, purpose: str, owner: str, releases: Sequence[Release]
) -> set[str]:
    """Ends leases and records how the work went, in the caller's transaction. Returns the relays
    that were still the owner's; nothing is changed for the others."""
    ordered = sorted(releases, key=lambda one: one.url)
    rows = await conn.fetch(
        _RELEASE,
        purpose,
        owner,
        [one.url for one in ordered],
        [one.outcome for one in ordered],
        [one.failed for one in ordered],
        [one.not_before for one in ordered],
        [None if one.learnt is None else json.dumps(dict(one.learnt)) for one in ordered],
    )
    return {row["relay_url"] for row in rows}


async def release_owner(db: BigBrotr, owner: str, purpose: str | None = None) -> int:
    """Gives back every lease of `owner`, for one purpose or all, without recording an outcome:
    what a process does that ends. Returns how many there were."""
    rows = await db.fetch(_RELEASE_OWNER, owner, purpose)
    return len(rows)
