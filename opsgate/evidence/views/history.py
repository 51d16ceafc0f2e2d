"""The runs of a ledger and the figures teams ask for, as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opsgate.evidence.views.words import plain, span

if TYPE_CHECKING:
    from opsgate.evidence.history import Figures
    from opsgate.evidence.ledger import Line

_HEAD = ("finished (UTC)", "environment", "task", "revision", "status", "rollback", "run")


def render(runs: Sequence[Line], figures: Figures) -> str:
    """A row a run, the newest last, where a terminal's eye is; then the figures."""
    rows = [_HEAD, *(_row(line) for line in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*table, "", *_figures(figures)]) + "\n"


def _row(line: Line) -> tuple[str, ...]:
    when = f"{line.finished_at[:10]} {line.finished_at[11:19]}"
    words = "NOT VALIDATED, " if line.status == "skipped" else ""
    rollback: str = line.rollback or "-"
    if line.rollback and line.recovered_at:
        rollback += ", recovered"
    return (
        when,
        plain(line.environment, 40),
        line.task,
        plain(line.revision or "-", 40),
        f"{line.status} ({words}{line.status_reason})",
        rollback,
        line.run_id,
    )


def _figures(figures: Figures) -> list[str]:
    pace = f"{figures.deployments} in {figures.days:.0f} days, {figures.deployments_per_week:.1f} a week"
    rate = recovery = "-"
    if figures.change_failure_rate is not None:
        failed = f"{figures.failed_deployments} of {figures.deployments}"
        rate = f"{figures.change_failure_rate:.0%} ({failed})"
    if figures.recovery_seconds is not None:
        recovery = f"{span(figures.recovery_seconds)} (median of {figures.recoveries})"
    return [
        f"deployments            {pace}",
        f"change failure rate    {rate}",
        f"time to recovery       {recovery}",
        f"false alarms withheld  {figures.false_alarms_withheld}",
    ]
