"""How long a run can take until its verdict: the worst case that is named before it begins."""

from __future__ import annotations

from opsgate.evidence.record import Trigger
from opsgate.settings import Settings
from opsgate.stages.session import COMMIT_LIMIT

ENDING = 12.0
"""Seconds that a hook past its limit may take to go: TERM, KILL 10 s later, and the kernel's time."""
LATE = 0.5
"""Seconds that a verdict may come after the deadline."""
BETWEEN = 1.0
"""Seconds for what lies between two stages: records, digests."""


def worst_case(settings: Settings, trigger: Trigger, stages: tuple[str, ...]) -> float:
    """Seconds from the start of a task to its verdict; of a rollback, to that over the recovery."""
    timeouts, gate = settings.timeouts, settings.policy.deadline + LATE
    if trigger == "gate":
        return gate
    if trigger == "rollback":
        chain = len(settings.hooks.rollback) or 1
        return chain * (timeouts.rollback + ENDING) + gate
    total = BETWEEN if settings.revision else BETWEEN + COMMIT_LIMIT
    if settings.hooks.rollback_check:
        total += timeouts.rollback_check
    if trigger in {"release", "deploy"} and settings.targets:
        total += settings.policy.attempt_timeout
    for name in stages:
        if name != "gate":
            total += getattr(timeouts, name) + BETWEEN
    # A hook that is ended at its limit is the last thing that happens before the verdict.
    return total + (max(gate, ENDING) if "gate" in stages else ENDING)
