"""What every test stands on."""

from __future__ import annotations

import os

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
