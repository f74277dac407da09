"""Receiving and checking events, ours and its peers': `python -m bench.check CASE EVENTS PORT`.

One case in one process, so that its CPU seconds are its own. Every case first shows that it
refuses an altered event. The answer is a JSON object on one line.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import nostr_sdk
import nostr_tools
import orjson
from coincurve import PublicKeyXOnly

from bench.dataset import load
from nostr.connection import Dialer, EndKind, Page, PageEnd
from nostr.events import SignedEvent, verify_signatures
from nostr.filters import matcher
from nostr.messages import decode_message
from nostr.urls import RelayUrl
from sync.page_check import PageChecker
from worker_process import collect_rarely

PAGE = 500
LANES = 4
Check = Callable[[str], bool]
_EOSE = PageEnd(EndKind.EOSE)


@dataclass(slots=True)
class Clock:
    """CPU and wall clock between its beginning and its end."""

    cpu: float = 0.0
    wall: float = 0.0

    def __enter__(self) -> "Clock":
        self.cpu, self.wall = time.process_time(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu = time.process_time() - self.cpu
        self.wall = time.monotonic() - self.wall


def answer(clock: Clock, events: int, **more: float) -> str:
    """What a case measured."""
    return json.dumps({"cpu": clock.cpu, "wall": clock.wall, "events": events, **more})


def signature(events: Sequence[SignedEvent]) -> str:
    """The limit: each event's signature, with the key parsed, and nothing else."""
    given = [
        (bytes.fromhex(event.pubkey), bytes.fromhex(event.sig), bytes.fromhex(event.id))
        for event in events
    ]
    with Clock() as clock:
        right = sum(PublicKeyXOnly(key).verify(sig, id_) for key, sig, id_ in given)
    assert right == len(events)
    keys = [PublicKeyXOnly(key) for key, _, _ in given]
    with Clock() as bare:
        right = sum(key.verify(sig, id_) for key, (_, sig, id_) in zip(keys, given, strict=True))
    assert right == len(events)
    return answer(clock, len(events), without_key=bare.cpu)


def tools_check(text: str) -> bool:
    """nostr-tools 1.4.0: its Event validates itself."""
    try:
        nostr_tools.Event.from_dict(json.loads(text)[2])
    except nostr_tools.EventValidationError:
        return False
    return True


def sdk_check(text: str) -> bool:
    """nostr-sdk: the message decoded, the event checked."""
    try:
        message = nostr_sdk.RelayMessage.from_json(text).as_enum()
        verified: bool = message.event.verify()
    except nostr_sdk.NostrSdkError:
        return False
    return verified


def peer(events: Sequence[SignedEvent], check: Check) -> str:
    """A peer's parse and check of the frames, without any network."""
    frames = [frame_of(event).decode() for event in events]
    altered = events[0]._replace(content=events[0].content + "!")
    assert not check(frame_of(altered).decode()), "it takes an altered event"
    with Clock() as clock:
        right = sum(check(frame) for frame in frames)
    assert right == len(events), f"{right} of {len(events)}"
    return answer(clock, len(events))


async def sdk_fetch(events: Sequence[SignedEvent], port: int) -> str:
    """nostr-sdk's own client: fetches the same pages over a WebSocket, and checks them."""
    relay = f"ws://127.0.0.1:{port}"
    first = events[0].created_at
    assert not await _sdk_pages(f"{relay}/altered", [first]), "it takes altered events"
    with Clock() as clock:
        pages = await _sdk_pages(relay, range(first, events[-1].created_at + 1, PAGE))
    assert sum(pages) == len(events), f"{sum(pages)} of {len(events)}"
    return answer(clock, len(events))


async def _sdk_pages(relay: str, starts: Iterable[int]) -> list[int]:
    """How many events each page brought, as many pages in flight as ours has; empty ones not."""
    url = nostr_sdk.RelayUrl.parse(relay)
    client = nostr_sdk.ClientBuilder().build()
    await client.add_relay(url)
    await client.try_connect(timedelta(seconds=5))
    remaining = iter(starts)
    pages: list[int] = []

    async def lane() -> None:
        for start in remaining:
            since, until = map(nostr_sdk.Timestamp.from_secs, (start, start + PAGE - 1))
            flt = nostr_sdk.Filter().since(since).until(until).limit(PAGE)
            target = nostr_sdk.ReqTarget.single(url, [flt])
            pages.append(len(await client.fetch_events(target, timedelta(seconds=30))))

    await asyncio.gather(*(lane() for _ in range(LANES)))
    await client.shutdown()
    return [page for page in pages if page]


async def beside(events: Sequence[SignedEvent]) -> str:
    """How long a page of one event takes at the most while one of all others is checked."""

    async def none_known(ids: Sequence[str]) -> set[str]:
        return set()

    checker = PageChecker(none_known)
    small, large = Page(_EOSE, (events[0],), 0, 0), Page(_EOSE, tuple(events[1:]), 0, 0)
    with Clock() as clock:
        busy = asyncio.create_task(checker.check(large, {"since": 0}))
        waits: list[float] = []
        while not busy.done():
            with Clock() as one:
                await checker.check(small, {"since": 0})
            waits.append(one.wall)
            await asyncio.sleep(0.005)
    assert len((await busy).new) == len(events) - 1
    return answer(clock, len(events), longest_wait=max(waits))


async def ours(events: Sequence[SignedEvent], port: int, known: float, lanes: int) -> str:
    """Ours: received over a WebSocket, decoded, checked; `known` of the ids are in the archive."""
    stored = {event.id for event in events[: round(len(events) * known)]}

    async def known_ids(ids: Sequence[str]) -> set[str]:
        return stored.intersection(ids)

    starts = iter(range(events[0].created_at, events[-1].created_at + 1, PAGE))
    counts = {"new": 0, "known": 0}
    checker = PageChecker(known_ids)
    await _refuses_altered(checker, events[0])
    dialer = Dialer(socks5_url=None, allow_private=True, connect_timeout=5.0)
    url = RelayUrl.parse(f"ws://127.0.0.1:{port}", allow_private=True)
    connection = await dialer.connect(url, prefer_scheme="ws")
    late: list[float] = []
    ticker = asyncio.create_task(_tick(late))

    async def lane() -> None:
        for start in starts:
            request = {"since": start, "until": start + PAGE - 1, "limit": PAGE}
            page = await connection.page(request, idle_timeout=30, max_events=10 * PAGE)
            checked = await checker.check(page, request)
            counts["new"] += len(checked.new)
            counts["known"] += len(checked.known)

    with Clock() as clock:
        await asyncio.gather(*(lane() for _ in range(lanes)))
    ticker.cancel()
    await connection.close()
    assert counts == {"new": len(events) - len(stored), "known": len(stored)}, counts
    late.sort()
    return answer(
        clock, len(events), late_p99=late[int(len(late) * 0.99)] if late else 0.0, late_max=late[-1]
    )


def steps(events: Sequence[SignedEvent]) -> str:
    """CPU seconds of each step of ours, each alone over all events."""
    frames = [frame_of(event) for event in events]
    shares: dict[str, float] = {}

    def step(name: str, work: Callable[[], object]) -> None:
        with Clock() as clock:
            work()
        shares[name] = clock.cpu

    step("decode the frame, shape and id", lambda: [decode_message(frame) for frame in frames])
    step("signature", lambda: verify_signatures(events))
    matches = matcher({"since": 0, "until": 2**40, "limit": PAGE})
    step("filter", lambda: [matches(event) for event in events])
    return json.dumps({"steps": shares, "events": len(events)})


def frame_of(event: SignedEvent) -> bytes:
    """The EVENT message of an event."""
    return b'["EVENT","b1",' + orjson.dumps(event._asdict()) + b"]"


async def _refuses_altered(checker: PageChecker, event: SignedEvent) -> None:
    wrong = event._replace(sig=event.sig[::-1])
    page = Page(_EOSE, (event._replace(content="!")._asdict(), wrong._asdict()), 0, 0)
    checked = await checker.check(page, {})
    # Known ids are not checked again: only the altered text is refused then.
    assert checked.refused["wrong-id"] == 1, "it takes an altered event"
    assert checked.known or checked.refused["wrong-signature"] == 1, "it takes a wrong signature"


async def _tick(late: list[float], every: float = 0.005) -> None:
    """How many seconds too late the loop comes back: what a page costs all other relays."""
    while True:
        due = time.monotonic() + every
        await asyncio.sleep(every)
        late.append(time.monotonic() - due)


def main(case: str, path: str, port: str) -> str | Awaitable[str]:
    """Run one case."""
    events = load(Path(path))
    gc.freeze()  # the events that wait to be measured are nobody's garbage
    match case.split(":"):
        case ["signature"]:
            return signature(events)
        case ["nostr-tools"]:
            return peer(events, tools_check)
        case ["nostr-sdk"]:
            return peer(events, sdk_check)
        case ["nostr-sdk-fetch"]:
            return sdk_fetch(events, int(port))
        case ["beside"]:
            collect_rarely()
            return beside(events)
        case ["steps"]:
            collect_rarely()
            return steps(events)
        case ["ours", known, lanes]:
            collect_rarely()
            return ours(events, int(port), float(known), int(lanes))
    raise SystemExit(f"no such case: {case}")


if __name__ == "__main__":
    result = main(*sys.argv[1:])
    print(result if isinstance(result, str) else asyncio.run(result))  # type: ignore[arg-type]
