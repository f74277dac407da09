"""What faults do to a relay in the making: each function gives a change, or is one."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simnet.drafts import Change, Draft, Reading
from simnet.events import TARGET, Event, draw_burst, draw_pool, draw_second, junk_events, sign


def knobs(reading: Reading = Reading.READABLE, *outcomes: str, **values: Any) -> Change:
    def apply(draft: Draft, _rng: random.Random) -> None:
        draft.knobs.update(values)
        draft.mark(reading, *outcomes)

    return apply


def drawn(knob: str, low: float, high: float, *outcomes: str, **values: Any) -> Change:
    """A knob drawn between two numbers, whole ones between whole ones; others as they are."""

    def apply(draft: Draft, rng: random.Random) -> None:
        number = rng.uniform(low, high)
        draft.knobs.update(values)
        draft.knobs[knob] = round(number) if isinstance(low, int) else round(number, 2)
        draft.mark(Reading.READABLE, *outcomes)

    return apply


def large_cap(draft: Draft, rng: random.Random) -> None:
    """From 120 to 5,000, as many small ones as large ones, and more events than a page holds."""
    draft.knobs["cap"] = round(120 * (5_000 / 120) ** rng.random())
    draft.events += draw_pool(rng, 600)


def over_limit(draft: Draft, rng: random.Random) -> None:
    draft.knobs.update(cap=5_000, over_limit=rng.choice([1, 20, 200]))


def burst(kinds: bool) -> Change:
    def apply(draft: Draft, rng: random.Random) -> None:
        cap = min(draft.knobs.get("cap", 500), rng.choice([20, 35, 60]))
        draft.knobs["cap"] = cap
        for _ in range(rng.randint(1, 2)):
            count = rng.choice([cap - 1, cap, cap + 1, 2 * cap, 7 * cap, 20 * cap])
            second = rng.choice([*TARGET, draw_second(rng), TARGET[0] + 900])
            spread = max(2, count // max(1, cap // 3)) if kinds else 1
            draft.events += draw_burst(rng, second, count, spread)

    return apply


def cap_by_filter(draft: Draft, rng: random.Random) -> None:
    draft.knobs["cap_by_filter"] = rng.choice(
        [{"kinds": 25}, {"authors": 20}, {"kinds": 40, "authors": 20}]
    )
    draft.events += draw_burst(rng, draw_second(rng), 700, rng.choice([1, 5, 40]))


def empty_for(lie: Callable[[dict[str, Any]], bool]) -> Change:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs["empty_lie"] = lie
        draft.knobs["cap"] = 60
        draft.events += draw_burst(rng, draw_second(rng), 200, 8)

    return apply


def no_bounds(flt: Mapping[str, Any]) -> bool:
    return "since" not in flt or "until" not in flt or not flt.get("limit")


def long_list(flt: Mapping[str, Any]) -> bool:
    return any(len(value) > 1_000 for value in flt.values() if isinstance(value, list))


def by_author(flt: Mapping[str, Any]) -> bool:
    return "authors" in flt


def noise(draw: Callable[[random.Random], Sequence[object]]) -> Change:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs["noise"] = [json.dumps(thing) for thing in draw(rng)]

    return apply


def junk(draft: Draft, rng: random.Random) -> None:
    draft.knobs["cap"] = rng.choice([40, 100])
    draft.events += junk_events(rng, rng.choice([10, 50, 150]))


def extra_keys(draft: Draft, rng: random.Random) -> None:
    draft.events = [
        {**event, "seen_on": ["wss://elsewhere.example"], "relay": rng.random()}
        for event in draft.events
    ]


def large_keys(draft: Draft, rng: random.Random) -> None:
    """Pages of many megabytes: more than a synchronizer takes at once."""
    draft.knobs["cap"] = 500
    largest = rng.choice([20_000, 80_000])
    draft.events = [
        {**event, "padding": "x" * rng.randint(1_000, largest)} for event in draft.events
    ]


def changes(what: str) -> Change:
    def apply(draft: Draft, rng: random.Random) -> None:
        draft.lower_cap(40)
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


def rate(knob: str, burst: float, a_second: float) -> Change:
    def apply(draft: Draft, _rng: random.Random) -> None:
        draft.knobs[knob] = (burst, a_second)
        draft.knobs["cap"] = min(100, max(60, draft.knobs.get("cap", 60)))
        draft.mark(Reading.READABLE, "rate-limited")

    return apply


def subs(most: int, *, as_notice: bool) -> Change:
    def apply(draft: Draft, _rng: random.Random) -> None:
        draft.lower_cap(30)
        draft.knobs.update(max_subs=most, subs_notice=as_notice)
        draft.mark(Reading.READABLE, "error")
        draft.tell(max_subscriptions=most)

    return apply


def told_limits(draft: Draft, rng: random.Random) -> None:
    """Limits told in NIP-11; whoever sends more than that is cut off."""
    most = rng.choice([25, 40])
    draft.lower_cap(most)
    draft.knobs["message_limit"] = 4_096
    draft.tell(max_limit=most, max_message_length=4_096, max_subscriptions=3)
    draft.events += draw_burst(rng, draw_second(rng), 3 * most, 3 * most)


def cap_below_default(draft: Draft, rng: random.Random) -> None:
    """NIP-11 names a default and a largest limit, and pages are smaller than either."""
    draft.knobs["cap"] = rng.choice([20, 45, 99])
    draft.tell(default_limit=300, max_limit=500)


def absurd_limits(draft: Draft, _rng: random.Random) -> None:
    draft.tell(max_limit=0, max_subscriptions=-1, max_message_length="many", default_limit=[])


def negentropy(**knobs: Any) -> Change:
    """A relay that speaks NIP-77, in some way, and has a second that needs it."""

    def apply(draft: Draft, rng: random.Random) -> None:
        draft.knobs.update({"negentropy": True, **knobs})
        draft.lower_cap(60)
        draft.events += draw_burst(rng, draw_second(rng), rng.choice([90, 170, 400]), 1)

    return apply


def every_third(event: Event) -> bool:
    return int(event["id"], 16) % 3 == 0
