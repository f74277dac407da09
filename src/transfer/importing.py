"""Checking lines of events as strictly as what a relay sends, and archiving them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

from bigbrotr import BigBrotr
from errors import EventRefused, MessageMalformed, RelayUrlRefused
from event_rows import RawEvent, Sighting, WriteResult, known_ids, write_sighted
from nostr.events import (
    SignedEvent,
    encode_event,
    parse_event,
    storage_obstacle,
    verify_signatures,
)
from nostr.urls import RelayUrl
from transfer.lines import decode_line

BATCH_LINES = 1_000
BATCH_BYTES = 8 * 1024 * 1024
_MAX_BIGINT = 2**63 - 1
_RELAY_URLS_KEPT = 8_192
_EXAMPLES = 5

A = TypeVar("A")
R = TypeVar("R")
NumberedLine = tuple[int, bytes | None]


class _Refusal(NamedTuple):
    number: int
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What became of the lines. `new` events were not in the archive, `known` were (or came
    twice); `sightings` are pairs of event and relay that it did not know. `refused` counts by
    reason, `examples` has the first few line numbers of each reason. A reason that starts with
    "relay-" is about a relay in a line whose event was archived."""

    lines: int = 0
    new: int = 0
    known: int = 0
    sightings: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def refuse(self, refusals: Iterable[_Refusal]) -> None:
        """Count what was not archived."""
        for number, reason in refusals:
            self.refused[reason] += 1
            if len(self.examples[reason]) < _EXAMPLES:
                self.examples[reason].append(number)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An event as line `number` has it, and the relays that the line names, each with the
    earliest time."""

    number: int
    event: SignedEvent
    relays: Mapping[RelayUrl, int]


class Importer:
    """Takes batches of lines; several may be under way at once. With a `relay`, every event
    counts as seen there at `now`. Signatures are checked by `threads` threads of the executor."""

    def __init__(
        self,
        db: BigBrotr,
        executor: Executor,
        threads: int,
        now: int,
        *,
        relay: RelayUrl | None = None,
        allow_private: bool = False,
    ) -> None:
        self._db = db
        self._executor = executor
        self._threads = threads
        self._now = now
        self._relay = relay
        self._relay_url = lru_cache(_RELAY_URLS_KEPT)(partial(_parse_url, allow_private))
        self.report = ImportReport()

    async def take(self, lines: Sequence[NumberedLine]) -> None:
        """Archive what a batch of lines holds, and count it in the report."""
        entries, refusals = await self._in_thread(self._parse, lines)
        self.report.lines += len(lines)
        self.report.refuse(refusals)
        while entries:
            known = await known_ids(self._db, list({entry.event.id for entry in entries}))
            refusals = await self._wrong_signatures(
                [entry for entry in entries if entry.event.id not in known]
            )
            self.report.refuse(refusals)
            wrong = {refusal.number for refusal in refusals}
            right = [entry for entry in entries if entry.number not in wrong]
            written = await self._write(right, known)
            # What was known and is deleted by now has to be checked after all.
            entries = [entry for entry in right if entry.event.id in written.vanished]
            self.report.new += len(written.new)
            self.report.known += len(right) - len(entries) - len(written.new)
            self.report.sightings += written.sightings

    def _parse(self, lines: Sequence[NumberedLine]) -> tuple[list[_Entry], list[_Refusal]]:
        entries, refusals = [], []
        for number, line in lines:
            try:
                if line is None:
                    raise EventRefused("line-too-long")
                obj, listed = decode_line(line)
                event = parse_event(obj)
            except MessageMalformed:
                refusals.append(_Refusal(number, "malformed-line"))
            except EventRefused as error:
                refusals.append(_Refusal(number, error.reason))
            else:
                relays, reasons = self._relays(listed)
                entries.append(_Entry(number, event, relays))
                refusals += [_Refusal(number, f"relay-{reason}") for reason in reasons]
        return entries, refusals

    def _relays(self, listed: object) -> tuple[Mapping[RelayUrl, int], list[str]]:
        """The relays of a line, and why the others are none."""
        relays: dict[RelayUrl, int] = {} if self._relay is None else {self._relay: self._now}
        reasons = []
        for item in listed if type(listed) is list else [listed]:
            url, seen_at = (
                (item.get("url"), item.get("seen_at")) if type(item) is dict else (None, None)
            )
            if type(url) is not str or type(seen_at) is not int or not 0 <= seen_at <= _MAX_BIGINT:
                reasons.append("malformed")
                continue
            relay = self._relay_url(url)
            if isinstance(relay, str):
                reasons.append(relay)
            else:
                relays[relay] = min(seen_at, relays.get(relay, seen_at))
        return relays, reasons

    async def _wrong_signatures(self, entries: Sequence[_Entry]) -> list[_Refusal]:
        shares = [share for n in range(self._threads) if (share := entries[n :: self._threads])]
        verdicts = await asyncio.gather(
            *(
                self._in_thread(verify_signatures, [entry.event for entry in share])
                for share in shares
            )
        )
        return [
            _Refusal(entry.number, "wrong-signature")
            for share, right in zip(shares, verdicts, strict=True)
            for entry, is_right in zip(share, right, strict=True)
            if not is_right
        ]

    async def _write(self, entries: Sequence[_Entry], known: Collection[str]) -> WriteResult:
        events: dict[str, SignedEvent] = {}
        seen: dict[tuple[str, RelayUrl], int] = {}
        for entry in entries:
            events.setdefault(entry.event.id, entry.event)
            for relay, seen_at in entry.relays.items():
                pair = entry.event.id, relay
                seen[pair] = min(seen_at, seen.get(pair, seen_at))
        fresh = [event for event in events.values() if event.id not in known]
        raw = [
            RawEvent(event.id, encode_event(event), obstacle)
            for event in fresh
            if (obstacle := storage_obstacle(event))
        ]
        raw_ids = {event.id for event in raw}
        sightings = [Sighting(id_, relay.url, seen_at) for (id_, relay), seen_at in seen.items()]
        return await self._db.run_in_transaction(
            lambda conn: write_sighted(
                conn,
                {relay for _, relay in seen},
                sightings,
                [event for event in fresh if event.id not in raw_ids],
                known=[id_ for id_ in events if id_ in known],
                raw=raw,
                now=self._now,
            )
        )

    async def _in_thread(self, work: Callable[[A], R], argument: A) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, argument)


def batches(lines: Iterable[NumberedLine]) -> Iterator[list[NumberedLine]]:
    """The lines that are not blank, in lists of bounded number and size; a longer line comes
    alone."""
    batch, size = list[NumberedLine](), 0
    for number, line in lines:
        if line is not None and not line.strip():
            continue
        length = len(line or b"")
        if batch and (len(batch) == BATCH_LINES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((number, line))
        size += length
    if batch:
        yield batch


def _parse_url(allow_private: bool, text: str) -> RelayUrl | str:
    """The relay, or the reason why the text names none."""
    try:
        return RelayUrl.parse(text, allow_private=allow_private)
    except RelayUrlRefused as error:
        return error.reason
