"""A reporter that shows what hooks print, and nothing else: doctor's findings are its whole output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from opsgate.evidence.record import Evidence
from opsgate.verdict.judge import Tally, Verdict
from opsgate.verdict.targets import Attempt, Policy, Target


class Quiet:
    """A `Reporter` on a stream that may go away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def hook_line(self, label: str, line: str) -> None:
        """See `Reporter.hook_line`."""
        with suppress(OSError, ValueError):
            self._stream.write(f"{label} | {line}\n")
            self._stream.flush()

    def started(self, record: Evidence, *, verdict_by: float | None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
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
