"""Drawing networks from seeds: which relays, which faults, which events (deterministic)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from simnet.events import START, Event, draw_pool, sign
from simnet.faults import BY_NAME, FAULTS, Draft, Fault, Reading
from simnet.relay import rng_of

_POOL = 500
_LONG = 60
# A page of a few dozen makes a walk of a dozen pages out of a few hundred events.
_USUAL_CAPS = (40, 60, 100, 200, 500)


@dataclass(frozen=True)
class Plan:
    """One relay of the network: how it is, and what can be demanded of its archive.

    `label` names it in the table and `seed` brings it back; `outcomes` are those that are true
    of it besides success; `quick` relays are well-behaved, and their cost is held to the bounds.
    """

    seed: str
    label: str
    faults: tuple[str, ...]
    events: tuple[Event, ...]
    knobs: dict[str, Any]
    reading: Reading
    outcomes: frozenset[str]

    @property
    def quick(self) -> bool:
        return not self.faults

    def describe(self) -> str:
        """One readable line: where from, which faults, which knobs."""
        knobs = " ".join(f"{name}={_short(value)}" for name, value in self.knobs.items())
        faults = " + ".join(self.faults) or "no fault"
        return f"[{self.seed}] {faults} ({len(self.events)} events; {knobs})"


def network(seed: int) -> list[Plan]:
    """The relays of a random network: they share most of their events, as relays do."""
    rng = rng_of(seed)
    pool = draw_pool(rng, _POOL)
    return [_random_plan(seed, number, pool) for number in range(rng.randint(3, 5))]


def alone(fault: Fault) -> Plan:
    """A relay with just this fault."""
    pool = draw_pool(rng_of(fault.name), _POOL)
    return make_plan(f"FAULT={fault.name}", fault.name, [fault], pool)


def well_behaved(cap: int = 500) -> Plan:
    pool = draw_pool(rng_of("well-behaved", cap), 2 * _POOL)
    return make_plan("FAULT=none", "none", [], pool, cap=cap)


def big(count: int) -> Plan:
    """One long, well-behaved relay, for what a page costs: about 15 events a second."""
    events = [sign(START + n * 4_000 // count, 1, f"big {n}", author=n % 12) for n in range(count)]
    return make_plan("BIG", f"none, {count:,} events", [], events)


def make_plan(
    seed: str, label: str, faults: Sequence[Fault], events: Sequence[Event], **knobs: Any
) -> Plan:
    caps = _USUAL_CAPS if seed.startswith("SEED") else _USUAL_CAPS[:2]
    usual = {"cap": rng_of(seed).choice(caps)} if faults else {"cap": 500}
    draft = Draft(list(events), usual | knobs)
    for fault in faults:
        fault.apply(draft, rng_of(seed, fault.name))
    unique = {event["id"]: event for event in draft.events}
    return Plan(
        seed,
        label,
        tuple(fault.name for fault in faults),
        tuple(unique.values()),
        draft.knobs,
        draft.reading,
        frozenset(draft.outcomes),
    )


def _random_plan(seed: int, number: int, pool: Sequence[Event]) -> Plan:
    rng = rng_of(seed, number)
    events = [event for event in pool if rng.random() < 0.75]
    faults = _draw_faults(rng)
    label = f"random: {len(faults)} fault{'s' if len(faults) != 1 else ''}"
    return make_plan(f"SEED={seed} relay {number}", label, faults, events)


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
    if "rate" in chosen and "order" in chosen:
        del chosen["rate"]  # hundreds of requests, with pauses of seconds
    return sorted(chosen.values(), key=FAULTS.index)


@cache
def _is_harsh(name: str) -> bool:
    """Whether the fault leaves a relay that cannot be read."""
    events = [sign(START + n) for n in range(20)]
    return make_plan("", "", [BY_NAME[name]], events).reading is not Reading.READABLE


def by_fault(name: str) -> Plan:
    return well_behaved() if name == "none" else alone(BY_NAME[name])


def _short(value: object) -> str:
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
