"""Asking an HTTP aggregator for its whole list, page by page where it has pages."""

import asyncio
from dataclasses import dataclass

from yarl import URL

from constants import SECONDS_PER_MINUTE
from discovery.fetch import Fetcher
from discovery.payload import MAX_URLS_PER_ANSWER, RelayPage, read_page
from errors import AggregatorFailed, MessageMalformed
from nostr.events import decode_json

MAX_PAGES = 250
# nostr.watch allows 10 requests a second.
_PAUSE_BETWEEN_PAGES = 0.2
_FIRST_PAUSE_AFTER_FAILURE = 15 * SECONDS_PER_MINUTE


@dataclass(frozen=True, slots=True)
class Answer:
    """What an aggregator answered.

    Attributes:
        urls: distinct texts in the place of relay URLs, not checked, in order.
        pages: how many pages were read.
        cut_short: why the rest could not be read, None when the list is whole.
    """

    urls: tuple[str, ...]
    pages: int
    cut_short: AggregatorFailed | None = None


async def ask(fetcher: Fetcher, url: str, *, timeout: float) -> Answer:
    """The list of the aggregator at `url`; `timeout` is the seconds for all pages together.

    What came before a failure is kept.

    Raises:
        AggregatorFailed: not even the first page gave a list; beside the reasons of
            `Fetcher.get`, "not-json" and "no-relays".
    """
    urls: dict[str, None] = {}
    pages = 0
    offset: int | None = 0
    problem: AggregatorFailed | None = None
    try:
        async with asyncio.timeout(timeout):
            while offset is not None and pages < MAX_PAGES and len(urls) < MAX_URLS_PER_ANSWER:
                page = await _page(fetcher, url, offset)
                pages += 1
                before = len(urls)
                urls.update(dict.fromkeys(page.urls))
                # A server that ignores the offset would send the same page for ever.
                offset = page.next_offset if len(urls) > before else None
            if offset is not None:
                problem = AggregatorFailed("too-long", url, f"more than {len(urls)} relays")
    except TimeoutError:
        problem = AggregatorFailed("timeout", url, f"not done after {timeout:g} s")
    except AggregatorFailed as error:
        problem = error
    if problem is not None and pages == 0:
        raise problem
    return Answer(tuple(urls)[:MAX_URLS_PER_ANSWER], pages, problem)


async def _page(fetcher: Fetcher, url: str, offset: int) -> RelayPage:
    if offset:
        await asyncio.sleep(_PAUSE_BETWEEN_PAGES)
    body = await fetcher.get(str(URL(url).update_query(offset=offset)) if offset else url)
    try:
        # Servers send a byte order mark, though it is not JSON.
        document = await asyncio.to_thread(decode_json, body.removeprefix(b"\xef\xbb\xbf"))
    except MessageMalformed:
        beginning = body[:60].decode(errors="replace")
        raise AggregatorFailed("not-json", url, f"it begins with {beginning!r}") from None
    return read_page(document, url)


def pause_before_asking_again(
    failures: int, *, frequency: float, retry_after: int | None, chance: float
) -> float:
    """Seconds until an aggregator is asked again. Pure.

    Args:
        failures: how many times in a row it has failed; 0 after a success.
        frequency: seconds between two requests to one that works, and the longest pause.
        retry_after: seconds that it asked to be left alone, None if it did not.
        chance: random, from 0.0 to 1.0.
    """
    if not failures:
        return frequency
    pause = min(_FIRST_PAUSE_AFTER_FAILURE * 2.0 ** min(failures - 1, 32), frequency)
    return max(pause * (0.5 + chance / 2), retry_after or 0)
