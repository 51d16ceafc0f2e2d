"""Verdicts decided again from a record, under its own policy or another. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET, UnsetType

from opsgate.evidence import accounts
from opsgate.verdict.judge import Failed, Passed, Tally, Waiting, decide, fold, latest_start_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsgate.evidence.record import Evidence, Gate
    from opsgate.verdict.judge import Verdict
    from opsgate.verdict.targets import Attempt, Policy


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said, and when, in ms since it began."""

    status: Literal["passed", "failed", "skipped", "undecided"]
    """`undecided`: the attempts end before this policy could have said anything, or its soak does not fit
    into its deadline."""
    status_reason: str | None
    at_ms: float | None
    earliest_ms: float | None = None
    """Where undecided: before this no pass could have come, had every target stayed healthy; null when
    some target was not healthy at the end."""
    detail: str | None = None
    """Where the policy itself leaves it undecided: why, in words."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A run's gate as it was, and as another policy would have had it."""

    run_id: str
    recorded: Outcome
    replayed: Outcome

    @property
    def changed(self) -> bool:
        """The other policy would have said something else; false where it is undecided."""
        return self.decided and (self.recorded.status, self.recorded.status_reason) != (
            self.replayed.status,
            self.replayed.status_reason,
        )

    @property
    def decided(self) -> bool:
        """Enough was recorded for the other policy to reach a verdict."""
        return self.replayed.status != "undecided"


def replay(evidence: Evidence, policy: Policy) -> Replay | None:
    """The gate decided again under `policy`; None when the run's gate has no verdict."""
    gate = evidence.stages.gate
    if not _has_verdict(gate) or isinstance(gate.policy, UnsetType):
        return None
    was = _walk(gate, gate.policy)
    recorded = Outcome(
        status="passed" if gate.status == "passed" else "failed",
        status_reason=gate.status_reason or None,
        at_ms=was.at_ms,
    )
    return Replay(run_id=evidence.run_id, recorded=recorded, replayed=_walk(gate, policy))


def disagreements(evidence: Evidence) -> Iterator[str]:
    """Everything in which a finished record contradicts itself, above all its own attempts, in words."""
    gate, rollback = evidence.stages.gate, evidence.stages.rollback
    yield from _stage_disagreements("gate", gate)
    if isinstance(rollback.recovery, UnsetType):
        if rollback.recovered is not None and rollback.recovered is not UNSET:
            yield f"rollback.recovered is {rollback.recovered}, but nothing was probed"
    else:
        yield from _stage_disagreements("recovery", rollback.recovery)
        expected = rollback.recovery.status == "passed" if _has_verdict(rollback.recovery) else None
        if rollback.recovered is not expected:
            yield f"rollback.recovered is {rollback.recovered}, but the recovery {rollback.recovery.status}"
    attempts = sum(len(target.attempts) for target in gate.targets or [])
    if attempts != evidence.attempt_count:
        yield f"attempt_count is {evidence.attempt_count}, but there are {attempts} attempts"
    if gate.failed_names != evidence.failed_urls:
        yield f"failed_urls is {evidence.failed_urls}, but the attempts say {gate.failed_names}"
    yield from accounts.disagreements(evidence)


def _stage_disagreements(name: str, gate: Gate) -> Iterator[str]:
    for target in (*(gate.targets or []), *(gate.control or [])):
        yield from accounts.of_attempts(target)
    if gate.status == "skipped" and gate.required:
        yield f"the {name} is skipped, but there was something to probe"
    if not _has_verdict(gate):
        return
    if isinstance(gate.policy, UnsetType) or not gate.required:
        yield f"the {name} {gate.status} without anything that was probed"
        return
    tallies = [fold(target.attempts, gate.policy) for target in gate.required]
    control = [fold(target.attempts, gate.policy) for target in gate.control or []]
    verdict = decide(tallies, gate.policy, control=control)
    reason = verdict.reason if isinstance(verdict, Failed) else "all_probes_healthy"
    status = "passed" if isinstance(verdict, Passed) else "failed"
    if (status, reason) != (gate.status, gate.status_reason):
        yield (
            f"the {name} says {accounts.in_words(gate.status, gate.status_reason)}, "
            f"but its attempts say {accounts.in_words(status, reason)}"
        )
    for target, tally in zip(gate.required, tallies, strict=True):
        said = (target.healthy, target.first_healthy_ms, target.flaps)
        if said != (tally.is_healthy(gate.policy), tally.first_healthy_ms, tally.flaps):
            yield f"the {name}'s target {target.name} is not what its attempts say"


def _walk(gate: Gate, policy: Policy) -> Outcome:
    """The attempts in the order in which they were answered, up to the first verdict."""
    if policy.soak >= policy.deadline:
        # No gate may run under such a policy: that it could not have passed says nothing of the runtime.
        why = f"its deadline of {policy.deadline:g} s is too short for a soak of {policy.soak:g} s"
        return Outcome(status="undecided", status_reason=None, at_ms=None, detail=why)
    required = gate.required
    tallies = [Tally() for _ in required]
    control = [Tally() for _ in gate.control or []]
    lanes = [
        *((tallies, index, target) for index, target in enumerate(required)),
        *((control, index, target) for index, target in enumerate(gate.control or [])),
    ]
    answers = [
        (_limited(attempt, policy), lane, index)
        for lane, index, target in lanes
        for attempt in target.attempts
    ]
    answers.sort(key=lambda answer: answer[0].end_ms)
    earliest: float | None = None
    for attempt, lane, index in answers:
        lane[index] = lane[index].after(attempt, policy)
        verdict = decide(tallies, policy, now_ms=attempt.end_ms, control=control)
        if not isinstance(verdict, Waiting):
            return _outcome(verdict, min(attempt.end_ms, policy.deadline * 1000))
        earliest = verdict.probe_at_ms
    if answers and _ended_too_late(gate, policy) and any(tally.start_ms is None for tally in tallies):
        verdict = decide(tallies, policy, control=control)
        return _outcome(verdict, min(gate.duration_ms or answers[-1][0].end_ms, policy.deadline * 1000))
    return Outcome(status="undecided", status_reason=None, at_ms=None, earliest_ms=earliest)


def _ended_too_late(gate: Gate, policy: Policy) -> bool:
    """The gate gave up when no attempt could begin a run in time, and under `policy` none could either."""
    if gate.status != "failed" or gate.status_reason == "unstable" or isinstance(gate.policy, UnsetType):
        return False
    return latest_start_ms(policy) <= latest_start_ms(gate.policy)


def _limited(attempt: Attempt, policy: Policy) -> Attempt:
    """The attempt as the policy's time limit would have ended it."""
    limit = policy.attempt_timeout * 1000
    if attempt.elapsed_ms <= limit:
        return attempt
    if not attempt.ok:
        return msgspec.structs.replace(attempt, elapsed_ms=limit)
    return msgspec.structs.replace(attempt, elapsed_ms=limit, ok=False, kind="timeout")


def _outcome(verdict: Verdict, at_ms: float) -> Outcome:
    if isinstance(verdict, Failed):
        return Outcome(status="failed", status_reason=verdict.reason, at_ms=at_ms)
    return Outcome(status="passed", status_reason="all_probes_healthy", at_ms=at_ms)


def _has_verdict(gate: Gate) -> bool:
    return gate.status in {"passed", "failed"}
