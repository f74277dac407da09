"""What a synchronizer's main process hands to its workers, and the worker's side of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from bigbrotr import BigBrotr
from config_types import SynchronizerConfig
from event_rows import known_ids
from functions import connect_bigbrotr_with_retry
from nostr.connection import Dialer
from nostr.transport import patience
from nostr.urls import RelayUrl
from sync.group_commit import GroupCommit
from sync.limits import RelayLimits
from sync.page_check import PageChecker
from sync.relay_model import MOST_LANES, RelayModel
from sync.session import RelaySession, SessionReport
from sync.session_settings import SessionSettings
from sync.windows import Window


@dataclass(frozen=True, slots=True)
class SyncTask:
    """One relay to synchronize: where, what seconds, what it claims and what is known of it."""

    url: str
    target: Window
    limits: RelayLimits
    learnt: Mapping[str, Any]


@asynccontextmanager
async def open_worker(
    config: SynchronizerConfig,
) -> AsyncIterator[Callable[[SyncTask], Awaitable[SessionReport]]]:
    """A worker's database pool and what its sessions share; the value synchronizes one relay."""
    db = BigBrotr.from_config(config.database)
    await connect_bigbrotr_with_retry(db)
    group = GroupCommit(db)
    try:
        yield partial(_synchronize, config, db, group, PageChecker(partial(known_ids, db)))
    finally:
        await group.close()
        await db.close()


def dialer_for(config: SynchronizerConfig) -> Dialer:
    """How this service reaches relays."""
    return Dialer(
        socks5_url=config.tor.socks5_url if config.tor else None,
        allow_private=config.allow_private_relays,
        connect_timeout=config.request_timeout,
    )


def session_settings(
    config: SynchronizerConfig, limits: RelayLimits, slowness: int = 1
) -> SessionSettings:
    """How a relay with these limits is asked; `slowness` is that of its network."""
    return SessionSettings(
        page_limit=limits.page_limit(config.batch_size),
        idle_timeout=config.request_timeout * slowness,
        lanes=limits.lanes(MOST_LANES),
        longest_message=limits.longest_message,
        reverify_seconds=config.reverify_seconds,
        secret_key=config.keypair.secret_key if config.keypair else None,
    )


async def _synchronize(
    config: SynchronizerConfig,
    db: BigBrotr,
    group: GroupCommit,
    checker: PageChecker,
    task: SyncTask,
) -> SessionReport:
    relay = RelayUrl.parse(task.url, allow_private=config.allow_private_relays)
    session = RelaySession(
        db,
        dialer_for(config),
        checker,
        relay,
        config.event_filter,
        task.target,
        session_settings(config, task.limits, patience(relay)),
        RelayModel.from_json(task.learnt),
        group,
    )
    return await session.run()
