"""Running one synchronization session against a relay, and reading back what it left."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from bigbrotr import BigBrotr
from event_rows import known_ids
from nostr.connection import Dialer
from nostr.filters import filter_hash
from nostr.urls import RelayUrl
from sync.group_commit import GroupCommit
from sync.live import LiveContext
from sync.page_check import PageChecker
from sync.relay_model import RelayModel
from sync.session import RelaySession, SessionReport
from sync.session_settings import SessionSettings
from sync.windows import Window, subtract


async def synchronize(
    db: BigBrotr,
    url: str,
    target: Window,
    *,
    flt: Mapping[str, Any] | None = None,
    model: RelayModel | None = None,
    **settings: Any,
) -> SessionReport:
    """One session with a relay on the loopback interface."""
    session = RelaySession(
        db,
        Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0),
        PageChecker(partial(known_ids, db)),
        RelayUrl.parse(url, allow_private=True),
        flt or {},
        target,
        SessionSettings(**{"idle_timeout": 5.0, **settings}),
        model or RelayModel(),
    )
    return await session.run()


@asynccontextmanager
async def context(db: BigBrotr, **settings: Any) -> AsyncIterator[LiveContext]:
    """What live subscriptions share, for relays on the loopback interface."""
    yield LiveContext(
        db,
        GroupCommit(db),
        Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0),
        PageChecker(partial(known_ids, db)),
        {},
        SessionSettings(**settings),
    )


async def archived(db: BigBrotr, url: str) -> set[str]:
    """The ids of the events that the archive has seen at a relay."""
    rows = await db.fetch(
        """
        SELECT event_id AS id FROM events_relays WHERE relay_url = $1
        UNION SELECT id FROM events_raw WHERE relay_url = $1
        """,
        url,
    )
    return {row["id"] for row in rows}


async def unproven(
    db: BigBrotr, url: str, target: Window, flt: Mapping[str, Any] | None = None
) -> list[Window]:
    """The seconds of the target that the ledger does not claim, gaps included."""
    row = await db.fetchone(
        "SELECT covered FROM sync_coverage WHERE relay_url = $1 AND filter_hash = $2",
        url,
        filter_hash(flt or {}),
    )
    covered = row["covered"] if row else []
    return subtract(target, [Window(part.lower, part.upper - 1) for part in covered])


async def gaps(db: BigBrotr, url: str) -> list[tuple[str, int, int]]:
    """(reason, first second, last second) of the recorded gaps, oldest first."""
    rows = await db.fetch(
        """
        SELECT reason, lower(gap) AS since, upper(gap) - 1 AS until
        FROM sync_gaps WHERE relay_url = $1 ORDER BY gap
        """,
        url,
    )
    return [(row["reason"], row["since"], row["until"]) for row in rows]


def true_ids(events: list[dict[str, Any]]) -> set[str]:
    return {event["id"] for event in events}
