"""Loading events into a relay and asking which of them it serves: the demo's ground truth.

It shares no code with the synchronizer: what a relay holds is found by asking for the ids.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import aiohttp
import orjson

from standalone.signing import DemoEvent

T = TypeVar("T")

_TIMEOUT = 60.0


@dataclass(slots=True)
class Publication:
    """What a relay answered to the events it was given."""

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)


async def publish(
    websocket: str,
    events: Sequence[DemoEvent],
    *,
    per_connection: int = 250,
    connections: int = 4,
) -> Publication:
    """Send `events` in EVENT messages, in order within each of several connections.

    A connection carries at most `per_connection` events: some relays end it after 300.
    """
    result = Publication()
    chunks = list(_chunks(events, per_connection))
    async with aiohttp.ClientSession() as session:
        for round_ in _chunks(chunks, connections):
            await asyncio.gather(
                *(_publish_chunk(session, websocket, chunk, result) for chunk in round_)
            )
    return result


async def _publish_chunk(
    session: aiohttp.ClientSession,
    websocket: str,
    events: Sequence[DemoEvent],
    result: Publication,
) -> None:
    waiting = {event.id for event in events}
    async with session.ws_connect(websocket, max_msg_size=0) as connection:
        sender = asyncio.create_task(_send(connection, events))
        for _ in events:
            message = await connection.receive(_TIMEOUT)
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            answer = orjson.loads(message.data)
            if answer[0] != "OK":
                continue
            waiting.discard(answer[1])
            if answer[2] or str(answer[3]).startswith("duplicate:"):
                result.accepted.add(answer[1])
            else:
                result.refused[answer[1]] = str(answer[3])
        await sender
    # nostr-relay names no id when it refuses an event.
    result.refused.update(dict.fromkeys(waiting, "no answer with its id"))


async def _send(connection: aiohttp.ClientWebSocketResponse, events: Sequence[DemoEvent]) -> None:
    for event in events:
        await connection.send_str('["EVENT",' + event.to_json().decode() + "]")


async def served(websocket: str, ids: Collection[str], *, page: int = 200) -> set[str]:
    """Those of `ids` that the relay serves when asked for them, `page` ids at a time.

    `page` has to be below the relay's cap. Raises ConnectionError when it breaks off.
    """
    found: set[str] = set()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(websocket, max_msg_size=0) as connection,
    ):
        for number, chunk in enumerate(_chunks(sorted(ids), page)):
            await connection.send_json(["REQ", f"held{number}", {"ids": chunk, "limit": page}])
            found.update([event_id async for event_id in _until_eose(connection)])
            await connection.send_json(["CLOSE", f"held{number}"])
    return found


async def _until_eose(connection: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str]:
    while True:
        message = await connection.receive(_TIMEOUT)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionError(f"the relay ended the connection ({message.type.name})")
        answer = orjson.loads(message.data)
        if answer[0] == "EOSE":
            return
        if answer[0] == "EVENT":
            yield str(answer[2]["id"])


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
