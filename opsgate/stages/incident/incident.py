"""The end of a run: others are told, then the incident hook, when the record is final. Neither changes it."""

from __future__ import annotations

from opsgate.stages.session import GRACE, Session

HURRY = 1.0
"""Seconds that the hook and the others have after an interrupt: all is over 5 s after the signal."""
HURRIED_GRACE = 0.3
TOO_LATE = 0.5
"""With less time than this left after an interrupt, neither begins."""


def run(session: Session) -> None:
    """Run the incident hook after a failure, while others are told beside it. What fails is a warning."""
    others = session.settings.notify
    hurry = _hurry(session)
    if hurry is not None and hurry < TOO_LATE:
        if session.settings.hooks.incident or others.webhook_url or others.github_issues:
            session.reporter.warn("no time was left after the interrupt to tell anybody about it")
        return
    if not others.webhook_url and not others.github_issues:
        _hook(session, hurry)
        return
    from opsgate.stages.incident import notify

    interrupted = session.halt.once_more()
    told = notify.begin(session, hurry=hurry)
    try:
        _hook(session, hurry)
    finally:
        notify.finish(session, told, interrupted)


def _hurry(session: Session) -> float | None:
    """Seconds that are left for this after an interrupt; None when nobody waits."""
    if session.halt.signum is None:
        return None
    return min(HURRY, session.halt.left() - HURRIED_GRACE)


def _hook(session: Session, hurry: float | None) -> None:
    command = session.settings.hooks.incident
    if command is None or session.record.status != "failed" or session.halt.taken_over_by():
        return
    limit, grace = session.settings.timeouts.incident, GRACE
    if hurry is not None:
        limit, grace = min(limit, hurry), HURRIED_GRACE
    last_good = session.record.stages.rollback.last_good or None
    done, _ = session.run_hook(
        "incident", command, limit=limit, last_good=last_good, grace=grace, cut=session.halt.once_more()
    )
    if not done.succeeded:
        session.reporter.warn(f"the incident hook failed: {done.explanation}")
