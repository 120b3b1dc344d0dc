"""A bar chart of a measurement: one bar per stage, and its time at this machine's ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

ROW, LEFT, WIDTH = 22, 190, 560


def svg(title: str, bars: Mapping[str, tuple[float, float | None]]) -> str:
    """Bars of milliseconds, each with its floor in milliseconds if it is known."""
    longest = max(value for value, _ in bars.values()) or 1.0
    height = ROW * (len(bars) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, (value, floor)) in enumerate(bars.items(), start=1):
        top, length = number * ROW + 6, WIDTH * value / longest
        lines += [
            f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{ROW - 6}" fill="#4878a8"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{top + 13}">{value:.1f} ms</text>',
        ]
        if floor is not None:
            at = LEFT + WIDTH * floor / longest
            lines.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 2}" y2="{top + ROW - 4}" '
                'stroke="#d04020" stroke-width="2"/>'
            )
    return "\n".join([*lines, "</svg>"]) + "\n"
