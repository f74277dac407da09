"""`make bench`: measures, prints the table, writes bench/results.json and docs/benchmarks."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from bench import (
    archiving,
    checking,
    gathering,
    growing,
    history,
    memory,
    monitoring,
    requesting,
    writing,
)
from bench.figures import Point
from bench.page import write_page
from bench.processes import ROOT
from bench.settings import QUICK, Amounts
from bench.tables import HEAD, rows, text_table

RESULTS = ROOT / "bench" / "results.json"
PARTS: dict[str, Callable[[Amounts], Point]] = {
    "check": checking.measure,
    "write": writing.measure,
    "gather": gathering.measure,
    "requests": requesting.measure,
    "archive": archiving.measure,
    "memory": memory.measure,
    "growth": growing.measure,
    "monitor": monitoring.measure,
    "history": history.measure,
}


def main(argv: list[str]) -> int:
    """Measure the parts that were asked for. A missed goal is a result, not an error."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes, less exact")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them by default")
    given = parser.parse_args(argv)
    if given.page:
        _write_page(_earlier())
        return 0
    amounts = QUICK if given.quick else Amounts()
    # A part that is not measured again stays as it was, in the order of the parts.
    points = {} if given.quick or not given.parts else _earlier()
    for name in given.parts or PARTS:
        started = time.monotonic()
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        point = PARTS[name](amounts)
        points[name] = replace(point, taken=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
        took = time.monotonic() - started
        print(f"bench: {name} took {took:.0f} s", file=sys.stderr, flush=True)
        if not given.quick:
            _save(points)
    ordered = [points[name] for name in PARTS if name in points]
    figures = [figure for point in ordered for figure in point.figures]
    print(text_table(HEAD, rows(figures)))
    for point in ordered:
        print(f"\n{point.name}: CPU seconds by process (median of {point.runs} runs)")
        print(*(f"  {name}: {seconds:.2f}" for name, seconds in point.cpu.items()), sep="\n")
    if not given.quick:
        _write_page(points)
    failed = [figure.name for figure in figures if figure.holds is False]
    print(f"\ngoals missed: {', '.join(failed) or 'none'}")
    return 0


def _earlier() -> dict[str, Point]:
    """What was measured before: a part that is not measured again stays."""
    if not RESULTS.exists():
        return {}
    document = json.loads(RESULTS.read_text())
    return {point["name"]: Point.from_json(point) for point in document["parts"]}


def _save(points: dict[str, Point]) -> None:
    document = {"machine": _machine(), "parts": [point.to_json() for point in points.values()]}
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _write_page(points: dict[str, Point]) -> None:
    ordered = [points[name] for name in PARTS if name in points]
    write_page(ordered, ROOT / "docs" / "benchmarks", _machine())


def _machine() -> str:
    with open("/proc/cpuinfo") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = models[0] if models else "unknown processor"
    return f"{os.cpu_count()} cores ({name}), {memory_gb:.0f} GB, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
