"""One screen: what runs now, what happened, why, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from opsgate.evidence.views.headline import NOT_VALIDATED, headline
from opsgate.evidence.views.phrases import fitted, fitted_steps, stage_rows, took, why_lines
from opsgate.evidence.views.words import clock, moment, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opsgate.evidence.record import Evidence

LINES: Final = 24
_MARKS: Final = {"passed": "ok  ", "failed": "FAIL", "skipped": "--  ", "interrupted": "CUT "}


def render(record: Evidence) -> str:
    """The record on one screen of at most 24 lines, the first of which says what runs now."""
    top = [headline(record), f"  {_run_line(record)}", *(f"  {line}" for line in _happened(record))]
    why = why_lines(record)
    room = LINES - len(top) - bool(record.next_steps) - bool(why)
    steps = fitted_steps(record, max(room - min(len(why), 3), 1))
    why = fitted(why, max(room - len(steps), 1))
    lines = [*top, *_section("why", why), *_section("what to do next", steps)]
    return "\n".join(lines) + "\n"


def _run_line(record: Evidence) -> str:
    started, finished = moment(record.started_at), moment(record.finished_at)
    when = f"{started:%Y-%m-%d} {clock(started)}" if started else ""
    lasted = (
        f", took {span(record.duration_ms / 1000)}" if finished and record.duration_ms is not None else ""
    )
    code = "" if record.exit_code is None else f", exit {record.exit_code}"
    words = f", {NOT_VALIDATED}" if record.status == "skipped" else ""
    verdict = f"{record.status} ({record.status_reason}{words}){code}"
    return f"{record.trigger} {record.run_id}: {verdict}; {when}{lasted}"


def _happened(record: Evidence) -> Iterator[str]:
    """A line for each stage that ran."""
    rollback = record.stages.rollback
    for name, stage, text in stage_rows(record):
        if stage.started_at is not UNSET or (stage is rollback and rollback.withheld):
            yield f"{_MARKS[stage.status]} {name:9} {took(stage):>9}  {text}".rstrip()


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []
