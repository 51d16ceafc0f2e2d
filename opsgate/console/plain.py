"""One timestamped line for each event, for CI logs and files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TextIO

from opsgate.console.safe import SafeStream
from opsgate.evidence.views.words import count, failure, plain, span
from opsgate.verdict.judge import Failed, Passed, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opsgate.evidence.record import Evidence
    from opsgate.verdict.judge import Verdict
    from opsgate.verdict.targets import Attempt, Policy, Target

HEARTBEAT_MS: Final = 15_000
"""A gate is never silent for longer."""
WINDOW_MS: Final = 10_000
BURST: Final = 40
"""Lines about attempts in one window, whatever hundreds of flapping targets do."""
NAMED: Final = 3
"""Failing targets that the line of how things stand names."""
CHANGES: Final = 8
"""Lines about one target before it is left to the heartbeat."""


class Row:
    """What the console remembers of one target."""

    __slots__ = ("changes", "kinds", "last", "name", "required", "tally", "worst")

    def __init__(self, target: Target) -> None:
        self.name = plain(target.name, 80)
        self.required = target.required
        self.tally = Tally()
        self.last: Attempt | None = None
        self.worst: Attempt | None = None
        """The latest failed attempt."""
        self.kinds: set[str | None] = set()
        """Kinds already told since the target was last healthy."""
        self.changes = 0


class PlainReporter:
    """A line for each event; of attempts only what changes. Never raises."""

    def __init__(
        self, stream: TextIO, *, summary: bool = False, wall: Callable[[], float] = time.time
    ) -> None:
        self._stream = SafeStream(stream)
        self._summary = summary
        self._wall = wall
        self._rows: list[Row] = []
        self._label = "gate"
        self._policy: Policy | None = None
        self._began = 0.0
        self._told_ms = 0.0
        self._window: tuple[float, int] = (0.0, 0)

    def started(self, record: Evidence, *, verdict_by: float | None) -> None:
        """The first line names the worst case."""
        what = f"{record.trigger} on {plain(record.environment, 80)}, run {record.run_id}"
        if record.revision:
            what += f", revision {plain(record.revision, 64)}"
        if verdict_by is not None:
            what = f"verdict by {utc(verdict_by)} UTC at the latest; {what}"
        self._event("start", what)

    def note(self, text: str) -> None:
        """One line."""
        self._event("note", _flat(text))

    def warn(self, text: str) -> None:
        """One line that says `warning`."""
        self._event("warning", _flat(text))

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._event(name, "begins")

    def stage_done(self, name: str, status: str, seconds: float) -> None:
        """A stage ended."""
        shown = "skipped" if status == "skipped" and not seconds else f"{status} after {span(seconds)}"
        self._event(name, shown)

    def hook_line(self, label: str, line: str) -> None:
        """`publish | line`; the prefix keeps a workflow runner from taking the line for a command."""
        self._write(f"{label} | {line}")

    def probing(self, targets: Sequence[Target], policy: Policy, label: str) -> None:
        """The line that says what must happen until when."""
        self._rows = [Row(target) for target in targets]
        self._label, self._policy = label, policy
        self._began = self._wall()
        self._told_ms, self._window = 0.0, (0.0, 0)
        required = sum(row.required for row in self._rows)
        self._event(
            label,
            f"{count(required, 'required target')}, deadline {utc(self._began + policy.deadline)}, "
            f"soak {span(policy.soak)}, {count(policy.successes, 'healthy attempt')} in a row",
        )

    def attempt(self, index: int, attempt: Attempt, tally: Tally) -> None:
        """Tells changes of state."""
        if not 0 <= index < len(self._rows):
            return
        row = self._rows[index]
        text = self._change(row, attempt, tally)
        row.tally, row.last = tally, attempt
        if not attempt.ok:
            row.worst = attempt
        if text and row.changes < CHANGES and self._room(attempt.end_ms):
            row.changes += 1
            self._told_ms = attempt.end_ms
            self._event(self._label, f"{row.name}{'' if row.required else ' (not required)'}: {text}")

    def turn(self, now_ms: float) -> None:
        """Tells how things stand where nothing has been told for long, whatever hangs."""
        if now_ms - self._told_ms >= HEARTBEAT_MS:
            self._told_ms = now_ms
            self._event(self._label, self._standing(now_ms))

    def probed(self, verdict: Verdict) -> None:
        """The verdict."""
        if isinstance(verdict, Passed):
            self._event(self._label, "verdict: passed")
        elif isinstance(verdict, Failed):
            self._event(self._label, f"verdict: failed, {verdict.reason}")
        else:
            self._event(self._label, "cut off without a verdict")

    def finished(self, record: Evidence, head: str | None) -> None:
        """The result where nothing else shows it, and the hash to keep elsewhere."""
        if self._summary:
            from opsgate.evidence.views.text import render

            for line in render(record).splitlines():
                self._write(line)
        if head:
            self._event("ledger", f"head {head} (keep it elsewhere for `evidence --verify --head`)")

    def _change(self, row: Row, attempt: Attempt, tally: Tally) -> str:
        """What is new about the target; empty when nothing is."""
        was = row.last
        if attempt.ok:
            if was is not None and was.ok:
                return ""
            row.kinds.clear()
            return f"healthy ({span(attempt.elapsed_ms / 1000)}){self._soaking(tally)}{_warning(attempt)}"
        fresh = attempt.kind not in row.kinds
        row.kinds.add(attempt.kind)
        if was is not None and was.ok:
            since = attempt.at_ms if row.tally.start_ms is None else row.tally.start_ms
            held = (attempt.at_ms - since) / 1000
            return f"lost health after {span(held)}: {failure(attempt)}"
        return f"failing: {failure(attempt)}" if fresh else ""

    def _soaking(self, tally: Tally) -> str:
        if self._policy is None or not self._policy.soak or tally.start_ms is None:
            return ""
        return f", soak until {utc(self._began + tally.start_ms / 1000 + self._policy.soak)}"

    def _room(self, now_ms: float) -> bool:
        start, told = self._window
        if now_ms - start >= WINDOW_MS:
            start, told = now_ms, 0
        self._window = (start, told + 1)
        return told < BURST

    def _standing(self, now_ms: float) -> str:
        required = [row for row in self._rows if row.required]
        failing = [row for row in required if row.last is None or not row.last.ok]
        text = f"{len(required) - len(failing)} of {count(len(required), 'target')} healthy"
        if failing:
            shown = [f"{one.name}: {failure(one.worst) if one.worst else 'waits'}" for one in failing[:NAMED]]
            more = [f"and {len(failing) - NAMED} more"] if len(failing) > NAMED else []
            text += f"; {'; '.join(shown + more)}"
        left = (self._policy.deadline if self._policy else 0) - now_ms / 1000
        return plain(f"{text}; {span(max(left, 0))} to the deadline", 1000)

    def _event(self, label: str, text: str) -> None:
        self._write(f"{utc(self._wall())}Z {label:<9} {text}")

    def _write(self, line: str) -> None:
        self._stream.line(line)


def utc(epoch: float) -> str:
    """`14:01:05`, in UTC."""
    try:
        return time.strftime("%H:%M:%S", time.gmtime(epoch))
    except (OverflowError, OSError, ValueError):
        return "--:--:--"


def _flat(text: str) -> str:
    """An error's message and hint on one line."""
    return plain(" ".join(text[:4000].split()), 2000)


def _warning(attempt: Attempt) -> str:
    return f"; {plain(attempt.detail)}" if attempt.detail.startswith("warning") else ""
