"""How `rollback --force` takes a held environment over, and what the person at it is told meanwhile."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from opsgate.errors import Interrupted
from opsgate.evidence.lock import PATIENCE
from opsgate.evidence.views.words import clock
from opsgate.stages.halt import Halt
from opsgate.stages.limits import worst_case
from opsgate.stages.outcome import command_line

if TYPE_CHECKING:
    from opsgate.evidence.lock import EnvironmentLock, Holder
    from opsgate.evidence.record import Takeover
    from opsgate.settings import Settings
    from opsgate.stages.reporter import Reporter


def take_over(
    lock: EnvironmentLock, holder: Holder, settings: Settings, *, reporter: Reporter, told: list[str]
) -> Takeover | None:
    """Take the environment over; what the run's first line has to come before is added to `told`.

    A signal meanwhile is an `Interrupted` that says what has become of the holder.
    """

    def found(who: Holder | None) -> None:
        seconds = PATIENCE + worst_case(settings, "rollback", ())
        by = datetime.fromtimestamp(math.ceil(time.time() + seconds), UTC)
        if who:
            what = f"{who} holds {lock.environment} and is asked to stop: that takes {PATIENCE:g} s at most"
        else:
            what = f"{lock.environment} is held by a run without a name: it has {PATIENCE:g} s to end"
        reporter.note(f"verdict by {clock(by)} at the latest; {what}")

    halt = Halt()
    try:
        with halt:
            taken = lock.take_over(holder, found=found, check=halt.check)
        # For a signal after the last look.
        halt.check()
    except Interrupted as stop:
        stop.hint = _left(lock.withdraw(holder), settings)
        raise
    if taken is not None:
        told += _words(taken, lock)
    return taken


def _left(stopped: Holder | None, settings: Settings) -> str:
    if stopped is None:
        return "Nothing was touched: no run was stopped, nothing was rolled back."
    back = f"{command_line('rollback', settings)} --reason 'WHY'"
    return f"{stopped} was asked to stop, and ends. Nothing was rolled back. Go back now: {back}"


def _words(taken: Takeover, lock: EnvironmentLock) -> list[str]:
    words = f"took the environment over from run {taken.run_id} (process {taken.pid} on {taken.host})"
    if lock.unasked:
        return [
            f"{words}; it could not be asked to stop, and may go on: {lock.unasked.strerror or lock.unasked}"
        ]
    if not taken.reached:
        return [f"{words}; it did not answer within {PATIENCE:g} s, its hook may still be running"]
    passed_by = lock.passed_by()
    if passed_by is None:
        return [words]
    return [words, f"{passed_by} did not answer an earlier takeover: its hook may still be running"]
