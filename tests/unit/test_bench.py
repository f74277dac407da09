"""The pure parts of the benchmark: medians, goals, tables, charts, the plan."""

import json
from math import inf
from xml.etree import ElementTree

import pytest
from bench.charts import bars, line
from bench.dataset import START, growing, load, save, sign, steady
from bench.figures import Figure, Point, Series
from bench.monitoring import ideal, shares
from bench.page import page, picture
from bench.processes import Stat, descendants, parse_stat
from bench.scale import plan
from bench.stage import conf_settings
from bench.tables import HEAD, markdown_table, number, rows, text_table

from nostr.events import parse_event, verify_signatures


def figure(
    ours: float, beside: float, goal: float | None = None, *, at_least: bool = False
) -> Figure:
    return Figure("f", "µs", Series("a", (ours,)), Series("b", (beside,)), goal, at_least)


def test_the_value_of_a_series_is_its_median() -> None:
    series = Series("runs", (9.0, 1.0, 2.0))
    assert series.value == 2.0
    assert series.spread == 4.0


@pytest.mark.parametrize(
    ("measured", "holds"),
    [
        (figure(13, 10, 1.3), True),
        (figure(14, 10, 1.3), False),
        (figure(60, 10, 6, at_least=True), True),
        (figure(59, 10, 6, at_least=True), False),
        (figure(0, 12, 0.0), True),
        (figure(1, 12, 0.0), False),
        (figure(1, 0, 1.0), False),
        (figure(0, 0, 0.0), True),
        (figure(1, 1), None),
    ],
)
def test_a_goal_bounds_the_ratio_from_its_side(measured: Figure, holds: bool | None) -> None:
    assert measured.holds is holds


def test_results_survive_their_file() -> None:
    point = Point(
        "check",
        3,
        (figure(1, 2, 3),),
        facts={"x": 1.0},
        bars={"t": {"ours": 1.0}},
        lines={"l": [(0.0, 1.0)]},
        notes=("n",),
        taken="now",
    )
    assert Point.from_json(json.loads(json.dumps(point.to_json()))) == point


def test_tables_show_what_missed_its_goal() -> None:
    body = rows([figure(14, 10, 1.3), figure(5, 10)])
    assert body[0] == ("f", "14 µs", "10 µs (b)", "1.4", "≤ 1.3", "NO")
    assert body[1][4:] == ("", "")
    assert len(set(map(len, text_table(HEAD, body).splitlines()[1:2]))) == 1
    assert markdown_table(HEAD, body).splitlines()[2].startswith("| f | 14 µs |")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.1234, "0.123"), (12345.6, "12,346"), (61.04, "61"), (inf, "-")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_charts_are_svg_whatever_their_labels() -> None:
    for text in (bars("a < b & c", {"<ours>": 2.0, "theirs": 0.0}), bars("none", {})):
        assert ElementTree.fromstring(text).tag.endswith("svg")
    root = ElementTree.fromstring(line("memory", [(0, 10), (5, 20), (10, 20)]))
    points = next(element for element in root if element.tag.endswith("polyline"))
    assert len(points.attrib["points"].split()) == 3


def test_the_longest_bar_is_the_largest_value() -> None:
    root = ElementTree.fromstring(bars("t", {"ours": 1.0, "theirs": 4.0}))
    widths = [
        float(element.attrib["width"])
        for element in root
        if element.tag.endswith("rect") and "x" in element.attrib
    ]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)


def test_cpu_of_a_process_is_read_from_its_stat() -> None:
    text = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 100 50 20 30 20 0 1 0 1 1 1"
    stat = parse_stat(text)
    assert stat.parent == 3
    assert stat.own == pytest.approx(3 * stat.reaped)


def test_descendants_are_all_below_a_process() -> None:
    stats = {pid: Stat(parent, 0, 0) for pid, parent in [(1, 0), (2, 1), (3, 2), (4, 0)]}
    assert descendants(stats, 1) == {1, 2, 3}
    assert descendants(stats, 9) == set()


def test_events_are_the_same_for_the_same_seed_and_are_right(tmp_path) -> None:
    events = sign(steady(40), "seed")
    assert events == sign(steady(40), "seed") != sign(steady(40), "other")
    assert load(save(events, tmp_path / "events")) == events
    assert [parse_event(event._asdict()) for event in events] == events
    assert all(verify_signatures(events))


def test_growing_times_grow_and_have_bursts() -> None:
    times = growing(20_000, 1_000_000)
    assert len(times) == 20_000
    assert times == sorted(times)
    assert START <= times[0] <= times[-1] < START + 1_000_000
    assert sum(time >= START + 500_000 for time in times) > 12_000
    assert max(times.count(time) for time in set(times[::50])) >= 200


def test_the_settings_of_the_server_are_read_without_the_machine() -> None:
    found = conf_settings("listen_addresses = '*'\n# a = b\nwal_level = 'x' # why\nlog_y = on\n")
    assert found == {"wal_level": "x", "autovacuum": "on"}


def test_the_plan_is_what_the_costs_make_it() -> None:
    found = plan(
        {"client_us": 100, "server_us": 90, "pooler_us": 10, "bytes_per_event": 1_400}, days=10
    )
    assert found.per_client_core == pytest.approx(10_000)
    assert found.per_server_core == pytest.approx(10_000)
    assert found.terabytes == pytest.approx(1.4)
    assert found.terabytes_of_disk == pytest.approx(2)
    assert found.client_cores == pytest.approx(100_000 / 864_000)
    assert found.days_on_two_cores == pytest.approx(100_000 / 86_400)


def test_the_page_says_how_many_goals_hold() -> None:
    point = Point(
        "archive",
        5,
        (figure(1, 2, 1), figure(3, 2, 1), figure(3, 2)),
        facts={"client_us": 80, "server_us": 90, "pooler_us": 10, "bytes_per_event": 1_000},
        bars={"µs of CPU": {"ours": 1.0}},
    )
    text = page([point], "a machine", "## Remarks")
    assert "1 of 2 goals hold" in text
    assert f"]({picture('µs of CPU')})" in text
    assert "## Past one machine" in text
    assert "## Past one machine" not in page([], "a machine", "")


def test_dead_relays_are_seventy_percent_in_equal_shares() -> None:
    found = shares(1_000, ["alive", "refused", "silent", "drip"])
    assert sum(found.values()) == 1_000
    assert found["refused"] == found["silent"] == found["drip"] == 233


def test_the_ideal_cycle_is_all_waiting_shared_but_no_less_than_one_check() -> None:
    alone = {"alive": 0.1, "silent": 5.0}
    assert ideal({"alive": 100, "silent": 100}, alone, 10) == pytest.approx(51)
    assert ideal({"alive": 100, "silent": 1}, alone, 100) == 5.0
