"""A relay that costs little: `python -m bench.relay EVENTS CAP PORT [DELAYED_PORT RTT_MS]`.

It serves since, until, limit and ids from memory, newest first, at most CAP events a request,
and counts what it sends (`GET /counts`). Any path is the same relay, but below `/endless` it sends
events for ever, without EOSE; below `/large` each event has a member of 200 KB that means nothing,
which makes 100 MB of a page of 500; and below `/altered` no event is what its author signed. The
delayed port leads to the same relay through a TCP proxy that adds a round trip.
"""

import asyncio
import struct
import sys
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from aiohttp import WSMsgType, web

_CHUNK = 65_536
_PADDING = b',"padding":"' + b"x" * 200_000 + b'"}'


class Relay:
    """Events by time, ready to be sent."""

    def __init__(self, lines: list[bytes], cap: int) -> None:
        events = [(orjson.loads(line), line) for line in lines]
        keyed = sorted((event["created_at"], event["id"], line) for event, line in events)
        self._times = [time for time, _, _ in keyed]
        self._frames = [line for _, _, line in keyed]
        self._by_id = {id_: line for _, id_, line in keyed}
        self._cap = cap
        self.counts: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket, or the counts."""
        if request.path == "/counts":
            return web.json_response(dict(self.counts))
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPNotFound
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        floods: dict[str, asyncio.Task[None]] = {}
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            verb, name, *filters = orjson.loads(message.data)
            if verb == "CLOSE" and name in floods:
                floods.pop(name).cancel()
            elif verb == "REQ" and request.path.startswith("/endless"):
                self.counts["floods"] += 1
                floods[name] = asyncio.create_task(self._flood(socket, name))
            elif verb == "REQ" and request.path.startswith("/large"):
                await self._answer_large(socket, name, filters)
            elif verb == "REQ":
                altered = request.path.startswith("/altered")
                await self._answer(socket, transport, name, filters, altered)
        for task in floods.values():
            task.cancel()
        return socket

    async def _answer(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        name: str,
        filters: list[dict[str, Any]],
        altered: bool,
    ) -> None:
        head = b'["EVENT",' + orjson.dumps(name) + b","
        self.counts["requests"] += 1
        with suppress(ConnectionError):
            for flt in filters:
                events = list(self._matching(flt))
                if altered:
                    events = [event.replace(b'"content":"', b'"content":"!') for event in events]
                frames = [_text_frame(head + event + b"]") for event in events]
                self.counts["events"] += len(frames)
                # A system call a page, not an event: the client must not wait for this relay.
                transport.write(b"".join(frames))
            await socket.send_frame(orjson.dumps(["EOSE", name]), WSMsgType.TEXT)

    async def _answer_large(
        self, socket: web.WebSocketResponse, name: str, filters: list[dict[str, Any]]
    ) -> None:
        head = b'["EVENT",' + orjson.dumps(name) + b","
        self.counts["large pages"] += 1
        with suppress(ConnectionError):
            for flt in filters:
                for event in self._matching(flt):
                    frame = head + event[:-1] + _PADDING + b"]"
                    self.counts["large bytes"] += len(frame)
                    await socket.send_frame(frame, WSMsgType.TEXT)
            await socket.send_frame(orjson.dumps(["EOSE", name]), WSMsgType.TEXT)

    def _matching(self, flt: dict[str, Any]) -> Iterator[bytes]:
        limit = min(flt.get("limit", self._cap), self._cap)
        if "ids" in flt:
            yield from [self._by_id[id_] for id_ in flt["ids"] if id_ in self._by_id][:limit]
            return
        first = bisect_left(self._times, flt.get("since", 0))
        last = bisect_right(self._times, flt.get("until", 2**62))
        yield from reversed(self._frames[max(first, last - limit) : last])

    async def _flood(self, socket: web.WebSocketResponse, name: str) -> None:
        head = b'["EVENT",' + orjson.dumps(name) + b","
        with suppress(ConnectionError):
            while True:
                for frame in self._frames:
                    await socket.send_frame(head + frame + b"]", WSMsgType.TEXT)
                    self.counts["flooded"] += 1
                await asyncio.sleep(0)


def _text_frame(payload: bytes) -> bytes:
    """A whole, unmasked text message of RFC 6455."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x81, size) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


async def delay(port: int, target: int, rtt: float) -> asyncio.Server:
    """A TCP proxy that hands everything on half a round trip (seconds) later."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1_000)

        async def send() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - loop.time())
                writer.write(data)
                if not data:
                    break
                await writer.drain()

        sender = asyncio.create_task(send())
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await queue.put((loop.time() + rtt / 2, data))
        await queue.put((loop.time(), b""))
        with suppress(ConnectionError):
            await sender
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, onward_writer), pump(onward_reader, writer))

    return await asyncio.start_server(accept, "127.0.0.1", port)


async def serve(arguments: list[str]) -> None:
    """Serve until killed."""
    path, cap, port, *delayed = arguments
    relay = Relay(Path(path).read_bytes().splitlines(), int(cap))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    servers = [
        await delay(int(at), int(port), float(rtt) / 1000)
        for at, rtt in zip(delayed[::2], delayed[1::2], strict=True)
    ]
    await web.TCPSite(runner, "127.0.0.1", int(port)).start()
    await asyncio.Event().wait()
    del servers


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
