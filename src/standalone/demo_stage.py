"""The demo's relays: started, loaded with the events, asked what they hold."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from standalone.demo_events import Planned, build_events, events_for, most_in_one_second
from standalone.processes import free_port
from standalone.relay_client import publish, served
from standalone.relays import RunningRelay, start_local_relay, start_nostr_relay
from standalone.signing import DemoEvent

CAPS = (500, 300)
SOFTWARE = (*(f"nostr-sdk, cap {cap}" for cap in CAPS), "nostr-relay")

Say = Callable[[str], None]


@dataclass(slots=True)
class Stage:
    """The relays and what they hold (ids by URL).

    `published` has every event by its id, `until` is the second of the newest.
    """

    relays: list[RunningRelay] = field(default_factory=list)
    published: dict[str, DemoEvent] = field(default_factory=dict)
    held: dict[str, Set[str]] = field(default_factory=dict)
    until: int = 0

    @property
    def names(self) -> dict[str, str]:
        """The relays' names by URL."""
        return {relay.url: relay.name for relay in self.relays}

    def start_relays(self, folder: Path, *, outlive_parent: bool) -> None:
        """Start two LocalRelays with different caps and a nostr-relay."""
        for number, cap in enumerate(CAPS, start=1):
            self.relays.append(
                start_local_relay(f"relay-{number}", folder, cap, outlive_parent=outlive_parent)
            )
        name = f"relay-{len(CAPS) + 1}"
        self.relays.append(start_nostr_relay(name, folder, outlive_parent=outlive_parent))

    async def load(self, total: int, say: Say) -> None:
        """Publish `total` events, each to some of the relays, and find what they hold."""
        now = int(time.time())
        self.until = now
        planned = build_events(
            total, now, self.relays[-1].websocket, f"ws://127.0.0.1:{free_port()}"
        )
        self.published = {one.event.id: one.event for one in planned}
        say(f"signed {len(planned):,} events, publishing them to {len(self.relays)} relays")
        held = await asyncio.gather(
            *(_load(relay, planned, number, say) for number, relay in enumerate(self.relays))
        )
        self.held = {relay.url: ids for relay, ids in zip(self.relays, held, strict=True)}
        everything = set().union(*held)
        say(
            f"the relays hold {len(everything):,} different events; the other "
            f"{len(planned) - len(everything)} were refused by all, replaced or deleted"
        )

    def stop(self) -> None:
        """Stop the relays; their events are gone."""
        for relay in self.relays:
            relay.child.ask_to_stop()
        for relay in self.relays:
            relay.stop()


async def _load(relay: RunningRelay, planned: Sequence[Planned], number: int, say: Say) -> Set[str]:
    events = events_for(planned, number)
    started = time.monotonic()
    publication = await publish(relay.websocket, events)
    held = await served(relay.websocket, [event.id for event in events])
    reasons = Counter(publication.refused.values())
    refused = ", ".join(f"{amount} ({reason})" for reason, amount in reasons.most_common(3))
    say(
        f"{relay.name}: {len(events):,} events sent in {time.monotonic() - started:.1f} s, "
        f"{len(held):,} held, {most_in_one_second(events)} of them in one second"
        + (f"; refused {refused}" if refused else "")
    )
    return held
