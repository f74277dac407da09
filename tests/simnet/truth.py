"""Holding an archive against what the relays really held. Shares no code with src.

`read_archive` reads what the services wrote for one relay; `compare` says what is wrong with it.
"""

import json
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

import asyncpg

from simnet.drafts import Reading
from simnet.events import TARGET, Event, event_id
from simnet.networks import Plan
from simnet.relay import HostileRelay

_FIELDS = ("id", "pubkey", "created_at", "kind", "tags", "content", "sig")
_DONE = frozenset({"complete", "gaps"})
# Outcomes that any relay may show for a moment on a busy machine.
_PASSING = frozenset({"paused", "timeout", "disconnected", "connect-timeout"})
_SECOND_REASONS = frozenset({"saturated", "overflow", "refused-events"})
_SMALLEST_CAP = 20
# A relay that rests for so many seconds more is found resting by another cycle.
_LONGEST_CHECK = 60.0

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Archive:
    """What the database says of one relay. Ranges are of seconds, both ends included."""

    events: dict[str, Event]
    covered: Ranges
    gaps: list[tuple[int, int, str]]
    outcome: str
    pause: int  # seconds, from the end of its last session on
    rests: bool
    leased: bool

    def covers(self, second: int) -> bool:
        return _within(self.covered, second)

    def gap_at(self, second: int) -> str:
        return next((why for since, until, why in self.gaps if since <= second <= until), "")

    @property
    def must_rest(self) -> bool:
        return self.outcome not in _DONE | {"paused", "", "worker-died"}

    def unproven(self) -> Ranges:
        """Seconds of the target that are neither proven nor recorded as a gap."""
        taken = sorted([*self.covered, *((since, until) for since, until, _ in self.gaps)])
        rest, at = [], TARGET[0]
        for since, until in taken:
            if since > at:
                rest.append((at, min(since - 1, TARGET[1])))
            at = max(at, until + 1)
        if at <= TARGET[1]:
            rest.append((at, TARGET[1]))
        return [(since, until) for since, until in rest if since <= until]


@dataclass
class Verdict:
    """One relay's line of the table; `problems` are what must not be. `cut` are events that a
    shifty relay never sent, of seconds in which it cut a page."""

    plan: Plan
    held: int = 0
    archived: int = 0
    missed: int = 0
    declared: int = 0
    late: int = 0
    altered: int = 0
    false_proofs: int = 0
    cut: int = 0
    requests: int = 0
    sent: int = 0
    times_limited: int = 0
    requests_again: int = 0
    sent_again: int = 0
    outcome: str = ""
    problems: list[str] = field(default_factory=list)


async def read_archive(connection: asyncpg.Connection, url: str) -> Archive:
    """Everything the database holds about one relay."""
    rows = await connection.fetch(
        """
        SELECT id, pubkey, created_at, kind, tags::text AS tags, content, sig
        FROM events JOIN events_relays ON event_id = id WHERE relay_url = $1
        """,
        url,
    )
    events = {row["id"]: {**dict(row), "tags": json.loads(row["tags"])} for row in rows}
    raw = await connection.fetch("SELECT id, raw FROM events_raw WHERE relay_url = $1", url)
    events |= {row["id"]: json.loads(row["raw"]) for row in raw}
    covered = await connection.fetch(
        "SELECT lower(r) AS a, upper(r) - 1 AS b FROM sync_coverage, unnest(covered) r"
        " WHERE relay_url = $1 ORDER BY 1",
        url,
    )
    gaps = await connection.fetch(
        "SELECT lower(gap) AS a, upper(gap) - 1 AS b, reason FROM sync_gaps"
        " WHERE relay_url = $1 ORDER BY 1",
        url,
    )
    task = await connection.fetchrow(
        "SELECT last_outcome, not_before - updated_at AS pause, owner IS NOT NULL AS leased,"
        " not_before > extract(epoch FROM now()) + $2 AS rests"
        " FROM relay_tasks WHERE purpose = 'sync' AND relay_url = $1",
        url,
        _LONGEST_CHECK,
    )
    return Archive(
        events,
        [(row["a"], row["b"]) for row in covered],
        [(row["a"], row["b"], row["reason"]) for row in gaps],
        task["last_outcome"] if task else "",
        task["pause"] if task else 0,
        bool(task and task["rests"]),
        bool(task and task["leased"]),
    )


async def was_looked_at_again(connection: asyncpg.Connection, url: str) -> bool:
    """Whether a round of re-verification was done."""
    rounds = await connection.fetchval(
        "SELECT max(rounds) FROM sync_coverage WHERE relay_url = $1", url
    )
    return bool(rounds)


def compare(plan: Plan, relay: HostileRelay, archive: Archive) -> Verdict:
    """What of the relay's events is archived, and whether the ledger tells the truth."""
    verdict = Verdict(
        plan, requests=len(relay.asked), sent=relay.events_sent, outcome=archive.outcome
    )
    held = {e["id"]: e for e in [*plan.events, *relay.events] if _is_right(e)}
    verdict.archived = sum(id_ in archive.events for id_ in held)
    _check_events(verdict, held, relay, archive)
    wanted = {e["id"]: e for e in relay.events if e["id"] in held and _wanted(e)}
    verdict.held = len(wanted)
    _check_soundness(verdict, wanted, relay, archive)
    _check_honesty(verdict, relay, archive)
    return verdict


def _check_events(
    verdict: Verdict, held: dict[str, Event], relay: HostileRelay, archive: Archive
) -> None:
    noise = {}
    for text in relay.noise:
        thing = json.loads(text)
        if isinstance(thing, dict) and isinstance(thing.get("id"), str):
            noise[thing["id"]] = thing
    for id_, event in archive.events.items():
        true = held.get(id_) or noise.get(id_, {})
        same = all(event[name] == true.get(name) for name in _FIELDS)
        if not same or event_id(event) != id_:
            verdict.altered += 1
            verdict.problems.append(f"event {id_} is not as it was sent")
    for id_ in relay.sent - archive.events.keys():
        if id_ in held:
            claim = "is" if archive.covers(held[id_]["created_at"]) else "is not"
            verdict.problems.append(f"event {id_} was sent, its second {claim} proven, it is lost")
            verdict.missed += 1


def _check_soundness(
    verdict: Verdict, wanted: dict[str, Event], relay: HostileRelay, archive: Archive
) -> None:
    # What was sent and is not here is counted as missed already.
    lost: Counter[int] = Counter()
    reading = verdict.plan.reading
    for id_, event in wanted.items():
        if id_ in archive.events:
            continue
        second = event["created_at"]
        if not archive.covers(second):
            if archive.gap_at(second) or Reading.UNREADABLE in reading:
                verdict.declared += id_ not in relay.sent
            else:
                verdict.missed += id_ not in relay.sent
        elif id_ in relay.added and _came_late(relay, id_, second):
            verdict.late += 1
        elif id_ in relay.withheld and id_ not in relay.sent:
            verdict.declared += 1
        elif Reading.SHIFTY in reading and second in relay.cut_in and id_ not in relay.sent:
            verdict.cut += 1
        else:
            verdict.false_proofs += 1
            lost[second] += 1
            verdict.missed += id_ not in relay.sent
    verdict.problems += [
        f"second {second} is proven without its events ({count})" for second, count in lost.items()
    ]


def _came_late(relay: HostileRelay, id_: str, second: int) -> bool:
    """Whether an event was published only after its second had been asked for, the last time
    in re-verification."""
    if relay.looked_again_from is not None and relay.added[id_] <= relay.looked_again_from:
        return False
    before = relay.asked[: relay.added[id_]]
    return any(since <= second <= until for since, until in before)


def _check_honesty(verdict: Verdict, relay: HostileRelay, archive: Archive) -> None:
    plan, rest = verdict.plan, archive.unproven()
    allowed = plan.outcomes | _DONE | _PASSING
    for outcome in {archive.outcome, *relay.outcomes} - allowed:
        verdict.problems.append(f"outcome {outcome!r}, true are {sorted(allowed)}")
    verdict.problems += sorted(set(relay.complaints))
    if rest and Reading.UNREADABLE not in plan.reading:
        verdict.problems.append(f"not read to the end ({archive.outcome}): {rest[:3]} left")
    if rest and archive.outcome in _DONE:
        verdict.problems.append(f"{archive.outcome!r} with {rest[:3]} unproven")
    in_second = Counter(event["created_at"] for event in relay.events)
    for since, until, why in archive.gaps:
        if why in _SECOND_REASONS:
            # Requests reach one second beyond what they prove, at both ends.
            crowd = max(in_second[second] for second in range(since - 1, until + 2))
            # A relay that ends a page in its middle has no smallest page.
            least = _SMALLEST_CAP if relay.eose != "middle" else 1
            if since != until or crowd < least:
                verdict.problems.append(
                    f"gap {since}..{until} says {why}, with {crowd} events there"
                )
            elif why == "saturated" and (way := _way_to_read(relay, since)):
                verdict.problems.append(f"gap {since} says {why}, but {way}")
        elif why not in plan.outcomes or Reading.UNREADABLE not in plan.reading:
            verdict.problems.append(f"gap {since}..{until} says {why!r}")
    verdict.times_limited = relay.manners.times_limited
    verdict.problems += relay.manners.complaints()


def _way_to_read(relay: HostileRelay, second: int) -> str:
    """How a crowded second could have been read all the same, if the relay only caps its pages."""
    kinds = Counter(event["kind"] for event in relay.events if event["created_at"] == second)
    twisted = relay.cap_low or relay.cap_by_load or relay.cap_by_filter or relay.empty_lie
    untidy = relay.noise or relay.repeat > 1 or relay.eose == "middle" or relay.order == "random"
    if twisted or untidy or relay.cap is None or not all(map(_is_right, relay.events)):
        return ""
    if max(kinds.values()) < relay.cap:
        return f"each of its {len(kinds)} kinds fits on a page"
    whole = relay.neg_hides is None and relay.neg_cap is None and relay.neg_records is None
    if relay.negentropy is True and whole and kinds.total() > relay.cap:
        return "NIP-77 shows all of it"
    return ""


def check_economy(verdict: Verdict, relay: HostileRelay, page: int) -> None:
    """The cost of a well-behaved relay (DESIGN section 8), with a small constant a session."""
    inside = [e for e in relay.events if TARGET[0] - 1 <= e["created_at"] <= TARGET[1] + 1]
    pages = -(-len(inside) // page)
    again = relay.looked_again_from
    if again is not None:
        verdict.requests, verdict.sent = again, relay.sent_before
        verdict.requests_again = len(relay.asked) - again + relay.neg_messages
        verdict.sent_again = relay.events_sent - relay.sent_before
    # A constant a session: the look below the last event, and what its lanes share.
    most = 1.1 * pages + (12 if pages < 100 else 0)
    if verdict.requests > most:
        verdict.problems.append(f"{verdict.requests} requests for {pages} pages")
    if len(inside) > 10_000 and verdict.sent > 1.02 * verdict.archived:
        verdict.problems.append(f"{verdict.sent} events received for {verdict.archived}")
    # Sets of more than some 20,000 events are parted.
    if verdict.requests_again > 1 + len(inside) / 10_000 or verdict.sent_again > len(inside) / 100:
        verdict.problems.append(
            f"looked at again with {verdict.requests_again} messages for {pages} pages and "
            f"{verdict.sent_again} events"
        )


def _is_right(event: Event) -> bool:
    """Junk is served with a signature that no event has."""
    return not event["sig"].startswith("01" * 32)


def _wanted(event: Event) -> bool:
    created_at: int = event["created_at"]
    return TARGET[0] <= created_at <= TARGET[1]


def _within(ranges: Ranges, second: int) -> bool:
    at = bisect_right(ranges, (second, 2**63)) - 1
    return at >= 0 and ranges[at][0] <= second <= ranges[at][1]
