"""A command as a target: a look from inside the host, within a hard limit."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TAIL: Final = 4096
_READ: Final = 64 * 1024
_REST: Final = 16
"""Reads after the exit: what the command wrote last is still in the pipe."""
_GLANCE: Final = 0.02
_GLANCE_AT_EXIT: Final = 0.002
_LOST: Final = 0.05
"""Seconds that a killed command may take to go; one that sudo runs as another user cannot be killed."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended. `exit_code` is null when the limit ended it, negative for a signal."""

    exit_code: int | None
    last_line: str
    received: int = 0


class Commands:
    """Runs commands with `/bin/sh -c`, each in a session of its own, and leaves none behind."""

    def __init__(self, environ: Mapping[str, str], cwd: Path | None) -> None:
        self._environ = dict(environ)
        self._cwd = cwd
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._closed = threading.Event()

    def __call__(self, command: str, limit: float) -> Ran:
        """Run it; past `limit` seconds the whole group is killed. Raises OSError if it cannot start."""
        until = time.monotonic() + limit
        process = self._start(command)
        try:
            tail, received, exited = _follow(process, until)
        finally:
            self._end(process)
        code = process.returncode if exited else None
        return Ran(exit_code=code, last_line=_last_line(tail, received), received=received)

    def _start(self, command: str) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed.is_set():
                raise OSError(errno.ECANCELED, "the run is over")
        # Without the lock: a directory that does not answer must not hold up the others, nor `close`.
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environ,
            cwd=self._cwd,
            start_new_session=True,
        )
        with self._lock:
            self._groups.add(process.pid)
            if self._closed.is_set():
                _kill(process.pid)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End the group before its leader is reaped: until then no other has its number."""
        with self._lock:
            self._groups.discard(process.pid)
            _kill(process.pid)
        if process.stdout is not None:
            process.stdout.close()
        try:
            process.wait(_LOST)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(RuntimeError):  # no thread can start: it is reaped with the next command
                threading.Thread(target=process.wait, daemon=True).start()

    def close(self) -> None:
        """End what is still running; nothing is started afterwards."""
        with self._lock:
            self._closed.set()
            for group in self._groups:
                _kill(group)


def _follow(process: subprocess.Popen[bytes], until: float) -> tuple[bytes, int, bool]:
    """Read until the command has exited or the time is over: the output's end, its length, exited or not.

    A child left behind may hold the output open, or go on writing; the command has finished all the same.
    """
    import select

    assert process.stdout is not None  # noqa: S101 - for the type checker
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    watched = select.poll()
    watched.register(output, select.POLLIN)
    tail, received, rest, at_end = b"", 0, _REST, False
    while (left := until - time.monotonic()) > 0 and rest:
        if at_end:
            time.sleep(min(left, _GLANCE_AT_EXIT))
        else:
            watched.poll(min(left, _GLANCE) * 1000)
        exited = _has_exited(process.pid)
        piece = _read(output)
        if piece:
            tail, received = (tail + piece)[-_TAIL:], received + len(piece)
            rest -= exited
        elif exited:
            return tail, received, True
        elif piece == b"":
            at_end = True
    return tail, received, _has_exited(process.pid)


def _read(output: int) -> bytes | None:
    """What there is; empty at the end of the output, None when nothing is there now."""
    try:
        return os.read(output, _READ)
    except BlockingIOError:
        return None


def _has_exited(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _last_line(tail: bytes, received: int) -> str:
    lines = [line for line in tail.decode("utf-8", "replace").splitlines() if line.strip()]
    if received > len(tail) and len(lines) == 1 and not tail.startswith(b"\n"):
        # Its beginning is gone, and with it perhaps that of a secret, which nobody would recognize now.
        return f"a line of more than {_TAIL // 1024} KiB"
    return lines[-1].strip() if lines else ""
