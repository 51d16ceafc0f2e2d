"""What another policy would have changed over many runs: verdicts, false passes, seconds. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from opsgate.evidence.verdicts import Replay


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded verdicts against those under another policy; null where there is nothing to count.

    A false pass is one of a run that the recorded policy failed, or that a person rolled back later.
    """

    runs: int
    changed: int
    undecided: int
    """Runs of which the other policy could not have said anything."""
    false_passes_before: int
    false_passes_after: int
    """Of these the undecided runs are left out."""
    seconds_before: float | None
    """Median time to the verdict, of the runs that both policies decide."""
    seconds_after: float | None
    seconds_more: float | None
    """Median of what a pass would have taken longer at least, of the undecided runs that passed."""


def compare(replays: Sequence[Replay], rolled_back_later: Collection[str]) -> Comparison:
    """All of `replays` in figures; `rolled_back_later` are the runs that passed, and wrongly so."""
    decided = [item for item in replays if item.decided]
    timed = [
        (item.recorded.at_ms, item.replayed.at_ms)
        for item in decided
        if item.recorded.at_ms is not None and item.replayed.at_ms is not None
    ]
    more = [
        item.replayed.earliest_ms - item.recorded.at_ms
        for item in replays
        if item.recorded.status == "passed"
        and item.replayed.earliest_ms is not None
        and item.recorded.at_ms is not None
    ]
    return Comparison(
        runs=len(replays),
        changed=sum(item.changed for item in replays),
        undecided=len(replays) - len(decided),
        false_passes_before=sum(item.run_id in rolled_back_later for item in replays),
        false_passes_after=sum(
            item.replayed.status == "passed"
            and (item.recorded.status == "failed" or item.run_id in rolled_back_later)
            for item in replays
        ),
        seconds_before=_median_seconds([before for before, _ in timed]),
        seconds_after=_median_seconds([after for _, after in timed]),
        seconds_more=_median_seconds(more),
    )


def _median_seconds(times: Sequence[float]) -> float | None:
    return median(times) / 1000 if times else None
