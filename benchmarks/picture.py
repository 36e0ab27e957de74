"""The measurements as one SVG picture: throughput over processors, and time over size."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 380, 260, 52, 34, 14, 40
"""Pixels of one chart, and of the margins around what it shows."""
COLOURS = ("#1f6feb", "#8957e5", "#1a7f37", "#9a6700", "#cf222e", "#57606a")
TICKS = 4
PAPER = '<rect width="100%" height="100%" fill="#ffffff"/>'


@dataclass(frozen=True)
class Chart:
    """One chart: a line for each side."""

    title: str
    across: str
    up: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def picture(charts: Sequence[Chart]) -> str:
    """Return charts side by side, as SVG."""
    parts = [part for at, chart in enumerate(charts) for part in _chart(chart, at * WIDTH)]
    size = f'width="{WIDTH * len(charts)}" height="{HEIGHT + _legend_height(charts)}"'
    style = 'font-family="sans-serif" font-size="11" fill="#1f2328"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{PAPER}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _legend_height(charts: Sequence[Chart]) -> int:
    return 16 * max((len(chart.lines) for chart in charts), default=0) + 8


def _chart(chart: Chart, x: int) -> Iterator[str]:
    points = [point for line in chart.lines.values() for point in line]
    most_across = max((at for at, _ in points), default=1.0)
    most_up = max((value for _, value in points), default=1.0) * 1.05
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: tuple[float, float]) -> str:
        return f"{x + LEFT + wide * point[0] / most_across:.1f},{TOP + high * (1 - point[1] / most_up):.1f}"

    yield f'<text x="{x + LEFT}" y="18" font-weight="bold">{escape(chart.title)}</text>'
    yield f'<text x="{x + LEFT + wide}" y="{HEIGHT - 6}" text-anchor="end">{escape(chart.across)}</text>'
    yield f'<text x="{x + 4}" y="{TOP - 4}">{escape(chart.up)}</text>'
    for tick in range(TICKS + 1):
        y = TOP + high * (1 - tick / TICKS)
        value = most_up * tick / TICKS
        yield f'<path d="M{x + LEFT} {y:.1f}h{wide}" stroke="#d0d7de"/>'
        yield f'<text x="{x + LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    for at in sorted({across for across, _ in points}):
        middle = x + LEFT + wide * at / most_across
        yield f'<text x="{middle:.1f}" y="{TOP + high + 14}" text-anchor="middle">{at:g}</text>'
    for number, (name, line) in enumerate(chart.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(point) for point in sorted(line))
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for point in line:
            cx, cy = place(point).split(",")
            yield f'<circle cx="{cx}" cy="{cy}" r="2.5" fill="{colour}"/>'
        y = HEIGHT + 16 * number + 8
        yield f'<path d="M{x + LEFT} {y - 4}h18" stroke="{colour}" stroke-width="2"/>'
        yield f'<text x="{x + LEFT + 24}" y="{y}">{escape(name)}</text>'
