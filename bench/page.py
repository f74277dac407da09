"""docs/benchmarks: the page, and a picture for each chart."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import charts
from bench.figures import Point
from bench.scale import plan
from bench.tables import HEAD, markdown_table, number, rows

_REMARKS = Path(__file__).with_name("remarks.md")


def write_page(points: Sequence[Point], folder: Path, machine: str) -> None:
    """Write README.md and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for point in points:
        for title, values in point.bars.items():
            (folder / picture(title)).write_text(charts.bars(title, values))
        for title, line in point.lines.items():
            (folder / picture(title)).write_text(charts.line(title, line))
    (folder / "README.md").write_text(page(points, machine, _REMARKS.read_text()))


def page(points: Sequence[Point], machine: str, remarks: str) -> str:
    """The text of the page (pure)."""
    figures = [figure for point in points for figure in point.figures]
    held = [figure.holds for figure in figures if figure.holds is not None]
    parts = [
        "# Benchmarks",
        f"Written by `make bench` on {machine}. Figures are medians, each beside a peer or a "
        "limit of the same run: trust the ratios, not the seconds. "
        f"{sum(held)} of {len(held)} goals hold.",
        markdown_table(HEAD, rows(figures)),
        remarks.strip(),
        _profile(points),
        _plan(points),
        "## Charts",
        *(
            f"![{title}]({picture(title)})"
            for point in points
            for title in [*point.bars, *point.lines]
        ),
        "## CPU seconds by process",
        markdown_table(
            ("part, process", "seconds"),
            [(name, f"{value:.2f}") for point in points for name, value in point.cpu.items()],
        ),
        "## Single values",
        markdown_table(
            ("part", "value", ""),
            [
                (point.name, name.replace("_", " "), number(value))
                for point in points
                for name, value in point.facts.items()
            ],
        ),
        "## How each part was measured",
        *(
            f"- **{point.name}**, {_runs(point)}, {point.taken}. {' '.join(point.notes)}".rstrip()
            for point in points
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def picture(title: str) -> str:
    """The file name of a chart."""
    words = re.sub("[^a-z0-9]+", "-", title.lower().replace("µs", "microseconds"))
    return words[:60].strip("-") + ".svg"


def _runs(point: Point) -> str:
    return "one run" if point.runs == 1 else f"{point.runs} runs"


def _profile(points: Sequence[Point]) -> str:
    bars = next((point.bars for point in points if point.name == "check"), {})
    steps = next((values for title, values in bars.items() if "by step" in title), None)
    if not steps:
        return ""
    total = sum(steps.values())
    body = [(name, f"{value:.1f}", f"{100 * value / total:.0f} %") for name, value in steps.items()]
    return "## The hot path, step by step\n\n" + markdown_table(
        ("step", "µs of CPU an event", "share"), body
    )


def _plan(points: Sequence[Point]) -> str:
    facts: Mapping[str, float] = {
        name: value for point in points for name, value in point.facts.items()
    }
    if not {"client_us", "server_us", "pooler_us", "bytes_per_event"} <= facts.keys():
        return ""
    found = plan(facts)
    return f"""## Past one machine: a billion events

| | |
| --- | --- |
| events/s for one core of a synchronizer | {number(found.per_client_core)} |
| events/s for one core of PostgreSQL and PgBouncer | {number(found.per_server_core)} |
| bytes for an event, tables and indexes | {number(facts["bytes_per_event"])} |
| a billion events | {number(found.terabytes)} TB, disks of {number(found.terabytes_of_disk)} TB |
| cores for a billion in a day | {found.client_cores:.1f} synchronizer + \
{found.server_cores:.1f} database |
| the same on two cores | {number(found.days_on_two_cores)} days |

Synchronizers share nothing but the database: relays are claimed by lease, so they are added host
by host (`docker compose up --scale synchronizer=N`) until the database is busy. An event that
several relays hold is checked once and costs each further relay only its sighting. The database is
one PostgreSQL: `events_relays` has a row for each pair of event and relay and is the first to
outgrow a disk; it splits by range of `relay_url` or hash of `event_id`, `events` by range of
`created_at`, both as declarative partitions, the indexes of old months on slower disks. Reading
goes to streaming replicas. None of this has been measured here; it follows from the figures above,
which are of an archive that fits into memory: beyond that, the disk's random reads come on top, and
a relay's answers, not our cores, set the pace.
"""
