"""Publishing what was found (NIP-66): accepted by a real relay, and read back by our finder."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from nostr_sdk import Event

from bigbrotr import BigBrotr
from components.databases import Database
from components.relays import StartRelay
from components.services import environment, run
from config import KeypairConfig
from event_rows import write_events
from monitoring import publisher
from monitoring.publisher import Publisher
from nostr.connection import Dialer
from nostr.events import parse_event, verify_signatures
from nostr.nip66 import DISCOVERY, Draft
from nostr.urls import RelayUrl, to_relay
from scripted_relay import ScriptedRelay
from standalone.processes import free_port
from standalone.signing import Author

AUTHOR = Author("publisher")
KEYPAIR = KeypairConfig(AUTHOR.secret_key, AUTHOR.pubkey)
Relay = ScriptedRelay


DIALER = Dialer(None, allow_private=True, connect_timeout=2)


def draft(name: str, at: int = 1_760_000_000) -> Draft:
    return Draft(DISCOVERY, [["d", f"wss://{name}.example/"], ["n", "clearnet"]], "", at)


@asynccontextmanager
async def publishing(*relays: RelayUrl, timeout: float = 1.0) -> AsyncIterator[Publisher]:
    async with Publisher(relays, DIALER, KEYPAIR, timeout=timeout) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_FIRST_PAUSE_SECONDS", 0.1)


async def test_every_relay_gets_every_event() -> None:
    async with Relay() as one, Relay() as two, publishing(one.url, two.url) as running:
        for name in "abc":
            running.offer(draft(name))
        await running.drain(10)
        assert running.counts == {"published": 6}
        assert len(one.published) == len(two.published) == 3
        events = [parse_event(event) for event in one.published]
    assert verify_signatures(events) == [True, True, True]
    assert {event.pubkey for event in events} == {AUTHOR.pubkey}


async def test_a_newer_event_takes_the_place_of_one_that_waits() -> None:
    async with Relay(publish="silent") as relay, publishing(relay.url, timeout=0.2) as running:
        running.offer(draft("a", 1))
        await until(lambda: len(relay.published) == 1)
        running.offer(draft("a", 2))
        running.offer(draft("a", 3))
        relay.publish = "accept"
        await running.drain(10)
    assert [event["created_at"] for event in relay.published][-1] == 3
    assert 2 not in [event["created_at"] for event in relay.published]


async def test_a_dead_relay_holds_up_no_other() -> None:
    dead = RelayUrl.parse(f"wss://127.0.0.1:{free_port()}", allow_private=True)
    async with Relay() as relay, publishing(dead, relay.url) as running:
        running.offer(draft("a"))
        await running.drain(0.3)
        assert len(relay.published) == 1


async def test_what_was_rate_limited_is_sent_again_and_what_was_refused_is_not() -> None:
    async with Relay(publish="rate-limited: slow down") as relay, publishing(relay.url) as running:
        running.offer(draft("a"))
        await until(lambda: len(relay.published) >= 2)
        relay.publish = "blocked: not you"
        await running.drain(10)
        assert running.counts == {"publications_refused": 1}
        sent = len(relay.published)
        running.offer(draft("b"))
        await running.drain(10)
        assert len(relay.published) == sent + 1


async def test_an_event_without_an_answer_keeps_no_other_waiting() -> None:
    async with Relay() as relay, publishing(relay.url, timeout=0.3) as running:
        relay.publish = "silent"
        running.offer(draft("mute"))
        await until(lambda: len(relay.published) == 1)
        running.offer(draft("other"))
        await until(lambda: len(relay.published) == 2)
        assert relay.published[1]["tags"][0] == ["d", "wss://other.example/"]


async def test_it_signs_in_where_that_is_asked() -> None:
    async with Relay(auth=True) as relay, publishing(relay.url) as running:
        running.offer(draft("a"))
        await running.drain(10)
        assert running.counts == {"published": 1}


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MOST_WAITING", 3)
    dead = RelayUrl.parse(f"wss://127.0.0.1:{free_port()}", allow_private=True)
    async with publishing(dead) as running:
        for number in range(10):
            running.offer(draft(f"r{number}"))
        assert running.counts["publications_dropped"] == 7


async def test_without_relays_there_is_nothing_to_wait_for() -> None:
    async with publishing() as running:
        running.offer(draft("a"))
        await running.drain(10)
    assert running.counts == {}


async def test_a_real_relay_takes_it_and_the_finder_reads_it_back(
    db: BigBrotr, database: Database, local_relay: StartRelay, nostr_relay: StartRelay
) -> None:
    board, checked = await local_relay([]), await nostr_relay([])
    dead = f"wss://127.0.0.1:{free_port()}"
    known = [RelayUrl.parse(url, allow_private=True) for url in (checked.url, dead)]
    await db.insert_relay_batch([to_relay(url) for url in known], 1)
    env = environment(
        database,
        SECRET_KEY=AUTHOR.secret_key,
        PUBLIC_KEY=AUTHOR.pubkey,
        MONITOR_NUM_CORES=1,
        MONITOR_REQUEST_TIMEOUT=3,
        MONITOR_PUBLISH_RELAYS=board.websocket,
        FINDER_AGGREGATOR_URLS="",
    )
    code, output = await run("monitor", env, "--once")
    assert code == 0, output
    assert "published=2" in output

    url = RelayUrl.parse(board.url, allow_private=True)
    async with await DIALER.connect(url) as connection:
        page = await connection.page(
            {"kinds": [10166, 30166], "limit": 10}, idle_timeout=3, max_events=10
        )
    parsed = [parse_event(event) for event in page.events]
    events = {event.kind: event for event in parsed}
    assert set(events) == {10166, 30166}
    assert all(verify_signatures(parsed))
    for event in page.events:
        assert Event.from_json(json.dumps(event)).verify()
    tags = events[30166].tags
    assert ["d", f"{checked.websocket}/"] in tags, "that it speaks no TLS is part of the URL"
    assert {"rtt-open", "rtt-read", "rtt-write", "N", "R", "n"} <= {tag[0] for tag in tags}
    assert ["frequency", "28800"] in events[10166].tags

    # Somebody who has never heard of the relay: first the events are in the archive, then the
    # finder asks the relay that has them.
    async def write(conn: asyncpg.Connection) -> object:
        return await write_events(conn, url, 1_760_000_000, parsed)

    for asked in ("", board.websocket):
        await db.execute("DELETE FROM relays WHERE url = $1", checked.url)
        await db.execute("DELETE FROM relay_candidates")
        if not asked:
            await db.run_in_transaction(write)
        code, output = await run("finder", env | {"FINDER_NIP66_RELAYS": asked}, "--once")
        assert code == 0, output
        rows = await db.fetch("SELECT url FROM relays UNION SELECT url FROM relay_candidates")
        assert checked.url in {row["url"] for row in rows}, asked or "in the archive"
