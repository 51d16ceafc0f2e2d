"""Recorded gates under another policy, as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opsgate.evidence.views.words import plain, span

if TYPE_CHECKING:
    from opsgate.evidence.replays import Comparison
    from opsgate.evidence.verdicts import Outcome, Replay


def render(replays: Sequence[Replay], comparison: Comparison, policy: str) -> str:
    """A line a run; then what would have changed under `policy`."""
    return "\n".join([*map(_line, replays), *_summary(comparison, policy)]) + "\n"


def _line(item: Replay) -> str:
    mark = "changed" if item.changed else "same" if item.decided else "unknown"
    return f"{mark:<9}{plain(item.run_id, 64)}  {_outcome(item.recorded)} -> {_outcome(item.replayed)}"


def _outcome(outcome: Outcome) -> str:
    if outcome.status == "undecided":
        if outcome.earliest_ms is None:
            return "undecided"
        return f"undecided (no pass before {outcome.earliest_ms / 1000:.1f} s)"
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
