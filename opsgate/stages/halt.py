"""When a run has to stop: a signal, or a person who took the environment over.

Signal handlers only take note. Stages ask at safe points, many times a second, so no write is torn
by an exception out of nowhere. Where nobody has asked for seconds, something waits that knows nothing of
signals, a registry for instance: only then the wait is broken off.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from opsgate.errors import Interrupted, TakenOver
from opsgate.leave import SIGNALS, is_left_ignored

PATIENCE = 3.5
"""Seconds after a signal in which a stage may come to its end: a hook that ignores TERM takes 3 of them."""
ALL_OVER = 4.5
"""Seconds after a signal in which all is over, what comes after the stages too."""


def go_on() -> None:
    """The `check` of what nothing interrupts."""


class Halt:
    """Asked whether the run may go on. A context manager that owns the signal handlers meanwhile."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._shielded = self._is_over = False
        self._stopping_since: float | None = None
        self._previous: dict[int, object] = {}
        self.taken_over_by: Callable[[], str | None] = lambda: None
        """Says which run took the environment over, once one has."""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if not is_left_ignored(signum):
                    self._previous[signum] = signal.signal(signum, self._receive)
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off)
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        self._received.append(signum)
        self._count_down()

    def _count_down(self) -> None:
        if self._must_stop() and self._stopping_since is None:
            self._stopping_since = time.monotonic()
        is_counting = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        if self._must_stop() and not is_counting and not self._is_over:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _must_stop(self) -> bool:
        if self._shielded:
            return any(self._received.count(signum) > 1 for signum in set(self._received))
        return bool(self._received)

    def _break_off(self, _signum: int, _frame: FrameType | None) -> None:
        if self._must_stop() and not self._is_over:
            raise Interrupted(self._received[0])

    def rest(self) -> None:
        """The run has stopped, or come to its end: nothing is broken off any more."""
        self._is_over = True
        self._rest_clock()

    def _rest_clock(self) -> None:
        if self._previous:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def signum(self) -> int | None:
        """The first signal that arrived."""
        return self._received[0] if self._received else None

    def left(self) -> float:
        """Seconds until all has to be over; infinite while no signal asks for that."""
        since = self._stopping_since
        return float("inf") if since is None else max(0.0, since + ALL_OVER - time.monotonic())

    def pending(self) -> bool:
        """Whether the run has to stop now; while shielded only a second signal of one kind counts."""
        return bool(self.taken_over_by()) or self._must_stop()

    def held(self) -> int | None:
        """The first signal, while a rollback goes on in spite of it."""
        return self.signum if self._shielded and not self.pending() else None

    def once_more(self) -> Callable[[], bool]:
        """Asked later: whether another signal has arrived from now on, or the run was taken over."""
        before = len(self._received)
        return lambda: len(self._received) > before or bool(self.taken_over_by())

    def check(self) -> None:
        """Raise `Interrupted` or `TakenOver` when the run has to stop now."""
        if not self.pending():
            return
        taker = self.taken_over_by()
        if taker:
            raise TakenOver(taker)
        raise Interrupted(self._received[0])

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold the first signal: a rollback that is under way is not cut off by it."""
        self._shielded = True
        if not self._must_stop():
            # A signal that came a moment ago is held too: its seconds begin when the rollback has ended.
            self._stopping_since = None
            self._rest_clock()
        try:
            yield
        finally:
            self._shielded = False
            self._count_down()
