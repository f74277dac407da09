"""Drawing networks from seeds: which relays, which faults, which events (deterministic)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from simnet.cases import Case
from simnet.drafts import Draft, Fault, Reading
from simnet.events import START, Event, draw_pool, rng_of, sign
from simnet.faults import BY_NAME, FAULTS

_POOL = 500
_LONG = 60
BIG = "BIG"
# A page of a few dozen makes a walk of a dozen pages out of a few hundred events.
_USUAL_CAPS = (40, 60, 100, 200, 500)
# Hundreds of requests, each of which waits: with few events, and no crowded seconds, only.
_MANY_REQUESTS = frozenset({"no-order"})
_WAITS = frozenset(
    {"rate-of-requests", "rate-of-events", "latency", "latency-of-seconds", "eose-late"}
)
_CROWDED_GROUPS = frozenset({"burst", "lie", "negentropy", "junk"})
_CROWDED = frozenset({"limits-told", "cap-by-filter"})
_FEW = 60
_CROWD = 550
_FASTER = (60, 20)  # for a crowded second takes hundreds of requests


@dataclass(frozen=True)
class Plan:
    """One relay of the network: how it is, and what can be demanded of its archive.

    `label` names it in the table and `case` brings it back; `outcomes` are those that are true
    of it besides success; `quick` relays are well-behaved, and their cost is held to the bounds.
    """

    case: Case
    label: str
    events: tuple[Event, ...]
    knobs: dict[str, Any]
    reading: Reading
    outcomes: frozenset[str]

    @property
    def faults(self) -> tuple[str, ...]:
        return self.case.faults

    @property
    def quick(self) -> bool:
        return not self.faults

    @property
    def looked_at_again(self) -> bool:
        """Whether there is anything to see in a round of re-verification."""
        return bool(self.knobs.get("changes")) or self.case.origin == BIG

    def describe(self) -> str:
        """One readable line: what brings it back, and its knobs."""
        knobs = " ".join(f"{name}={_short(value)}" for name, value in self.knobs.items())
        return f"[{self.case.text}] {len(self.events)} events; {knobs}"


def network(seed: int) -> list[Plan]:
    """The relays of a random network: they share most of their events, as relays do."""
    pool, count = _pool(seed)
    plans = []
    for number in range(count):
        faults = _draw_faults(rng_of(seed, number, "faults"))
        case = Case(f"SEED={seed}/{number}", tuple(fault.name for fault in faults))
        plans.append(_random_plan(case, pool))
    return plans


def plan_of(case: Case) -> Plan:
    """The relay that a case is of, as far as the case goes."""
    if case.network:
        return _random_plan(case, _pool(case.network[0])[0])
    name = case.origin.removeprefix("FAULT=")
    pool = draw_pool(rng_of(name), _POOL) if name in BY_NAME else _quiet_pool(case.cap or 500)
    return _make_plan(case, name, pool)


def alone(fault: Fault) -> Plan:
    """A relay with just this fault."""
    return plan_of(Case(f"FAULT={fault.name}", (fault.name,)))


def well_behaved(cap: int = 500) -> Plan:
    return plan_of(Case("FAULT=none", (), cap=cap))


def big(count: int) -> Plan:
    """One long, well-behaved relay, for what a page costs: about 15 events a second at 60,000.
    It speaks NIP-77, for what looking at it again costs."""
    events = [sign(START + n * 4_000 // count, 1, f"big {n}", author=n % 12) for n in range(count)]
    return _make_plan(Case(BIG, ()), f"none, {count:,} events", events, negentropy=True)


def _quiet_pool(cap: int) -> list[Event]:
    return draw_pool(rng_of("well-behaved", cap), 2 * _POOL)


def _pool(seed: int) -> tuple[list[Event], int]:
    """The events of a network, and the number of its relays."""
    rng = rng_of(seed)
    return draw_pool(rng, _POOL), rng.randint(3, 5)


def _random_plan(case: Case, pool: Sequence[Event]) -> Plan:
    seed, number = case.network or (0, 0)
    rng = rng_of(seed, number)
    events = [event for event in pool if rng.random() < 0.75]
    label = f"random: {len(case.faults)} fault{'s' if len(case.faults) != 1 else ''}"
    return _make_plan(case, label, events)


def _make_plan(case: Case, label: str, events: Sequence[Event], **knobs: Any) -> Plan:
    """Applies the faults, then takes away what the case leaves out."""
    random_one = case.network is not None
    # The texts from which earlier versions drew: a case that is known stays the same.
    text = "SEED={} relay {}".format(*case.network) if case.network else case.origin
    caps = _USUAL_CAPS if random_one else _USUAL_CAPS[:2]
    usual = {"cap": rng_of(text).choice(caps)} if case.faults else {"cap": 500}
    if _MANY_REQUESTS & {*case.faults} and _WAITS & {*case.faults}:
        events = events[:_FEW]
    draft = Draft(list(events), usual | knobs)
    for name in case.faults:
        BY_NAME[name].apply(draft, rng_of(text, name))
    unique = list({event["id"]: event for event in draft.events}.values())
    if case.events is not None:
        unique = [event for start, end in case.events for event in unique[start:end]]
        _keep_changes_of(unique, draft)
    if "rate" in draft.knobs and len(unique) > _CROWD:
        draft.knobs["rate"] = _FASTER
    if case.cap is not None:
        draft.knobs["cap"] = case.cap
    return Plan(case, label, tuple(unique), draft.knobs, draft.reading, frozenset(draft.outcomes))


def _keep_changes_of(events: Sequence[Event], draft: Draft) -> None:
    """No event can be deleted that is not there."""
    there = {event["id"] for event in events}
    if "changes" in draft.knobs:
        draft.knobs["changes"] = [
            change
            for change in draft.knobs["changes"]
            if change[1] == "publish" or change[2]["id"] in there
        ]


def _draw_faults(rng: random.Random) -> list[Fault]:
    """Some faults that do not exclude each other; most of them leave the relay readable."""
    wanted = rng.choice([0, 1, 2, 2, 3, 3, 4, 5])
    chosen: dict[str, Fault] = {}
    for fault in rng.sample(FAULTS, len(FAULTS)):
        if len(chosen) >= wanted:
            break
        rare = _is_harsh(fault.name) and rng.random() < 0.6
        if fault.slow or fault.group in chosen or rare:
            continue
        chosen[fault.group] = fault
    names = {fault.name for fault in chosen.values()}
    left = list(chosen.values())
    if "latency-of-seconds" in names or (_MANY_REQUESTS & names and _WAITS & names):
        left = [f for f in left if f.group not in _CROWDED_GROUPS and f.name not in _CROWDED]
    return sorted(left, key=FAULTS.index)


@cache
def _is_harsh(name: str) -> bool:
    """Whether the fault leaves a relay that cannot be read."""
    draft = Draft([sign(START + n) for n in range(20)])
    BY_NAME[name].apply(draft, random.Random(0))
    return draft.reading is not Reading.READABLE


def by_fault(name: str) -> Plan:
    return well_behaved() if name == "none" else alone(BY_NAME[name])


def _short(value: object) -> str:
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
