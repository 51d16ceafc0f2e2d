"""What a signal does before a run begins: there is nothing to end yet, and nothing to keep.

Imports next to nothing, so that it can be in force a few milliseconds after the start.
"""

from __future__ import annotations

import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_on_signals() -> None:
    """End the process at once on a signal, with the exit code of an interrupted run and no traceback."""
    for signum in SIGNALS:
        # Started with nohup, a run is meant to outlive its terminal.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            try:
                signal.signal(signum, _leave)
            except ValueError:
                # Not the main thread: signals are its business.
                return


def _leave(signum: int, _frame: object) -> None:
    try:
        os.write(2, f"opsgate: interrupted by {signal.Signals(signum).name}\n".encode())
    finally:
        os._exit(128 + signum)
