"""Asking a relay for the NIP-66 events that monitors publish, page by page from the newest."""

import asyncio
from dataclasses import dataclass

from discovery.mentions import MONITOR_KINDS, mentions
from discovery.payload import LONGEST_TEXT, MAX_URLS_PER_ANSWER
from errors import AggregatorFailed, ConnectFailed, EventRefused
from nostr.connection import Dialer, EndKind, Page, RelayConnection
from nostr.events import SignedEvent, parse_event, verify_signatures
from nostr.urls import RelayUrl

MAX_PAGES = 200
EVENTS_PER_PAGE = 500
_MAX_BYTES_PER_PAGE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """What a relay answered.

    Attributes:
        urls: distinct texts in the place of relay URLs, not checked.
        events: how many valid events were read.
        invalid: how many things came as events that were none, or that nobody asked for.
        cut_short: why the rest could not be read, None when it was read to the end.
    """

    urls: tuple[str, ...]
    events: int
    invalid: int
    cut_short: AggregatorFailed | None = None


async def ask_relay(url: RelayUrl, dialer: Dialer, *, timeout: float, total: float) -> RelayAnswer:
    """The relays that the NIP-66 events of a relay name. `timeout` is the longest silence, `total`
    the longest time in all, in seconds. What came before a failure is kept.

    Raises:
        AggregatorFailed: not even the first page came; the reason is a kind of ConnectFailed, or
            how the page ended.
    """
    walk = _Walk(url)
    try:
        async with asyncio.timeout(total):
            async with await dialer.connect(url) as connection:
                await walk.run(connection, timeout)
    except ConnectFailed as failed:
        raise AggregatorFailed(failed.kind, url.url, failed.detail) from failed
    except TimeoutError:
        walk.problem = AggregatorFailed("timeout", url.url, f"not done after {total:g} s")
    if walk.problem is not None and not walk.pages:
        raise walk.problem
    return walk.answer()


class _Walk:
    """One relay's events, newest first, until a page brings nothing."""

    def __init__(self, url: RelayUrl) -> None:
        self._url = url
        self._urls: dict[str, None] = {}
        self._ids: set[str] = set()
        self._invalid = 0
        self.pages = 0
        self.problem: AggregatorFailed | None = None

    def answer(self) -> RelayAnswer:
        return RelayAnswer(
            tuple(self._urls)[:MAX_URLS_PER_ANSWER], len(self._ids), self._invalid, self.problem
        )

    async def run(self, connection: RelayConnection, timeout: float) -> None:
        until: int | None = None
        while self.pages < MAX_PAGES and len(self._urls) < MAX_URLS_PER_ANSWER:
            page = await connection.page(
                _filter(until),
                idle_timeout=timeout,
                max_events=2 * EVENTS_PER_PAGE,
                max_bytes=_MAX_BYTES_PER_PAGE,
            )
            before = len(self._ids)
            oldest = await asyncio.to_thread(self._take, page, until)
            if page.end.kind is not EndKind.EOSE:
                reason = page.end.prefix or page.end.kind.value
                self.problem = AggregatorFailed(reason, self._url.url, page.end.text)
                return
            self.pages += 1
            if page.end.hint == "finish" or oldest is None:
                return
            # Again with the oldest second, which may have been cut, and one more, since some
            # relays leave out the second `until`; if that brings nothing, a second further down.
            news = len(self._ids) > before
            until = oldest + 1 if news or until is None else min(oldest, until - 1)
        self.problem = AggregatorFailed("too-long", self._url.url, f"more than {self.pages} pages")

    def _take(self, page: Page, until: int | None) -> int | None:
        """Note what the page's valid events name; the oldest second among those asked for, None
        if there are none of them: the end, or a relay that does not keep to the filter."""
        events = [event for item in page.events if (event := self._asked_for(item, until))]
        fresh = [event for event in events if event.id not in self._ids]
        seconds = [event.created_at for event in events if event.id in self._ids]
        for event, is_right in zip(fresh, verify_signatures(fresh), strict=True):
            if not is_right:
                self._invalid += 1
                continue
            self._ids.add(event.id)
            seconds.append(event.created_at)
            named = mentions(event.id, event.pubkey, event.kind, event.tags, "").named
            self._urls.update((text[:LONGEST_TEXT], None) for text, _ in named)
        return min(seconds, default=None)

    def _asked_for(self, item: object, until: int | None) -> SignedEvent | None:
        try:
            event = parse_event(item)
        except EventRefused:
            self._invalid += 1
            return None
        if event.kind in MONITOR_KINDS and (until is None or event.created_at <= until):
            return event
        self._invalid += 1
        return None


def _filter(until: int | None) -> dict[str, object]:
    wanted: dict[str, object] = {"kinds": list(MONITOR_KINDS), "limit": EVENTS_PER_PAGE}
    return wanted if until is None else wanted | {"until": until}
