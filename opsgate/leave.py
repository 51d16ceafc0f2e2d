"""How processes end: this one at a signal before a run begins and at its end, and those that it starts.

Imports next to nothing, so that it can be in force a few milliseconds after the start.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_left_ignored(signum: int) -> bool:
    """Started with nohup, a run is meant to outlive its terminal.

    SIGINT is another matter: a shell's background jobs, and what a runner starts, find it ignored, and a
    cancelled rollout must still end.
    """
    return signum == signal.SIGHUP and signal.getsignal(signum) is signal.SIG_IGN


def leave_on_signals() -> None:
    """End the process at once on a signal, with the exit code of an interrupted run and no traceback."""
    for signum in SIGNALS:
        if not is_left_ignored(signum):
            try:
                signal.signal(signum, _leave)
            except ValueError:
                # Not the main thread: signals are its business.
                return


def keep_exit_codes() -> None:
    """Undo an inherited ignored SIGCHLD, which makes the kernel discard how children ended.

    A hook's failure would look like success, a healthy command target like a failure.
    """
    with suppress(ValueError):  # not the main thread: signals are its business
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def leave(code: int) -> NoReturn:
    """End the process once all is written; what the interpreter takes apart otherwise costs 30 ms."""
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other name for it
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _leave(signum: int, _frame: object) -> None:
    try:
        os.write(2, f"opsgate: interrupted by {signal.Signals(signum).name}\n".encode())
    finally:
        os._exit(128 + signum)
