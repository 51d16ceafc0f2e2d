"""One run from lock to ledger: opened, supervised, finished, whatever happens in between."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from opsgate.errors import (
    ConfigurationError,
    EvidenceError,
    Interrupted,
    NotReady,
    OpsgateError,
    TakenOver,
)
from opsgate.evidence.files import replace_durably
from opsgate.evidence.lock import EnvironmentLock, Holder
from opsgate.evidence.record import Ci, Evidence, Trigger, masked, timestamp, written
from opsgate.evidence.record import TakenOver as Taken
from opsgate.evidence.store import Store
from opsgate.stages import incident, outcome, probing, rollback
from opsgate.stages.halt import Halt
from opsgate.stages.limits import worst_case
from opsgate.stages.reporter import Masked
from opsgate.stages.session import Session

if TYPE_CHECKING:
    from opsgate.settings import Settings
    from opsgate.stages.reporter import Reporter

DEFECT = 70
EVIDENCE_LOST = 74


class Task:
    """What `execute` needs to know of a task besides its settings."""

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


class Outcome(msgspec.Struct, frozen=True):
    """What a task came to."""

    record: Evidence
    """Masked."""
    exit_code: int
    path: Path
    evidence_lost: bool
    """The record, or a part of it, could not be written."""

    @property
    def document(self) -> str:
        """The record as it stands in its file, or would."""
        return written(self.record).decode()


def execute(
    task: Task, settings: Settings, *, reporter: Reporter, environ: Mapping[str, str], ci: Ci
) -> Outcome:
    """Run a task from beginning to end.

    Raises what stops it before anything was touched: `EnvironmentHeld`, `NotReady`,
    `ConfigurationError`.
    """
    store = Store(settings.evidence_dir, settings.redactor)
    reporter = Masked(reporter, settings.redactor)
    # A signal before the run begins ends the process at once, also while it waits for a holder to go.
    with _locked(task, settings, store, reporter) as (lock, run_id, taken), Halt() as halt:
        halt.taken_over_by = lambda: taker.run_id if (taker := lock.taken_over_by()) else None
        earlier = _earlier(task, settings, store, run_id)
        record = earlier or _new_record(task, settings, run_id, ci)
        session = Session(
            settings,
            record,
            store,
            redactor=settings.redactor,
            reporter=reporter,
            halt=halt,
            environ=environ,
            took_over=taken,
        )
        _begin(task, session, continuing=earlier is not None)
        code = _finished(session, _supervised(task, session))
        # From here on people are shown what was kept: commands and steps with their secrets masked.
        session.record = masked(session.record, settings.redactor)
        _told(session)
    return Outcome(
        record=session.record,
        exit_code=code,
        path=session.directory / "evidence.json",
        evidence_lost=session.evidence_error is not None,
    )


@contextmanager
def _locked(
    task: Task, settings: Settings, store: Store, reporter: Reporter
) -> Iterator[tuple[EnvironmentLock, str, Taken | None]]:
    """Hold the environment: its lock, the run's id, and from whom it was taken.

    Where evidence cannot be written, only a task that needs it stops.
    """
    taken = None
    run_id = settings.run_id or new_run_id(time.time())
    lock = EnvironmentLock(settings.evidence_dir, settings.environment)
    holder = Holder(
        run_id=run_id,
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=timestamp(time.time()),
        task=task.trigger,
    )
    try:
        store.prepare()
        if task.force:
            taken = _take_over(lock, holder, reporter)
        else:
            lock.acquire(holder)
        store.complete()
    except EvidenceError as error:
        if task.needs_evidence:
            raise NotReady(error.message, error.hint) from error
        reporter.warn(f"evidence cannot be written, rolling back all the same: {error.message}")
    try:
        yield lock, run_id, taken
    finally:
        lock.release()


def _take_over(lock: EnvironmentLock, holder: Holder, reporter: Reporter) -> Taken | None:
    taken = lock.take_over(holder)
    if taken is not None:
        reporter.warn(
            f"took the environment over from run {taken.run_id} (process {taken.pid} on {taken.host})"
            + ("" if taken.reached else "; it did not answer within 15 s, its hook may still be running")
        )
    return taken


def _new_record(task: Task, settings: Settings, run_id: str, ci: Ci) -> Evidence:
    return Evidence(
        run_id=run_id,
        environment=settings.environment,
        trigger=task.trigger,
        started_at=timestamp(time.time()),
        ci=ci,
    )


def _earlier(task: Task, settings: Settings, store: Store, run_id: str) -> Evidence | None:
    """The record of the run that this task continues, open again; None for a new run."""
    if settings.run_id is None:
        return None
    try:
        earlier = store.load(run_id) if store.exists(run_id) else None
    except EvidenceError as error:
        if task.needs_evidence:
            raise NotReady(error.message, error.hint) from error
        return None
    if earlier is not None:
        _check_continues(task, settings, earlier)
        earlier.trigger, earlier.exit_code = task.trigger, None
        earlier.finished_at = earlier.duration_ms = None
        earlier.status, earlier.status_reason, earlier.next_steps = "failed", "interrupted", []
    return earlier


def _check_continues(task: Task, settings: Settings, earlier: Evidence) -> None:
    if earlier.environment != settings.environment:
        raise ConfigurationError(
            f"run {earlier.run_id} belongs to environment {earlier.environment}, not {settings.environment}",
            "give OPSGATE_RUN_ID another value, or none",
        )
    for name in task.stages:
        if getattr(earlier.stages, name).completed:
            raise ConfigurationError(
                f"run {earlier.run_id} has completed its stage {name} already",
                "a stage is never run twice in one run: give OPSGATE_RUN_ID another value, or none",
            )


def _begin(task: Task, session: Session, *, continuing: bool) -> None:
    try:
        session.store.begin(session.record, continuing=continuing)
    except EvidenceError as error:
        if task.needs_evidence:
            raise NotReady(error.message, error.hint) from error
        session.evidence_error = error
    seconds = worst_case(session.settings, task.trigger, task.stages)
    session.reporter.started(session.record, verdict_by=math.ceil(time.time() + seconds))
    for warning in session.settings.warnings:
        session.reporter.warn(warning)


def _supervised(task: Task, session: Session) -> int:
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
        if record.stages.rollback.attempted is not True or record.trigger == "rollback":
            record.status, record.status_reason = "failed", "interrupted"
        _count(record)
        is_taken = isinstance(stop, TakenOver)
        record.next_steps = _steps(task, session, "the takeover" if is_taken else "the interrupt")
        if is_taken:
            record.next_steps.insert(0, str(stop))
        return stop.exit_code
    except (NotReady, ConfigurationError) as error:
        session.reporter.warn(str(error))
        record.next_steps = [str(error)]
        return error.exit_code
    except EvidenceError as error:
        session.lose(error)
        record.status, record.status_reason = "failed", "interrupted"
        record.next_steps = _steps(task, session, "the lost evidence")
        return EVIDENCE_LOST
    except Exception as error:  # noqa: BLE001 - a defect must not lose the record
        return _defect(task, session, error)
    record.next_steps = _steps(task, session)
    return outcome.exit_code(record, fail_on_skipped=session.settings.fail_on_skipped)


def _count(record: Evidence) -> None:
    """The attempts of a gate that was broken off count too."""
    targets = record.stages.gate.targets or []
    record.attempt_count = sum(len(target.attempts) for target in targets)
    record.failed_urls = probing.failed_names(targets)


def _steps(task: Task, session: Session, cut_short_by: str = "") -> list[str]:
    """The next steps, with the last good release also where no rollback was begun that would know it."""
    record, last_good = session.record, session.record.stages.rollback.last_good or None
    if last_good is None and record.status == "failed":
        with suppress(EvidenceError):
            last_good = session.store.last_good(
                record.environment, revision=record.revision, images=record.images
            )
    return outcome.next_steps(
        record, session.settings, planned=task.stages, last_good=last_good, cut_short_by=cut_short_by
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
        with suppress(Exception):
            rollback.automatic(session)
    session.reporter.warn(f"a defect in opsgate: {error!r} (details: {path})")
    record.next_steps = [f"Report this defect with {path}.", *_steps(task, session)]
    return DEFECT


def _finished(session: Session, code: int) -> int:
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
    if record.exit_code in {0, 1, None}:
        record.exit_code = EVIDENCE_LOST
    if record.trigger != "rollback" and record.status == "passed":
        record.status, record.status_reason = "failed", "interrupted"
    step = f"Evidence could not be written: {error.message if error else ''}"
    if step not in record.next_steps:
        record.next_steps.append(step)


def _told(session: Session) -> None:
    if session.record.status == "skipped":
        session.reporter.warn(session.record.next_steps[0])
    with suppress(OpsgateError):
        incident.run(session)
    head = None
    with suppress(EvidenceError):
        line = session.store.ledger.head()
        head = line.hash if line else None
    session.reporter.finished(session.record, head)


def new_run_id(epoch: float) -> str:
    """`<UTC yyyymmddThhmmssZ>-<6 random hex>`."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
