"""A question to a program of this machine: bounded, and broken off as soon as the run has to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOOK: Final = 0.05
"""Seconds between two looks at whether the answer is still wanted."""
_LOST: Final = 1.0


def answer(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    limit: float,
    check: Callable[[], None],
    given: str | None = None,
    directory: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` with `given` on its stdin; what it printed, and how it ended.

    Raises OSError when it cannot be started, `subprocess.TimeoutExpired` after `limit` seconds, and what
    `check` raises. It is killed then, with what it has started.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        cwd=directory,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            out, err = _hear(child, given, time.monotonic() + limit, check)
        except BaseException:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            # Who has escaped from the group may hold the pipes for ever.
            with suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=_LOST)
            raise
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def _hear(
    child: subprocess.Popen[str], given: str | None, end: float, check: Callable[[], None]
) -> tuple[str, str]:
    while True:
        check()
        try:
            return child.communicate(given, timeout=_LOOK)
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                raise
        given = None
