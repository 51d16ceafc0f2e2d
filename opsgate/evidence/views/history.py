"""The runs of a ledger and the figures teams ask for, as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opsgate.evidence.views.headline import NOT_VALIDATED
from opsgate.evidence.views.words import count, plain, span

if TYPE_CHECKING:
    from opsgate.evidence.history import Figures
    from opsgate.evidence.ledger import Line

_HEAD = ("finished (UTC)", "environment", "task", "revision", "status", "rollback", "run")


def render(runs: Sequence[Line], figures: Figures, unfinished: Sequence[str] = ()) -> str:
    """A row a run, the newest last, where a terminal's eye is; then runs without an end, and the figures."""
    rows = [_HEAD, *(_row(line) for line in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    told = [f"{name:<23}{' '.join(filter(None, words))}" for name, *words in figure_words(figures)]
    begun = [f"unfinished: run {plain(run_id, 64)} (under way, or killed)" for run_id in unfinished]
    return "\n".join([*(table if runs else ["no run matches"]), *begun, "", *told]) + "\n"


def figure_words(figures: Figures) -> list[tuple[str, str, str]]:
    """Each figure: its name, its value, and what it was counted from."""
    days = count(round(figures.days), "day")
    rate = recovery = "-"
    failed = recovered = ""
    if figures.change_failure_rate is not None:
        rate = f"{figures.change_failure_rate:.0%}"
        failed = f"({figures.failed_deployments} of {figures.deployments})"
    if figures.recovery_seconds is not None:
        recovery = span(figures.recovery_seconds)
        recovered = f"(median of {figures.recoveries})"
    return [
        (
            "deployments",
            f"{figures.deployments_per_week:.1f} a week",
            f"({figures.deployments} in {days})",
        ),
        ("change failure rate", rate, failed),
        ("time to recovery", recovery, recovered),
        ("false alarms withheld", str(figures.false_alarms_withheld), ""),
    ]


def when(time: str) -> str:
    """`2026-05-25 14:01:06` of an RFC 3339 time."""
    return plain(f"{time[:10]} {time[11:19]}")


def rollback_words(line: Line) -> str:
    """Whether there was a rollback, and what came of it as far as the ledger knows."""
    if line.rollback is None:
        return ""
    return f"{line.rollback}, recovered" if line.recovered_at else line.rollback


def _row(line: Line) -> tuple[str, ...]:
    words = f"{NOT_VALIDATED}, " if line.status == "skipped" else ""
    return (
        when(line.finished_at),
        plain(line.environment, 40),
        line.task,
        plain(line.revision or "-", 40),
        f"{line.status} ({words}{line.status_reason})",
        rollback_words(line) or "-",
        plain(line.run_id, 64),
    )
