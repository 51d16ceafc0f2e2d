"""What a record says about the things people ask: which revision runs, what failed first, since when.

Everything here is worked out from the record alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from opsgate.evidence.views.words import moment, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opsgate.evidence.record import Command, Evidence, Gate, TargetResult
    from opsgate.verdict.targets import Attempt

# Kinds after which nobody was being served.
_DOWN = frozenset({"dns", "refused", "reset", "timeout", "tls", "protocol", "truncated"})
SERVER_ERROR = 500


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A required target that the gate or the recovery check did not find healthy."""

    name: str
    url: str | None
    first: Attempt
    """The first failed attempt; for a target that had been healthy, the first after that."""
    last: Attempt
    """The last failed attempt."""
    since: datetime | None
    """When `first` was made."""
    failed: int
    """How many attempts failed, of `attempts`."""
    attempts: int
    lost: bool
    """It had been healthy before, in the same gate."""
    intermittent: bool
    """Some attempts after `first` were healthy."""
    down_before: bool | None
    """Preflight found it down already; None when preflight did not look."""


def failures(record: Evidence, gate: Gate | None = None) -> list[Failure]:
    """The required targets that `gate` (default: the run's) found failing, the first to fail first."""
    gate = record.stages.gate if gate is None else gate
    if gate.status == "passed":
        return []
    found = [
        _failure(record, gate, target)
        for target in gate.required
        if not target.healthy and any(not attempt.ok for attempt in target.attempts)
    ]
    return sorted(found, key=lambda failure: failure.first.at_ms)


def _failure(record: Evidence, gate: Gate, target: TargetResult) -> Failure:
    bad = [attempt for attempt in target.attempts if not attempt.ok]
    good = next((attempt.at_ms for attempt in target.attempts if attempt.ok), None)
    lost = [attempt for attempt in bad if good is not None and attempt.at_ms > good]
    first = (lost or bad)[0]
    return Failure(
        name=target.name,
        url=target.url,
        first=first,
        last=bad[-1],
        since=moment(gate.started_at, first.at_ms),
        failed=len(bad),
        attempts=len(target.attempts),
        lost=bool(lost),
        intermittent=good is not None and any(one.ok and one.at_ms > first.at_ms for one in target.attempts),
        down_before=down_before(record, target),
    )


def last_failure(target: TargetResult) -> Attempt | None:
    """The target's newest failed attempt."""
    return next((attempt for attempt in reversed(target.attempts) if not attempt.ok), None)


def down_before(record: Evidence, target: TargetResult) -> bool | None:
    """Whether preflight found the target down already; None when it did not look."""
    baseline = record.stages.preflight.targets or []
    before = next((one for one in baseline if (one.name, one.url) == (target.name, target.url)), None)
    return None if before is None or not before.attempts else not before.healthy


def unproven(record: Evidence) -> list[str]:
    """The required targets that a failed gate did not find healthy, though no attempt at them failed."""
    gate = record.stages.gate
    if gate.status != "failed":
        return []
    return [
        target.name
        for target in gate.required
        if not target.healthy and all(attempt.ok for attempt in target.attempts)
    ]


def seen_revision(targets: Sequence[TargetResult]) -> str | None:
    """The one revision that the targets' newest answers report; None when there is none or they differ."""
    last = {
        next((attempt.revision for attempt in reversed(target.attempts) if attempt.revision), None)
        for target in targets
    } - {None}
    return plain(str(last.pop()), 64) if len(last) == 1 else None


def nobody_served(record: Evidence, gate: Gate) -> bool:
    """Every required target ended in no answer or a server error: the runtime is down, not just wrong."""
    last = [failure.last for failure in failures(record, gate)]
    # A command says that it failed, not why: it counts only beside targets that say more.
    told = [attempt for attempt in last if attempt.kind != "exit"]
    return bool(told) and len(last) == len(gate.required) and all(map(_unserved, told))


def _unserved(attempt: Attempt) -> bool:
    return attempt.kind in _DOWN or (attempt.kind == "status" and (attempt.status_code or 0) >= SERVER_ERROR)


def down_since(record: Evidence) -> datetime | None:
    """When the first request failed that the gate failed on; preflight's look when it was down before."""
    failed = failures(record)
    if not failed:
        return None
    if any(failure.down_before for failure in failed):
        return moment(record.stages.preflight.started_at)
    return failed[0].since


def up_again(record: Evidence) -> datetime | None:
    """When the last required target became healthy for good in the recovery check; None when one did not."""
    rollback = record.stages.rollback
    if not rollback.recovered or rollback.recovery is UNSET:
        return None
    starts = [run_start(target) for target in rollback.recovery.required]
    known = [start for start in starts if start is not None]
    if not known or len(known) < len(starts):
        return None
    return moment(rollback.recovery.started_at, max(known))


def run_start(target: TargetResult) -> float | None:
    """Start in ms of the unbroken run of healthy attempts that the target ended in."""
    start = None
    for attempt in reversed(target.attempts):
        if not attempt.ok:
            break
        start = attempt.at_ms
    return start


def new(record: Evidence) -> str:
    """The name of what was rolled out, or is to be rolled back."""
    return plain(record.revision, 64) if record.revision else "the new release"


def old(record: Evidence) -> str:
    """The name of what a rollback leads to."""
    last_good = record.stages.rollback.last_good
    if last_good and last_good.revision:
        return plain(last_good.revision, 64)
    recovery = record.stages.rollback.recovery
    seen = seen_revision(recovery.required) if recovery else None
    return seen or "the release before"


def runtime(record: Evidence) -> str:
    """What to call the runtime: its environment's name."""
    return "the runtime" if record.environment in {"", "default"} else plain(record.environment, 64)


def hook_commands(record: Evidence) -> list[tuple[str, Command]]:
    """Every command that was run, with its stage, in order."""
    stages = record.stages
    pairs: list[tuple[str, Command]] = []
    if stages.preflight.rollback_check:
        pairs.append(("rollback_check", stages.preflight.rollback_check))
    for name, commands in (
        ("publish", stages.publish.commands),
        ("deploy", stages.deploy.commands),
        ("rollback", stages.rollback.commands),
    ):
        pairs += [(name, command) for command in commands or []]
    return pairs
