"""The runs of a ledger, and the four figures that say how releasing goes. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from opsgate.errors import EvidenceError
from opsgate.evidence.record import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opsgate.evidence.ledger import Line

DAY = 86_400.0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How releasing went; null where there is nothing to count."""

    days: float
    """From the first run, or the time asked for, until now; one at least."""
    deployments: int
    """Runs that deployed, and gates on a revision that was not there before."""
    deployments_per_week: float
    failed_deployments: int
    """Those whose deploy or gate failed, and those that a person rolled back later."""
    change_failure_rate: float | None
    """Failed deployments of all deployments, 0 to 1."""
    recovery_seconds: float | None
    """Median from the failure that was noticed to the recovery that was proven, whichever run proved it."""
    recoveries: int
    false_alarms_withheld: int
    """Rollbacks that did not happen because the fault was the observer's."""


def newest_of_each(lines: Iterable[Line]) -> list[Line]:
    """The newest line of each run, in the order of the ledger; checkpoints left out."""
    newest = {line.run_id: line for line in lines if line.task != "prune"}
    return sorted(newest.values(), key=lambda line: line.seq)


def select(
    lines: Iterable[Line],
    *,
    environment: str | None = None,
    since: float | None = None,
    status: str | None = None,
) -> list[Line]:
    """The runs that ended at `since` (epoch seconds) or later, in the order of the ledger."""
    earliest = "" if since is None else timestamp(since)
    return [
        line
        for line in newest_of_each(lines)
        if environment in {None, line.environment}
        and status in {None, line.status}
        and line.finished_at >= earliest
    ]


def figures(runs: Sequence[Line], *, now: float, since: float | None = None) -> Figures:
    """The figures over `runs`, one line each in the order of the ledger. Times are epoch seconds.

    Raises `EvidenceError` where an edited line holds no time.
    """
    deployments, failed = _deployments(runs)
    outages = _outages(runs)
    begin = since if since is not None else min((_epoch(line.started_at) for line in runs), default=now)
    days = max((now - begin) / DAY, 1.0)
    return Figures(
        days=days,
        deployments=len(deployments),
        deployments_per_week=len(deployments) * 7 / days,
        failed_deployments=len(failed),
        change_failure_rate=len(failed) / len(deployments) if deployments else None,
        recovery_seconds=median(outages) if outages else None,
        recoveries=len(outages),
        false_alarms_withheld=sum(line.status_reason == "observer_offline" for line in runs),
    )


def false_passes(runs: Sequence[Line]) -> set[str]:
    """The runs that passed, and that a person rolled back before the next deployment."""
    _, failed = _deployments(runs)
    return {line.run_id for line in runs if line.run_id in failed and line.status == "passed"}


def _deployments(runs: Sequence[Line]) -> tuple[set[str], set[str]]:
    """The run ids of deployments, and of those that failed."""
    deployments: set[str] = set()
    failed: set[str] = set()
    serving: dict[str, tuple[str, str | None]] = {}
    for line in runs:
        newest, revision = serving.get(line.environment, ("", None))
        is_new = line.task == "gate" and line.revision not in {None, revision}
        if line.deployed or is_new:
            deployments.add(line.run_id)
            newest = line.run_id
            serving[line.environment] = newest, line.revision
        if newest and (line.rollback == "manual" or (line.run_id == newest and _failed(line))):
            failed.add(newest)
    return deployments, failed


def _outages(runs: Sequence[Line]) -> list[float]:
    """Seconds from each failure to the recovery that ended it."""
    down_since: dict[str, str] = {}
    outages: list[float] = []
    for line in runs:
        if _failed(line) and line.failed_at is not None:
            down_since.setdefault(line.environment, line.failed_at)
        healthy = line.status_reason == "all_probes_healthy"
        up_at = line.recovered_at or (line.finished_at if healthy else None)
        if up_at is not None and (failed_at := down_since.pop(line.environment, None)) is not None:
            outages.append(max(0.0, _epoch(up_at) - _epoch(failed_at)))
    return outages


def _failed(line: Line) -> bool:
    """The runtime failed, as far as anybody could see it."""
    return line.failed_at is not None and line.status_reason != "observer_offline"


def instant(time: str) -> datetime:
    """The time of a line, in UTC. An `EvidenceError` where an edited line holds none."""
    try:
        when = datetime.fromisoformat(time)
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise EvidenceError(
        f"the ledger holds {time!r} where a time should be",
        "`opsgate evidence --verify` says which line was edited.",
    )


def _epoch(time: str) -> float:
    return instant(time).timestamp()
