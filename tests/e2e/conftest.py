from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.rig import Runtime, Site


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path / "state")
    runtime.becomes("up")
    yield runtime
    runtime.close()


@pytest.fixture
def site(tmp_path: Path, runtime: Runtime) -> Iterator[Site]:
    site = Site(tmp_path, runtime)
    site.configure()
    yield site
    site.check_records()
