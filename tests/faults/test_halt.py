"""A wait that knows nothing of signals is broken off; one that has to go on is not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from opsgate.errors import Interrupted
from opsgate.stages import halt as halts
from opsgate.stages.halt import Halt


@pytest.fixture
def halt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Halt]:
    monkeypatch.setattr(halts, "PATIENCE", 0.1)
    # The clock that pytest-timeout watches tests by is the one that a run is broken off by.
    watched = signal.setitimer(signal.ITIMER_REAL, 0)
    with Halt() as halt:
        yield halt
    signal.setitimer(signal.ITIMER_REAL, *watched)


def wait() -> None:
    """Longer than the patience is; nobody is asked meanwhile."""
    threading.Event().wait(0.4)


def insist(until: float) -> None:
    """Somebody presses Ctrl-C again and again."""
    while time.monotonic() < until:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)


def test_a_wait_is_broken_off(halt: Halt) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"):
        wait()


def test_signals_that_follow_do_not_put_it_off(halt: Halt) -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted):
        insist(began + 5)
    assert time.monotonic() - began < 4


def test_a_rollback_goes_on_and_what_follows_is_broken_off(halt: Halt) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with halt.shielded():
        wait()
        assert not halt.pending()
        assert halt.held() == signal.SIGTERM
    with pytest.raises(Interrupted):
        wait()


def test_a_second_signal_breaks_off_a_rollback_that_does_not_ask(halt: Halt) -> None:
    with halt.shielded():
        os.kill(os.getpid(), signal.SIGTERM)
        wait()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            wait()


def test_the_end_of_a_run_is_not_broken_off(halt: Halt) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    halt.rest()
    os.kill(os.getpid(), signal.SIGINT)
    wait()
    assert halt.signum == signal.SIGTERM
