"""What stages tell a person while they run. The console is one; a test may bring another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from opsgate.evidence.record import Evidence
from opsgate.redact import Redactor
from opsgate.verdict.judge import Tally, Verdict
from opsgate.verdict.targets import Attempt, Policy, Target


class Reporter(Protocol):
    """Never raises, whatever becomes of the terminal. Called from the main thread only."""

    def started(self, record: Evidence, *, verdict_by: float | None) -> None:
        """A run begins; `verdict_by` is the worst case, in seconds since the epoch."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that may need attention."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def stage_done(self, name: str, status: str, seconds: float) -> None:
        """A stage has ended."""

    def hook_line(self, label: str, line: str) -> None:
        """A line of a hook's output, masked and harmless already."""

    def probing(self, targets: Sequence[Target], policy: Policy, label: str) -> None:
        """Probing begins; `label` is `gate` or `recovery`."""

    def attempt(self, index: int, attempt: Attempt, tally: Tally) -> None:
        """Each attempt of the targets last given to `probing`."""

    def turn(self, now_ms: float) -> None:
        """Many times a second while they are probed, whether an attempt ends or not; ms since it began."""

    def probed(self, verdict: Verdict) -> None:
        """Probing is over."""

    def finished(self, record: Evidence, head: str | None) -> None:
        """The run is over; `head` is the ledger's newest hash."""


class Masked:
    """A reporter that hides every secret from the one behind it, whoever tells it what.

    Lines of hooks and details of attempts are masked where they arise, a finished record as it is encoded.
    """

    def __init__(self, inner: Reporter, redactor: Redactor) -> None:
        self._inner, self._scrub = inner, redactor.scrub
        self.hook_line, self.attempt, self.probed = inner.hook_line, inner.attempt, inner.probed
        self.stage, self.stage_done, self.finished = inner.stage, inner.stage_done, inner.finished
        self.turn = inner.turn

    def started(self, record: Evidence, *, verdict_by: float | None) -> None:
        """See `Reporter.started`."""
        revision = record.revision and self._scrub(record.revision)
        self._inner.started(msgspec.structs.replace(record, revision=revision), verdict_by=verdict_by)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._inner.note(self._scrub(text))

    def warn(self, text: str) -> None:
        """See `Reporter.warn`."""
        self._inner.warn(self._scrub(text))

    def probing(self, targets: Sequence[Target], policy: Policy, label: str) -> None:
        """See `Reporter.probing`."""
        shown = [msgspec.structs.replace(target, name=self._scrub(target.name)) for target in targets]
        self._inner.probing(shown, policy, label)
