from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.rig import Runtime, Site
from tests.faults.rig import copy_shipped, ship_first


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site where v1 was shipped and passed."""
    place = tmp_path_factory.mktemp("template")
    runtime = Runtime(place / "state")
    runtime.becomes("up")
    try:
        ship_first(Site(place, runtime))
    finally:
        runtime.close()
    return place


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path / "state")
    yield runtime
    runtime.close()


@pytest.fixture
def site(tmp_path: Path, runtime: Runtime, template: Path) -> Site:
    """v1 runs and has passed; v2 is about to be shipped. Its hooks stay in the stage that `hold` names."""
    site = Site(tmp_path, runtime)
    copy_shipped(template, site)
    return site
