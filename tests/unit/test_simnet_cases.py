"""Cases of the simulated network: as text, and shrunk to what makes them fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.cases import Case, Spans, parse_case, simpler, weight
from simnet.faults import FAULTS
from simnet.known import KNOWN
from simnet.networks import network, plan_of

NAMES = tuple(fault.name for fault in FAULTS)


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    ends = sorted(draw(st.sets(st.integers(0, 1_000), min_size=2, max_size=8)))
    return tuple(zip(ends[::2], ends[1::2], strict=False))


CASES = st.builds(
    Case,
    st.one_of(
        st.builds("SEED={}/{}".format, st.integers(0, 999), st.integers(0, 4)),
        st.sampled_from(NAMES).map("FAULT={}".format),
    ),
    st.lists(st.sampled_from(NAMES), max_size=4, unique=True).map(tuple),
    st.none() | spans(),
    st.none() | st.integers(1, 5_000),
)


@given(CASES)
def test_a_case_is_its_text(case: Case) -> None:
    assert parse_case(case.text) == case


@pytest.mark.parametrize("text", ["drip", "SEED=1/2 colour=red", "SEED=1/2 faults", "X=1"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a case"):
        parse_case(text)


@given(CASES, st.integers(0, 1_000))
def test_what_is_simpler_weighs_less(case: Case, count: int) -> None:
    for less in simpler(case, count):
        assert weight(less, count) < weight(case, count)


@given(
    st.sets(st.sampled_from(NAMES), min_size=1, max_size=6),
    st.data(),
    st.sets(st.integers(0, 399), min_size=1, max_size=3),
)
def test_shrinking_ends_at_what_makes_the_failure(
    faults: set[str], data: st.DataObject, needed: set[int]
) -> None:
    """A failure that needs some faults and some events: no others are left, or hardly any."""
    guilty = data.draw(st.sets(st.sampled_from(sorted(faults)), min_size=1))

    def fails(case: Case) -> bool:
        places = {n for start, end in case.events or ((0, 400),) for n in range(start, end)}
        return guilty <= {*case.faults} and needed <= places

    case = Case("SEED=1/1", tuple(sorted(faults)))
    while failing := [less for less in simpler(case, 400) if fails(less)]:
        case = min(failing, key=lambda found: weight(found, 400))
    assert {*case.faults} == guilty
    assert weight(case, 400)[1] < 8 * len(needed) + 8


@pytest.mark.parametrize("seed", [3, 11])
def test_a_relay_of_a_network_is_brought_back_by_its_text(seed: int) -> None:
    for plan in network(seed):
        again = plan_of(parse_case(plan.case.text))
        assert (again.events, again.reading, again.outcomes) == (
            plan.events,
            plan.reading,
            plan.outcomes,
        )
        assert again.describe() == plan.describe()
        half = len(plan.events) // 2
        less = plan_of(parse_case(f"{plan.case.text} events=0-{half}"))
        assert less.events == plan.events[:half]


def test_known_cases_are_cases() -> None:
    for text in KNOWN:
        case = parse_case(text)
        assert case.text == text
        assert {*case.faults} <= {*NAMES}
        assert plan_of(case).events
