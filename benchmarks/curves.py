"""Curves as an SVG, readable on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 560, 44, 340
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#2aa1c9")
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2", "12 5")
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .back { fill: #ffffff }
  .curve { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .grid { stroke: #3d444d } .back { fill: #0d1117 }
  }
"""


class Axis:
    """From values to pixels. `ticks` are the labelled values; the first and last are the ends."""

    def __init__(self, ticks: Sequence[float], pixels: tuple[float, float], *, log: bool, unit: str) -> None:
        self.ticks, self.log, self.unit = ticks, log, unit
        self.low, self.high = self._scaled(ticks[0]), self._scaled(ticks[-1])
        self.first, self.last = pixels

    def at(self, value: float) -> float:
        """The pixel of a value; one outside the axis is put at its end."""
        inside = min(max(value, self.ticks[0]), self.ticks[-1])
        share = (self._scaled(inside) - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def label(self, value: float) -> str:
        """The value with its unit."""
        return f"{value:g}{self.unit}"

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def chart(
    title: str, x_title: str, x_ticks: Sequence[float], curves: Mapping[str, Points], *, log: bool = False
) -> str:
    """Share of runs passed, in percent, over `x`; `log` scales both axes logarithmically."""
    across = Axis(x_ticks, (LEFT, RIGHT), log=log, unit="%" if log else " s")
    shares = (0.001, 0.01, 0.1, 1, 10, 100) if log else (0, 20, 40, 60, 80, 100)
    upwards = Axis(shares, (BOTTOM, TOP), log=log, unit="%")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, 24, title, "title"),
        _text((LEFT + RIGHT) / 2, BOTTOM + 44, x_title, anchor="middle"),
    ]
    for value in upwards.ticks:
        y = upwards.at(value)
        parts += [_line(LEFT, y, RIGHT, y), _text(LEFT - 8, y + 4, upwards.label(value), anchor="end")]
    for value in across.ticks:
        x = across.at(value)
        parts += [_line(x, TOP, x, BOTTOM), _text(x, BOTTOM + 20, across.label(value), anchor="middle")]
    for place, (name, points) in enumerate(curves.items()):
        parts += _curve(place, name, [(across.at(x), upwards.at(y)) for x, y in points])
    return "\n".join([*parts, "</svg>", ""])


def _curve(place: int, name: str, pixels: Points) -> list[str]:
    paint = f'stroke="{COLOURS[place]}" stroke-dasharray="{DASHES[place]}"'
    y = TOP + 14 + place * 26
    path = " ".join(f"{x:g},{y:g}" for x, y in pixels)
    return [
        f'<polyline class="curve" {paint} points="{path}"/>',
        f'<line class="curve" {paint} x1="{RIGHT + 14}" y1="{y - 4}" x2="{RIGHT + 46}" y2="{y - 4}"/>',
        _text(RIGHT + 54, y, name),
    ]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
