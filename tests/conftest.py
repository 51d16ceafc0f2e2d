"""What every test stands on."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.browser import Page, browser, found
from tests.needs import unavailable

# A shared machine may stall for a second: that says nothing about the example it was at.
hypothesis.settings.register_profile("opsgate", deadline=None)
hypothesis.settings.load_profile("opsgate")


@pytest.fixture(scope="session", autouse=True)
def _plain_environment() -> Iterator[None]:
    """A test sees the same on a laptop with opsgate configured, inside a workflow and inside a git hook."""
    foreign = ("RUNTIME_", "OPSGATE_", "GITHUB_", "MISSION_CONTROL_", "GIT_", "DOCKER_", "COMPOSE_")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(foreign)]:
            patch.delenv(name)
        # Whoever signs every commit, or has a hook for it, does not want that here.
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        yield


@pytest.fixture(autouse=True)
def _no_proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves this machine, but for what is installed from the package index."""
    if request.node.get_closest_marker("index") is None:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
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


@pytest.fixture
def no_garbage() -> None:
    """For what goes to the end of the stack: tidied away down there, the garbage of other tests breaks."""
    gc.collect()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three workers for a core: most of its time a test waits, for a hook, a server or a deadline."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 3 * cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes long begins first, and the workers end together; within that the order stays random.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab of a real browser: the group `browser` shares it."""
    program = found()
    if program is None:
        unavailable("Chromium is not installed (apt-get install chromium)")
    with browser(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab
