"""One open WebSocket to one relay: many pages at once, and no trust in what comes back."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from aiohttp import ClientWebSocketResponse, WSMsgType

from nostr import messages
from nostr.inbox import Inbox
from nostr.keys import sign_challenge
from nostr.link import LinkFacts
from nostr.live import LiveFeed
from nostr.messages import Ok as OkReply
from nostr.negotiation import Exchange, Negotiation, negotiate
from nostr.pages import DEFAULT_MAX_BYTES, EndKind, Page, PageCollector, PageEnd
from nostr.transport import Transport
from nostr.urls import RelayUrl

CLOSE_SECONDS = 2.0
ROUND_TRIP_SECONDS = 5.0
MAX_STRAY_BYTES = 64 * 1024 * 1024  # a relay that sends more than this unasked is left

_TEXT = WSMsgType.TEXT  # of an enum, a member costs a search each time

T = TypeVar("T")


class RelayConnection:
    """An open WebSocket; an async context manager. Nothing that a relay sends makes a method
    raise: pages say how they ended, the other methods return None or False.

    `scheme` is "wss" or "ws", `rtt_open` the milliseconds that opening took, `link` what that
    showed of the host.
    """

    def __init__(
        self,
        url: RelayUrl,
        scheme: str,
        rtt_open: int,
        link: LinkFacts,
        websocket: ClientWebSocketResponse[Any],
        transport: Transport,
    ) -> None:
        self.url = url
        self.scheme = scheme
        self.rtt_open = rtt_open
        self.link = link
        self._websocket = websocket
        self._transport = transport
        self._names = count(1)
        self._inbox = Inbox()
        self._end: PageEnd | None = None
        self._pongs: dict[bytes, asyncio.Event] = {}
        self._ended = self._settled = 0  # pages; how many of them before a round trip
        self._background: set[asyncio.Task[bool]] = set()
        self._reader = asyncio.create_task(self._read(), name=f"read {url.url}")

    @property
    def closed(self) -> bool:
        """Whether the WebSocket has ended, from either side."""
        return self._end is not None

    @property
    def challenge(self) -> str | None:
        """The latest AUTH challenge (NIP-42)."""
        return self._inbox.challenge

    @property
    def malformed(self) -> int:
        """How many frames were no messages."""
        return self._inbox.malformed

    @property
    def stray(self) -> int:
        """How many events came that nobody had asked for."""
        return self._inbox.stray

    @property
    def notices(self) -> tuple[str, ...]:
        """The last few NOTICE texts."""
        return tuple(self._inbox.notices)

    async def page(
        self,
        flt: Mapping[str, Any],
        *,
        idle_timeout: float,
        max_events: int,
        max_bytes: int = DEFAULT_MAX_BYTES,
        total_timeout: float = float("inf"),
        settle_below: int = 1,
    ) -> Page:
        """One REQ until it ends. `idle_timeout` (seconds) is the longest silence, `total_timeout`
        the longest time in all; what came until then is in the page.

        Sends CLOSE unless the relay ended the subscription itself. A page of fewer events than
        `settle_below` is given one more round trip after its EOSE: if the relay leaves
        meanwhile, it ends as DISCONNECTED, and an empty one whose events come only then as CLOSED
        "contradiction".
        """
        collector = PageCollector(
            idle_timeout=idle_timeout,
            max_events=max_events,
            max_bytes=max_bytes,
            total_timeout=total_timeout,
        )
        name = self._new_name()
        self._inbox.pages[name] = collector
        try:
            if not await self._send(messages.encode_req(name, flt), idle_timeout):
                collector.end(self._end or PageEnd(EndKind.TIMEOUT, text="REQ could not be sent"))
            page = await collector.page()
            self._ended += 1
            is_open = page.end.kind is not EndKind.CLOSED
            if page.end.kind is EndKind.EOSE and len(page.events) < settle_below:
                still_there = await self.round_trip()
                page = _settled(page, self._inbox.take_late(name), still_there)
        except asyncio.CancelledError:
            self._ended += 1
            self._send_soon(messages.encode_close(name))
            raise
        finally:
            del self._inbox.pages[name]
        if is_open:
            # Before the next REQ: some relays allow but one subscription.
            await self._send(messages.encode_close(name), CLOSE_SECONDS)
        return page

    @asynccontextmanager
    async def listen(
        self, flt: Mapping[str, Any], *, max_events: int, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> AsyncIterator[LiveFeed]:
        """A subscription that stays open after EOSE, for as long as the context."""
        feed = LiveFeed(max_events=max_events, max_bytes=max_bytes)
        name = self._new_name()
        self._inbox.pages[name] = feed
        try:
            if not await self._send(messages.encode_req(name, flt), CLOSE_SECONDS):
                feed.end(self._end or PageEnd(EndKind.TIMEOUT, text="REQ could not be sent"))
            yield feed
        finally:
            del self._inbox.pages[name]
            self._send_soon(messages.encode_close(name))

    async def publish(self, event: Mapping[str, Any], *, timeout: float) -> OkReply | None:
        """Sends an event; the relay's OK, or None when none came in time (seconds)."""
        return await self._ask_ok(messages.encode_event_message(event), event["id"], timeout)

    async def authenticate(self, secret_key: str, *, timeout: float) -> OkReply | None:
        """Signs in with the latest challenge (NIP-42), waiting for one if none came yet; the
        relay's OK, or None when the challenge or it did not come in time (seconds)."""
        try:
            async with asyncio.timeout(timeout):
                await self._inbox.challenged.wait()
        except TimeoutError:
            return None
        assert self.challenge is not None
        event = sign_challenge(secret_key, self.url.websocket(self.scheme), self.challenge)
        return await self._ask_ok(messages.encode_auth(event), event["id"], timeout)

    async def count(self, flt: Mapping[str, Any], *, timeout: float) -> int | None:
        """How many events the relay says match (NIP-45), or None when it does not say."""
        name = self._new_name()
        return await self._ask(messages.encode_count(name, flt), self._inbox.counts, name, timeout)

    async def negotiate(
        self,
        flt: Mapping[str, Any],
        items: Iterable[tuple[int, str]],
        *,
        timeout: float,
        **limits: int,
    ) -> Negotiation:
        """Reconciles a filter's events with ours (NIP-77), given as (created_at, id); `timeout`
        is the longest silence (seconds), `limits` are those of nostr.negotiation.negotiate.

        Always ends with NEG-CLOSE.
        """
        name = self._new_name()
        exchange = self._inbox.exchanges[name] = Exchange()

        async def send(message: bytes) -> bool:
            return await self._send(message, timeout)

        try:
            return await negotiate(exchange, send, name, flt, items, timeout=timeout, **limits)
        finally:
            del self._inbox.exchanges[name]
            self._send_soon(messages.encode_neg_close(name))

    async def close(self) -> None:
        """Closes the WebSocket; gives up on a peer that does not answer within seconds."""
        try:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(2 * CLOSE_SECONDS):
                    await self._websocket.close()
        finally:
            for task in self._background:
                task.cancel()
            await self._transport.close()

    async def __aenter__(self) -> "RelayConnection":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _new_name(self) -> str:
        return f"b{next(self._names)}"

    async def _ask_ok(self, message: bytes, event_id: str, timeout: float) -> OkReply | None:
        return await self._ask(message, self._inbox.replies, event_id, timeout)

    async def _ask(
        self,
        message: bytes,
        waiting: dict[str, asyncio.Future[T | None]],
        key: str,
        timeout: float,
    ) -> T | None:
        answer: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        waiting[key] = answer
        try:
            if not await self._send(message, timeout):
                return None
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            return None
        finally:
            waiting.pop(key, None)

    async def _send(self, message: bytes, timeout: float) -> bool:
        """Whether the peer's side of the connection took the message in time."""
        if self.closed:
            return False
        try:
            async with asyncio.timeout(timeout):
                await self._websocket.send_frame(message, WSMsgType.TEXT)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False
        return True

    def take_late(self) -> tuple[object, ...]:
        """The events that came after the EOSE of their page and are in no page's `late`."""
        return self._inbox.take_late()

    async def settle(self) -> None:
        """Waits until what the relay sent right after its pages has come."""
        if self._settled < self._ended:
            await self.round_trip()

    async def round_trip(self) -> bool:
        """Waits for the answer to a ping: what was sent before it has come by then. False if the
        connection broke meanwhile."""
        ended = self._ended
        payload = str(next(self._names)).encode()
        pong = self._pongs[payload] = asyncio.Event()
        try:
            async with asyncio.timeout(ROUND_TRIP_SECONDS):
                await self._websocket.ping(payload)
                await pong.wait()
        except TimeoutError:
            pass  # some do not answer pings
        except (aiohttp.ClientError, OSError):
            return False
        finally:
            del self._pongs[payload]
        self._settled = max(self._settled, ended)
        return not self.closed

    def _send_soon(self, message: bytes) -> None:
        if self.closed:
            return
        task = asyncio.create_task(self._send(message, CLOSE_SECONDS))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _read(self) -> None:
        end = PageEnd(EndKind.DISCONNECTED, text="closed here")
        try:
            while self._inbox.stray_bytes <= MAX_STRAY_BYTES:
                frame = await self._websocket.receive()
                if frame.type is _TEXT:
                    self._inbox.take(frame.data)
                elif frame.type is WSMsgType.BINARY:
                    self._inbox.take_malformed(len(frame.data))
                elif frame.type is WSMsgType.PING:
                    with suppress(aiohttp.ClientError, OSError):
                        await self._websocket.pong(frame.data)
                elif frame.type is WSMsgType.PONG:
                    if pong := self._pongs.get(bytes(frame.data)):
                        pong.set()
                else:
                    break
            end = PageEnd(EndKind.DISCONNECTED, text=self._why_closed())
        finally:
            self._end = end
            self._inbox.finish(end)
            for pong in self._pongs.values():
                pong.set()

    def _why_closed(self) -> str:
        if self._inbox.stray_bytes > MAX_STRAY_BYTES:
            return "left: it sent too much that nobody asked for"
        error = self._websocket.exception()
        code = self._websocket.close_code
        return f"close code {code}" + (f" ({type(error).__name__})" if error else "")


def _settled(page: Page, late: tuple[object, ...], still_there: bool) -> Page:
    """A page one round trip after its EOSE."""
    if late and not page.events:
        end = PageEnd(EndKind.CLOSED, prefix="contradiction", text="events came after EOSE")
        return replace(page, end=end, events=late)
    if not still_there:
        end = PageEnd(EndKind.DISCONNECTED, text="it left right after its EOSE")
        return replace(page, end=end, late=late)
    return replace(page, late=late, settled=True)
