"""Relays for tests, each on a free port of the loopback interface, loaded with events."""

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from nostr_sdk import LocalRelayBuilder, RateLimit

from standalone.processes import free_port
from standalone.relay_client import publish
from standalone.relays import start_nostr_relay
from standalone.signing import DemoEvent

# LocalRelay's defaults end a connection after 300 messages and refuse a flood of events.
PATIENT = RateLimit(max_reqs=1_000, notes_per_minute=100_000_000)


@dataclass(frozen=True, slots=True)
class TestRelay:
    """A running relay and the ids of the events that it accepted."""

    __test__ = False

    port: int
    accepted: frozenset[str]

    @property
    def url(self) -> str:
        """The canonical form, as the archive has it."""
        return f"wss://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        """Where it really listens."""
        return f"ws://127.0.0.1:{self.port}"


Customize = Callable[[LocalRelayBuilder], LocalRelayBuilder]


async def local_relay(
    stack: AsyncExitStack,
    events: Sequence[DemoEvent] = (),
    *,
    cap: int = 500,
    customize: Customize = lambda builder: builder,
) -> TestRelay:
    """nostr-sdk's LocalRelay in this process; `customize` may set more of its options."""
    port = free_port()
    builder = LocalRelayBuilder().addr("127.0.0.1").port(port).rate_limit(PATIENT)
    relay = customize(builder.default_filter_limit(cap).max_filter_limit(cap)).build()
    await relay.run()
    stack.callback(relay.shutdown)
    publication = await publish(f"ws://127.0.0.1:{port}", events)
    return TestRelay(port, frozenset(publication.accepted))


async def nostr_relay(stack: AsyncExitStack, events: Sequence[DemoEvent] = ()) -> TestRelay:
    """The PyPI package nostr-relay as a process of its own."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bigbrotr-relay-"))
    relay = start_nostr_relay("relay", Path(folder))
    stack.callback(relay.stop)
    publication = await publish(relay.websocket, events)
    return TestRelay(relay.port, frozenset(publication.accepted))


StartRelay = Callable[..., Awaitable[TestRelay]]
