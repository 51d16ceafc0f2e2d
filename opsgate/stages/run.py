"""One run from lock to ledger: the environment locked, the record begun or continued, the task executed."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from opsgate.errors import ConfigurationError, EnvironmentHeld, EvidenceError, NotReady
from opsgate.evidence import repair
from opsgate.evidence.lock import EnvironmentLock, Holder
from opsgate.evidence.record import Ci, Evidence, Takeover, masked, new_run_id, pretty, timestamp
from opsgate.evidence.store import Store
from opsgate.stages.halt import Halt
from opsgate.stages.limits import worst_case
from opsgate.stages.outcome import command_line
from opsgate.stages.reporter import Masked
from opsgate.stages.session import Session
from opsgate.stages.supervise import Task, finished, supervised, tell

if TYPE_CHECKING:
    from opsgate.settings import Settings
    from opsgate.stages.reporter import Reporter


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
        return pretty(self.record).decode()


def execute(
    task: Task, settings: Settings, *, reporter: Reporter, environ: Mapping[str, str], ci: Ci
) -> Outcome:
    """Run a task from beginning to end.

    Raises what stops it before anything was touched: `EnvironmentHeld`, `NotReady`,
    `ConfigurationError`.
    """
    store = Store(settings.evidence_dir, settings.redactor)
    reporter = Masked(reporter, settings.redactor)
    # A signal before the run begins ends the process at once, but for one while it waits for a holder to go.
    told: list[str] = []
    with _locked(task, settings, store, reporter, told) as (lock, run_id, taken), Halt() as halt:
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
        _begin(task, session, told, continuing=earlier is not None)
        code = finished(session, supervised(task, session))
        # From here on people are shown what was kept: commands and steps with their secrets masked.
        session.record = masked(session.record, settings.redactor)
        tell(session)
    return Outcome(
        record=session.record,
        exit_code=code,
        path=store.record_path(session.record.run_id),
        evidence_lost=session.evidence_error is not None,
    )


@contextmanager
def _locked(
    task: Task, settings: Settings, store: Store, reporter: Reporter, told: list[str]
) -> Iterator[tuple[EnvironmentLock, str, Takeover | None]]:
    """Hold the environment: its lock, the run's id, and from whom it was taken.

    Where evidence cannot be written, only a task that needs it stops. What a person has to hear of
    it is added to `told`: the first line of a run is its own.
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
    lost: EvidenceError | None = None
    try:
        try:
            store.prepare()
        except EvidenceError as error:
            lost = error
        # Held is held, also where nothing can be written.
        try:
            if task.force:
                from opsgate.stages.takeover import take_over

                taken = take_over(lock, holder, settings, reporter=reporter, told=told)
            else:
                _acquire(lock, holder, settings)
            if lost is None:
                repair.complete(store)
        except EvidenceError as error:
            lost = lost or error
        if lost is not None:
            if task.needs_evidence:
                raise NotReady(lost.message, lost.hint) from lost
            told.append(f"evidence cannot be written, rolling back all the same: {lost.message}")
        yield lock, run_id, taken
    finally:
        lock.release()


def _acquire(lock: EnvironmentLock, holder: Holder, settings: Settings) -> None:
    try:
        lock.acquire(holder)
    except EnvironmentHeld as held:
        force = f"{command_line('rollback', settings)} --force"
        held.hint = f"Wait until it ends. In an incident `{force}` takes the environment over."
        raise


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
    run, hint = earlier.run_id, "give OPSGATE_RUN_ID another value, or none"
    if earlier.environment != settings.environment:
        raise ConfigurationError(
            f"run {run} belongs to environment {earlier.environment}, not {settings.environment}", hint
        )
    if not task.stages:
        return
    stages, alone = earlier.stages, f"start a run of its own: {hint}"
    if stages.deploy.status == "failed" or earlier.rollbacks:
        raise ConfigurationError(
            f"the release of run {run} failed to deploy, or was rolled back: it cannot go on", alone
        )
    for name in task.stages:
        if getattr(stages, name).completed:
            raise ConfigurationError(
                f"run {run} has completed its stage {name} already",
                f"a stage is never run twice in one run: {hint}",
            )
    if "publish" not in task.stages and stages.publish.status in {"failed", "interrupted"}:
        # The gate would pass on what ran before, under the name of what was never published.
        raise ConfigurationError(f"the release of run {run} was not published: it cannot go on", alone)
    if stages.gate.completed:
        raise ConfigurationError(
            f"run {run} was gated already: no gate would look at what is brought out after it", alone
        )


def _begin(task: Task, session: Session, told: list[str], *, continuing: bool) -> None:
    lost: EvidenceError | None = None
    try:
        session.store.begin(session.record, continuing=continuing)
    except EvidenceError as error:
        if task.needs_evidence:
            raise NotReady(error.message, error.hint) from error
        lost = error
    seconds = worst_case(session.settings, task.trigger, task.stages)
    session.reporter.started(session.record, verdict_by=math.ceil(time.time() + seconds))
    for warning in (*told, *session.settings.warnings):
        session.reporter.warn(warning)
    if lost is not None:
        session.lose(lost)
