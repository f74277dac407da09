"""Figures as a text table and as Markdown (pure)."""

import math
from collections.abc import Iterable, Sequence

from bench.figures import Figure

HEAD = ("figure", "ours", "beside", "ratio", "goal", "holds")


def rows(figures: Iterable[Figure]) -> list[tuple[str, ...]]:
    """The cells of each figure."""
    return [
        (
            figure.name,
            f"{number(figure.ours.value)} {figure.unit}".strip(),
            f"{number(figure.beside.value)} {figure.unit}".strip() + f" ({figure.beside.name})",
            number(figure.ratio),
            "" if figure.goal is None else f"{'≥' if figure.at_least else '≤'} {figure.goal:g}",
            {None: "", True: "yes", False: "NO"}[figure.holds],
        )
        for figure in figures
    ]


def text_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns aligned for a terminal."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, body)])


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float) -> str:
    """Three significant digits, without an exponent; "-" for what cannot be compared."""
    if not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1_000:
        return str(int(value))
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
