"""The gate: probe the required targets, and say passed, failed or skipped."""

from __future__ import annotations

from opsgate.evidence.record import Gate
from opsgate.stages import probing
from opsgate.stages.session import Session
from opsgate.verdict.targets import RevisionRule


def run(session: Session) -> None:
    """Decide. The verdict goes into the gate's stage and becomes the run's."""
    record = session.record
    with session.stage("gate", record.stages.gate) as gate:
        try:
            _decide(session, gate)
            record.status = "failed" if gate.status == "interrupted" else gate.status
            record.status_reason = gate.status_reason or "interrupted"
        finally:
            # The attempts of a gate that was broken off count too.
            record.failed_urls = gate.failed_names
            record.attempt_count = sum(len(target.attempts) for target in gate.targets or [])


def _decide(session: Session, gate: Gate) -> None:
    if not probing.any_required(session.settings.targets):
        # An earlier gate of this run that was interrupted may have left targets that decided.
        gate.policy, gate.targets = session.settings.policy, []
        gate.targets = probing.baseline(session, session.settings.targets, limit=gate.policy.deadline)
        gate.status, gate.status_reason = "skipped", "no_urls_configured"
    else:
        expected = session.record.revision if session.judges_revision else None
        probing.probe(session, gate, rule=RevisionRule(expected=expected), label="gate")
