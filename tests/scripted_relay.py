"""A relay that misbehaves on command, with its ground truth known.

    events = make_events(1_000, start=1_700_000_000, per_second=3)
    async with ScriptedRelay(events, cap=100, order="asc") as relay:
        connection = await relay.dialer().connect(relay.url)

It serves a list of event objects over a real WebSocket on a free port of 127.0.0.1, with its
own filter matching (shared with nothing in src/). Every knob is an attribute and may be turned
while it runs; `requests` lists the filters of all REQs in order, `relay.matching(flt)` is the
truth.

How it answers a REQ:
    cap                the most events it ever sends for one REQ, silently (None: no cap)
    order              "desc" (NIP-01: newest first, ties by id ascending), "asc" or "random"
    until_exclusive    created_at < until instead of <=
    since_exclusive    created_at > since instead of >=
    ignore_limit       sends up to cap whatever the limit asks for
    eose               "always"; "never" (silence after the events); "late" (after eose_delay
                       seconds)
    hint               the word in EOSE's third element; "auto" says "finish" or "more" truthfully
    closed             answers the next REQs with this CLOSED text, `closed_times` times (None:
                       always)
    closed_to          sends CLOSED only to filters for which this function is true
    silent_to          answers such filters with a NOTICE and nothing else
    empty_lie          answers EOSE with no events to filters for which this function is true
    extra              event objects sent with every page whatever the filter is
    repeat             how often each event is sent
    garbage            raw frames (str or bytes) sent before the events of each page
    oversized          sends one text frame of this many bytes before the events
    notice             NOTICE text sent before the events
    delay              seconds between two events
    drop_after         drops the TCP connection after this many EVENT messages, `drop_times`
                       times (None: always)
How it answers NEG-OPEN (NIP-77):
    negentropy         True: reconciles; False: NOTICE, as relays do that do not know the message;
                       "silent"; "old": the version byte of another protocol; any other text is
                       a NOTICE, or NEG-ERR if it starts in lower case ("blocked: ...")
    neg_records        refuses sets of more events, with NEG-ERR and this number
    neg_cap            cuts sets to their newest events, silently
    neg_frame          bytes of an answer, before hex
    neg_hides          leaves out of its sets, but not of pages, what this function chooses
How it treats a connection:
    message_limit      drops the connection when a longer message comes
    auth               sends an AUTH challenge on connect and answers REQ and EVENT with
                       "auth-required:" until a right kind 22242 came; "restricted" accepts the
                       AUTH and then answers "restricted:"
    publish            "accept", "silent", or the text of an OK false
    counts             answers COUNT with the truth (else CLOSED)
    upgrade            False: answers the upgrade with HTTP 403
    nip11              the document for GET with Accept: application/nostr+json; bytes are sent
                       as they are, a number is an HTTP status
    nip11_type         its Content-Type
    nip11_drip         seconds between two bytes of the document
    deflate            False: no permessage-deflate
    host               the loopback address it listens on
What it saw: requests, negotiations (filters of NEG-OPEN), neg_messages (how many NEG-OPEN and
NEG-MSG), published, connections (open now), connected (in all), closes, auths.
"""

import asyncio
import json
import random
import ssl
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import Any

from aiohttp import WSMsgType, web
from coincurve import PrivateKey

from negentropy_server import NegentropyServer
from nostr.connection import Dialer
from nostr.urls import RelayUrl

Event = dict[str, Any]


def make_event(
    *,
    created_at: int,
    kind: int = 1,
    content: str = "",
    tags: Sequence[Sequence[str]] = (),
    author: int = 1,
) -> Event:
    """A signed event of one of a few test authors (1, 2, 3, ...)."""
    key = PrivateKey.from_int(author)
    pubkey = key.public_key.format()[1:].hex()
    fields = [0, pubkey, created_at, kind, [list(tag) for tag in tags], content]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    id_ = sha256(text.encode()).digest()
    return {
        "id": id_.hex(),
        "pubkey": pubkey,
        "created_at": created_at,
        "kind": kind,
        "tags": fields[4],
        "content": content,
        "sig": key.sign_schnorr(id_).hex(),
    }


def make_events(
    count: int, *, start: int = 1_700_000_000, per_second: int = 1, kind: int = 1, author: int = 1
) -> list[Event]:
    """Signed events from `start` on, `per_second` of them in each second."""
    return [
        make_event(
            created_at=start + number // per_second,
            kind=kind,
            content=f"event {number}",
            author=author,
        )
        for number in range(count)
    ]


class ScriptedRelay:
    """See the module's docstring for the knobs."""

    def __init__(
        self,
        events: Sequence[Event] = (),
        *,
        cap: int | None = 500,
        order: str = "desc",
        until_exclusive: bool = False,
        since_exclusive: bool = False,
        ignore_limit: bool = False,
        eose: str = "always",
        eose_delay: float = 0.0,
        hint: str = "",
        closed: str | None = None,
        closed_times: int | None = None,
        closed_to: Callable[[dict[str, Any]], bool] | None = None,
        silent_to: Callable[[dict[str, Any]], bool] | None = None,
        empty_lie: Callable[[dict[str, Any]], bool] | None = None,
        extra: Sequence[Event] = (),
        repeat: int = 1,
        garbage: Sequence[str | bytes] = (),
        oversized: int = 0,
        notice: str = "",
        delay: float = 0.0,
        drop_after: int | None = None,
        drop_times: int | None = None,
        negentropy: bool | str = False,
        neg_records: int | None = None,
        neg_cap: int | None = None,
        neg_frame: int = 10**9,
        neg_hides: Callable[[Event], bool] | None = None,
        message_limit: int | None = None,
        auth: bool | str = False,
        publish: str = "accept",
        counts: bool = False,
        upgrade: bool = True,
        nip11: object = None,
        nip11_type: str = "application/nostr+json",
        nip11_drip: float = 0.0,
        deflate: bool = True,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        seed: int = 0,
    ) -> None:
        self.events = list(events)
        self.cap = cap
        self.order = order
        self.until_exclusive = until_exclusive
        self.since_exclusive = since_exclusive
        self.ignore_limit = ignore_limit
        self.eose = eose
        self.eose_delay = eose_delay
        self.hint = hint
        self.closed = closed
        self.closed_times = closed_times
        self.closed_to = closed_to
        self.silent_to = silent_to
        self.empty_lie = empty_lie
        self.extra = list(extra)
        self.repeat = repeat
        self.garbage = list(garbage)
        self.oversized = oversized
        self.notice = notice
        self.delay = delay
        self.drop_after = drop_after
        self.drop_times = drop_times
        self.negentropy = negentropy
        self.neg_records = neg_records
        self.neg_cap = neg_cap
        self.neg_frame = neg_frame
        self.neg_hides = neg_hides
        self.message_limit = message_limit
        self.auth = auth
        self.publish = publish
        self.counts = counts
        self.upgrade = upgrade
        self.nip11 = nip11
        self.nip11_type = nip11_type
        self.nip11_drip = nip11_drip
        self.deflate = deflate
        self.host = host
        self.requests: list[dict[str, Any]] = []
        self.negotiations: list[dict[str, Any]] = []
        self.neg_messages = 0
        self.published: list[Event] = []
        self.auths: list[Event] = []
        self.closes: list[str] = []
        self.connections = 0
        self.connected = 0
        self.port = 0
        self._tls = tls
        self._random = random.Random(seed)
        self._sent = 0
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def url(self) -> RelayUrl:
        return RelayUrl.parse(f"ws://{self.host}:{self.port}", allow_private=True)

    def dialer(self, **settings: Any) -> Dialer:
        """A dialer that may reach it."""
        defaults = {"socks5_url": None, "allow_private": True, "connect_timeout": 5.0}
        return Dialer(**{**defaults, **settings})

    def matching(self, flt: dict[str, Any]) -> list[Event]:
        """The truth: all events that NIP-01 selects, newest first, whatever the limit."""
        events = [event for event in self.events if _selects(flt, event)]
        return sorted(events, key=lambda event: (-event["created_at"], event["id"]))

    async def drop_all(self) -> None:
        """Drops every connection at once, without a word."""
        for socket in list(self._sockets):
            _drop(socket)

    async def __aenter__(self) -> "ScriptedRelay":
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._get)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen(0)
        return self

    async def _listen(self, port: int) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, self.host, port, ssl_context=self._tls)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop_listening(self) -> None:
        assert self._site is not None
        await self._site.stop()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.drop_all()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return await self._document(request)
        if not self.upgrade:
            return web.Response(status=403)
        socket = web.WebSocketResponse(max_msg_size=0, compress=self.deflate)
        await socket.prepare(request)
        self._sockets.add(socket)
        self.connections += 1
        self.connected += 1
        try:
            await self._serve(socket)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._sockets.discard(socket)
            self.connections -= 1
        return socket

    async def _document(self, request: web.Request) -> web.StreamResponse:
        if self.nip11 is None or isinstance(self.nip11, int):
            return web.Response(status=self.nip11 or 404)
        raw = self.nip11 if isinstance(self.nip11, bytes) else json.dumps(self.nip11).encode()
        if not self.nip11_drip:
            return web.Response(body=raw, headers={"Content-Type": self.nip11_type})
        response = web.StreamResponse(headers={"Content-Type": self.nip11_type})
        await response.prepare(request)
        for byte in raw:
            await response.write(bytes([byte]))
            await asyncio.sleep(self.nip11_drip)
        return response

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        connection = _Connection(socket, f"challenge-{self.connected}")
        if self.auth:
            await connection.send("AUTH", connection.challenge)
        try:
            async for frame in socket:
                if frame.type is not WSMsgType.TEXT:
                    continue
                if not self._bears(len(frame.data.encode())):
                    _drop(socket)
                    return
                verb, *rest = json.loads(frame.data)
                await self._answer(connection, verb, rest)
        finally:
            for task in connection.tasks.values():
                task.cancel()

    def _bears(self, length: int) -> bool:
        return self.message_limit is None or length <= self.message_limit

    async def _answer(self, connection: "_Connection", verb: str, rest: list[Any]) -> None:
        if verb == "REQ":
            self.requests.append(rest[1])
            connection.tasks[rest[0]] = asyncio.create_task(
                self._page(connection, rest[0], rest[1])
            )
        elif verb == "CLOSE":
            self.closes.append(rest[0])
            if task := connection.tasks.pop(rest[0], None):
                task.cancel()
        elif verb in {"NEG-OPEN", "NEG-MSG", "NEG-CLOSE"}:
            await self._negotiate(connection, verb, rest)
        elif verb == "AUTH":
            self.auths.append(rest[0])
            connection.authenticated = self._is_right_auth(connection, rest[0])
            text = "" if connection.authenticated else "invalid: wrong challenge"
            await connection.send("OK", rest[0]["id"], connection.authenticated, text)
        elif verb == "EVENT":
            await self._take(connection, rest[0])
        elif verb == "COUNT":
            if self.counts:
                number = len(self.matching(rest[1]))
                await connection.send("COUNT", rest[0], {"count": number})
            else:
                await connection.send("CLOSED", rest[0], "unsupported: no COUNT here")

    async def _negotiate(self, connection: "_Connection", verb: str, rest: list[Any]) -> None:
        if verb == "NEG-CLOSE":
            self.closes.append(rest[0])
            connection.servers.pop(rest[0], None)
            return
        self.neg_messages += 1
        if verb == "NEG-OPEN":
            self.negotiations.append(rest[1])
            refusal = self._neg_refusal(connection, rest[0], rest[1])
            if refusal:
                await connection.send(*refusal)
                return
            connection.servers[rest[0]] = self._neg_server(rest[1])
        if self.negentropy == "silent":
            return
        server = connection.servers.get(rest[0])
        if server is None:
            await connection.send("NEG-ERR", rest[0], "closed: unknown subscription handle")
            return
        answer = b"\x60" if self.negentropy == "old" else server.answer(bytes.fromhex(rest[-1]))
        await connection.send("NEG-MSG", rest[0], answer.hex())

    def _neg_refusal(self, connection: "_Connection", name: str, flt: dict[str, Any]) -> list[Any]:
        if refusal := self._refusal(connection):
            return ["NEG-ERR", name, refusal]
        if self.negentropy is False:
            return ["NOTICE", "ERROR: bad msg: unknown cmd"]
        if self.neg_records is not None and len(self.matching(flt)) > self.neg_records:
            return ["NEG-ERR", name, "blocked: too many query results", self.neg_records]
        if self.negentropy in {True, "silent", "old"}:
            return []
        has_prefix = str(self.negentropy).split(" ")[0].islower()
        return ["NEG-ERR", name, self.negentropy] if has_prefix else ["NOTICE", self.negentropy]

    def _neg_server(self, flt: dict[str, Any]) -> NegentropyServer:
        events = [e for e in self.matching(flt) if not (self.neg_hides and self.neg_hides(e))]
        items = [(event["created_at"], event["id"]) for event in events[: self.neg_cap]]
        return NegentropyServer(items, self.neg_frame)

    async def _take(self, connection: "_Connection", event: Event) -> None:
        self.published.append(event)
        refusal = self._refusal(connection) or (self.publish if self.publish != "accept" else "")
        if refusal != "silent":
            await connection.send("OK", event["id"], not refusal, refusal)

    def _refusal(self, connection: "_Connection") -> str:
        if self.auth and not connection.authenticated:
            return "auth-required: sign in first"
        return "restricted: not you" if self.auth == "restricted" else ""

    def _is_right_auth(self, connection: "_Connection", event: Event) -> bool:
        return event["kind"] == 22242 and ["challenge", connection.challenge] in event["tags"]

    async def _page(self, connection: "_Connection", name: str, flt: dict[str, Any]) -> None:
        refusal = self._refusal(connection) or self._closed_text(flt)
        if refusal:
            await connection.send("CLOSED", name, refusal)
            return
        if self.silent_to and self.silent_to(flt):
            await connection.send("NOTICE", "ERROR: bad req: too long a list")
            return
        if self.notice:
            await connection.send("NOTICE", self.notice)
        await self._send_garbage(connection)
        chosen, complete = self._choose(flt)
        for event in [*self.extra, *chosen]:
            for _ in range(self.repeat):
                await connection.send("EVENT", name, event)
            self._sent += 1
            if self._must_drop():
                _drop(connection.socket)
                return
            if self.delay:
                await asyncio.sleep(self.delay)
        if self.eose == "late":
            await asyncio.sleep(self.eose_delay)
        if self.eose != "never":
            hint = self.hint if self.hint != "auto" else ("finish" if complete else "more")
            await connection.send("EOSE", name, *([[hint]] if hint else []))

    def _choose(self, flt: dict[str, Any]) -> tuple[list[Event], bool]:
        if self.empty_lie and self.empty_lie(flt):
            return [], True
        events = self.matching(flt)
        if self.until_exclusive and "until" in flt:
            events = [event for event in events if event["created_at"] < flt["until"]]
        if self.since_exclusive and "since" in flt:
            events = [event for event in events if event["created_at"] > flt["since"]]
        if self.order == "asc":
            events.reverse()
        elif self.order == "random":
            self._random.shuffle(events)
        limits = [self.cap, None if self.ignore_limit else flt.get("limit")]
        limit = min([len(events), *(limit for limit in limits if limit is not None)])
        return events[:limit], limit == len(events)

    def _closed_text(self, flt: dict[str, Any]) -> str:
        if self.closed is None or self.closed_times == 0:
            return ""
        if self.closed_to and not self.closed_to(flt):
            return ""
        if self.closed_times is not None:
            self.closed_times -= 1
        return self.closed

    async def _send_garbage(self, connection: "_Connection") -> None:
        for frame in self.garbage:
            if isinstance(frame, bytes):
                await connection.socket.send_bytes(frame)
            else:
                await connection.socket.send_str(frame)
        if self.oversized:
            await connection.socket.send_str('["NOTICE","' + "x" * self.oversized + '"]')

    def _must_drop(self) -> bool:
        if self.drop_after is None or self._sent < self.drop_after or self.drop_times == 0:
            return False
        self._sent = 0
        if self.drop_times is not None:
            self.drop_times -= 1
        return True


class _Connection:
    def __init__(self, socket: web.WebSocketResponse, challenge: str) -> None:
        self.socket = socket
        self.challenge = challenge
        self.authenticated = False
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.servers: dict[str, NegentropyServer] = {}

    async def send(self, *message: object) -> None:
        await self.socket.send_str(json.dumps(message, ensure_ascii=False))


def _drop(socket: web.WebSocketResponse) -> None:
    request = socket._req
    if request is not None and request.transport is not None:
        request.transport.abort()


def _selects(flt: dict[str, Any], event: Event) -> bool:
    tags = defaultdict(set)
    for tag in event["tags"]:
        if len(tag) > 1:
            tags["#" + tag[0]].add(tag[1])
    members = {"ids": "id", "authors": "pubkey", "kinds": "kind"}
    return (
        all(event[name] in flt[key] for key, name in members.items() if key in flt)
        and flt.get("since", 0) <= event["created_at"] <= flt.get("until", event["created_at"])
        and all(
            tags[key] & set(value)
            for key, value in flt.items()
            if key.startswith("#") and len(key) == 2
        )
    )
