from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.rig import Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    yield checkout
    checkout.close()
