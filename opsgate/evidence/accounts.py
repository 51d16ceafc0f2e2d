"""Whether what a record says of its run follows from what it says of the stages and their commands. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UnsetType

from opsgate.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsgate.evidence.record import Deploy, Evidence, Rollback, Stages, TargetResult

GATE_REASONS: Final = frozenset({"probe_failures", "unstable", "wrong_revision", "observer_offline"})


def disagreements(evidence: Evidence) -> Iterator[str]:
    """Everything in which a record contradicts itself, its attempts apart, in words."""
    stages, status = evidence.stages, in_words(evidence.status, evidence.status_reason)
    for target in stages.preflight.targets or []:
        yield from of_attempts(target)
    yield from _of_deploy(stages.deploy)
    for rollback in (*(stages.rollback.earlier or []), stages.rollback):
        yield from _of_rollback(rollback)
    if not _status_follows(evidence):
        told = {
            "publish": stages.publish.status,
            "deploy": stages.deploy.status,
            "gate": in_words(stages.gate.status, stages.gate.status_reason),
            "rollback": in_words(stages.rollback.status, stages.rollback.trigger),
        }
        yield f"status is {status}, but {', '.join(f'{name} is {how}' for name, how in told.items())}"
    if not _exit_code_follows(evidence):
        yield f"exit_code is {evidence.exit_code}, but status is {status}"


def of_attempts(target: TargetResult) -> Iterator[str]:
    """An attempt is healthy where nothing went wrong, and only there."""
    for attempt in target.attempts:
        if attempt.ok is not (attempt.kind is None):
            how = "is healthy" if attempt.ok else "failed"
            yield f"target {target.name}: the attempt at {attempt.at_ms} ms {how}, its kind is {attempt.kind}"


def in_words(status: str, reason: str | UnsetType | None) -> str:
    """`failed (unstable)`."""
    return f"{status} ({reason})" if reason else status


def _of_deploy(deploy: Deploy) -> Iterator[str]:
    last = deploy.commands[-1] if deploy.commands else None
    if deploy.status == "passed" and (last is None or not last.succeeded):
        yield f"the deploy passed, but its command {f'says {last.ending}' if last else 'was not run'}"
    # What a hook left may be unusable, whatever its exit code.
    if deploy.status == "failed" and last and last.succeeded and not deploy.detail:
        yield "the deploy failed, but its command succeeded"


def _of_rollback(rollback: Rollback) -> Iterator[str]:
    last = rollback.commands[-1] if rollback.commands else None
    if last and rollback.attempted is not True:
        yield "rollback.attempted is not true, but a command was run"
    if isinstance(rollback.succeeded, bool):
        ended = (last.succeeded, last.exit_code) if last else None
        if (rollback.succeeded, rollback.exit_code) != ended:
            yield (
                f"rollback.succeeded is {rollback.succeeded} and its exit_code {rollback.exit_code}, "
                f"but its last command {f'says {last.ending}' if last else 'is not there'}"
            )
    if rollback.status == "passed" and (rollback.succeeded is not True or rollback.recovered is False):
        yield "the rollback passed, but did not succeed, or did not bring the runtime back"


def _status_follows(evidence: Evidence) -> bool:
    """Whether the run's status is one that its stages can lead to."""
    stages, reason = evidence.stages, evidence.status_reason
    gate, rollback = stages.gate, stages.rollback
    same, by_hand = gate.status_reason == reason, rollback.trigger == "manual"
    is_back = by_hand and rollback.succeeded is True
    rules: dict[str, tuple[str, bool]] = {
        "all_probes_healthy": ("passed", gate.status == "passed"),
        "no_urls_configured": ("skipped", gate.status == "skipped" and same),
        "not_gated": ("skipped", _is_only_brought_out(stages)),
        "publish_failed": ("failed", stages.publish.status == "failed"),
        "deploy_failed": ("failed", stages.deploy.status == "failed"),
        # After a rollback by itself a run stays failed: only one that a person asked for decides the status.
        "recovered": ("passed", is_back and rollback.recovered is True),
        "recovery_unverified": ("skipped", is_back and rollback.recovered is None),
        "rollback_failed": ("failed", by_hand and rollback.succeeded is not True),
        "not_recovered": ("failed", by_hand and rollback.recovered is False),
        **dict.fromkeys(GATE_REASONS, ("failed", gate.status == "failed" and same)),
    }
    status, holds = rules.get(reason, ("failed", True))
    return evidence.status == status and holds


def _is_only_brought_out(stages: Stages) -> bool:
    """Nothing has failed, and no gate has come to its end."""
    brought = {stages.publish.status, stages.deploy.status}
    is_gated = stages.gate.completed or stages.gate.status in {"passed", "failed"}
    return "passed" in brought and "failed" not in brought and not (is_gated or stages.rollback.attempted)


def _exit_code_follows(evidence: Evidence) -> bool:
    code = evidence.exit_code
    if evidence.finished_at is None:
        return code is None
    if evidence.status == "passed":
        return code == ExitCode.PASSED
    if evidence.status == "skipped":
        may_fail = evidence.status_reason == "no_urls_configured" and code == ExitCode.FAILED
        return code in {ExitCode.PASSED, ExitCode.EVIDENCE_LOST} or may_fail
    return code not in {ExitCode.PASSED, None}
