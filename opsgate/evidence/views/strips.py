"""The picture of one target's attempts on a time axis, as percentages and pixels for an inline SVG."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec

from opsgate.evidence.views.facts import run_start
from opsgate.evidence.views.words import count, failure, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opsgate.evidence.record import Gate, TargetResult
    from opsgate.verdict.targets import Attempt

COLUMNS: Final = 240
"""Bars of one strip; attempts that would share a column are drawn as one."""
SEGMENTS: Final = 8
EDGE: Final = 0.9
"""Beyond this share of the width a label has no room on the right."""
ROOM: Final = 0.25
"""Share of the width that the name of a kind may need on a phone."""
MIDDLE: Final = 92
"""Pixel row of the axis: healthy attempts stand on it, failed ones hang from it."""
TALL: Final = 34
LOW: Final = 5
"""Pixels of the fastest attempt; each tenfold latency adds as many pixels again."""
_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


class Bar(msgspec.Struct, frozen=True):
    """One attempt, or several that share a column. `x` and `width` in percent, `y` and `height` in pixels."""

    x: str
    width: str
    y: int
    height: int
    ok: bool


class Mark(msgspec.Struct, frozen=True):
    """A vertical line at `x` percent with a label in pixel row `y`."""

    name: str
    x: str
    y: int
    label: str
    anchor: str
    """`start` or `end`: the side of the line that has room for the label."""


class Segment(msgspec.Struct, frozen=True):
    """Attempts one after another that ended alike, in words."""

    ok: bool
    text: str


class Strip(msgspec.Struct, frozen=True):
    """Everything the picture shows."""

    bars: list[Bar]
    marks: list[Mark]
    ticks: list[Mark]
    soak: tuple[str, str] | None
    """Where the soak began and how long it was to last, in percent."""
    segments: list[Segment]


def strip(gate: Gate, target: TargetResult) -> Strip:
    """The strip of one target of a gate that ran."""
    policy = gate.policy
    deadline = policy.deadline * 1000 if policy else 0
    last = max((attempt.end_ms for attempt in target.attempts), default=0)
    end = max(float(gate.duration_ms or 0), last, 1)
    # A deadline far beyond the verdict would press the attempts into a corner: it is named at the edge.
    width = max(deadline, end) * 1.02 if deadline <= 1.7 * end else end * 1.25
    axis = _Axis(max(width, 1))
    soak = policy.soak * 1000 if policy else 0
    return Strip(
        bars=_bars(target.attempts, axis),
        marks=[*_marks(gate, target, axis, deadline), *_kinds(target.attempts, axis)],
        ticks=_ticks(axis),
        soak=_soak(target, soak, axis),
        segments=_segments(target.attempts),
    )


class _Axis(msgspec.Struct, frozen=True):
    """From 0 to `width` ms."""

    width: float

    def at(self, ms: float) -> str:
        return f"{min(max(ms, 0) / self.width, 1) * 100:.2f}%"

    def mark(self, name: str, ms: float, y: int, label: str) -> Mark:
        return Mark(name, self.at(ms), y, label, "start" if ms < 0.55 * self.width else "end")


def _bars(attempts: Sequence[Attempt], axis: _Axis) -> list[Bar]:
    columns: dict[tuple[int, bool], list[Attempt]] = {}
    for attempt in attempts:
        columns.setdefault((int(attempt.at_ms / axis.width * COLUMNS), attempt.ok), []).append(attempt)
    bars = []
    for (_, ok), group in columns.items():
        slowest = max(attempt.elapsed_ms for attempt in group)
        height = min(LOW + round(7 * math.log10(1 + slowest)), TALL)
        first, last = group[0].at_ms, group[-1].end_ms
        width = max((min(last, axis.width) - first) / axis.width, 0.6 / COLUMNS)
        y = MIDDLE - height if ok else MIDDLE + 1
        bars.append(Bar(axis.at(first), f"{width * 100:.2f}%", y, height, ok))
    return bars


def _marks(gate: Gate, target: TargetResult, axis: _Axis, deadline: float) -> Iterable[Mark]:
    if target.first_healthy_ms is not None:
        ms = target.first_healthy_ms
        yield axis.mark("first", ms, 26, f"first healthy {span(ms / 1000)}")
    if gate.duration_ms and gate.status in {"passed", "failed"}:
        label = f"verdict {gate.status} {span(gate.duration_ms / 1000)}"
        yield axis.mark("verdict", gate.duration_ms, 12, label)
    elif gate.duration_ms:
        yield axis.mark("verdict", gate.duration_ms, 12, f"cut off {span(gate.duration_ms / 1000)}")
    if deadline:
        beyond = deadline > axis.width
        label = f"deadline {span(deadline / 1000)}{' →' if beyond else ''}"
        yield Mark("beyond" if beyond else "deadline", axis.at(deadline), 40, label, "end")


def _kinds(attempts: Sequence[Attempt], axis: _Axis) -> Iterable[Mark]:
    """What failed attempts ended in, named under the first of each row where there is room."""
    free = 0.0
    for (ok, kind), group in groupby(attempts, lambda attempt: (attempt.ok, attempt.kind)):
        first = next(iter(group)).at_ms
        if not ok and kind and first >= free:
            free = first + axis.width * ROOM
            mark = axis.mark("kind", first, 0, kind)
            yield msgspec.structs.replace(mark, y=MIDDLE + TALL + 13)


def _ticks(axis: _Axis) -> list[Mark]:
    seconds = axis.width / 1000
    step = next((one for one in _STEPS if seconds / one <= 6), _STEPS[-1])  # noqa: PLR2004 - fit a phone
    ticks = []
    for i in range(int(seconds / step) + 1):
        side = "end" if i * step > EDGE * seconds else "start"
        ticks.append(Mark("tick", axis.at(i * step * 1000), 164, span(i * step), side))
    return ticks


def _soak(target: TargetResult, soak: float, axis: _Axis) -> tuple[str, str] | None:
    """From the start of the run the target ended in, else of its longest."""
    start = run_start(target)
    if start is None:
        healthy = [list(group) for ok, group in groupby(target.attempts, lambda attempt: attempt.ok) if ok]
        longest = max(healthy, key=lambda run: run[-1].at_ms - run[0].at_ms, default=None)
        start = longest[0].at_ms if longest else None
    if start is None or not soak:
        return None
    return axis.at(start), f"{min(soak, axis.width - start) / axis.width * 100:.2f}%"


def _segments(attempts: Sequence[Attempt]) -> list[Segment]:
    segments = []
    for _, each in groupby(attempts, lambda attempt: (attempt.ok, attempt.kind, attempt.detail)):
        group = list(each)
        first, last = group[0], group[-1]
        times = sorted(attempt.elapsed_ms for attempt in group)
        took = span(times[0] / 1000)
        if span(times[-1] / 1000) != took:
            took += f" to {span(times[-1] / 1000)}"
        what = "healthy" if first.ok else failure(first)
        if first.ok and first.detail.startswith("warning"):
            what = f"healthy, {failure(first)}"
        when = f"{first.at_ms / 1000:.1f} s to {last.end_ms / 1000:.1f} s"
        segments.append(Segment(first.ok, f"{when}: {what} ({count(len(group), 'attempt')}, {took} each)"))
    if len(segments) > SEGMENTS:
        left = len(segments) - SEGMENTS
        segments[SEGMENTS - 1 : -1] = [Segment(False, f"… {count(left + 1, 'more change')} …")]
    return segments
