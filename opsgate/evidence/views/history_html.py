"""The history as one self-contained page: the figures, a picture of the weeks, a row a run. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsgate.evidence.history import instant
from opsgate.evidence.views.headline import NOT_VALIDATED
from opsgate.evidence.views.history import figure_words, rollback_words, when
from opsgate.evidence.views.page import page
from opsgate.evidence.views.weeks import ENDINGS, ending, picture
from opsgate.evidence.views.words import count, plain, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opsgate.evidence.history import Figures
    from opsgate.evidence.ledger import Line
    from opsgate.evidence.record import Status

ROWS: Final = 500
"""Runs that have a row, the newest ones; the picture and the figures are of all."""
_STATUSES: Final[dict[Status, str]] = {"passed": "passed", "failed": "failed", "skipped": "not validated"}
_NAMED: Final = 3
"""Environments that the headline names; of more it says how many."""
_QUESTIONS: Final = {
    "deployments": "How often",
    "change failure rate": "Change failure rate",
    "time to recovery": "From failure to recovery",
    "false alarms withheld": "False alarms, rollback withheld",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the history was asked for, and when. Times are RFC 3339 in UTC."""

    now: str
    environment: str | None = None
    since: str | None = None
    status: str | None = None


def render(
    runs: Sequence[Line], figures: Figures, asked: Asked, *, head: str, unfinished: Sequence[str] = ()
) -> str:
    """`runs`, in the order of the ledger, whose last hash is `head`, as one HTML document.

    `unfinished` are runs without an end, which no figure counts.
    """
    endings = [ending(line) for line in runs]
    days = [line.finished_at[:10] for line in runs]
    return page(
        "history.html.jinja",
        "report.css",
        "history.css",
        title=plain(f"{_environments(runs, asked)}: history of {count(len(runs), 'run')}", 120),
        headline=_headline(runs, asked),
        dates=f"{min(days)} to {max(days)}" if days else "",
        filters=_filters(asked),
        answers=[(_QUESTIONS[name], *words) for name, *words in figure_words(figures)],
        picture=picture(runs),
        endings={how: (words, endings.count(how)) for how, words in ENDINGS.items()},
        rows=[_row(line) for line in runs[: -ROWS - 1 : -1]],
        unfinished=[plain(run_id, 64) for run_id in unfinished],
        older=max(len(runs) - ROWS, 0),
        now=when(asked.now),
        head=head,
    )


def _headline(runs: Sequence[Line], asked: Asked) -> str:
    if not runs:
        return f"{_environments(runs, asked)}: no run matches"
    numbers = Counter(line.status for line in runs)
    told = ", ".join(f"{numbers[status]} {words}" for status, words in _STATUSES.items() if numbers[status])
    return f"{_environments(runs, asked)}: {count(len(runs), 'run')}, {told}"


def _environments(runs: Sequence[Line], asked: Asked) -> str:
    names = sorted({line.environment for line in runs})
    if asked.environment is not None or not names:
        names = [asked.environment or "all environments"]
    if len(names) > _NAMED:
        return f"{len(names)} environments"
    return ", ".join(plain(name, 40) for name in names)


def _filters(asked: Asked) -> str:
    parts = []
    if asked.environment is not None:
        parts.append(f"of {plain(asked.environment, 40)}")
    if asked.since is not None:
        parts.append(f"since {when(asked.since)} UTC")
    if asked.status is not None:
        parts.append(f"that {'were skipped' if asked.status == 'skipped' else asked.status}")
    said = f"Only runs {', '.join(parts)}." if parts else ""
    return f"{said} The figures count runs of every status." if asked.status else said


def _row(line: Line) -> dict[str, Any]:
    took = instant(line.finished_at) - instant(line.started_at)
    return {
        "when": when(line.finished_at),
        "time": line.finished_at,
        "environment": plain(line.environment, 40),
        "task": line.task,
        "revision": plain(line.revision or "", 40),
        "status": line.status,
        "reason": line.status_reason,
        "not_validated": NOT_VALIDATED if line.status == "skipped" else "",
        "rollback": rollback_words(line),
        "took": span(max(took.total_seconds(), 0)),
        "run_id": plain(line.run_id, 64),
    }
