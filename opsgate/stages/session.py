"""One run: its record, its lock, its hooks. Stages get a session, and nothing else of the world."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from opsgate.errors import EvidenceError
from opsgate.evidence import rollouts
from opsgate.evidence.files import HINT
from opsgate.evidence.record import Command, Evidence, Rollout, Stage, Takeover, timestamp
from opsgate.hooks import hook as hooks
from opsgate.hooks import process
from opsgate.stages.answers import answer
from opsgate.stages.facts import earlier, standing

if TYPE_CHECKING:
    from opsgate.evidence.store import Store
    from opsgate.redact import Redactor
    from opsgate.settings import Settings
    from opsgate.stages.halt import Halt
    from opsgate.stages.reporter import Reporter

S = TypeVar("S", bound=Stage)
STUCK = 1.0
"""Seconds that a write may take before it fails."""
GRACE = 10.0
"""Seconds from TERM to KILL for a hook past its limit."""
QUESTION_GRACE = 1.0
"""The same for a question, which changes nothing."""
COMMIT_LIMIT = 3.0
"""Seconds for git to name the commit."""


class Session:
    """What a stage works with.

    `save` never raises: evidence that cannot be written must not stop a rollback that is needed.
    The first such error is kept in `evidence_error`, and decides the exit code.
    """

    def __init__(
        self,
        settings: Settings,
        record: Evidence,
        store: Store,
        *,
        redactor: Redactor,
        reporter: Reporter,
        halt: Halt,
        environ: Mapping[str, str],
        took_over: Takeover | None = None,
    ) -> None:
        self.settings, self.record, self.store = settings, record, store
        self.redactor, self.reporter, self.halt, self.environ = redactor, reporter, halt, environ
        self.took_over = took_over
        self.begun: set[hooks.HookName] = set()
        """The hooks that this task has started."""
        self._held_told = False
        self.evidence_error: EvidenceError | None = None
        self.began = time.monotonic()
        self.until = float("inf")
        """When what is under way has to be over, in monotonic seconds: see `within`."""
        self.good_before = self._good_before()
        self._is_stuck = False
        self.judges_revision = bool(settings.revision or record.revision)
        """A flag, a variable, the run that is continued, or a rollout of our own names a revision."""
        if record.trigger != "rollback":
            record.revision = settings.revision or record.revision

    def _good_before(self) -> Rollout | None:
        """What `redeploy` leads back to, should the evidence be lost during this run."""
        if not self.settings.hooks.redeploy:
            return None
        with suppress(EvidenceError):
            return rollouts.last_good(self.store, self.settings.environment, revision=None, images=())
        return None

    def judge_revision(self) -> None:
        """This run rolls something out: without a better name, its revision is the commit's."""
        self.judges_revision = True
        if not self.record.revision:
            self.record.revision = self.commit_revision()

    def commit_revision(self) -> str | None:
        """The commit's first 12 characters: of `GITHUB_SHA`, else of what git has checked out."""
        sha = self.environ.get("GITHUB_SHA", "")
        if not sha:
            try:
                git = answer(
                    ["git", "rev-parse", "HEAD"],
                    environ=self.environ,
                    directory=self.settings.directory,
                    limit=self.left(COMMIT_LIMIT),
                    check=self.halt.check,
                )
            except (OSError, subprocess.SubprocessError):
                return None
            sha = "" if git.returncode else git.stdout.strip()
        return sha[:12] or None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let all that is run or asked meanwhile be over in so many seconds, whatever its own limit is."""
        before, self.until = self.until, min(self.until, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.until = before

    def left(self, limit: float) -> float:
        """`limit`, or what is left of the time `within` which this happens."""
        return min(limit, max(0.0, self.until - time.monotonic()))

    @property
    def directory(self) -> Path:
        """The run's own directory, absolute."""
        return self.store.run_directory(self.record.run_id)

    @property
    def pins(self) -> Path:
        """Where the run's compose override is, or would be."""
        return self.store.pins_path(self.record.run_id)

    def attempt_to_write(self, write: Callable[[], object]) -> None:
        """Write evidence; keep the first error and go on."""
        try:
            write()
        except EvidenceError as error:
            self.lose(error)

    def lose(self, error: EvidenceError) -> None:
        """Evidence of this run is lost: the first time a person is told, and the exit code will tell."""
        if self.evidence_error is None:
            self.evidence_error = error
            self.reporter.warn(f"evidence cannot be written: {error.message}")

    def save(self) -> None:
        """Replace the record on disk with what is known now.

        Until the run has ended it says `failed` there, whatever its stages have come to.
        """
        if self._is_stuck:
            return
        record = self.record
        if record.status != "failed":
            record = msgspec.structs.replace(record, status="failed", status_reason="interrupted")
        began = time.monotonic()
        self.attempt_to_write(lambda: self.store.save(record))
        # A disk that fails slowly must not hold up a rollback again and again: only the end tries once more.
        self._is_stuck = self.evidence_error is not None and time.monotonic() - began > STUCK

    @contextmanager
    def stage(self, name: str, stage: S) -> Iterator[S]:
        """Run a stage: on disk as `interrupted` before it does anything, and timed whatever happens."""
        began = time.monotonic()
        stage.status = "interrupted"
        stage.started_at = timestamp(time.time())
        stage.duration_ms = msgspec.UNSET
        self.save()
        self.reporter.stage(name)
        try:
            yield stage
        finally:
            seconds = time.monotonic() - began
            stage.duration_ms = round(seconds * 1000)
            if self.record.status != "passed":
                # A run that has passed is at its end: the final record follows at once.
                self.save()
            self.reporter.stage_done(name, stage.status, seconds)

    def run_hook(
        self,
        name: hooks.HookName,
        command: str,
        *,
        limit: float,
        last_good: Rollout | None = None,
        deploying: Rollout | None = None,
        grace: float = GRACE,
        cut: Callable[[], bool] | None = None,
    ) -> tuple[Command, hooks.Outputs]:
        """Run one command of a hook to its end, its limit, or the end of this run: `cut` takes its place.

        `deploying` takes the place of the run's own revision, images, pins and tag. A publish or deploy
        hook that left something unusable counts as failed, and so does one for which no time is left.
        What else it left is told however it ended. Raises `Interrupted` or `TakenOver` where the run has
        to stop before the command is started.
        """
        if cut is None:
            # Since the stage was asked last, records were written; that may have taken a while.
            self.halt.check()
        limit = self.left(limit)
        if limit <= 0:
            return _command(command, _NO_TIME), hooks.Outputs()
        self.begun.add(name)
        with self._output_file() as output:
            finished = process.run(
                command,
                env=hooks.environment(self.environ, self.facts(name, output, last_good, deploying)),
                cwd=self.settings.directory,
                limit=limit,
                label=name,
                redactor=self.redactor,
                log=self.directory / f"{name}.log",
                emit=lambda line: self.reporter.hook_line(name, line),
                cut=cut or self._cut,
                cut_grace=self._cut_grace,
                grace=grace,
            )
            if finished.log_error:
                self.lose(EvidenceError(f"the log of {name} is incomplete: {finished.log_error}", HINT))
            done = _command(command, finished)
            outputs = hooks.read_outputs(output) if name in {"publish", "deploy"} else hooks.Outputs()
            if done.succeeded:
                done.explanation = outputs.mistake
        for key in outputs.unknown:
            self.reporter.warn(f"{name} left an unknown key in OPSGATE_OUTPUT: {key}")
        return done, outputs

    @contextmanager
    def _output_file(self) -> Iterator[Path]:
        """A file for what a hook leaves; a full disk costs that, not the hook."""
        try:
            scratch = tempfile.TemporaryDirectory(prefix="opsgate-", ignore_cleanup_errors=True)
        except OSError as error:
            self.reporter.warn(f"no file for OPSGATE_OUTPUT: {error}")
            yield Path(os.devnull)
            return
        with scratch as directory:
            output = Path(directory) / "output"
            with suppress(OSError):
                output.touch()
            yield output

    def _cut(self) -> bool:
        """Whether a hook has to end now; says once that it goes on in spite of a signal."""
        signum = self.halt.held()
        if signum is not None and not self._held_told:
            self._held_told = True
            name = signal.Signals(signum).name
            self.reporter.warn(f"{name}: the rollback is not cut off; a second {name} would end it")
        return self.halt.pending()

    def _cut_grace(self) -> float:
        """Seconds that a hook has after TERM: a killed one may take a moment to go, and then all is over."""
        return max(0.0, min(process.CUT_GRACE, self.halt.left() - process.LOST))

    def ask(self, command: str, *, limit: float) -> process.Finished:
        """Run a command that changes nothing, with a publish hook's environment. Shown and kept nowhere."""
        limit = self.left(limit)
        if limit <= 0:
            return _NO_TIME
        facts = self.facts("publish", Path(os.devnull), None, None)
        return process.run(
            command,
            env=hooks.environment(self.environ, facts),
            cwd=self.settings.directory,
            limit=limit,
            label=command,
            redactor=self.redactor,
            log=None,
            emit=lambda _: None,
            cut=self.halt.pending,
            cut_grace=self._cut_grace,
            grace=QUESTION_GRACE,
        )

    def facts(
        self, name: hooks.HookName, output: Path, last_good: Rollout | None, deploying: Rollout | None
    ) -> hooks.Facts:
        """What this hook is told now; see `run_hook`."""
        record = self.record
        told = name in {"rollback", "incident"}
        status, reason = standing(record, name)
        own = deploying or Rollout(
            run_id=record.run_id,
            revision=record.revision,
            images=tuple(record.images),
            pins=str(self.pins) if os.path.exists(self.pins) else None,
            tag=record.stages.publish.tag or None,
        )
        now = earlier(own)
        return hooks.Facts(
            run_id=record.run_id,
            environment=record.environment,
            stage=name,
            evidence=self.store.record_path(record.run_id),
            output=output,
            revision=now.revision,
            images=now.images,
            pins=now.pins,
            tag=now.tag,
            status=status,
            status_reason=reason,
            failed_urls=record.failed_urls if told else (),
            last_good=earlier(last_good) if last_good else hooks.Earlier(),
        )


_NO_TIME = process.Finished(
    exit_code=None, duration_ms=0, timed_out=True, explanation="not started: there was no time left"
)


def _command(command: str, finished: process.Finished) -> Command:
    return Command(
        command=command,
        exit_code=finished.exit_code,
        duration_ms=finished.duration_ms,
        timed_out=finished.timed_out,
        output_tail=finished.output_tail,
        explanation=finished.explanation,
        survivors=list(finished.survivors),
        output_held=finished.output_held or msgspec.UNSET,
    )
