"""The demo's verdict: complete and unaltered, or not."""

import pytest

from standalone.demo_archive import CheckedRelay, NamedRelay, Progress, ReadBack, RelayProgress
from standalone.report import (
    ArrivalClock,
    RelayResult,
    Verdict,
    archive_line,
    archived_from,
    cycle_totals,
    finder_lines,
    judge,
    monitor_lines,
    progress_line,
    service_line,
    table,
)

HELD = {"wss://a": {"1", "2"}, "wss://b": {"2", "3"}}


def complete() -> ReadBack:
    return ReadBack(right={"1", "2", "3"}, sightings={"wss://a": {"1", "2"}, "wss://b": {"2", "3"}})


def test_everything_archived_passes() -> None:
    verdict = judge(HELD, complete())
    assert verdict == Verdict(held=3, archived=3, relays=2, wrong=0)
    assert verdict.passed
    assert verdict.line() == "demo: archived 3 of 3 events from 2 relays, 0 missing"


def test_an_event_that_is_not_in_the_archive_is_missing() -> None:
    result = complete()
    result.right.discard("1")
    verdict = judge(HELD, result)
    assert not verdict.passed
    assert verdict.line() == "demo: archived 2 of 3 events from 2 relays, 1 missing"


def test_an_event_archived_from_one_of_its_two_relays_only_is_missing() -> None:
    result = complete()
    result.sightings["wss://b"].discard("2")
    assert judge(HELD, result).missing == 1
    assert archived_from("wss://b", result) == {"3"}
    assert archived_from("wss://a", result) == {"1", "2"}


def test_an_altered_event_fails_even_when_no_relay_still_holds_it() -> None:
    result = complete()
    result.wrong["9"] = "altered: content"
    verdict = judge(HELD, result)
    assert verdict.missing == 0
    assert not verdict.passed


def test_events_of_others_in_the_archive_do_not_count() -> None:
    result = complete()
    result.unknown = 5
    result.sightings["wss://a"].add("elsewhere")
    assert judge(HELD, result).line().startswith("demo: archived 3 of 3")


def test_relays_that_hold_nothing_prove_nothing() -> None:
    assert not judge({"wss://a": set()}, ReadBack()).passed


def test_arrival_clock_measures_from_the_last_empty_look_to_the_last_growth() -> None:
    clock = ArrivalClock()
    for seconds, archived in ((0.0, 0), (1.0, 0), (2.0, 10), (3.0, 20), (4.0, 20)):
        clock.note(seconds, Progress(0, {"a": RelayProgress(archived), "b": RelayProgress()}))
    assert clock.seconds() == {"a": 2.0}


def test_table_lines_up() -> None:
    text = table(
        [
            RelayResult("relay-1", "a", 12_345, 12_345, 100.0, 10.0),
            RelayResult("relay-2", "longer name", 5, 3, 99.99, 0.0),
        ]
    )
    header, rule, first, second = text.splitlines()
    assert len({len(header), len(rule), len(first), len(second)}) == 1
    assert first.split() == ["relay-1", "a", "12,345", "12,345", "0", "100.00", "1,234"]
    assert second.split() == ["relay-2", "longer", "name", "5", "3", "2", "99.99", "0"]


def test_progress_line_shows_every_relay() -> None:
    progress = Progress(7, {"wss://a": RelayProgress(5, 50.4), "wss://b": RelayProgress()})
    line = progress_line(
        3.25, progress, {"wss://a": "one", "wss://b": "two"}, {"wss://a": 10, "wss://b": 4}
    )
    assert "7 events" in line
    assert "one 5/10 (50% proven)" in line
    assert "two 0/4 (0% proven)" in line


LOG = [
    "00:00:00,000 - FINDER - INFO - ✅ cycle_done seconds=0.5 urls_named=3 relays_found=1",
    "00:00:01,000 - FINDER - INFO - something else urls_named=100",
    "00:00:02,000 - FINDER - INFO - ✅ cycle_done seconds=0.25 urls_named=4 relays_found=0",
]


def test_cycles_are_counted_and_summed() -> None:
    assert cycle_totals(LOG) == (2, {"urls_named": 7, "relays_found": 1})
    assert service_line("finder", LOG).split() == [
        *("finder", "2", "cycles:", "urls_named=7", "relays_found=1")
    ]


def test_initializer_line_is_its_totals() -> None:
    log = ["x - INITIALIZER - INFO - ✅ seeds_added new=2 known=0 duplicates=1 refused=1"]
    assert service_line("initializer", log).split(None, 1)[1] == (
        "new=2 known=0 duplicates=1 refused=1"
    )


@pytest.mark.parametrize("log", [[], ["no cycle here"]])
def test_a_silent_service_is_said_to_have_done_nothing(log: list[str]) -> None:
    assert service_line("monitor", log).endswith("0 cycles: nothing to do")


def test_archive_line_names_its_counts() -> None:
    counts = {"raw": 3, "refused": 4, "relays": 5, "readable": 6, "checks": 7, "gaps": 8}
    line = archive_line(counts, 20, 2)
    for text in ("20 events", "3 of them", "2 not of the demo", "4 refused", "8 gaps"):
        assert text in line


def test_finder_lines_say_where_relays_were_found_and_what_was_refused() -> None:
    named = [
        NamedRelay("wss://a", False, ("list seeds.txt (1x)", "event 10002 (40x)")),
        NamedRelay("wss://dead", True, ("event 10002 (40x)",)),
    ]
    log = [
        "00:00:00,000 - FINDER - INFO - 🔍 urls_refused not-websocket=4 too-long=1",
        "00:00:01,000 - FINDER - INFO - 🔍 urls_refused not-websocket=2 userinfo=2",
    ]
    lines = list(finder_lines(named, {"wss://a": "relay-1"}, log))
    assert lines[0].endswith(" relay-1: relay, named by list seeds.txt (1x), event 10002 (40x)")
    assert lines[1].endswith(" wss://dead: candidate, no answer, named by event 10002 (40x)")
    assert lines[2].split() == ["refused", "not-websocket=6", "userinfo=2", "too-long=1"]
    assert list(finder_lines([], {}, [])) == []


def test_what_the_monitor_found_has_a_line_for_each_relay() -> None:
    good = CheckedRelay("wss://a", 3, "ok", "ok", "ws", 12, 7, "a relay")
    dead = CheckedRelay("wss://b", 1, "refused", "", "", None, None, None)
    assert list(monitor_lines([good, dead], {"wss://a": "relay-1"})) == [
        "  checked             relay-1: 3x, last read ok, write ok, over ws, open 12 ms, "
        "read 7 ms, software a relay",
        "  checked             wss://b: 1x, last read refused, write not tested, over nothing, "
        "open -, read -, software not told",
    ]
