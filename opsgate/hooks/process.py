"""Runs one command of the user, within its limits, and tells the truth about how it ended.

Invoke's own runner waits for every process that holds the output, and its time limit kills the
shell alone. This one ends the whole process group, TERM first, and is finished when the hook is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from invoke.config import Config
from invoke.context import Context
from invoke.runners import Local

from opsgate.hooks import group
from opsgate.hooks.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opsgate.redact import Redactor

TICK: Final = 0.05
"""Seconds between two looks at the clock, the process and `cut`."""
DRAIN: Final = 0.3
"""Seconds that output may still arrive after the hook itself has exited."""
CUT_GRACE: Final = 3.0
"""Seconds from TERM to KILL when opsgate is being interrupted."""
LOST: Final = 1.0
"""Seconds that a killed process may take to go; one stuck in the kernel is left behind then."""

PIPE: Final = 64 * 1024
"""Bytes that a pipe holds."""
_OPTIONS: Final[Mapping[str, Any]] = {
    "shell": "/bin/sh", "replace_env": True, "warn": True, "hide": True, "echo": False, "pty": False,
    "dry": False, "disown": False, "asynchronous": False, "in_stream": False, "watchers": [], "timeout": None,
}  # fmt: skip
# A shell ends like its last command, 128 + n. Not for every n: git exits 129 on wrong usage.
_DEATHS: Final = frozenset(128 + n for n in (signal.SIGINT, signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV,
                                             signal.SIGPIPE, signal.SIGTERM))  # fmt: skip
_MINUTE: Final = 60


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended."""

    exit_code: int | None
    """The shell's code; 128 + n after death by signal n; null when it never started or would not die."""
    duration_ms: int
    timed_out: bool = False
    interrupted: bool = False
    output_tail: str = ""
    """The last 64 KiB of output, stdout and stderr as they came, masked and harmless."""
    survivors: tuple[int, ...] = ()
    """Processes of this command that still run: left behind, or escaped from the group."""
    output_held: bool = False
    """One of them held the output to the end: its next write there will kill it."""
    explanation: str = ""
    """Why it failed, in words; empty on success."""
    log_error: str = ""
    """Why the log is incomplete; empty when it is not."""

    @property
    def succeeded(self) -> bool:
        """Exit 0, by itself, in time."""
        return self.exit_code == 0 and not self.timed_out and not self.interrupted


def never() -> bool:
    """The `cut` of a command that nothing interrupts."""
    return False


def patient() -> float:
    """Seconds from TERM to KILL for a command that is cut, when nothing is in a hurry."""
    return CUT_GRACE


def run(
    command: str,
    *,
    env: Mapping[str, str],
    cwd: Path,
    limit: float,
    label: str,
    redactor: Redactor,
    log: Path | None,
    emit: Callable[[str], None],
    cut: Callable[[], bool] = never,
    cut_grace: Callable[[], float] = patient,
    grace: float = 10.0,
) -> Finished:
    """Run `command` by `/bin/sh -c` in a session of its own and wait until it has ended.

    `env` is the complete environment. After `limit` seconds the whole group gets TERM, `grace`
    seconds later KILL. `cut` is asked every 50 ms; once it says yes the command is ended likewise,
    KILL after `cut_grace` seconds, asked then, or `grace` if that is less. `emit` gets each line of
    output; the output also goes to `log`, appended. Never raises for what a command does; one that
    cannot be started has `exit_code` null.
    """
    stream = Stream(redactor, log, emit)
    runner = HookRunner(stream, cwd=cwd, limit=limit, grace=grace, cut=cut, cut_grace=cut_grace)
    begun = time.monotonic()
    refused = ""
    try:
        runner.run(command, env=dict(env), **_OPTIONS)
    except NotStarted as exc:
        refused = redactor.scrub(f"{label} could not be started: {exc}")
    except KeyboardInterrupt:
        # Ctrl-C in the moment before `wait`; `stop` has killed the group.
        runner.ending = "interrupted"
    tail = stream.finish()
    code = runner.returncode()
    return Finished(
        exit_code=code if code is None or code >= 0 else 128 - code,
        duration_ms=round((time.monotonic() - begun) * 1000),
        timed_out=runner.ending == "timed out",
        interrupted=runner.ending == "interrupted",
        output_tail=tail,
        survivors=runner.survivors(env.get("OPSGATE_RUN_ID", "")),
        output_held=runner.output_held,
        explanation=refused or explain(code, runner.ending, limit),
        log_error=stream.log_error,
    )


def explain(code: int | None, ending: str, limit: float) -> str:
    """Words for an ending; `code` as subprocess gives it, `limit` in seconds. Empty for success."""
    if ending == "timed out":
        return f"timed out after {_words(limit)}"
    if ending == "interrupted":
        return "interrupted"
    if code is None:
        return "did not end, not even by SIGKILL"
    if code < 0:
        return _killed(-code)
    if code in _DEATHS:
        return f"exit {code}: {_killed(code - 128)}"
    known = {0: "", 126: "permission denied, or not a program", 127: "command not found"}
    return f"{known[code]} (exit {code})" if known.get(code) else known.get(code, f"exit {code}")


def _killed(signum: int) -> str:
    try:
        name = signal.Signals(signum).name
    except ValueError:
        name = f"signal {signum}"
    return f"killed by {name}{' (out of memory?)' if signum == signal.SIGKILL else ''}"


def _words(seconds: float) -> str:
    seconds = round(seconds, 1)
    if seconds >= _MINUTE and seconds % _MINUTE == 0:
        return f"{seconds / _MINUTE:g} min"
    return f"{seconds:g} s"


class NotStarted(Exception):
    """The operating system refused to start the shell."""


class HookRunner(Local):
    """Invoke's local runner with a process group, limits that hold, and bounded output.

    Everything happens in the calling thread: one loop reads, looks at the clock and asks `cut`.
    Signal handlers that only set flags do not disturb it.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        cwd: Path,
        limit: float,
        grace: float,
        cut: Callable[[], bool],
        cut_grace: Callable[[], float],
    ) -> None:
        # A lazy configuration reads no invoke.yaml: a hook runs the same for everybody.
        super().__init__(Context(Config(lazy=True)))
        self.ending = ""
        """Why the hook was ended: empty, `timed out` or `interrupted`."""
        self.output_held = False
        """The hook is gone, and its output had not ended."""
        self._child: subprocess.Popen[bytes] | None = None
        self._stream = stream
        self._cwd = cwd
        self._limit = limit
        self._grace = grace
        self._cut = cut
        self._cut_grace = cut_grace
        self._output = -1
        self._readable = select.poll()
        self._has_proc = group.readable()
        self._kill_at = float("inf")
        self._killed_at = 0.0
        self._begun_ticks = 0

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:
        """Start the shell in its own session; stdout and stderr share one pipe, so that their order stays."""
        try:
            self._output, theirs = os.pipe()
        except OSError as exc:
            raise NotStarted(_reason(exc)) from None
        self._readable.register(self._output, select.POLLIN)
        try:
            self._child = self.process = subprocess.Popen(
                [shell, "-c", command], env=env, cwd=self._cwd, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
            )  # fmt: skip
        except (OSError, ValueError) as exc:
            raise NotStarted(_reason(exc)) from None
        finally:
            os.close(theirs)
        self._begun_ticks = group.started(self.process.pid)

    def create_io_threads(self) -> tuple[dict[Any, Any], list[str], list[str]]:
        """None: `wait` reads."""
        return {}, [], []

    def wait(self) -> None:
        """Read until the hook has exited, or has been ended with its group."""
        limit_at = time.monotonic() + self._limit
        while not self._over():
            if self._output >= 0:
                self._read(TICK)
            else:
                time.sleep(TICK if self.ending else TICK / 10)
            self._enforce(limit_at)
        # Showing the last of it may have taken that long: one byte more than a pipe holds brings its end.
        self._read(DRAIN, PIPE + 1)
        if self._exited() and self._child is not None:
            self._child.wait()

    def _enforce(self, limit_at: float) -> None:
        now = time.monotonic()
        if self.ending != "interrupted" and self._cut():
            self._end("interrupted", min(self._cut_grace(), self._grace))
        elif not self.ending and now >= limit_at:
            self._end("timed out", self._grace)
        if now >= self._kill_at and not self._killed_at:
            self._signal(signal.SIGKILL)
            self._killed_at = now

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:  # noqa: ARG002 - Invoke's signature
        """Ctrl-C where nobody handles SIGINT: the hook is ended, `wait` goes on."""
        self._end("interrupted", min(self._cut_grace(), self._grace))

    def stop(self) -> None:
        """Leave nothing behind when the wait was broken off by an exception."""
        super().stop()
        if self._child is not None and self._child.returncode is None and not self._killed_at:
            self._signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(LOST)
        self.output_held = self._child is not None and self._output >= 0
        self._close()

    def returncode(self) -> int | None:
        """As subprocess gives it; null when there is none."""
        return None if self._child is None else self._child.returncode

    def survivors(self, run_id: str) -> tuple[int, ...]:
        """Living processes that carry this run's id and are no older than the hook."""
        if self._child is None or not run_id:
            return ()
        found = group.survivors(f"OPSGATE_RUN_ID={run_id}", self._begun_ticks)
        if found:
            # What is dying just now gets a moment to finish.
            time.sleep(TICK)
            found = tuple(pid for pid in found if group.alive(pid))
        return found

    def _over(self) -> bool:
        """Whether there is nothing left to wait for: the hook itself, or its whole group if it was ended."""
        if self._killed_at and time.monotonic() > self._killed_at + LOST:
            return True
        if not self._exited():
            return False
        return not self.ending or not self._group_lives()

    def _exited(self) -> bool:
        """Whether the shell is gone. It stays unreaped, so that its group's number is not given away."""
        if self._child is None or self._child.returncode is not None:
            return True
        if not self._has_proc:
            return self._child.poll() is not None
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _group_lives(self) -> bool:
        if self._child is None:
            return False
        if self._has_proc:
            return group.living(self._child.pid)
        try:
            os.killpg(self._child.pid, 0)
        except OSError:
            return False
        return True

    def _end(self, ending: str, grace: float) -> None:
        if not self.ending and self._exited():
            # It has finished by itself, and what it left behind may stay.
            return
        self.ending = ending
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        self._signal(signal.SIGTERM)

    def _signal(self, signum: int) -> None:
        if self._child is None:
            return
        try:
            os.killpg(self._child.pid, signum)
        except (ProcessLookupError, PermissionError):
            # Gone already, or run as another user by sudo: the limit still ends the wait.
            return

    def _read(self, seconds: float, beyond: int = 0) -> None:
        """Take what comes for so long, or until the output has ended; then `beyond` bytes without waiting."""
        end = time.monotonic() + seconds
        while self._output >= 0 and ((left := end - time.monotonic()) > 0 or beyond > 0):
            if not self._readable.poll(max(left, 0) * 1000):
                return
            if data := os.read(self._output, PIPE):
                self._stream.feed(data)
            else:
                self._close()
            beyond -= len(data) if left <= 0 else 0

    def _close(self) -> None:
        if self._output >= 0:
            self._readable.unregister(self._output)
            os.close(self._output)
            self._output = -1


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, OSError):
        return f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}"
    return str(exc)
