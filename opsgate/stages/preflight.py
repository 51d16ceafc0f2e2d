"""Preflight: what must hold before the first side effect, and what the runtime answered before it."""

from __future__ import annotations

from opsgate.errors import NotReady
from opsgate.evidence.record import Command, Preflight
from opsgate.stages import probing
from opsgate.stages.session import Session


def run(session: Session, *, baseline: bool) -> None:
    """Prove the way back, and with `baseline` look at each target once.

    Raises `NotReady` when the rollback check fails: nothing has been touched then. A runtime that is
    down already never stops a rollout; it may be the fix.
    """
    with session.stage("preflight", session.record.stages.preflight) as stage:
        stage.warnings = list(session.settings.warnings)
        stage.targets = []
        stage.rollback_check = check_rollback(session)
        session.halt.check()
        if stage.rollback_check and not stage.rollback_check.succeeded:
            stage.status = "failed"
            raise NotReady(
                f"the rollback check failed: {stage.rollback_check.explanation}"
                f" (RUNTIME_ROLLBACK_CHECK_COMMAND, rollback_check: {stage.rollback_check.command})",
                "nothing was touched; mend the way back first, then run again",
            )
        if baseline:
            stage.targets = probing.baseline(session, session.settings.targets)
            _report(session, stage)
        stage.status = "passed"


def check_rollback(session: Session) -> Command | None:
    """Run the rollback check; None where none is configured."""
    command = session.settings.hooks.rollback_check
    if command is None:
        return None
    return session.run_hook("rollback_check", command, limit=session.settings.timeouts.rollback_check)[0]


def _report(session: Session, stage: Preflight) -> None:
    for target in (one for one in stage.required if not one.healthy):
        session.reporter.note(f"before this rollout, {target.name} was down: {target.attempts[-1].detail}")
