"""The errors a user can meet, and the exit codes.

OpsgateError                 70  a defect, unless a subclass says otherwise
├── ConfigurationError        2  flag, variable or file: nothing was touched
├── NotReady                  2  preflight says no: nothing was touched
├── EvidenceError            74  evidence could not be written or read
├── EnvironmentHeld          75  another run holds the environment
├── TakenOver                75  a person took the environment over with `rollback --force`
└── Interrupted             128+ a signal asked opsgate to stop

Each says what happened, where, and what to do next. Errors of a single stage are defined beside the code
that raises them, and say which exit code is theirs. `opsgate.door` turns one into an exit code,
`stages.supervise` once there is a record.
"""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """How a task ends; after signal N it is 128 + N."""

    PASSED = 0
    """Or skipped: nothing was validated, and nobody had asked to fail for that."""
    FAILED = 1
    """Nothing was deployed, no rollback was wanted, or rolled back and recovered."""
    NOT_READY = 2
    """Wrong usage or configuration, or preflight said no: nothing was touched."""
    PERSON_NEEDED = 3
    """Failed, and not rolled back, not recovered, or not known to be."""
    DEFECT = 70
    EVIDENCE_LOST = 74
    HELD = 75
    """By another run."""


class OpsgateError(Exception):
    """Something the user is told in words.

    `message` says what happened and where, `hint` what to do next (may be empty).
    """

    exit_code: int = ExitCode.DEFECT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    @property
    def one_line(self) -> str:
        """What happened and what to do next, for where there is one line only."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigurationError(OpsgateError):
    """A flag, an environment variable or the configuration file is wrong."""

    exit_code = ExitCode.NOT_READY


class NotReady(OpsgateError):
    """Preflight found something missing before the first side effect."""

    exit_code = ExitCode.NOT_READY


class EvidenceError(OpsgateError):
    """Evidence could not be written, or what is there cannot be read."""

    exit_code = ExitCode.EVIDENCE_LOST


class EnvironmentHeld(OpsgateError):
    """Another run holds the lock of this environment."""

    exit_code = ExitCode.HELD


class TakenOver(OpsgateError):
    """A person's `rollback --force`, the run `taker`, took the environment from this run."""

    exit_code = ExitCode.HELD

    def __init__(self, taker: str) -> None:
        self.taker = taker
        super().__init__(f"run {taker} took this environment over with `rollback --force`")


class Interrupted(OpsgateError):
    """SIGINT, SIGTERM or SIGHUP arrived."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        super().__init__(f"interrupted by {signal.Signals(signum).name}")


def told(error: Exception) -> OpsgateError:
    """The error itself, or the words for a `defect`."""
    return error if isinstance(error, OpsgateError) else defect(error)


def defect(error: Exception) -> OpsgateError:
    """What nobody expected, in words: what it is, and the line of opsgate that it came through last."""
    where, trace = "", error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == "opsgate":
            where = f" in {module}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return OpsgateError(
        f"a defect in opsgate: {error!r}{where}", "Report it, with the command that led here."
    )
