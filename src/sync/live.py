"""Following relays that are caught up: new events at once, and the gaps of each interruption.

What comes live is archived but never claimed as proven: the last seconds before now are proven
by the ordinary walk, once they are `SYNCHRONIZER_LAG_SECONDS` old.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import leases
from bigbrotr import BigBrotr
from constants import LOG_ERROR, LOG_NETWORK
from errors import DatabaseError, SyncAbandoned
from logging_config import fields
from nostr.connection import Dialer, EndKind, Page, PageEnd, RelayConnection
from nostr.filters import filter_hash
from nostr.live import LiveFeed
from nostr.urls import RelayUrl
from sync import ledger
from sync.asker import Asker
from sync.claims import NoClaims
from sync.driver import Driver
from sync.group_commit import GroupCommit
from sync.page_check import PageChecker
from sync.relay_model import RelayModel
from sync.response import storable
from sync.session_settings import SessionSettings
from sync.windows import Window
from sync.writer import SessionWriter

LEASE_SECONDS = 120
_TAKE_SECONDS = 1.0
# After so much silence the relay is asked whether it is still there.
_SILENCE_SECONDS = 300.0
# Clocks differ, and events take a while to spread: look back this far when repairing.
_MARGIN_SECONDS = 120
_FIRST_PAUSE_SECONDS = 30
_LONGEST_PAUSE_SECONDS = 3_600
_MAX_WAITING_EVENTS = 10_000
_LAST_EVENTS_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveContext:
    """What all live subscriptions of a service share."""

    db: BigBrotr
    group: GroupCommit
    dialer: Dialer
    checker: PageChecker
    flt: Mapping[str, Any]
    settings: SessionSettings


class LiveTail:
    """One relay, followed from the end of what is proven until cancelled."""

    def __init__(
        self, context: LiveContext, relay: RelayUrl, model: RelayModel, target: Window
    ) -> None:
        self._context = context
        self._relay = relay
        self._model = model
        self._caught_up_to = target.until
        self._failures = 0
        self._hash = filter_hash(context.flt)
        self._writer = SessionWriter(context.group, relay, self._hash, target)
        self.events = 0

    async def run(self) -> None:
        """Follow, and come back after every interruption."""
        while True:
            # A connection may live long: its requests are bounded by their own timeouts.
            settings = replace(self._context.settings, budget_seconds=float("inf"), lanes=1)
            asker = Asker(
                self._relay, self._context.dialer, self._context.checker, settings, self._model
            )
            try:
                await ledger.register_filter(self._context.db, self._hash, self._context.flt)
                await self._follow(asker, await asker.connect())
                await self._writer.flush_pages()
                reason = "ended"
            except SyncAbandoned as error:
                reason = error.outcome
            except DatabaseError:
                reason = "database"
            except asyncio.CancelledError:
                await self._writer.flush_in_time()
                raise
            finally:
                await asker.close()
            self._model = asker.model
            self._failures += 1
            resume_at = leases.next_attempt(
                self._failures,
                0,
                first=_FIRST_PAUSE_SECONDS,
                cap=_LONGEST_PAUSE_SECONDS,
                random=random.random,
            )
            logger.info(
                f"{LOG_NETWORK} "
                + fields("live_interrupted", relay=self._relay.url, reason=reason, pause=resume_at)
            )
            await asyncio.sleep(resume_at)

    async def _follow(
        self, asker: Asker, connection: RelayConnection, *, signed_in: bool = False
    ) -> None:
        started = int(time.time())
        flt = {**self._context.flt, "since": started - _MARGIN_SECONDS, "limit": 0}
        async with connection.listen(flt, max_events=_MAX_WAITING_EVENTS) as feed:
            repair = asyncio.create_task(self._repair(asker, started))
            try:
                await self._take_all(feed, connection, repair)
            finally:
                repair.cancel()
                await asyncio.gather(repair, return_exceptions=True)
                await self._take_last(feed)
        if feed.ended is not None and feed.ended.prefix == "auth-required":
            if signed_in:
                raise SyncAbandoned("auth-required", storable(feed.ended.text))
            await asker.sign_in(connection)
            await self._follow(asker, connection, signed_in=True)

    async def _repair(self, asker: Asker, started: int) -> None:
        """Get what came between the last moment we followed and this subscription."""
        missed = Window(min(self._caught_up_to - _MARGIN_SECONDS, started), started)
        driver = Driver(
            asker,
            self._writer,
            self._context.flt,
            self._context.settings.page_limit,
            seen_lately=partial(ledger.seen_lately, self._context.db, self._relay.url),
        )
        await driver.drive([missed], NoClaims())
        await self._writer.flush()
        self._caught_up_to = started
        self._failures = 0
        logger.info(
            f"{LOG_NETWORK} "
            + fields("live_following", relay=self._relay.url, caught_up_seconds=missed.seconds)
        )

    async def _take_all(
        self, feed: LiveFeed, connection: RelayConnection, repair: asyncio.Task[None]
    ) -> None:
        last_heard = time.monotonic()
        while (came := await self._take(feed, _TAKE_SECONDS)) or feed.ended is None:
            if came:
                last_heard = time.monotonic()
            self._writer.raise_failure()
            if repair.done():
                repair.result()
                if not came:
                    self._caught_up_to = int(time.time())
            if time.monotonic() - last_heard > _SILENCE_SECONDS:
                await self._still_there(connection)
                last_heard = time.monotonic()

    async def _take(self, feed: LiveFeed, timeout: float) -> bool:
        """Archive what has come; whether anything came within `timeout` seconds."""
        events = await feed.take(timeout)
        if events:
            page = Page(PageEnd(EndKind.EOSE), events, feed.malformed, 0)
            feed.malformed = 0
            checked = await self._context.checker.check(page, self._context.flt)
            self.events += len(checked.facts.events)
            await self._writer.add(checked)
        return bool(events)

    async def _take_last(self, feed: LiveFeed) -> None:
        """What waits when the following ends, for whatever reason: ephemeral events come once."""
        with suppress(TimeoutError, DatabaseError):
            async with asyncio.timeout(_LAST_EVENTS_SECONDS):
                await self._take(feed, 0)

    async def _still_there(self, connection: RelayConnection) -> None:
        flt = {**self._context.flt, "limit": 1}
        page = await connection.page(
            flt, idle_timeout=self._context.settings.idle_timeout, max_events=100
        )
        await self._writer.add(await self._context.checker.check(page, flt))
        if page.end.kind in {EndKind.TIMEOUT, EndKind.DISCONNECTED}:
            raise SyncAbandoned("timeout", "silent, and does not answer")


class LiveTails:
    """The live subscriptions of one service, each under a lease of its own."""

    def __init__(self, context: LiveContext, owner: str) -> None:
        self._context = context
        self._owner = owner
        self._tails: dict[RelayUrl, tuple[LiveTail, asyncio.Task[None]]] = {}
        self._heartbeat: asyncio.Task[None] | None = None

    def info(self) -> dict[str, int]:
        """Events received live, by relay."""
        return {relay.url: tail.events for relay, (tail, _) in sorted(self._tails.items())}

    async def follow(self, relay: RelayUrl, model: RelayModel, target: Window) -> None:
        """Follow a relay from the end of `target` on, unless somebody does already."""
        running = self._tails.get(relay)
        if running is not None and not running[1].done():
            return
        claimed = await leases.claim(
            self._context.db,
            leases.LIVE,
            [relay.url],
            self._owner,
            limit=1,
            lease_seconds=LEASE_SECONDS,
        )
        if not claimed and running is None:
            return
        tail = LiveTail(self._context, relay, model, target)
        task = asyncio.create_task(tail.run(), name=f"follow {relay}")
        task.add_done_callback(_report_bug)
        self._tails[relay] = (tail, task)
        if self._heartbeat is None:
            self._heartbeat = asyncio.create_task(self._keep_leases())

    async def close(self) -> None:
        """Stop following; what came is committed by then."""
        tasks = [task for _, task in self._tails.values()]
        if self._heartbeat is not None:
            tasks.append(self._heartbeat)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tails.clear()
        await self._context.group.close()

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            followed = list(self._tails)
            with suppress(DatabaseError):
                ours = await leases.heartbeat(
                    self._context.db,
                    leases.LIVE,
                    self._owner,
                    [relay.url for relay in followed],
                    LEASE_SECONDS,
                )
                for relay in followed:
                    if relay.url not in ours:
                        self._tails.pop(relay)[1].cancel()


def _report_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        text = fields("live_failed", task=task.get_name(), error=error)
        logger.error(f"{LOG_ERROR} {text}", exc_info=error)
