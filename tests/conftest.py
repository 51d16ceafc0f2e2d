"""What every test stands on."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

# A shared machine may stall for a second: that says nothing about the example it was at.
hypothesis.settings.register_profile("opsgate", deadline=None)
hypothesis.settings.load_profile("opsgate")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees the same on a laptop with opsgate configured and inside a workflow."""
    for name in list(os.environ):
        if name.startswith(("RUNTIME_", "OPSGATE_", "GITHUB_", "MISSION_CONTROL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _plain_signals() -> None:
    """Under `nohup` or behind a shell's `&` signals are ignored, and every command would inherit that."""
    for signum, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, usual)
