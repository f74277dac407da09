"""Sorting what comes over one connection: each message to the request that waits for it."""

import asyncio
from collections import deque
from typing import TypeVar

from errors import MessageMalformed
from nostr import messages
from nostr.live import LiveFeed
from nostr.messages import Ok as OkReply
from nostr.negotiation import Exchange
from nostr.pages import EndKind, PageCollector, PageEnd

_KEPT_NOTICES = 8
_REMEMBERED_PAGES = 64
_NOTICE_LENGTH = 500
_MOST_LATE = 10_000
# What came too late is kept, unlike other strays: of that, a connection bears an eighth.
_LATE_WEIGHT = 8

T = TypeVar("T")


class Inbox:
    """The requests in flight, by subscription or event id, and what came for nobody.

    `challenge` is the latest AUTH challenge, `challenged` is set once there is one, `notices`
    are the last few NOTICE texts. `malformed` counts frames that were no messages, `stray`
    events that came for no open page, and `stray_bytes` all that was of no use since the last
    page ended. Strays whose page had ended in EOSE are kept until `take_late`.
    """

    def __init__(self) -> None:
        self.pages: dict[str, PageCollector | LiveFeed] = {}
        self.replies: dict[str, asyncio.Future[OkReply | None]] = {}
        self.counts: dict[str, asyncio.Future[int | None]] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.notices: deque[str] = deque(maxlen=_KEPT_NOTICES)
        self.challenge: str | None = None
        self.challenged = asyncio.Event()
        self.malformed = 0
        self.stray = 0
        self._late: dict[str, list[object]] = {}
        self._complete: deque[str] = deque(maxlen=_REMEMBERED_PAGES)
        self.stray_bytes = 0

    def take(self, frame: bytes) -> None:
        """Passes a text frame on."""
        try:
            message = messages.decode_message(frame)
        except MessageMalformed:
            self.take_malformed(len(frame))
            return
        if type(message) is messages.EventMessage:
            subscription, event = message
            if self._take_event(subscription, event, len(frame)):
                return
        match message:
            case messages.Eose(subscription, hint):
                self._end_page(subscription, PageEnd(EndKind.EOSE, hint=hint))
            case messages.Closed():
                self._take_closed(message)
            case messages.Notice(text):
                self._take_notice(text[:_NOTICE_LENGTH])
            case messages.Ok():
                _resolve(self.replies.get(message.event_id), message)
            case messages.Auth(challenge):
                self.challenge = challenge
                self.challenged.set()
            case messages.Count(subscription, number):
                _resolve(self.counts.get(subscription), number)
            case messages.NegMessage(subscription) | messages.NegError(subscription):
                exchange = self.exchanges.get(subscription)
                if exchange and exchange.take(message):
                    return
        self.stray_bytes += len(frame)

    def take_malformed(self, size: int) -> None:
        """Counts a frame that is no message."""
        self.malformed += 1
        self.stray_bytes += size
        for number, page in enumerate(self.pages.values()):
            page.malformed += number == 0
            page.unread += 1

    def take_late(self, subscription: str | None = None) -> tuple[object, ...]:
        """The events that came after the EOSE of their page, of one subscription or of all; each
        is given away once."""
        if subscription is not None:
            return tuple(self._late.pop(subscription, ()))
        late, self._late = self._late, {}
        return tuple(event for events in late.values() for event in events)

    def finish(self, end: PageEnd) -> None:
        """The connection has ended, and with it all that waited for an answer."""
        for page in self.pages.values():
            page.end(end)
        for exchange in self.exchanges.values():
            exchange.take(end)
        for reply in self.replies.values():
            _resolve(reply, None)
        for number in self.counts.values():
            _resolve(number, None)

    def _take_event(self, subscription: str, event: object, size: int) -> bool:
        """Whether an open page took the event."""
        page = self.pages.get(subscription)
        if page is not None and page.add(event, size):
            return True
        self.stray += 1
        if subscription in self._complete:
            late = self._late.setdefault(subscription, [])
            if len(late) < _MOST_LATE:
                late.append(event)
                self.stray_bytes += (_LATE_WEIGHT - 1) * size
        return False

    def _take_closed(self, closed: messages.Closed) -> None:
        subscription, prefix, text = closed.subscription, closed.prefix, closed.text
        self._end_page(subscription, PageEnd(EndKind.CLOSED, prefix=prefix, text=text))
        _resolve(self.counts.get(subscription), None)
        if exchange := self.exchanges.get(subscription):
            exchange.take(messages.NegError(subscription, prefix, text))

    def _take_notice(self, text: str) -> None:
        self.notices.append(text)
        for page in self.pages.values():
            page.last_notice = text
        for exchange in self.exchanges.values():
            exchange.take(messages.Notice(text))

    def _end_page(self, subscription: str, end: PageEnd) -> None:
        if page := self.pages.get(subscription):
            page.end(end)
            self.stray_bytes = 0
            if end.kind is EndKind.EOSE:
                self._complete.append(subscription)


def _resolve(future: asyncio.Future[T] | None, value: T) -> None:
    if future is not None and not future.done():
        future.set_result(value)
