"""Recorded gates under another policy, as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from opsgate.evidence.views.words import count, plain, span

if TYPE_CHECKING:
    from opsgate.evidence.replays import Comparison
    from opsgate.evidence.verdicts import Outcome, Replay


NAMED: Final = 5


def render(
    replays: Sequence[Replay], comparison: Comparison, policy: str, *, unreadable: Sequence[str] = ()
) -> str:
    """A line a run; then what would have changed under `policy`, and the runs left out as `unreadable`."""
    lines = [*map(_line, replays), *_summary(comparison, policy)]
    if unreadable:
        lines.append(f"  left out: {left_out(unreadable)}; evidence --verify says what is off")
    return "\n".join(lines) + "\n"


def left_out(run_ids: Sequence[str]) -> str:
    """How many records cannot be read, and of which runs."""
    names = [plain(run_id, 64) for run_id in run_ids[:NAMED]]
    more = f" and {len(run_ids) - NAMED} more" if len(run_ids) > NAMED else ""
    return f"{count(len(run_ids), 'record')} that cannot be read ({', '.join(names)}{more})"


def _line(item: Replay) -> str:
    mark = "changed" if item.changed else "same" if item.decided else "unknown"
    return f"{mark:<9}{plain(item.run_id, 64)}  {_outcome(item.recorded)} -> {_outcome(item.replayed)}"


def _outcome(outcome: Outcome) -> str:
    if outcome.status == "undecided":
        why = outcome.detail
        if outcome.earliest_ms is not None:
            why = f"no pass before {outcome.earliest_ms / 1000:.1f} s"
        return f"undecided ({why})" if why else "undecided"
    at = "" if outcome.at_ms is None else f" after {outcome.at_ms / 1000:.1f} s"
    return f"{outcome.status}{f' ({outcome.status_reason})' if outcome.status_reason else ''}{at}"


def _summary(found: Comparison, policy: str) -> list[str]:
    false = f"{found.false_passes_before} before, {found.false_passes_after} after"
    lines = [
        f"{found.changed} of {found.runs} verdicts change under {policy}",
        f"  false passes: {false} (passes of what had failed, or of what a person rolled back later)",
    ]
    if found.seconds_before is not None and found.seconds_after is not None:
        lines.append(
            f"  time to the verdict: {span(found.seconds_before)} before, {span(found.seconds_after)} after "
            f"(median of the {found.runs - found.undecided} that both decide)"
        )
    if found.undecided:
        more = "" if found.seconds_more is None else f"; a pass would take {span(found.seconds_more)} longer"
        why = "not enough was recorded, or the deadline is too short for the soak"
        lines.append(f"  undecided: {found.undecided} ({why}){more}")
    return lines
