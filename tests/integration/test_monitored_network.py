"""A network of some hundred endpoints, most of them dead in every way, and two monitors."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import pytest
from bench.strangers import alert, drip, page, quietly, silent

from bigbrotr import BigBrotr
from components.databases import Database
from components.services import environment, run
from nostr.urls import RelayUrl, to_relay
from scripted_relay import ScriptedRelay, make_events
from standalone.processes import free_port

EACH = 50  # endpoints of a kind
OUTCOMES = {
    "alive": "ok",
    "silent": "timeout",
    "drip": "timeout",
    "alert": "tls",
    "page": "http-status",
    "refused": "refused",
}


@pytest.fixture
async def network() -> AsyncIterator[dict[RelayUrl, str]]:
    """Endpoints, each with the outcome that a check of it should have."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(ScriptedRelay(make_events(3)))
        ports = {"alive": relay.port, "refused": free_port()}
        for talk in (silent, alert, drip, page):
            serve = partial(asyncio.start_server, quietly(talk), "127.0.0.1", 0, backlog=500)
            server = await stack.enter_async_context(await serve())
            ports[talk.__name__] = server.sockets[0].getsockname()[1]
        yield {
            RelayUrl.parse(f"wss://127.0.0.1:{port}/{number}", allow_private=True): OUTCOMES[kind]
            for kind, port in ports.items()
            for number in range(EACH)
        }


async def test_two_monitors_share_a_network_that_is_mostly_dead(
    db: BigBrotr, database: Database, network: dict[RelayUrl, str]
) -> None:
    await db.insert_relay_batch([to_relay(url) for url in network], 1)
    env = environment(
        database,
        MONITOR_NUM_CORES=1,
        MONITOR_REQUESTS_PER_CORE=40,
        MONITOR_CHECKS_PER_HOST=40,
        MONITOR_CHUNK_SIZE=10,
        MONITOR_REQUEST_TIMEOUT=3,
    )
    ended = await asyncio.gather(*(run("monitor", env, "--once") for _ in range(2)))
    for code, output in ended:
        assert code == 0, output
        assert "check_outcomes" in output
        assert " checked=0" not in output, "the other one did it all"

    rows = await db.fetch("SELECT relay_url, outcome, checks FROM relay_facts")
    assert {row["relay_url"]: row["outcome"] for row in rows} == {
        url.url: outcome for url, outcome in network.items()
    }
    assert Counter(row["checks"] for row in rows) == {1: len(network)}, "none twice"
    resting = await db.fetchone(
        "SELECT count(*) FILTER (WHERE failures = 1) AS dead, "
        "count(*) FILTER (WHERE owner IS NOT NULL) AS leased FROM relay_tasks"
    )
    assert resting is not None
    assert (resting["dead"], resting["leased"]) == (5 * EACH, 0)
