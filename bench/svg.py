"""Three kinds of charts as SVG, with nothing but text: bars, stacked bars, marks on lines."""

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Final

ROW: Final = 22
LEFT: Final = 190
RIGHT: Final = 90
WIDTH: Final = 760
TOP: Final = 34
STRONG, PALE = "#1b6ca8", "#9aa7b0"
COLOURS: Final = (
    *("#1b6ca8", "#e08e45", "#4b9b6e", "#b0504a", "#7d6bb0", "#c9a227"),
    *("#4aa3b5", "#a3628f", "#7f8c4f", "#5a6b7b", "#d58aa0"),
)
REST: Final = "#c8ced3"


class _Log:
    """A logarithmic scale with whole powers of ten around the values."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low = math.floor(math.log10(min(values)) - 0.1)
        self.high = math.ceil(math.log10(max(values)))

    def x(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def grid(self, bottom: int) -> list[str]:
        parts = []
        for power in range(self.low, self.high + 1):
            x, value = self.x(10.0**power), 10.0**power
            told = f"{value:,.0f}" if power >= 0 else f"{value:g}"
            parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#ccc"/>')
            parts.append(_text(x, bottom + 16, told, "middle"))
        return parts


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">',
        '<g font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    return "\n".join([*head, *parts, "</g>", "</svg>"]) + "\n"


def bars(
    title: str, values: Sequence[tuple[str, float]], strong: Collection[str]
) -> str:
    """Return bars on a logarithmic scale, the longest first; those named stand out."""
    shown = sorted(values, key=lambda value: -value[1])
    scale, bottom = _Log([value for _, value in shown]), TOP + ROW * len(shown)
    parts = scale.grid(bottom)
    for row, (name, value) in enumerate(shown):
        y, x = TOP + ROW * row, scale.x(value)
        colour = STRONG if name in strong else PALE
        parts += [
            _text(LEFT - 8, y + 15, name, "end"),
            _rect(LEFT, y + 3, max(x - LEFT, 1), ROW - 6, colour),
            _text(x + 6, y + 15, f"{value:,.0f}"),
        ]
    return _svg(title, bottom + 24, parts)


def stacked(
    title: str, rows: Mapping[str, Mapping[str, float]], rest: str, parts_max: int = 10
) -> str:
    """Return one bar a row, its parts beside each other; all but the largest are `rest`."""
    total: dict[str, float] = {}
    for found in rows.values():
        for part, value in found.items():
            total[part] = total.get(part, 0.0) + value
    shown = sorted(total, key=lambda part: -total[part])[:parts_max]
    colours = {**dict(zip(shown, COLOURS, strict=False)), rest: REST}
    widest = max(sum(found.values()) for found in rows.values())
    drawn: list[str] = []
    for row, (name, found) in enumerate(rows.items()):
        y, x = TOP + 2 * ROW * row, float(LEFT)
        drawn.append(_text(LEFT - 8, y + 24, name, "end"))
        whole = sum(found.values())
        sized = {part: found.get(part, 0.0) for part in shown}
        sized[rest] = whole - sum(sized.values())
        for part, value in sized.items():
            width = max(value, 0.0) / widest * (WIDTH - LEFT - RIGHT)
            drawn.append(_rect(x, y + 4, width, 2 * ROW - 10, colours[part]))
            if width > 30:
                drawn.append(_text(x + width / 2, y + 24, f"{value:.0f}", "middle"))
            x += width
        drawn.append(_text(x + 6, y + 24, f"{whole:,.0f}"))
    bottom = TOP + 2 * ROW * len(rows)
    for number, (part, colour) in enumerate(colours.items()):
        x, y = 8 + number % 3 * 250, bottom + 8 + number // 3 * ROW
        drawn += [_rect(x, y, 12, 12, colour), _text(x + 18, y + 11, part)]
    return _svg(title, bottom + 16 + ROW * -(-len(colours) // 3), drawn)


def marks(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return one line a row with a mark per value, told above it, on a logarithmic scale."""
    values = [max(value, 1e-3) for found in rows.values() for value in found.values()]
    scale, bottom = _Log(values), TOP + 2 * ROW * len(rows)
    parts = scale.grid(bottom)
    for row, (name, found) in enumerate(rows.items()):
        y = TOP + 2 * ROW * row + 30
        places = [scale.x(max(value, 1e-3)) for value in found.values()]
        line = f"M{min(places):.1f} {y}H{max(places):.1f}"
        told = " · ".join(f"{mark} {value:,.0f}" for mark, value in found.items())
        parts += [
            _text(LEFT - 8, y + 4, name, "end"),
            f'<path d="{line}" stroke="{STRONG}" stroke-width="2"/>',
            *(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{STRONG}"/>' for x in places),
            _text(LEFT + 6, y - 10, told),
        ]
    return _svg(title, bottom + 24, parts)
