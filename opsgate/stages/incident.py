"""The end of a run: others are told, then the incident hook, when the record is final. Neither changes it."""

from __future__ import annotations

from opsgate.stages import notify
from opsgate.stages.session import Session


def run(session: Session) -> None:
    """Run the incident hook after a failure, while others are told beside it. What fails is a warning."""
    told = notify.begin(session)
    try:
        _hook(session)
    finally:
        notify.finish(session, told)


def _hook(session: Session) -> None:
    command = session.settings.hooks.incident
    if command is None or session.record.status != "failed":
        return
    last_good = session.record.stages.rollback.last_good or None
    done, _ = session.run_hook(
        "incident", command, limit=session.settings.timeouts.incident, last_good=last_good
    )
    if done.explanation:
        session.reporter.warn(f"the incident hook failed: {done.explanation}")
