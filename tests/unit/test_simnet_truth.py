"""The judge of the simulated network: what is wrong is found, and what is not its fault is not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from simnet.cases import parse_case
from simnet.events import TARGET, Event, sign
from simnet.manners import REQUESTS_ON_THEIR_WAY, Manners
from simnet.networks import Plan, plan_of
from simnet.relay import HostileRelay
from simnet.truth import Archive, Verdict, check_economy, compare

ALL = ((TARGET[0], TARGET[1]),)


def plan(faults: str = "cap-small") -> Plan:
    return plan_of(parse_case(f"SEED=7/0 faults={faults}"))


def relay_of(plan: Plan) -> HostileRelay:
    return HostileRelay(plan.events, **plan.knobs)


def wanted(plan: Plan) -> list[Event]:
    return [
        event
        for event in plan.events
        if TARGET[0] <= event["created_at"] <= TARGET[1] and not event["sig"].startswith("0101")
    ]


def archive(
    events: Sequence[Event],
    covered: Sequence[tuple[int, int]] = ALL,
    gaps: Sequence[tuple[int, int, str]] = (),
    outcome: str = "complete",
) -> Archive:
    by_id = {event["id"]: {key: event[key] for key in _FIELDS} for event in events}
    return Archive(by_id, list(covered), list(gaps), outcome, pause=0, rests=False, leased=False)


_FIELDS = ("id", "pubkey", "created_at", "kind", "tags", "content", "sig")


def without(second: int) -> list[tuple[int, int]]:
    return [(TARGET[0], second - 1), (second + 1, TARGET[1])]


def lonely(plan: Plan) -> Event:
    """An event in a second of its own."""
    seconds = [event["created_at"] for event in plan.events]
    return next(event for event in wanted(plan) if seconds.count(event["created_at"]) == 1)


def judge(plan: Plan, archive: Archive, **seen: Any) -> Verdict:
    relay = relay_of(plan)
    for name, value in seen.items():
        setattr(relay, name, value)
    return compare(plan, relay, archive)


def test_a_whole_archive_is_right() -> None:
    verdict = judge(plan(), archive(wanted(plan())))
    assert (verdict.problems, verdict.missed, verdict.false_proofs, verdict.altered) == (
        [],
        0,
        0,
        0,
    )
    assert verdict.held == verdict.archived > 300


@pytest.mark.parametrize("sent", [False, True])
def test_a_proof_without_its_event_is_false(sent: bool) -> None:
    one, *rest = wanted(plan())
    verdict = judge(plan(), archive(rest), sent={one["id"]} if sent else set())
    assert (verdict.false_proofs, verdict.missed) == (1, 1)
    assert verdict.problems


def test_what_is_left_out_without_a_word_is_missed() -> None:
    one = lonely(plan())
    rest = [event for event in wanted(plan()) if event != one]
    verdict = judge(plan(), archive(rest, without(one["created_at"])))
    assert (verdict.false_proofs, verdict.missed) == (0, 1)
    assert "not read to the end" in " ".join(verdict.problems)


@pytest.mark.parametrize(
    ("why", "problem"),
    [("saturated", "says saturated, with"), ("blocked", "says 'blocked'")],
)
def test_a_gap_needs_a_true_reason(why: str, problem: str) -> None:
    one = lonely(plan())
    second = one["created_at"]
    rest = [event for event in wanted(plan()) if event != one]
    verdict = judge(plan(), archive(rest, without(second), [(second, second, why)], "gaps"))
    assert (verdict.missed, verdict.declared) == (0, 1)
    assert problem in " ".join(verdict.problems)


def test_a_crowded_second_may_be_a_gap_only_if_nothing_could_split_it() -> None:
    second = TARGET[0] + 7
    for kinds, is_problem in ((1, False), (40, True)):
        crowd = tuple(sign(second, 5_000 + n % kinds, f"{n}") for n in range(200))
        crowded = replace(plan(), events=(*plan().events, *crowd))
        rest = [event for event in wanted(crowded) if event["created_at"] != second]
        gap = [(second, second, "saturated")]
        verdict = judge(crowded, archive(rest, without(second), gap, "gaps"))
        assert bool(verdict.problems) is is_problem, verdict.problems
    spoken = replace(crowded, knobs={**crowded.knobs, "negentropy": True})
    verdict = judge(spoken, archive(rest, without(second), gap, "gaps"))
    assert verdict.problems


@pytest.mark.parametrize(
    "change", [{"content": "x"}, {"tags": [["x"]]}, {"sig": "0" * 128}, {"created_at": 5}]
)
def test_an_altered_event_is_found(change: dict[str, Any]) -> None:
    for faults in ("cap-small", "cap-random"):
        one, *rest = wanted(plan(faults))
        verdict = judge(plan(faults), archive([{**one, **change}, *rest]))
        assert verdict.altered == 1
        assert verdict.problems


def test_what_a_shifty_relay_cut_is_counted_apart_and_nothing_else_is() -> None:
    shifty = plan("cap-random")
    one, *rest = wanted(shifty)
    cut = {one["created_at"]}
    verdict = judge(shifty, archive(rest), cut_in=cut)
    assert (verdict.cut, verdict.false_proofs, verdict.missed, verdict.problems) == (1, 0, 0, [])
    assert judge(shifty, archive(rest)).false_proofs == 1, "no page was cut there"
    assert judge(shifty, archive(rest), cut_in=cut, sent={one["id"]}).false_proofs == 1
    assert judge(plan(), archive(rest), cut_in=cut).false_proofs == 1, "a steady relay"


def test_what_a_lying_relay_withheld_is_not_asked_for_and_all_else_is() -> None:
    lying = plan("hint-lying-finish")
    one, *rest = wanted(lying)
    verdict = judge(lying, archive(rest), withheld={one["id"]})
    assert (verdict.declared, verdict.false_proofs, verdict.problems) == (1, 0, [])
    assert judge(lying, archive(rest)).false_proofs == 1
    assert judge(lying, archive(rest), withheld={one["id"]}, sent={one["id"]}).missed == 1


def test_of_an_unreadable_relay_nothing_is_demanded_but_a_true_outcome() -> None:
    for faults in ("drops-always", "drops-always,cap-random", "drops-always,hint-lying-finish"):
        unreadable = plan(faults)
        nothing = archive([], covered=[], outcome="disconnected")
        assert judge(unreadable, nothing).problems == []
        assert judge(unreadable, replace(nothing, outcome="blocked")).problems
        assert judge(unreadable, replace(nothing, outcome="complete")).problems
        assert judge(unreadable, replace(nothing, covered=list(ALL))).false_proofs > 300


def test_an_event_is_late_only_if_its_second_was_asked_for_before() -> None:
    late = sign(TARGET[0] + 11, 1, "late")
    with_late = replace(plan(), events=(*plan().events, late))
    there = archive(wanted(plan()))
    asked = [ALL[0]] * 5
    verdict = judge(with_late, there, added={late["id"]: 3}, asked=asked)
    assert (verdict.late, verdict.false_proofs) == (1, 0)
    verdict = judge(with_late, there, added={late["id"]: 0}, asked=asked)
    assert (verdict.late, verdict.false_proofs) == (0, 1)
    verdict = judge(with_late, there, added={late["id"]: 3}, asked=asked, looked_again_from=4)
    assert (verdict.late, verdict.false_proofs) == (0, 1), "re-verification should have found it"


def test_what_costs_too_much_is_found() -> None:
    quiet = plan("none")
    there = archive(wanted(quiet))
    for requests, is_problem in ((10, False), (40, True)):
        relay = relay_of(quiet)
        relay.asked = [ALL[0]] * requests
        verdict = compare(quiet, relay, there)
        check_economy(verdict, relay, 500)
        assert bool(verdict.problems) is is_problem


def test_manners() -> None:
    told = {"limitation": {"max_limit": 50, "max_subscriptions": 2, "max_message_length": 900}}
    manners = Manners(told)
    manners.asks({"limit": 50}, 2)
    manners.sends(900)
    for _ in range(6):
        manners.connects()
    assert manners.complaints() == []
    manners.asks({"limit": 51}, 3)
    manners.sends(901)
    manners.connects()
    assert len(manners.complaints()) == 4
    hasty = Manners(None)
    hasty.limited()
    for _ in range(REQUESTS_ON_THEIR_WAY + 1):
        hasty.asks({}, 1)
    assert hasty.complaints() == ["1 requests within the pause after rate-limited"]
    hasty.time_passes()
    hasty.asks({}, 1)
    assert len(hasty.complaints()) == 1
