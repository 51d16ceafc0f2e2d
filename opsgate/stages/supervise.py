"""What ends a task, be it a verdict, a signal, a mistake or a defect, becomes a record and an exit code."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from opsgate.errors import (
    ConfigurationError,
    EvidenceError,
    ExitCode,
    Interrupted,
    NotReady,
    TakenOver,
    defect,
    told,
)
from opsgate.evidence import rollouts
from opsgate.evidence.files import replace_durably
from opsgate.evidence.record import timestamp
from opsgate.stages import outcome, rollback
from opsgate.stages.incident import incident

if TYPE_CHECKING:
    from collections.abc import Callable

    from opsgate.evidence.record import Trigger
    from opsgate.stages.session import Session


class Task:
    """A task as a run of it is executed: its stages in order, and what it can do without."""

    __slots__ = ("body", "force", "needs_evidence", "stages", "trigger")

    def __init__(
        self,
        trigger: Trigger,
        body: Callable[[Session], None],
        *,
        stages: tuple[str, ...] = (),
        needs_evidence: bool = True,
        force: bool = False,
    ) -> None:
        """`stages`: those that a run has completed at most once, in their order."""
        self.trigger, self.body, self.stages = trigger, body, stages
        self.needs_evidence, self.force = needs_evidence, force


def supervised(task: Task, session: Session) -> int:
    """Run the task's body; whatever ends it becomes a status and an exit code."""
    record = session.record
    try:
        try:
            task.body(session)
            session.halt.check()
        finally:
            session.halt.rest()
    except (Interrupted, TakenOver) as stop:
        session.reporter.warn(stop.message)
        taker = stop.taker if isinstance(stop, TakenOver) else None
        if taker or record.stages.rollback.attempted is not True or record.trigger == "rollback":
            record.status, record.status_reason = "failed", "interrupted"
        record.next_steps = _steps(task, session, "the takeover" if taker else "the interrupt")
        if taker:
            look = outcome.command_line("evidence", session.settings)
            step = f"{stop.message}, and this one starts nothing more. Look at it: {look} --run {taker}"
            record.next_steps.insert(0, step)
        return stop.exit_code
    except (NotReady, ConfigurationError) as error:
        return _refused(task, session, error)
    except EvidenceError as error:
        session.lose(error)
        record.status, record.status_reason = "failed", "interrupted"
        record.next_steps = _steps(task, session, "the lost evidence")
        return ExitCode.EVIDENCE_LOST
    except Exception as error:  # noqa: BLE001 - a defect must not lose the record
        return _defect(task, session, error)
    record.next_steps = _steps(task, session)
    return outcome.exit_code(record, fail_on_skipped=session.settings.fail_on_skipped)


def _refused(task: Task, session: Session, error: NotReady | ConfigurationError) -> int:
    """This task has touched nothing: exit 2. Found out only after it has, the mistake cuts the run short."""
    record, settings = session.record, session.settings
    session.reporter.warn(str(error))
    record.next_steps = [str(error)]
    is_untouched = session.begun.isdisjoint({"publish", "deploy", "rollback"})
    if not is_untouched:
        record.status, record.status_reason = "failed", "interrupted"
    if record.deployed or not is_untouched:
        record.next_steps += _steps(task, session, "this mistake")
    if is_untouched:
        return error.exit_code
    # What is out and cannot be looked at is not rolled back by itself either.
    is_left = record.deployed and settings.hooks.rolls_back and settings.rollback
    return ExitCode.PERSON_NEEDED if is_left else ExitCode.FAILED


def _steps(task: Task, session: Session, cut_short_by: str = "") -> list[str]:
    """The next steps, with the last good release also where no rollback was begun that would know it."""
    record, last_good = session.record, session.record.stages.rollback.last_good or None
    if last_good is None and record.status == "failed":
        with suppress(EvidenceError):
            last_good = rollouts.last_good(
                session.store, record.environment, revision=record.revision, images=record.images
            )
    stages = record.stages
    if task.trigger == "rollback" and stages.rollback.attempted and "rollback" not in session.begun:
        # What the record has is the run's rollback before this one: nothing of this one is done.
        undone = replace(stages.rollback, status="interrupted", succeeded=None, recovered=None)
        record = replace(record, stages=replace(stages, rollback=undone))
    coming_back = last_good if session.settings.hooks.redeploy else None
    facts = session.facts("rollback", Path(os.devnull), last_good, coming_back)
    return outcome.next_steps(
        record,
        session.settings,
        planned=task.stages,
        last_good=last_good,
        told=facts.variables(),
        cut_short_by=cut_short_by,
    )


def _defect(task: Task, session: Session, error: Exception) -> int:
    record = session.record
    if record.status_reason == "interrupted" or record.status != "failed":
        record.status, record.status_reason = "failed", "internal_error"
    trace = session.redactor.scrub("".join(traceback.format_exception(error)))
    path = session.directory / "defect.log"
    with suppress(OSError):
        replace_durably(path, trace.encode())
    stages = record.stages
    is_needed = "failed" in {stages.gate.status, stages.deploy.status}
    if is_needed and not stages.rollback.attempted and not stages.rollback.withheld:
        try:
            rollback.automatic(session)
        except (Interrupted, TakenOver) as stop:
            session.reporter.warn(stop.message)
        except Exception as second:  # noqa: BLE001 - the first defect is the one to report
            trace += session.redactor.scrub("".join(traceback.format_exception(second)))
            with suppress(OSError):
                replace_durably(path, trace.encode())
    session.reporter.warn(f"{defect(error).message} (details: {path})")
    record.next_steps = [f"Report this defect with {path}.", *_steps(task, session)]
    return ExitCode.DEFECT


def finished(session: Session, code: int) -> int:
    """Write the final record and its ledger line; a run whose evidence is incomplete never passes."""
    record = session.record
    elapsed = time.monotonic() - session.began
    began = datetime.fromisoformat(record.started_at).timestamp()
    # A clock that was set back meanwhile makes no run shorter than it was.
    seconds = max(time.time() - began, elapsed)
    record.finished_at = timestamp(began + seconds)
    record.duration_ms = round(seconds * 1000)
    record.exit_code = code
    if session.evidence_error:
        _mark_incomplete(session)
    session.attempt_to_write(lambda: session.store.finish(record, record.trigger))
    if session.evidence_error:
        _mark_incomplete(session)
    return record.exit_code or 0


def _mark_incomplete(session: Session) -> None:
    record, error = session.record, session.evidence_error
    if record.exit_code in {ExitCode.PASSED, ExitCode.FAILED, None}:
        record.exit_code = ExitCode.EVIDENCE_LOST
    if record.status == "passed":
        record.status, record.status_reason = "failed", "interrupted"
    step = f"Evidence could not be written: {error.message if error else ''}"
    if step not in record.next_steps:
        record.next_steps.append(step)


def tell(session: Session) -> None:
    """Tell of the final record whoever is to be told; nothing that goes wrong in it changes the run."""
    if session.record.status == "skipped":
        session.reporter.warn(session.record.next_steps[0])
    try:
        incident.run(session)
    except Exception as error:  # noqa: BLE001 - the run has ended, and its record says how
        session.reporter.warn(f"not everybody was told: {told(error).one_line}")
    head = None
    with suppress(EvidenceError):
        head = session.store.head()
    session.reporter.finished(session.record, head)
