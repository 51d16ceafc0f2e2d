"""The end of a run: others are told, then the incident hook, when the record is final. Neither changes it."""

from __future__ import annotations

from opsgate.stages.session import GRACE, Session

HURRY = 1.0
"""Seconds that the hook and the others have after an interrupt: all is over 5 s after the signal."""
HURRIED_GRACE = 0.3


def run(session: Session) -> None:
    """Run the incident hook after a failure, while others are told beside it. What fails is a warning."""
    others = session.settings.notify
    if not others.webhook_url and not others.github_issues:
        _hook(session)
        return
    from opsgate.stages import notify

    interrupted = session.halt.once_more()
    told = notify.begin(session, hurry=None if session.halt.signum is None else HURRY)
    try:
        _hook(session)
    finally:
        notify.finish(session, told, interrupted)


def _hook(session: Session) -> None:
    command = session.settings.hooks.incident
    if command is None or session.record.status != "failed" or session.halt.taken_over_by():
        return
    limit, grace = session.settings.timeouts.incident, GRACE
    if session.halt.signum is not None:
        limit, grace = min(limit, HURRY), HURRIED_GRACE
    last_good = session.record.stages.rollback.last_good or None
    done, _ = session.run_hook(
        "incident", command, limit=limit, last_good=last_good, grace=grace, cut=session.halt.once_more()
    )
    if done.explanation:
        session.reporter.warn(f"the incident hook failed: {done.explanation}")
