"""ScriptedRelay with the rest of the fault model: what needs state, time or a second answer.

Further knobs (each 0, "" or None when the relay is well-behaved):
    ties               "random": the events of one second come in another order each time
    hint               also "lie": "finish" on every page, whatever was left out
    eose               also "first" (before the events), "twice", and "middle" (one in the middle
                       of the events, one after them)
    over_limit         sends so many events more than the limit asks for
    cap_low            the cap of each page is drawn from cap_low..cap
    cap_by_load        the cap is divided by the number of pages being answered at once
    cap_by_filter      caps of filters that have such a key, {"kinds": 30}
    noise              raw JSON texts sent as events with every page, counted against no cap
    refuse             text of refusals; a refusal is a CLOSED, or with `as_notice` a NOTICE
    refuse_every       refuses every n-th REQ; 1 refuses all
    silent_every       answers every n-th REQ with nothing at all
    silent_times       ... so often in all (None: always)
    down_after         after so many REQs the relay is down: connections are dropped, and nobody
                       listens until `time_passes`
    auth_after         wants NIP-42 authentication from the n-th REQ on
    rate               (burst, a second): REQs it takes; above that CLOSED "rate-limited:"
    event_rate         the same of events sent; the page that exceeds it is closed in its middle
    max_subs           REQs open at once on a connection; above that a refusal, with `subs_notice`
                       a NOTICE
    latency            each answer waits for up to so many seconds
    drip               sends its frames byte by byte, so many seconds apart
    oversized_times    how often the oversized frame is sent (None: with every page)
    changes            (number of a REQ, "publish" | "delete", event): happens before that answer
What it saw: sent (ids), withheld (ids left out of a page that said "finish"), cut_in (seconds in
which a page was cut), asked (since and until of each REQ), added (ids published late, and how
many REQs came before), `manners` (of whoever asked). `complaints`, `outcomes`,
`looked_again_from` and `sent_before` (REQs and events before the first round of re-verification)
are notes of the test bed.
"""

import asyncio
import contextlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from scripted_relay import Event, ScriptedRelay, _Connection, _drop, _selects
from simnet.manners import Bucket, Manners

_TOO_MANY_SUBS = "error: too many concurrent REQs"


class HostileRelay(ScriptedRelay):
    """See the module's docstring for the knobs; `knobs` go to ScriptedRelay otherwise."""

    def __init__(
        self,
        events: Sequence[Event],
        *,
        ties: str = "",
        over_limit: int = 0,
        cap_low: int | None = None,
        cap_by_load: bool = False,
        cap_by_filter: Mapping[str, int] | None = None,
        noise: Sequence[str] = (),
        refuse: str = "",
        refuse_every: int = 0,
        refuse_times: int | None = None,
        as_notice: bool = False,
        subs_notice: bool = False,
        silent_every: int = 0,
        silent_times: int | None = None,
        down_after: int | None = None,
        auth_after: int | None = None,
        rate: tuple[float, float] | None = None,
        event_rate: tuple[float, float] | None = None,
        max_subs: int | None = None,
        latency: float = 0.0,
        drip: float = 0.0,
        oversized_times: int | None = None,
        changes: Sequence[tuple[int, str, Event]] = (),
        **knobs: Any,
    ) -> None:
        super().__init__(events, **knobs)
        self._oldest_first = sorted(
            self.events, key=lambda e: (e["created_at"], _reversed(e["id"]))
        )
        self._texts: dict[str, str] = {}
        self.ties = ties
        self.over_limit = over_limit
        self.cap_low = cap_low
        self.cap_by_load = cap_by_load
        self.cap_by_filter = dict(cap_by_filter or {})
        self.noise = list(noise)
        self.refuse = refuse
        self.refuse_every = refuse_every
        self.refuse_times = refuse_times
        self.as_notice = as_notice
        self.subs_notice = subs_notice
        self.silent_every = silent_every
        self.silent_times = silent_times
        self.down_after = down_after
        self.auth_after = auth_after
        self.max_subs = max_subs
        self.latency = latency
        self.drip = drip
        self.oversized_times = oversized_times
        self.changes = list(changes)
        self.sent: set[str] = set()
        self.withheld: set[str] = set()
        self.cut_in: set[int] = set()
        self.events_sent = 0
        self.asked: list[tuple[int, int]] = []
        self.added: dict[str, int] = {}
        self.manners = Manners(self.nip11)
        self.complaints: list[str] = []
        self.outcomes: set[str] = set()
        self.looked_again_from: int | None = None
        self.sent_before = 0
        self._requests_left = Bucket(*rate) if rate else None
        self._events_left = Bucket(*event_rate) if event_rate else None
        self._answering = 0
        self._down = False

    async def time_passes(self) -> None:
        """Hours later: what was down is up again, and pauses are over."""
        self.manners.time_passes()
        if self._down:
            self._down = False
            await self._listen(self.port)

    def forget(self) -> None:
        """What was asked and sent so far, by the monitor's check, does not count."""
        for seen in (self.asked, self.sent, self.withheld, self.cut_in):
            seen.clear()
        self.events_sent = 0
        self.manners = Manners(self.nip11)

    def matching(self, flt: dict[str, Any]) -> list[Event]:
        seconds = self._oldest_first
        first = bisect_left(seconds, flt.get("since", 0), key=_created_at)
        last = bisect_right(seconds, flt.get("until", 2**63), key=_created_at)
        found = seconds[first:last]
        if flt.keys() - {"since", "until", "limit"}:
            quick = {k: frozenset(v) if k in _SETS else v for k, v in flt.items()}
            found = [event for event in found if _selects(quick, event)]
        return found[::-1]

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.manners.connects()
        with contextlib.suppress(ConnectionError):
            return await super()._get(request)
        return web.Response(status=503)

    def _bears(self, length: int) -> bool:
        self.manners.sends(length)
        return super()._bears(length)

    async def _answer(self, connection: _Connection, verb: str, rest: list[Any]) -> None:
        if verb != "REQ":
            await super()._answer(connection, verb, rest)
            return
        name, flt = rest
        self.manners.asks(flt, len({*connection.tasks, name}))
        self._count(flt)
        number = len(self.asked)
        if self.down_after is not None and number >= self.down_after:
            self.down_after, self._down = None, True
            await self._stop_listening()
            await self.drop_all()
            return
        if self.auth_after is not None and number >= self.auth_after and not self.auth:
            self.auth = True
            await connection.send("AUTH", connection.challenge)
        if self._stays_silent(number):
            connection.tasks[name] = asyncio.create_task(asyncio.sleep(0))
            self.requests.append(flt)
        elif refusal := self._refuses(connection, name, number):
            self.requests.append(flt)
            await self._send_refusal(connection, name, refusal)
        else:
            await super()._answer(connection, verb, rest)

    def _count(self, flt: dict[str, Any]) -> None:
        self.asked.append((flt.get("since", 0), flt.get("until", 2**63)))
        for change in [change for change in self.changes if change[0] <= len(self.asked)]:
            self.changes.remove(change)
            self._change(change[1], change[2])

    def _change(self, what: str, event: Event) -> None:
        if what == "publish":
            self.events.append(event)
            self.added[event["id"]] = len(self.asked) - 1
        else:
            self.events.remove(event)
        self._oldest_first = sorted(
            self.events, key=lambda e: (e["created_at"], _reversed(e["id"]))
        )

    def _stays_silent(self, number: int) -> bool:
        if not self.silent_every or number % self.silent_every or self.silent_times == 0:
            return False
        if self.silent_times is not None:
            self.silent_times -= 1
        return True

    def _refuses(self, connection: _Connection, name: str, number: int) -> str:
        if self._requests_left and not self._requests_left.take(1):
            self.manners.limited()
            return "rate-limited: too many requests"
        if self._events_left and self._events_left.is_empty():
            self.manners.limited()
            return "rate-limited: too many events"
        if self.max_subs is not None and len({*connection.tasks, name}) > self.max_subs:
            return _TOO_MANY_SUBS
        if self.refuse_every and number % self.refuse_every == 0 and self.refuse_times != 0:
            if self.refuse_times is not None:
                self.refuse_times -= 1
            if self.refuse.startswith("rate-limited"):
                self.manners.limited()
            return self.refuse
        return ""

    async def _send_refusal(self, connection: _Connection, name: str, text: str) -> None:
        if self.subs_notice if text == _TOO_MANY_SUBS else self.as_notice:
            await connection.send("NOTICE", text)
        else:
            await connection.send("CLOSED", name, text)

    async def _page(self, connection: _Connection, name: str, flt: dict[str, Any]) -> None:
        self._answering += 1
        try:
            with contextlib.suppress(ConnectionError):
                await self._serve_page(connection, name, flt)
        finally:
            self._answering -= 1

    async def _serve_page(self, connection: _Connection, name: str, flt: dict[str, Any]) -> None:
        if self.latency:
            await asyncio.sleep(self._random.uniform(0, self.latency))
        if refusal := self._refusal(connection):
            connection.tasks.pop(name, None)
            await connection.send("CLOSED", name, refusal)
            return
        if self.notice:
            await connection.send("NOTICE", self.notice)
        breaks = self.oversized and self.oversized_times != 0
        await self._send_garbage(connection)
        chosen, complete = self._choose(flt)
        frames = [f'["EVENT","{name}",{raw}]' for raw in self.noise]
        frames += [
            f'["EVENT","{name}",{self._text(e)}]' for e in chosen for _ in range(self.repeat)
        ]
        end = json.dumps(["EOSE", name, *self._hint(complete)])
        match self.eose:
            case "first":
                frames.insert(0, end)
            case "twice":
                frames += [end, end]
            case "middle":
                # Not before the first event: that would be "first".
                middle = len(self.noise) + (len(frames) - len(self.noise) + 1) // 2
                # Without a hint: "finish" here would be the lie of another fault.
                frames = [*frames[:middle], json.dumps(["EOSE", name]), *frames[middle:], end]
            case "never":
                pass
            case _:
                frames.append(end)
        if not await self._send_frames(connection, name, frames):
            return
        # After an oversized frame nobody listens any more, nor after an EOSE before all events.
        if self.eose != "first" and not breaks:
            self.sent.update(event["id"] for event in chosen)

    def _hint(self, complete: bool) -> list[list[str]]:
        match self.hint:
            case "":
                return []
            case "auto":
                return [["finish" if complete else "more"]]
            case "lie":
                return [["finish"]]
            case word:
                return [[word]]

    async def _send_frames(self, connection: _Connection, name: str, frames: Sequence[str]) -> bool:
        for frame in frames:
            if frame.startswith('["EOSE"') and self.eose == "late":
                await asyncio.sleep(self.eose_delay)
            elif frame.startswith('["EVENT"'):
                self.events_sent += 1
                self._sent += 1
                if self._must_drop():
                    _drop(connection.socket)
                    return False
                if self._events_left and not self._events_left.take(1):
                    self.manners.limited()
                    connection.tasks.pop(name, None)
                    await connection.send("CLOSED", name, "rate-limited: too many events")
                    return False
                if self.delay:
                    await asyncio.sleep(self.delay)
            if self.drip:
                await self._drip(connection, frame)
            else:
                await connection.socket.send_str(frame)
        return True

    async def _drip(self, connection: _Connection, frame: str) -> None:
        request = connection.socket._req
        assert request is not None
        raw = frame.encode()
        for byte in b"\x81\x7e" + len(raw).to_bytes(2, "big") + raw:
            if request.transport is None or request.transport.is_closing():
                return
            request.transport.write(bytes([byte]))
            await asyncio.sleep(self.drip)

    async def _send_garbage(self, connection: _Connection) -> None:
        size = self.oversized
        if size and self.oversized_times is not None:
            self.oversized = size if self.oversized_times > 0 else 0
            self.oversized_times -= 1
        with contextlib.suppress(ConnectionError):
            await super()._send_garbage(connection)

    def _choose(self, flt: dict[str, Any]) -> tuple[list[Event], bool]:
        since = flt.get("since", 0) + self.since_exclusive
        until = flt.get("until", 2**63) - self.until_exclusive
        events = self.matching({**flt, "since": since, "until": until})
        if self.ties:
            self._random.shuffle(events)
            events.sort(key=_created_at, reverse=True)
        if self.order == "asc":
            events.reverse()
        elif self.order == "random":
            self._random.shuffle(events)
        size = min(len(events), self._page_size(flt))
        if self.empty_lie and self.empty_lie(flt):
            size = 0
        self._note_cut(events[:size], events[size:])
        return events[:size], size == len(events)

    def _note_cut(self, chosen: Sequence[Event], left: Sequence[Event]) -> None:
        if self.hint == "lie":
            self.withheld.update(event["id"] for event in left)
        ordered = self.order != "random" and chosen
        seconds = {_created_at(event) for event in (chosen[-1:] if ordered else left)}
        if left:
            self.cut_in |= seconds

    def _page_size(self, flt: dict[str, Any]) -> int:
        cap = 10**9 if self.cap is None else self.cap
        if self.cap_low is not None:
            cap = self._random.randint(self.cap_low, cap)
        if self.cap_by_load:
            cap = max(20, cap // max(1, self._answering))
        cap = min([cap, *(size for key, size in self.cap_by_filter.items() if key in flt)])
        if self.ignore_limit or "limit" not in flt:
            return cap
        return min(cap, flt["limit"] + self.over_limit)

    def _text(self, event: Event) -> str:
        text = self._texts.get(event["id"])
        if text is None:
            text = self._texts[event["id"]] = json.dumps(event, ensure_ascii=False)
        return text


_SETS = frozenset({"ids", "authors", "kinds"})


def _created_at(event: Event) -> int:
    created_at: int = event["created_at"]
    return created_at


def _reversed(hexadecimal: str) -> int:
    return -int(hexadecimal, 16)
