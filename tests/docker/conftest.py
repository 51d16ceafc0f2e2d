from __future__ import annotations

import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docker.bench import HTPASSWD, Engine, OciRegistry, TokenServer
from tests.docker.releases import Mission
from tests.needs import unavailable
from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLE = Path(__file__).parents[2] / "examples" / "mission-control"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # With --dist loadgroup one worker gets them all and one engine starts; without it, each starts its own.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("docker"))


def _registry(directory: Path, auth: str = "") -> Iterator[OciRegistry]:
    registry = OciRegistry(directory, auth)
    try:
        registry.start()
    except RuntimeError as error:
        unavailable(str(error))
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A running Docker engine of this session's own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        unavailable("a Docker engine of our own needs Linux and root")
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        engine.start()
    except RuntimeError as error:
        unavailable(str(error))
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciRegistry]:
    """An open registry, shared: use repository names of your own."""
    yield from _registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[OciRegistry]:
    """An open registry that a test may stop, fill up or break."""
    yield from _registry(tmp_path)


@pytest.fixture(scope="session")
def basic_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciRegistry]:
    """A registry that wants user and password from everybody."""
    directory = tmp_path_factory.mktemp("basic")
    (directory / "htpasswd").write_text(HTPASSWD + "\n")
    yield from _registry(directory, f"auth:\n  htpasswd: {{realm: basic, path: '{directory}/htpasswd'}}\n")


@pytest.fixture(scope="session")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    server = TokenServer(tmp_path_factory.mktemp("tokens"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, token_server: TokenServer
) -> Iterator[OciRegistry]:
    """A registry that wants a token of `token_server` from everybody, as the public ones do."""
    yield from _registry(tmp_path_factory.mktemp("token"), token_server.auth)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A copy of the sample runtime's images' sources, busybox included."""
    copy = shutil.copytree(
        SAMPLE, tmp_path / "mission-control", ignore=shutil.ignore_patterns("registry", "__pycache__")
    )
    busybox = shutil.which("busybox")
    if busybox is None:
        unavailable("busybox is not installed (apt-get install busybox-static)")
    shutil.copy(str(busybox), copy / "docker" / "busybox")
    return copy


@pytest.fixture
def launch(engine: Engine, sample: Path) -> Iterator[Callable[[str], Mission]]:
    """Make the test's mission, released through the registry that it names."""
    missions: list[Mission] = []

    def make(registry: str) -> Mission:
        name = f"mission-{uuid.uuid4().hex[:8]}"
        missions.append(Mission(engine, sample, registry, free_ports(3), name))
        return missions[-1]

    yield make
    for mission in missions:
        mission.down()


@pytest.fixture
def mission(launch: Callable[[str], Mission], registry: OciRegistry) -> Mission:
    """A mission on the shared registry, under names of its own."""
    return launch(f"{registry.host}/{uuid.uuid4().hex[:8]}")
