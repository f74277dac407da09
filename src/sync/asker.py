"""Asking one relay until it answers (async shell around `response`)."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from errors import ConnectFailed, SyncAbandoned
from nostr.connection import Dialer, EndKind, Page, PageEnd, RelayConnection
from nostr.negentropy import SMALLEST_FRAME_BYTES
from nostr.negotiation import Negotiation
from nostr.urls import RelayUrl
from sync.pace import Pace
from sync.page_check import CheckedPage, PageChecker
from sync.relay_model import LANES, RelayModel
from sync.response import Action, Response, end_of_negotiation, respond, storable
from sync.room import Room
from sync.session_settings import SessionSettings

# A page that trickles in for this many idle timeouts is not worth waiting for.
_PAGE_IDLE_TIMEOUTS = 15
_NEG_MSG_BYTES = 100  # of a NEG-MSG besides its payload
# Halving all of time twice over; a relay that still hangs up then is left.
_MOST_NARROWINGS = 64
# Of a relay's pages in memory: one alone, or those of LANES requests; far relays have more of them.
# A window that brings more on one page is asked for with a lower limit, or in halves. Holds any
# single message that is taken.
ROOM_BYTES = 4 * 1024 * 1024
_AFTER_EOSE = PageEnd(EndKind.CLOSED, prefix="contradiction", text="events came after EOSE")

Keep = Callable[[CheckedPage], Awaitable[None]]
_Tries = Counter[tuple[EndKind, str, RelayConnection | None]]


class Asker:
    """One relay's connection, opened again as needed and shared by all lanes of a session.

    Attributes:
        model: what is known of the relay; what is learnt of its connection is added here.
        requests: REQs sent so far.
        longest_message: bytes of a message that the relay takes.
        given_up: why nothing is asked any more, if so.
        strays: whether events came for a page that had ended in EOSE.
    """

    def __init__(
        self,
        relay: RelayUrl,
        dialer: Dialer,
        checker: PageChecker,
        settings: SessionSettings,
        model: RelayModel,
    ) -> None:
        self._relay = relay
        self._dialer = dialer
        self._checker = checker
        self._settings = settings
        self._deadline = time.monotonic() + settings.budget_seconds
        self._connection: RelayConnection | None = None
        self._connecting = asyncio.Lock()
        self._signed_in_on: RelayConnection | None = None
        self._signing_in = asyncio.Lock()
        self._answered = False
        self._narrowings = 0
        places = min(settings.lanes, model.most_lanes)
        self._room = Room(ROOM_BYTES, places, share=ROOM_BYTES // min(places, LANES))
        # Once a request had to be repeated, lanes take turns: one must not spoil the others'
        # connection. So they do while pages are larger than a lane's share of the room.
        self._take_turns = False
        self._large_pages = False
        self._checking = asyncio.Lock()
        self._pace = Pace(model.interval)
        self.given_up: SyncAbandoned | None = None
        self._gave_up = asyncio.Event()
        self.longest_message = settings.longest_message
        self.model = model
        self.requests = 0
        self.strays = False
        self._left_over: tuple[object, ...] = ()

    @property
    def lanes(self) -> int:
        """Requests to have in flight."""
        opening = 0 if self._connection is None else self._connection.rtt_open
        return min(self._settings.lanes, self.model.lanes_at(opening))

    async def connect(self) -> RelayConnection:
        """The open connection, opened now if there is none.

        Raises SyncAbandoned("connect-<kind>").
        """
        async with self._connecting:
            if self.given_up is not None:
                raise copy(self.given_up)
            if self._connection is None or self._connection.closed:
                if self._connection is not None:
                    self._left_over += self._connection.take_late()
                await self.close()
                try:
                    self._connection = await self._dialer.connect(
                        self._relay, prefer_scheme=self.model.scheme
                    )
                except ConnectFailed as error:
                    raise SyncAbandoned(f"connect-{error.kind}", error.detail) from error
                self.model = replace(self.model, scheme=self._connection.scheme)
            return self._connection

    async def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None:
            await self._connection.close()

    def give_up(self, reason: SyncAbandoned) -> None:
        """Ask nothing any more: requests under way come to their ends, further ones raise."""
        # Without its traceback, whose frames hold pages.
        self.given_up = copy(reason)
        self._gave_up.set()

    async def ask(
        self, flt: Mapping[str, Any], keep: Keep, *, settle_below: int = 1
    ) -> CheckedPage:
        """The relay's answer to a filter; or a page that is no answer, if the relay has more for
        this filter than a page may hold, or something that it cannot show us.

        Args:
            flt: the filter of the REQ.
            keep: called with the pages before: their events are worth keeping.
            settle_below: a page of fewer events is given one more round trip.

        Raises:
            SyncAbandoned: the relay cannot or will not answer, or the session's time is over.
        """
        tries: _Tries = Counter()
        crowded_out = False
        while True:
            self._take_turns = self._take_turns or bool(tries)
            alone = crowded_out or self._take_turns or self._large_pages
            async with self._room.take(alone=alone) as max_bytes:
                connection, page = await self._next_page(flt, keep, settle_below, max_bytes)
                response = self._respond(page.end, tries, connection, max_bytes)
                doubtful = page.unread and not alone and len(page.events) < settle_below
                if response.action is Action.TAKE and doubtful:
                    # Its size matters, and what cannot be read may have been of any open page.
                    response = Response(Action.ASK_ALONE)
                checked = await self._check(page, flt)
                if alone:
                    self._large_pages = page.received_bytes > self._room.share
                if response.action is Action.TAKE and (checked.facts.events or not page.late):
                    self._answered = True
                    return checked
                if response.action is Action.NARROW:
                    self._narrowings += page.end.kind is EndKind.DISCONNECTED
                    return checked
                await keep(checked)
            match response.action:
                case Action.TAKE:
                    raise SyncAbandoned("contradiction", "valid events came only after EOSE")
                case Action.GIVE_UP:
                    raise SyncAbandoned(response.outcome, storable(page.end.text))
                case Action.AUTHENTICATE:
                    await self.sign_in(connection)
                case Action.ASK_ALONE:
                    crowded_out = True
            # Not to be in memory beside the next one.
            del page, checked

    async def _next_page(
        self, flt: Mapping[str, Any], keep: Keep, settle_below: int, max_bytes: int
    ) -> tuple[RelayConnection, Page]:
        """One request, when it may be sent, and what it brings."""
        if time.monotonic() > self._deadline:
            raise SyncAbandoned("paused")
        await self._keep_pace()
        connection = await self.connect()
        self.requests += 1
        sent_at = time.monotonic()
        idle = self._settings.idle_timeout
        page = await connection.page(
            flt,
            idle_timeout=idle,
            total_timeout=idle * _PAGE_IDLE_TIMEOUTS,
            max_events=self._settings.max_page_events,
            max_bytes=max_bytes,
            settle_below=settle_below,
        )
        self._heed(page.end, sent_at)
        await self._keep_late((*page.late, *connection.take_late()), keep)
        if self.given_up is not None:
            await keep(await self._check(page, flt))
            raise copy(self.given_up)
        return connection, page

    def _respond(
        self, end: PageEnd, tries: _Tries, connection: RelayConnection, max_bytes: int
    ) -> Response:
        # Every connection has to be signed in anew; that is no failure in a row.
        signing_in = connection if end.prefix == "auth-required" else None
        cause = (end.kind, end.prefix, signing_in)
        response = respond(
            end,
            tries[cause],
            can_authenticate=self._settings.secret_key is not None,
            answers=self._answered and self._narrowings < _MOST_NARROWINGS,
            had_all_room=max_bytes >= ROOM_BYTES,
        )
        if response.action is not Action.ASK_ALONE:
            tries[cause] += 1
        if response.action is Action.ASK_AGAIN:
            self._pause(end, response.pause)
        return response

    async def negotiate(
        self, flt: Mapping[str, Any], items: Sequence[tuple[int, str]]
    ) -> Negotiation:
        """Reconcile a filter's events with ours (NIP-77), given as (created_at, id).

        Raises SyncAbandoned as `ask` does, but not for the relay's refusal.
        """
        frame = max(SMALLEST_FRAME_BYTES, (self.longest_message - _NEG_MSG_BYTES) // 2)
        for tries in itertools.count():
            if time.monotonic() > self._deadline:
                raise SyncAbandoned("paused")
            await self._keep_pace()
            connection = await self.connect()
            sent_at = time.monotonic()
            ended = await connection.negotiate(
                flt, items, timeout=self._settings.idle_timeout, frame_bytes=frame
            )
            self.requests += max(1, ended.rounds)
            end = end_of_negotiation(ended, tries)
            if end is None:
                break
            self._heed(end, sent_at)
            response = respond(end, tries, can_authenticate=self._settings.secret_key is not None)
            if response.action is Action.GIVE_UP:
                break
            if response.action is Action.AUTHENTICATE:
                with contextlib.suppress(SyncAbandoned):
                    await self.sign_in(connection)
            else:
                self._pause(end, response.pause)
        return ended

    async def settle(self, keep: Keep) -> None:
        """Wait for what the relay may still send for pages that have ended, and keep it."""
        if self._connection is not None:
            await self._connection.settle()
            await self._keep_late(self._connection.take_late(), keep)

    async def _check(self, page: Page, flt: Mapping[str, Any]) -> CheckedPage:
        # One after the other: so the next request of the first one is on its way meanwhile.
        async with self._checking:
            return await self._checker.check(page, flt)

    async def _keep_late(self, late: tuple[object, ...], keep: Keep) -> None:
        late, self._left_over = (*self._left_over, *late), ()
        if late:
            self.strays = True
            checked = await self._check(Page(_AFTER_EOSE, late, 0, 0), {})
            await keep(replace(checked, refused={**checked.refused, "after-eose": len(late)}))

    async def sign_in(self, connection: RelayConnection) -> None:
        """Authenticate (NIP-42), once per connection.

        Raises SyncAbandoned: "auth-required" if the relay does not accept our key or sends no
        challenge, "timeout" or "disconnected" if it does not say.
        """
        async with self._signing_in:
            if self._signed_in_on is connection:
                return  # another lane has done it
            key, timeout = self._settings.secret_key, self._settings.idle_timeout
            if key is None:
                raise SyncAbandoned("auth-required", "no key to sign in with")
            reply = await connection.authenticate(key, timeout=timeout)
            if reply is None and connection.challenge is not None:
                raise SyncAbandoned("disconnected" if connection.closed else "timeout", "at AUTH")
            if reply is None or not reply.accepted:
                text = "it sent no challenge" if reply is None else reply.text
                raise SyncAbandoned("auth-required", storable(text))
            self._signed_in_on = connection
            self.model = replace(self.model, needs_auth=True)

    def _pause(self, end: PageEnd, pause: float) -> None:
        """Let no lane ask anything for a while: what the relay says, it says to all of them."""
        if end.kind is not EndKind.DISCONNECTED:
            # It may have been too much at once: one request at a time from the next session on.
            self.model = replace(self.model, lanes=1)
        self._pace.rest(time.monotonic() + random.uniform(pause / 2, pause))

    def _heed(self, end: PageEnd, sent_at: float) -> None:
        """Ask more slowly from now on, and in later sessions, if that was too fast."""
        if end.prefix == "rate-limited":
            self._pace.limited(time.monotonic(), sent_at)
            self.model = replace(self.model, interval=self._pace.interval)

    async def _keep_pace(self) -> None:
        while wait := self._pace.wait(time.monotonic()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._gave_up.wait()
            if self.given_up is not None:
                raise copy(self.given_up)
