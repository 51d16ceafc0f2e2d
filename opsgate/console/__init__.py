"""All text for people while something runs; it decides nothing.

Stages get a `Reporter` and call it from the main thread. `reporter` chooses: a live table on a
terminal, else one timestamped line for each event. Neither ever raises: a closed or full stream
costs the text, never the rollout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opsgate.evidence.record import Evidence
    from opsgate.verdict.judge import Run, Verdict
    from opsgate.verdict.targets import Attempt, Policy, Target


class Reporter(Protocol):
    """What a run tells people as it goes."""

    def started(self, record: Evidence, *, verdict_by: float | None) -> None:
        """A task begins; `verdict_by`: epoch seconds of its latest verdict (None: no gate in it)."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that may need attention."""

    def stage(self, name: str, text: str = "") -> None:
        """A stage begins."""

    def stage_done(self, name: str, status: str, seconds: float, text: str = "") -> None:
        """A stage ended."""

    def hook_line(self, label: str, line: str) -> None:
        """A line of a hook's output, masked and harmless already."""

    def probing(self, targets: Sequence[Target], policy: Policy, label: str) -> None:
        """Probing begins; `label` is `gate` or `recovery`."""

    def attempt(self, index: int, attempt: Attempt, run: Run) -> None:
        """One attempt of `targets[index]`, and its run after it; called for every attempt, so it is cheap."""

    def probed(self, verdict: Verdict) -> None:
        """Probing is over."""

    def finished(self, record: Evidence, head: str | None) -> None:
        """The task is over; `head` is the ledger's last hash."""


def reporter(stream: TextIO, environ: Mapping[str, str], *, summary: bool = False) -> Reporter:
    """The reporter for `stream`, usually standard error.

    With `summary` the result is written there as well, for when standard output carries JSON.
    """
    from opsgate.console.plain import PlainReporter

    if environ.get("CI") or environ.get("TERM", "") in {"", "dumb"} or not _is_terminal(stream):
        return PlainReporter(stream, summary=summary)
    from opsgate.console.live import LiveReporter

    return LiveReporter(stream, environ, summary=summary)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):
        return False
