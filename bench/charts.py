"""Charts as SVG text (pure): bars beside each other, and a line over time."""

from collections.abc import Mapping, Sequence
from html import escape

from bench.tables import number

_WIDTH, _LEFT, _BAR = 720, 250, 26
_COLOURS = ("#1f6f8b", "#99a8b2")


def bars(title: str, values: Mapping[str, float]) -> str:
    """Horizontal bars; the first is ours."""
    most = max(values.values(), default=0.0) or 1.0
    room = _WIDTH - _LEFT - 90
    parts = [_text(10, 22, title, weight="bold")]
    for row, (label, value) in enumerate(values.items()):
        top = 40 + row * (_BAR + 8)
        width = max(1.0, room * value / most)
        parts += [
            _text(_LEFT - 8, top + 18, label, anchor="end"),
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" '
            f'fill="{_COLOURS[min(row, 1)]}"/>',
            _text(_LEFT + width + 6, top + 18, number(value)),
        ]
    return _svg(48 + len(values) * (_BAR + 8), parts)


def line(title: str, points: Sequence[tuple[float, float]]) -> str:
    """One line; both axes start at 0."""
    height, bottom, left = 260, 225, 70
    furthest = max((x for x, _ in points), default=0.0) or 1.0
    highest = max((y for _, y in points), default=0.0) or 1.0
    drawn = " ".join(
        f"{left + (_WIDTH - left - 30) * x / furthest:.1f},{bottom - 180 * y / highest:.1f}"
        for x, y in points
    )
    return _svg(
        height,
        [
            _text(10, 22, title, weight="bold"),
            f'<path d="M{left} 40V{bottom}H{_WIDTH - 30}" fill="none" stroke="#555"/>',
            f'<polyline points="{drawn}" fill="none" stroke="{_COLOURS[0]}" stroke-width="2"/>',
            _text(left - 6, 49, number(highest), anchor="end"),
            _text(left - 6, bottom, "0", anchor="end"),
            _text(_WIDTH - 30, bottom + 20, number(furthest), anchor="end"),
        ],
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _svg(height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            'font-family="sans-serif" font-size="13">',
            f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )
