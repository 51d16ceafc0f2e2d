"""The live table of a terminal, drawn by rich while something is probed; the rest is plain lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from opsgate.console.plain import PlainReporter
from opsgate.evidence.views.words import count, failure, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opsgate.console.plain import Row
    from opsgate.evidence.record import Evidence
    from opsgate.verdict.judge import Tally, Verdict
    from opsgate.verdict.targets import Attempt, Policy, Target

FRAMES: Final = 4
"""Drawings a second: enough for an eye, cheap next to the probing."""
AROUND: Final = 5
"""Lines of the terminal that rows of targets may not use."""
WIDE: Final = 80
BAR: Final = 10


class LiveReporter(PlainReporter):
    """A table while probing, replaced by a plain summary when that is over. Never raises."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str], *, summary: bool = False) -> None:
        super().__init__(stream, summary=summary)
        self._console = Console(file=cast("TextIO", self._stream), force_terminal=True, _environ=environ)
        self._live: Live | None = None
        self._start = 0.0
        self._stopped: float | None = None

    def probing(self, targets: Sequence[Target], policy: Policy, label: str) -> None:
        """Draws the table until `probed` or the end of the stage; lines where it cannot be drawn."""
        self._stop()
        super().probing(targets, policy, label)
        self._start, self._stopped = time.monotonic(), None
        live = self._live = Live(
            get_renderable=self._table,
            console=self._console,
            refresh_per_second=FRAMES,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            live.start()
        except RuntimeError:
            # No thread can start that would draw it.
            self._live = None
            live.stop()

    def attempt(self, index: int, attempt: Attempt, tally: Tally) -> None:
        """Remembered; the next drawing shows it."""
        if self._live is None:
            super().attempt(index, attempt, tally)
            return
        if not 0 <= index < len(self._rows):
            return
        row = self._rows[index]
        row.tally, row.last = tally, attempt
        if not attempt.ok:
            row.worst = attempt

    def turn(self, now_ms: float) -> None:
        """Nothing where the table shows it; a line now and then where none could be drawn."""
        if self._live is None:
            super().turn(now_ms)

    def probed(self, verdict: Verdict) -> None:
        """The table as plain lines, then the verdict."""
        self._stop()
        super().probed(verdict)

    def stage_done(self, name: str, status: str, seconds: float) -> None:
        """A stage ended; so has its table, whatever ended it."""
        self._stop()
        super().stage_done(name, status, seconds)

    def finished(self, record: Evidence, head: str | None) -> None:
        """The result; the terminal is as it was before."""
        self._stop()
        super().finished(record, head)

    def _stop(self) -> None:
        if self._live is None:
            return
        live, self._live = self._live, None
        live.stop()
        rows = self._worst_first()
        room = max(self._console.size.height - AROUND, 3)
        for row in rows[:room]:
            state, _ = _state(row, self._policy)
            self._event(self._label, f"{row.name}: {state}, {_run(row)}{_failed(row)}")
        if len(rows) > room:
            self._event(self._label, f"and {count(len(rows) - room, 'more target')}, none of them worse")

    def _write(self, line: str) -> None:
        if self._live is None:
            self._stream.line(line)
        else:
            self._console.print(Text(line), soft_wrap=True)

    def _worst_first(self) -> list[Row]:
        return sorted(self._rows, key=_badness)

    def _table(self) -> Group:
        size = self._console.size
        rows, now = self._worst_first(), time.monotonic() - self._start
        room = max(size.height - AROUND, 1)
        table = Table(box=None, pad_edge=False, expand=True, show_edge=False)
        table.add_column("target", no_wrap=True, overflow="ellipsis", ratio=4)
        table.add_column("state", no_wrap=True, width=12)
        table.add_column("run", no_wrap=True, justify="right", width=6)
        table.add_column("latency", no_wrap=True, justify="right", width=8)
        if size.width >= WIDE:
            table.add_column("soak", no_wrap=True, width=BAR)
            table.add_column("last failure", no_wrap=True, overflow="ellipsis", ratio=4)
        for row in rows[:room]:
            state, style = _state(row, self._policy)
            latency = span(row.last.elapsed_ms / 1000) if row.last else ""
            cells = [
                Text(f"{_short(row.name)}{'' if row.required else ' (not required)'}"),
                Text(state, style=style),
                Text(str(row.tally.streak)),
                Text(latency),
            ]
            if size.width >= WIDE:
                cells += [Text(self._soak(row, now)), Text(failure(row.worst) if row.worst else "")]
            table.add_row(*cells)
        rest = len(rows) - room
        more = [Text(f"… and {count(rest, 'more target')}, none of them worse")] if rest > 0 else []
        return Group(self._head(now, size.width), table, *more)

    def _head(self, now: float, width: int) -> Text:
        required = [row for row in self._rows if row.required]
        healthy = sum(row.tally.start_ms is not None for row in required)
        deadline = self._policy.deadline if self._policy else 0
        text = f"{self._label}: {healthy} of {count(len(required), 'target')} healthy  "
        clock = f" {span(min(now, deadline))} of {span(deadline)}"
        line = Text(text + _bar(now / deadline if deadline else 1, 20) + clock, style="bold")
        line.truncate(width, overflow="ellipsis")
        return line

    def _soak(self, row: Row, now: float) -> str:
        if self._policy is None or row.tally.start_ms is None:
            return ""
        return _bar((now - row.tally.start_ms / 1000) / self._policy.soak if self._policy.soak else 1, BAR)


def _short(name: str) -> str:
    """The name without a scheme: what tells URLs apart stands at their end, and columns are narrow."""
    return name.partition("://")[2] or name


def _bar(part: float, width: int) -> str:
    full = round(min(max(part, 0), 1) * width)
    return "#" * full + "-" * (width - full)


def _state(row: Row, policy: Policy | None) -> tuple[str, str]:
    """The target's state in a word, and the style of that word."""
    if row.last is None:
        return "waiting", "dim"
    if not row.last.ok:
        return "failing", "bold red" if row.required else "yellow"
    if policy is not None and row.tally.has_soaked(policy):
        return "healthy", "green"
    return "soaking", "cyan"


def _badness(row: Row) -> tuple[bool, int, int, int]:
    """Sorts required before others, failing before waiting before healthy, then by flaps and short runs."""
    rank = 1 if row.last is None else 2 * row.last.ok
    return not row.required, rank, -row.tally.flaps, row.tally.streak


def _run(row: Row) -> str:
    return f"{count(row.tally.streak, 'healthy attempt')} in a row of {row.tally.attempts}"


def _failed(row: Row) -> str:
    return f", last failure: {failure(row.worst)}" if row.worst else ""
