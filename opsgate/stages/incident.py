"""The incident hook: told last of a failed run, when its record is final. It cannot change anything."""

from __future__ import annotations

from opsgate.stages.session import Session


def run(session: Session) -> None:
    """Run the incident hook after a failure, if there is one. A hook that fails is a warning."""
    command = session.settings.hooks.incident
    if command is None or session.record.status != "failed":
        return
    last_good = session.record.stages.rollback.last_good or None
    done, _ = session.run_hook(
        "incident", command, limit=session.settings.timeouts.incident, last_good=last_good
    )
    if done.explanation:
        session.reporter.warn(f"the incident hook failed: {done.explanation}")
