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
    monkeypatch.setattr(halts, "PATIENCE", 0.3)
    # The clock that pytest-timeout watches tests by is the one that a run is broken off by.
    watched = signal.setitimer(signal.ITIMER_REAL, 0)
    with Halt() as halt:
        yield halt
    signal.setitimer(signal.ITIMER_REAL, *watched)


def wait() -> None:
    """Longer than the patience is; nobody is asked meanwhile."""
    threading.Event().wait(1.0)


def wait_after(signum: signal.Signals) -> None:
    os.kill(os.getpid(), signum)
    wait()


def insist(until: float) -> None:
    """Somebody presses Ctrl-C again and again."""
    while time.monotonic() < until:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)


def test_a_wait_is_broken_off(halt: Halt) -> None:
    with pytest.raises(Interrupted, match="SIGTERM"):
        wait_after(signal.SIGTERM)


def test_signals_that_follow_do_not_put_it_off(halt: Halt) -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted):
        insist(began + 5)
    assert time.monotonic() - began < 4


def test_a_rollback_goes_on_and_what_follows_is_broken_off(halt: Halt) -> None:
    went_on = False
    # The patience may be over as soon as the rollback is.
    with pytest.raises(Interrupted):  # noqa: PT012
        with halt.shielded():
            wait_after(signal.SIGTERM)
            assert not halt.pending()
            assert halt.held() == signal.SIGTERM
            went_on = True
        wait()
    assert went_on


def test_a_signal_just_before_a_rollback_has_its_time_after_it(halt: Halt) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with halt.shielded():
        assert halt.left() == float("inf")
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        assert halt.held() == signal.SIGTERM
    assert halt.left() < float("inf")
    with pytest.raises(Interrupted):
        wait()


def test_a_second_signal_breaks_off_a_rollback_that_does_not_ask(halt: Halt) -> None:
    with halt.shielded():
        wait_after(signal.SIGTERM)
        with pytest.raises(Interrupted):
            wait_after(signal.SIGTERM)


def test_the_end_of_a_run_is_not_broken_off(halt: Halt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halts, "PATIENCE", 60.0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    halt.rest()
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    # One that was on its way already.
    os.kill(os.getpid(), signal.SIGALRM)
    assert halt.signum == signal.SIGTERM
