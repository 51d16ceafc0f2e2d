"""What a test needs that not every machine has."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip where the part cannot be had on a developer's machine; in CI it has to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this test has to run, and it cannot: {reason}", pytrace=False)
    pytest.skip(reason)
