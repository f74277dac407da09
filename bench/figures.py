"""Figures: what was measured, beside what, and whether the goal holds (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Series:
    """Runs of one measurement; its value is their median."""

    name: str
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.values) - min(self.values)) / self.value if self.value else 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Ours beside a peer or a limit.

    Attributes:
        name: what is measured.
        unit: of both series.
        ours: our runs.
        beside: the peer's or the limit's runs, from the same run of the benchmark.
        goal: the bound on ours / beside, None where there is none.
        at_least: whether the goal is a least, not a most.
    """

    name: str
    unit: str
    ours: Series
    beside: Series
    goal: float | None = None
    at_least: bool = False

    @property
    def ratio(self) -> float:
        if not self.beside.value:
            return float("inf") if self.ours.value else 0.0
        return self.ours.value / self.beside.value

    @property
    def holds(self) -> bool | None:
        """None where there is no goal."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


@dataclass(frozen=True, slots=True)
class Point:
    """What one part of the benchmark found.

    Attributes:
        name: the part.
        figures: its rows of the table.
        facts: single values by name, for the text.
        bars: charts, by title: values by label, with a unit.
        cpu: CPU seconds by process, beside the wall clock ("wall").
        notes: sentences for the page.
        runs: how many runs each median is of.
    """

    name: str
    runs: int
    figures: tuple[Figure, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    bars: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    cpu: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    taken: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Point":
        figures = tuple(
            Figure(
                **{
                    **figure,
                    "ours": _series(figure["ours"]),
                    "beside": _series(figure["beside"]),
                }
            )
            for figure in document["figures"]
        )
        lines = {
            title: [(point[0], point[1]) for point in points]
            for title, points in document["lines"].items()
        }
        notes = tuple(document["notes"])
        return cls(**{**document, "figures": figures, "lines": lines, "notes": notes})


def _series(document: Mapping[str, Any]) -> Series:
    return Series(document["name"], tuple(document["values"]))
