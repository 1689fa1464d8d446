"""A bar chart as SVG, on a logarithmic scale, with nothing but text."""

import math
from collections.abc import Sequence
from html import escape

BAR = 22
LEFT = 190
RIGHT = 90
WIDTH = 760
TOP = 34


def bars(title: str, values: Sequence[tuple[str, float]], strong: str) -> str:
    """Return one chart; the bar named `strong` stands out."""
    shown = sorted(values, key=lambda value: -value[1])
    low = 10 ** math.floor(math.log10(min(value for _, value in shown)) - 0.1)
    high = 10 ** math.ceil(math.log10(max(value for _, value in shown)))
    span = math.log10(high / low)
    bottom = TOP + BAR * len(shown)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(value / low) / span

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 24}">',
        '<g font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{bottom + 24}" fill="white"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        at = x(10**power)
        parts.append(
            f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#ccc"/>'
            f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{10**power:,}</text>'
        )
    for row, (name, value) in enumerate(shown):
        y = TOP + BAR * row
        colour = "#1b6ca8" if name == strong else "#9aa7b0"
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LEFT}" y="{y + 3}" width="{max(x(value) - LEFT, 1):.1f}"'
            f' height="{BAR - 6}" fill="{colour}"/>'
            f'<text x="{x(value) + 6:.1f}" y="{y + 15}">{value:,.0f}</text>'
        )
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"
