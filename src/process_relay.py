"""Synchronizing one relay with the specification's functions.

They are thin: windows, proofs and the ledger live in `sync`. A nostr-tools `Client` only
carries what it was made with (relay, timeout, proxy); its own connection is not used, because
it cannot tell the end of stored events from a timeout.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nostr_tools import Client, Filter, Relay

from bigbrotr import BigBrotr
from constants import LOG_WAIT
from errors import DatabaseUnavailable, RelayError
from event_rows import known_ids, write_events
from logging_config import fields
from nostr.connection import Dialer, EndKind, Page, PageEnd
from nostr.events import SignedEvent
from nostr.filters import filter_hash
from nostr.urls import from_relay
from sync import ledger
from sync.page_check import PageChecker
from sync.relay_model import RelayModel
from sync.session import RelaySession, SessionReport
from sync.session_settings import SessionSettings
from sync.windows import Window

_WINDOW_KEYS = ("since", "until", "limit")

logger = logging.getLogger(__name__)


async def get_start_time_async(
    default_start_time: int,
    bigbrotr: BigBrotr,
    relay: Relay,
    retries: int = 5,
    delay: int = 30,
    *,
    event_filter: Mapping[str, Any] | None = None,
) -> int:
    """The first second from `default_start_time` on that is not proven archived.

    The specification takes the second after the last event seen, which cannot show holes;
    DESIGN section 4 replaces it. While the database does not answer, it is asked `retries`
    times, `delay` seconds apart.

    Raises DatabaseUnavailable if it never answers.
    """
    target = Window(default_start_time, max(default_start_time, int(time.time())))
    name = filter_hash(event_filter or {})
    for attempt in range(retries):
        try:
            first = await ledger.first_unproven(bigbrotr, from_relay(relay).url, name, target)
        except DatabaseUnavailable as error:
            if attempt + 1 == retries:
                raise
            logger.warning(f"{LOG_WAIT} {fields('waiting_for_database', error=error)}")
            await asyncio.sleep(delay)
        else:
            return target.until + 1 if first is None else first
    raise ValueError(f"retries must be at least 1, not {retries}")


async def insert_batch(
    bigbrotr: BigBrotr, batch: Sequence[Mapping[str, Any]], relay: Relay, seen_at: int
) -> int:
    """Check raw event objects and archive them; returns how many were new.

    Objects that are no valid events are counted in refused_events; events that columns cannot
    hold go to events_raw. Nothing is dropped silently.
    """
    page = Page(PageEnd(EndKind.EOSE), tuple(batch), malformed=0, received_bytes=0)
    checked = await PageChecker(partial(known_ids, bigbrotr)).check(page, {})
    written = await bigbrotr.run_in_transaction(
        lambda connection: write_events(
            connection,
            from_relay(relay),
            seen_at,
            checked.new,
            known=checked.known,
            raw=checked.raw,
            refused=checked.refused,
        )
    )
    return len(written.new)


@dataclass(slots=True)
class RawEventBatch:
    """The raw events of one page and the window they were asked for.

    Attributes:
        since: first second asked for.
        until: last second asked for.
        limit: the most events the batch takes.
        raw_events: the event objects, as they came.
        min_created_at: the oldest second among them; None while empty.
        max_created_at: the newest second among them; None while empty.
        end: how the page ended; None while it is being filled. Only EOSE is an answer.
    """

    since: int
    until: int
    limit: int
    raw_events: list[dict[str, Any]] = field(default_factory=list)
    min_created_at: int | None = None
    max_created_at: int | None = None
    end: PageEnd | None = None

    def append(self, raw_event: dict[str, Any]) -> bool:
        """Take an event; False if the batch is full or the event is outside the window."""
        created_at = raw_event.get("created_at")
        if self.is_full() or type(created_at) is not int:
            return False
        if not self.since <= created_at <= self.until:
            return False
        self.raw_events.append(raw_event)
        oldest, newest = self.min_created_at, self.max_created_at
        self.min_created_at = created_at if oldest is None else min(oldest, created_at)
        self.max_created_at = created_at if newest is None else max(newest, created_at)
        return True

    def is_full(self) -> bool:
        """Whether `limit` events were taken."""
        return len(self.raw_events) >= self.limit

    def is_empty(self) -> bool:
        """Whether no event was taken."""
        return not self.raw_events


async def process_batch(client: Client, filter: Filter) -> RawEventBatch:
    """Fetch one page. `batch.end` tells whether the relay really ended it (EOSE).

    Raises ConnectFailed if the relay cannot be reached.
    """
    flt = filter.subscription_filter
    limit = filter.limit if filter.limit is not None else SessionSettings().page_limit
    now = int(time.time())
    batch = RawEventBatch(filter.since or 0, now if filter.until is None else filter.until, limit)
    flt |= {"since": batch.since, "until": batch.until, "limit": limit}
    relay = from_relay(client.relay)
    async with await _dialer(client).connect(relay) as connection:
        page = await connection.page(flt, idle_timeout=_timeout(client), max_events=limit)
    for obj in page.events:
        if type(obj) is SignedEvent:
            batch.append(obj._asdict())
        elif type(obj) is dict:
            batch.append(obj)
    batch.end = page.end
    return batch


async def process_relay(
    bigbrotr: BigBrotr, client: Client, filter: Filter, *, secret_key: str | None = None
) -> None:
    """Archive everything the relay serves for the filter, from its `since` to its `until`.

    Binary search over windows as DESIGN section 4 has it: whatever the ledger proves already
    is not asked for again, `filter.limit` is the size of a page, and what could not be proven
    is in sync_gaps afterwards.

    Raises:
        RelayError: the relay could not be read to the end; what came is archived.
        DatabaseError: the archive was lost.
    """
    report = await synchronize_client(bigbrotr, client, filter, secret_key=secret_key)
    if report.failed:
        raise RelayError(f"{report.url} was not read to the end: {report.outcome} {report.detail}")


async def synchronize_client(
    bigbrotr: BigBrotr, client: Client, filter: Filter, *, secret_key: str | None = None
) -> SessionReport:
    """`process_relay` with a report of what the session did instead of an error."""
    selection = {
        key: value for key, value in filter.subscription_filter.items() if key not in _WINDOW_KEYS
    }
    now = int(time.time())
    target = Window(filter.since or 0, now if filter.until is None else filter.until)
    settings = SessionSettings(
        page_limit=filter.limit or SessionSettings().page_limit,
        idle_timeout=_timeout(client),
        secret_key=secret_key,
    )
    session = RelaySession(
        bigbrotr,
        _dialer(client),
        PageChecker(partial(known_ids, bigbrotr)),
        from_relay(client.relay),
        selection,
        target,
        settings,
        RelayModel(),
    )
    return await session.run()


def _dialer(client: Client) -> Dialer:
    # The caller chose this relay by hand: only the services refuse private addresses.
    return Dialer(client.socks5_proxy_url, allow_private=True, connect_timeout=_timeout(client))


def _timeout(client: Client) -> float:
    return SessionSettings().idle_timeout if client.timeout is None else float(client.timeout)
