"""What a session has to commit, and writing the shares of several in one transaction."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import asyncpg

from event_rows import RawEvent, Sighting, count_refused, write_sighted
from nostr.events import SignedEvent
from nostr.urls import RelayUrl
from sync import ledger
from sync.ledger import Gap
from sync.page_check import CheckedPage
from sync.windows import Window


@dataclass(slots=True)
class Share:
    """What one session has taken and not yet committed. `void` is what it has proven before and
    takes back."""

    relay: RelayUrl
    filter_hash: str
    target: Window
    events: list[SignedEvent] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    raw: list[RawEvent] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    proven: list[Window] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    refusals: list[Gap] | None = None
    retracts: bool = False
    void: list[Window] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self == Share(self.relay, self.filter_hash, self.target)

    def take(self, page: CheckedPage, proven: Iterable[Window]) -> None:
        self.events += page.new
        self.known += page.known
        self.raw += page.raw
        self.refused.update(page.refused)
        self.proven += proven

    def retract(self) -> None:
        """What the session has proven so far is void, here and in the ledger."""
        self.proven.clear()
        self.retracts = True

    def append(self, later: "Share") -> None:
        """Take what the session has taken after this."""
        if later.retracts:
            self.retract()
        self.events += later.events
        self.known += later.known
        self.raw += later.raw
        self.refused += later.refused
        self.proven += later.proven
        self.gaps += later.gaps
        self.refusals = later.refusals if later.refusals is not None else self.refusals

    def ids(self) -> set[str]:
        """Of all its events."""
        ids = {event.id for event in self.events}
        ids.update(event.id for event in self.raw)
        ids.update(self.known)
        return ids


async def write_shares(conn: asyncpg.Connection, shares: Sequence[Share]) -> list[int]:
    """Write shares in the caller's transaction: the events of all, then what each one proves.

    Returns how many new events are owed to each share; one that several brought counts once.
    Everything is written in one order, that of ids and URLs, whichever writers there are.
    """
    now = int(time.time())
    ids = [share.ids() for share in shares]
    refused: dict[RelayUrl, Counter[str]] = {}
    for share in shares:
        refused[share.relay] = refused.get(share.relay, Counter()) + share.refused
    written = await write_sighted(
        conn,
        refused.keys(),
        {
            Sighting(id_, share.relay.url, now)
            for share, own in zip(shares, ids, strict=True)
            for id_ in own
        },
        [event for share in shares for event in share.events],
        known={id_ for share in shares for id_ in share.known},
        raw=[event for share in shares for event in share.raw],
        now=now,
    )
    await count_refused(conn, refused, now)
    entries = [
        ledger.Entry(
            share.relay.url,
            share.filter_hash,
            share.target,
            # An event counted as known was deleted meanwhile (retention): what it proved is void.
            share.proven if written.vanished.isdisjoint(share.known) else (),
            share.void,
            share.gaps,
            share.refusals,
        )
        for share in shares
    ]
    await ledger.record(conn, sorted(entries, key=lambda entry: entry.key))
    unclaimed, new = set(written.new), []
    for own in ids:
        new.append(len(unclaimed & own))
        unclaimed -= own
    return new
