"""The picture of a history: runs by day, week or longer, and by how they ended. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from opsgate.evidence.history import instant
from opsgate.evidence.views.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opsgate.evidence.ledger import Line

Ending = Literal["passed", "skipped", "recovered", "failed"]
ENDINGS: Final[dict[Ending, str]] = {
    "passed": "passed",
    "skipped": "not validated",
    "recovered": "failed, rolled back and recovered",
    "failed": "failed, not seen to recover in that run",
}
"""How a run ended → its words, in the order from the axis upwards, then downwards."""
_BELOW: Final[tuple[Ending, ...]] = ("recovered", "failed")
COLUMNS: Final = 110
_DAYS: Final = 45
"""Up to so many days a column is a day: one of them is then as wide as a finger on a phone's screen."""
_SLOTS: Final = 14
"""There is room for so many columns at least: a single one is no wall."""
HEIGHT: Final = 120
"""Pixels that the highest and the deepest column share."""
TOP: Final = 16
_LABELS: Final = 4
_ROOM: Final = 0.78
"""Beyond this share of the width a date has no room left on a phone."""


class Bar(msgspec.Struct, frozen=True):
    """Runs of one column that ended alike; `y` and `height` in pixels."""

    ending: Ending
    y: float
    height: float


class Column(msgspec.Struct, frozen=True):
    """The runs of one period. `x` and `width` in percent."""

    begin: str
    """Its first day, `2026-05-25`."""
    counts: dict[Ending, int]
    text: str
    x: str
    width: str
    bars: list[Bar]


class Label(msgspec.Struct, frozen=True):
    """A date under the axis that begins at `x` percent."""

    text: str
    x: str


class Picture(msgspec.Struct, frozen=True):
    """Everything the picture shows."""

    span: str
    """What a column is: `a day`, `a week`, `4 weeks`."""
    axis: float
    """Pixel row from which what failed hangs, and on which the rest stands."""
    bottom: float
    columns: list[Column]
    labels: list[Label]
    above: int
    """Runs of the highest column, and of the deepest one in `below`."""
    below: int


def ending(line: Line) -> Ending:
    """How the run ended, as far as the ledger knows."""
    if line.status == "failed":
        return "recovered" if line.recovered_at else "failed"
    return line.status


def picture(runs: Iterable[Line]) -> Picture | None:
    """The picture of `runs`; None when there are none. An `EvidenceError` for an edited time."""
    days = [(instant(line.finished_at).toordinal(), ending(line)) for line in runs]
    if not days:
        return None
    first, last = min(day for day, _ in days), max(day for day, _ in days)
    size = _size(last - first + 1)
    counts: dict[int, Counter[Ending]] = {}
    for day, how in days:
        counts.setdefault(_period(day, size), Counter())[how] += 1
    periods = range(_period(first, size), _period(last, size) + 1)
    above = max(one.total() - _failed(one) for one in counts.values())
    below = max(_failed(one) for one in counts.values())
    scale = HEIGHT / (above + below)
    axis = TOP + above * scale
    columns = []
    for number, period in enumerate(periods):
        found = counts.get(period, Counter())
        begin, width = date.fromordinal(period * size + 1), 1 / max(len(periods), _SLOTS)
        columns.append(_column(begin, found, _bars(found, scale, axis), number * width, width))
    span = {1: "a day", 7: "a week"}.get(size, f"{size // 7} weeks")
    return Picture(span, axis, TOP + HEIGHT, columns, _labels(columns), above, below)


def _size(days: int) -> int:
    """Days of a column. Multiples of a week begin on a Monday, as day 1 of the calendar did."""
    if days <= _DAYS:
        return 1
    weeks = 1
    while days / (7 * weeks) > COLUMNS - 1:
        weeks *= 4
    return 7 * weeks


def _period(day: int, size: int) -> int:
    return (day - 1) // size


def _failed(counts: Counter[Ending]) -> int:
    return sum(counts[how] for how in _BELOW)


def _bars(counts: Counter[Ending], scale: float, axis: float) -> list[Bar]:
    bars = []
    up = down = axis
    for how in ENDINGS:
        height = counts[how] * scale
        if height and how in _BELOW:
            bars.append(Bar(how, round(down, 2), round(height, 2)))
            down += height
        elif height:
            up -= height
            bars.append(Bar(how, round(up, 2), round(height, 2)))
    return bars


def _column(begin: date, counts: Counter[Ending], bars: list[Bar], at: float, width: float) -> Column:
    told = [f"{counts[how]} {words}" for how, words in ENDINGS.items() if counts[how]]
    return Column(
        begin=begin.isoformat(),
        counts={how: counts[how] for how in ENDINGS},
        text=f"{begin.isoformat()}: {', '.join([count(counts.total(), 'run'), *told])}",
        x=f"{(at + 0.08 * width) * 100:.3f}%",
        width=f"{0.84 * width * 100:.3f}%",
        bars=bars,
    )


def _labels(columns: Sequence[Column]) -> list[Label]:
    slots = max(len(columns), _SLOTS)
    step = -(-slots // _LABELS)
    return [
        Label(column.begin, column.x)
        for number, column in enumerate(columns)
        if number % step == 0 and number / slots < _ROOM
    ]
