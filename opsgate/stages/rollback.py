"""The way back, by itself after a failed gate or deploy, or because a person asked; and its proof."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError, Interrupted, TakenOver
from opsgate.evidence import repair, rollouts
from opsgate.evidence.record import Command, Gate, Rollback, Rollout, Withheld, timestamp
from opsgate.evidence.store import Store
from opsgate.settings import Settings
from opsgate.stages import deploy, probing
from opsgate.stages.outcome import command_line
from opsgate.stages.session import Session
from opsgate.verdict.expect import revisions_match
from opsgate.verdict.judge import Passed
from opsgate.verdict.targets import RevisionRule

DAY = 24 * 3600


def automatic(session: Session) -> None:
    """After a failed gate or deploy: roll back, unless that is not configured or withheld."""
    if not session.settings.hooks.rolls_back:
        return
    before, leaving = session.record.stages.rollback, _leaving(session)
    last_good = _last_good(session, leaving)
    stage = _begin(session, trigger="auto", reason=None, last_good=last_good)
    stage.withheld = _withheld(session, last_good)
    if stage.withheld:
        session.reporter.warn(f"rollback withheld: {stage.withheld}")
        session.save()
        return
    _roll_back(session, stage, before=before, leaving=leaving, verify=True)


def manual(session: Session, *, to: str | None, reason: str | None, verify: bool) -> None:
    """Because a person asked, whatever the gate says. Decides the run's status.

    Raises `ConfigurationError` when `to` names no revision that has passed.
    """
    record, before = session.record, session.record.stages.rollback
    way = route(session.settings, to)
    if way.leaving and not record.revision:
        record.revision, record.images = way.leaving.revision, list(way.leaving.images)
    # Where no evidence says what is being left, a variable may.
    record.revision = record.revision or session.settings.revision
    stage = _begin(session, trigger="manual", reason=reason, last_good=way.to)
    if way.to is None and session.settings.hooks.redeploy:
        stage.withheld = "no_last_good"
        record.status, record.status_reason = "failed", "rollback_failed"
        return
    _roll_back(session, stage, before=before, leaving=way.leaving, verify=verify)
    session.halt.check()
    if not stage.succeeded:
        record.status, record.status_reason = "failed", "rollback_failed"
    elif stage.recovered is None:
        record.status, record.status_reason = "skipped", "recovery_unverified"
    elif stage.recovered:
        record.status, record.status_reason = "passed", "recovered"
    else:
        record.status, record.status_reason = "failed", "not_recovered"


def require(settings: Settings) -> None:
    """Raise `ConfigurationError` where no rollback is configured."""
    if not settings.hooks.rolls_back:
        raise ConfigurationError(
            f"environment {settings.environment} has no rollback",
            "set rollback in opsgate.toml, or RUNTIME_ROLLBACK_COMMAND",
        )


class Route(msgspec.Struct, frozen=True):
    """From what was rolled out last to what a rollback brings back; each None where unknown."""

    leaving: Rollout | None
    to: Rollout | None


def route(settings: Settings, to: str | None = None) -> Route:
    """The way back by the ledger: to the run that passed with revision `to`, else to the last good one.

    Evidence that cannot be read leaves both ends unknown: it never stops a person. Raises
    `ConfigurationError` when `to` names no revision that has passed.
    """
    store = Store(settings.evidence_dir, settings.redactor)
    # A run that was killed at its very end may be the one that is good.
    with suppress(EvidenceError):
        repair.complete(store)
    leaving = last_good = None
    try:
        leaving = rollouts.last_rolled_out(store, settings.environment)
        if to is not None:
            last_good = rollouts.passed_rollout(store, settings.environment, to)
        else:
            last_good = rollouts.last_good(
                store,
                settings.environment,
                revision=leaving.revision if leaving else None,
                images=leaving.images if leaving else (),
            )
    except EvidenceError as error:
        if to is not None:
            hint = "without --to the rollback needs no evidence"
            raise ConfigurationError(f"--to {to} cannot be looked up: {error.message}", hint) from None
    if to is not None and last_good is None:
        raise ConfigurationError(
            f"--to {to}: no run of {settings.environment} with this revision has passed",
            f"see what has: {command_line('evidence', settings)} --history --status passed",
        )
    return Route(leaving, last_good)


def _leaving(session: Session) -> Rollout:
    """What is being rolled back: this run's release, or what was rolled out last where it knows of none."""
    record = session.record
    if not (record.revision or record.images or record.deployed):
        with suppress(EvidenceError):
            if last := rollouts.last_rolled_out(session.store, record.environment):
                return last
    return Rollout(run_id=record.run_id, revision=record.revision, images=tuple(record.images))


def _last_good(session: Session, leaving: Rollout) -> Rollout | None:
    """The last good release: by the evidence or, where that was lost meanwhile, as the run began."""
    environment, known = session.record.environment, session.good_before
    try:
        found = rollouts.last_good(
            session.store, environment, revision=leaving.revision, images=leaving.images
        )
    except EvidenceError as error:
        session.reporter.warn(f"the last good release cannot be looked up: {error.message}")
        found = None
    if found or known is None or not known.revision or not leaving.revision:
        return found
    return None if revisions_match(known.revision, leaving.revision) else known


def _withheld(session: Session, last_good: Rollout | None) -> Withheld | None:
    settings, record = session.settings, session.record
    if not settings.rollback:
        return "no_rollback"
    if record.status_reason == "observer_offline":
        return "observer_offline"
    if settings.hooks.redeploy and last_good is None:
        return "no_last_good"
    try:
        recent = rollouts.automatic_rollbacks(session.store, record.environment, since=time.time() - DAY)
    except EvidenceError as error:
        # A cap that cannot be counted must not keep a runtime down.
        session.reporter.warn(f"earlier rollbacks cannot be counted: {error.message}")
        recent = 0
    return "circuit_open" if recent >= settings.max_rollbacks_per_day else None


def _begin(
    session: Session, *, trigger: Literal["auto", "manual"], reason: str | None, last_good: Rollout | None
) -> Rollback:
    before = session.record.stages.rollback
    stage = session.record.stages.rollback = Rollback(
        attempted=False,
        withheld=None,
        trigger=trigger,
        reason=reason,
        succeeded=None,
        recovered=None,
        exit_code=None,
        commands=[],
        last_good=last_good,
        took_over=session.took_over or msgspec.UNSET,
    )
    earlier = list(before.earlier or [])
    if before.attempted is True or before.withheld:
        earlier.append(msgspec.structs.replace(before, earlier=msgspec.UNSET))
    if earlier:
        stage.earlier = earlier
    return stage


def _roll_back(
    session: Session, stage: Rollback, *, before: Rollback, leaving: Rollout | None, verify: bool
) -> None:
    try:
        session.halt.check()
        with session.stage("rollback", stage):
            _execute(session, stage, leaving=leaving, verify=verify)
    except (Interrupted, TakenOver):
        if "rollback" not in session.begun:
            # What has not begun is not in the record, but for whom the environment was taken from.
            took_over = stage.took_over or before.took_over
            session.record.stages.rollback = msgspec.structs.replace(before, took_over=took_over)
        raise


def _execute(session: Session, stage: Rollback, *, leaving: Rollout | None, verify: bool) -> None:
    stage.attempted = True
    session.save()
    # What asked for a stop while this was written came first.
    session.halt.check()
    with session.halt.shielded():
        stage.commands = list(_chain(session, stage.last_good or None))
        is_cut_off = session.halt.pending()
    last = stage.commands[-1]
    stage.exit_code, stage.succeeded = last.exit_code, last.succeeded
    if not stage.succeeded:
        stage.status = "interrupted" if is_cut_off else "failed"
        return
    stage.status = "passed"
    if session.halt.pending():
        return
    if verify and probing.any_required(session.settings.targets):
        session.save()
        stage.recovered = _recovered(session, stage, leaving)
        stage.status = "failed" if stage.recovered is False else "passed"


def _chain(session: Session, last_good: Rollout | None) -> Sequence[Command]:
    """Run the chain until one command succeeds; nothing more is started once the run has to stop."""
    hooks, done = session.settings.hooks, []
    redeploying = last_good if hooks.redeploy else None
    limit = session.settings.timeouts.rollback
    for configured in ("",) if hooks.redeploy else hooks.rollback:
        with session.within(limit):
            command = configured or deploy.command(session)
            result, _ = session.run_hook(
                "rollback", command, limit=limit, last_good=last_good, deploying=redeploying
            )
        done.append(result)
        session.record.stages.rollback.commands = done
        session.save()
        if result.succeeded or session.halt.pending():
            break
    return done


def _recovered(session: Session, stage: Rollback, leaving: Rollout | None) -> bool | None:
    """Probe again. The revision that failed must be gone, unless the way back led to that very one."""
    last_good = stage.last_good or None
    forbidden = leaving.revision if leaving else None
    if forbidden and last_good and last_good.revision and revisions_match(forbidden, last_good.revision):
        forbidden = None
    stage.recovery = Gate(status="interrupted", started_at=timestamp(time.time()))
    began = time.monotonic()
    try:
        verdict = probing.probe(
            session, stage.recovery, rule=RevisionRule(forbidden=forbidden), label="recovery", lenient=True
        )
    except ConfigurationError as error:
        session.reporter.warn(f"recovery cannot be checked: {error}")
        return None
    finally:
        stage.recovery.duration_ms = round((time.monotonic() - began) * 1000)
    return isinstance(verdict, Passed)
