"""A reporter of what is looked at and what hooks print, and of nothing else: doctor is no run."""

from __future__ import annotations

from collections.abc import Sequence

from opsgate.evidence.record import Evidence
from opsgate.stages.reporter import Reporter
from opsgate.verdict.judge import Tally, Verdict
from opsgate.verdict.targets import Attempt, Policy, Target


class Quiet:
    """A `Reporter` in front of another one."""

    def __init__(self, inner: Reporter) -> None:
        self.note, self.hook_line = inner.note, inner.hook_line

    def started(self, record: Evidence, *, verdict_by: float | None) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def stage_done(self, name: str, status: str, seconds: float) -> None:
        """Nothing."""

    def probing(self, targets: Sequence[Target], policy: Policy, label: str) -> None:
        """Nothing."""

    def attempt(self, index: int, attempt: Attempt, tally: Tally) -> None:
        """Nothing."""

    def turn(self, now_ms: float) -> None:
        """Nothing."""

    def probed(self, verdict: Verdict) -> None:
        """Nothing."""

    def finished(self, record: Evidence, head: str | None) -> None:
        """Nothing."""
