"""The fault model: what each fault does to a relay, and what the archive can then still get.

A fault is READABLE when the relay can be read to the end all the same: 100 % is then demanded.
UNREADABLE faults leave nothing but an honest account (an outcome, a gap). Two more classes are
apart because no client can be sound against them:

    LYING    the relay says "finish" (NIP-67: nothing was left out) and left events out. What is
             proven then is what the relay claims to have served; each event that it did send
             must be archived, and nothing more is demanded.
    SHIFTY   the cap of a page varies at random from page to page. The last second of a walk can
             be cut below a size that was seen uncut before, and nothing shows it. Measured in
             the table, not counted as a false proof.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from simnet.events import (
    TARGET,
    Event,
    draw_burst,
    draw_second,
    junk_events,
    outside_events,
    sign,
    wrong_events,
)


class Reading(StrEnum):
    READABLE = "readable"
    UNREADABLE = "unreadable"
    LYING = "lying"
    SHIFTY = "shifty"


@dataclass
class Draft:
    """A relay in the making. `knobs` are HostileRelay's; `outcomes` those that are true of it."""

    events: list[Event]
    knobs: dict[str, Any] = field(default_factory=dict)
    reading: Reading = Reading.READABLE
    outcomes: set[str] = field(default_factory=set)

    def worsen(self, reading: Reading, *outcomes: str) -> None:
        ranks = list(Reading)
        self.reading = max(self.reading, reading, key=ranks.index)
        self.outcomes.update(outcomes)


@dataclass(frozen=True)
class Fault:
    """`apply` changes a draft. Faults of one `group` exclude each other. `slow` ones take a
    minute of patience and are tried alone only."""

    name: str
    group: str
    apply: Callable[[Draft, random.Random], None]
    slow: bool = False


def _set(reading: Reading = Reading.READABLE, *outcomes: str, **knobs: Any) -> Any:
    def apply(draft: Draft, _rng: random.Random) -> None:
        draft.knobs.update(knobs)
        draft.worsen(reading, *outcomes)

    return apply


def _cap(low: int, high: int) -> Any:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs["cap"] = rng.randint(low, high)

    return apply


def _over_limit(draft: Draft, rng: random.Random) -> None:
    draft.knobs.update(cap=5_000, over_limit=rng.choice([1, 20, 200]))


def _burst(kinds: bool) -> Any:
    def apply(draft: Draft, rng: random.Random) -> None:
        cap = min(draft.knobs.get("cap", 500), rng.choice([20, 35, 60]))
        draft.knobs["cap"] = cap
        for _ in range(rng.randint(1, 2)):
            count = rng.choice([cap - 1, cap, cap + 1, 2 * cap, 7 * cap, 20 * cap])
            second = rng.choice([*TARGET, draw_second(rng), TARGET[0] + 900])
            spread = max(2, count // max(1, cap // 3)) if kinds else 1
            draft.events += draw_burst(rng, second, count, spread)

    return apply


def _cap_by_filter(draft: Draft, rng: random.Random) -> None:
    draft.knobs["cap_by_filter"] = rng.choice(
        [{"kinds": 25}, {"authors": 20}, {"kinds": 40, "authors": 20}]
    )
    draft.events += draw_burst(rng, draw_second(rng), 700, rng.choice([1, 5, 40]))


def _empty_for(lie: Callable[[dict[str, Any]], bool]) -> Any:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs["empty_lie"] = lie
        draft.knobs["cap"] = 60
        draft.events += draw_burst(rng, draw_second(rng), 200, 8)

    return apply


def _no_bounds(flt: Mapping[str, Any]) -> bool:
    return "since" not in flt or "until" not in flt or not flt.get("limit")


def _long_list(flt: Mapping[str, Any]) -> bool:
    return any(len(value) > 1_000 for value in flt.values() if isinstance(value, list))


def _by_author(flt: Mapping[str, Any]) -> bool:
    return "authors" in flt


def _noise(draw: Callable[[random.Random], Sequence[object]]) -> Any:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs["noise"] = [json.dumps(thing) for thing in draw(rng)]

    return apply


def _junk(draft: Draft, rng: random.Random) -> None:
    draft.knobs["cap"] = rng.choice([40, 100])
    draft.events += junk_events(rng, rng.choice([10, 50, 150]))


def _extra_keys(draft: Draft, rng: random.Random) -> None:
    draft.events = [
        {**event, "seen_on": ["wss://elsewhere.example"], "relay": rng.random()}
        for event in draft.events
    ]


def _changes(what: str) -> Any:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs["cap"] = min(40, draft.knobs.get("cap", 40))
        moments = [rng.randint(2, 12) for _ in range(8)]
        if what == "delete":
            victims = rng.sample(draft.events, len(moments))
            changes = [(at, "delete", event) for at, event in zip(moments, victims, strict=True)]
        else:
            newest = TARGET[1]
            changes = [
                (
                    at,
                    "publish",
                    sign(
                        newest - rng.randint(0, 5) if what == "publish" else rng.randint(*TARGET),
                        1,
                        f"{what} {rng.random()}",
                    ),
                )
                for at in moments
            ]
        draft.knobs["changes"] = changes

    return apply


def _rate(knob: str, burst: float, a_second: float) -> Any:
    def apply(draft: Draft, _rng: random.Random) -> None:
        draft.knobs[knob] = (burst, a_second)
        draft.knobs["cap"] = min(100, max(60, draft.knobs.get("cap", 60)))
        draft.worsen(Reading.READABLE, "rate-limited")

    return apply


def _subs(most: int, *, as_notice: bool) -> Any:
    def apply(draft: Draft, _rng: random.Random) -> None:
        draft.knobs.update(
            max_subs=most, as_notice=as_notice, cap=min(30, draft.knobs.get("cap", 30))
        )
        draft.worsen(Reading.READABLE, "error")
        draft.knobs["nip11"] = {"name": "few", "limitation": {"max_subscriptions": most}}

    return apply


def _negentropy(**knobs: Any) -> Any:
    """A relay that speaks NIP-77, in some way, and has a second that needs it."""

    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs.update({"negentropy": True, **knobs})
        draft.knobs["cap"] = min(60, draft.knobs.get("cap", 60))
        draft.events += draw_burst(rng, draw_second(rng), rng.choice([90, 170, 400]), 1)

    return apply


def _every_third(event: Event) -> bool:
    return int(event["id"], 16) % 3 == 0


_R, _U, _L, _S = Reading.READABLE, Reading.UNREADABLE, Reading.LYING, Reading.SHIFTY
_PERMANENT = ("restricted", "blocked", "invalid", "mute", "pow", "unsupported", "duplicate")
_NO_ANSWER = ("timeout", "disconnected")

FAULTS: tuple[Fault, ...] = (
    Fault("cap-20", "cap", _cap(20, 20)),
    Fault("cap-small", "cap", _cap(21, 120)),
    Fault("cap-5000", "cap", _set(cap=5_000)),
    Fault("cap-by-load", "cap", _set(cap=100, cap_by_load=True)),
    Fault("cap-by-filter", "cap", _cap_by_filter),
    Fault("cap-random", "cap", _set(_S, cap=100, cap_low=20)),
    Fault("over-limit", "cap", _over_limit),
    Fault("ignores-limit", "cap", _set(cap=10_000, ignore_limit=True)),
    Fault("oldest-first", "order", _set(order="asc")),
    Fault("no-order", "order", _set(order="random")),
    Fault("random-ties", "ties", _set(ties="random")),
    Fault("until-exclusive", "until", _set(until_exclusive=True)),
    Fault("since-exclusive", "since", _set(since_exclusive=True)),
    Fault("burst-of-kinds", "burst", _burst(kinds=True)),
    Fault("burst-of-one-kind", "burst", _burst(kinds=False)),
    Fault("eose-late", "eose", _set(eose="late", eose_delay=0.15)),
    Fault("eose-never", "eose", _set(_U, "timeout", eose="never")),
    Fault("eose-first", "eose", _set(_U, "contradiction", eose="first")),
    Fault("eose-twice", "eose", _set(eose="twice")),
    Fault("eose-in-the-middle", "eose", _set(eose="middle")),
    Fault("hint-right", "hint", _set(hint="auto")),
    Fault("hint-always-more", "hint", _set(hint="more")),
    Fault("hint-lying-finish", "hint", _set(_L, hint="lie", cap=50)),
    Fault("outside-filter", "noise", _noise(outside_events)),
    Fault("wrong-events", "noise", _noise(wrong_events)),
    Fault("repeats", "repeats", _set(repeat=3)),
    Fault("extra-keys", "keys", _extra_keys),
    Fault("holds-junk", "junk", _junk),
    Fault(
        "garbage-frames",
        "garbage",
        _set(
            garbage=[
                "nonsense",
                '["EVENT"]',
                "[]",
                "{}",
                "",
                b"\xff\x00",
                "[" * 5_000,
                "[" * 500 + "]" * 500,
            ]
        ),
    ),
    Fault("oversized-once", "size", _set(oversized=5 * 2**20, oversized_times=1)),
    Fault("oversized-always", "size", _set(_U, "disconnected", oversized=5 * 2**20)),
    *(
        Fault(
            f"closed-{prefix}",
            "refusal",
            _set(_U, prefix, refuse=f"{prefix}: go away", refuse_every=1),
        )
        for prefix in _PERMANENT
    ),
    Fault("closed-no-prefix", "refusal", _set(_U, "closed", refuse="no", refuse_every=1)),
    Fault("closed-error", "refusal", _set(_U, "error", refuse="error: oops", refuse_every=1)),
    Fault(
        "closed-error-once",
        "refusal",
        _set(_R, "error", refuse="error: oops", refuse_every=4, refuse_times=2),
    ),
    Fault(
        "closed-blocked-later",
        "refusal",
        _set(_U, "blocked", refuse="blocked: enough", refuse_every=5, cap=40),
    ),
    Fault(
        "closed-rate-limited-twice",
        "refusal",
        _set(_R, "rate-limited", refuse="rate-limited: slow down", refuse_every=6, refuse_times=2),
    ),
    Fault(
        "closed-rate-limited",
        "refusal",
        _set(_U, "rate-limited", refuse="rate-limited: slow down", refuse_every=1),
        slow=True,
    ),
    Fault(
        "notice-for-closed",
        "refusal",
        _set(_U, "timeout", refuse="blocked: no", refuse_every=1, as_notice=True),
    ),
    Fault(
        "notice-once",
        "refusal",
        _set(refuse="error: oops", refuse_every=5, refuse_times=1, as_notice=True),
    ),
    Fault("silence", "silence", _set(_U, "timeout", silent_every=1)),
    Fault("silence-once", "silence", _set(silent_every=4, silent_times=1)),
    Fault("drops-mid-page", "drop", _set(drop_after=130, drop_times=2)),
    Fault("drops-always", "drop", _set(_U, "disconnected", drop_after=0)),
    Fault(
        "down-after",
        "drop",
        _set(_R, "connect-refused", "connect-reset", "connect-closed", down_after=4, cap=60),
    ),
    Fault("auth-first", "auth", _set(auth=True)),
    Fault("auth-in-the-middle", "auth", _set(auth_after=3, cap=60)),
    Fault("auth-in-vain", "auth", _set(_U, "restricted", auth="restricted")),
    Fault("rate-of-requests", "rate", _rate("rate", 6, 3)),
    Fault("rate-of-events", "rate", _rate("event_rate", 250, 90)),
    Fault("few-subscriptions", "subs", _subs(2, as_notice=False)),
    Fault("few-subscriptions-notice", "subs", _subs(2, as_notice=True)),
    Fault("one-subscription", "subs", _subs(1, as_notice=False)),
    Fault("empty-without-bounds", "lie", _empty_for(_no_bounds)),
    Fault("empty-for-long-lists", "lie", _empty_for(_long_list)),
    Fault("empty-for-authors", "lie", _empty_for(_by_author)),
    Fault("no-deflate", "deflate", _set(deflate=False)),
    Fault("drip", "pace", _set(_U, *_NO_ANSWER, drip=1.0, deflate=False)),
    Fault("trickle", "pace", _set(delay=0.004)),
    Fault("latency", "pace", _set(latency=0.25)),
    Fault("negentropy", "negentropy", _negentropy()),
    Fault("negentropy-small-sets", "negentropy", _negentropy(neg_records=200, neg_frame=5_000)),
    Fault("negentropy-silent", "negentropy", _negentropy(negentropy="silent")),
    Fault("negentropy-old", "negentropy", _negentropy(negentropy="old")),
    Fault("negentropy-hides", "negentropy", _negentropy(neg_hides=_every_third)),
    Fault("negentropy-cuts", "negentropy", _negentropy(neg_cap=100)),
    Fault("publishes", "change", _changes("publish")),
    Fault("deletes", "change", _changes("delete")),
    Fault("backdates", "change", _changes("backdate")),
)
BY_NAME: Mapping[str, Fault] = {fault.name: fault for fault in FAULTS}
