"""The sample runtime as images, on a real engine: what it serves, and what each fault does."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.docker.bench import Engine, OciRegistry

REVISION = "0123456789ab"


def ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as response:
        return json.load(response)


def within(seconds: float, truth: Callable[[], bool]) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if truth():
                return True
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.05)
    return False


class Deployed:
    def __init__(self, engine: Engine, registry: OciRegistry, sample: Path, name: str) -> None:
        self.engine, self.sample, self.port = engine, sample, free_ports(3)
        self.environ = {
            "MISSION_CONTROL_REGISTRY": registry.host,
            "MISSION_CONTROL_PORT": str(self.port),
            "MISSION_CONTROL_PROJECT": name,
            "OPSGATE_REVISION": REVISION,
        }

    def release(self, fault: str) -> None:
        environ = {**self.environ, "OPSGATE_TAG": fault or "good", "MISSION_CONTROL_FAULT": fault}
        for step in (("build",), ("push",), ("up", "--detach", "--no-build")):
            self.engine.run("compose", *step, cwd=self.sample, environ=environ)

    def restarts(self) -> int:
        name = f"{self.environ['MISSION_CONTROL_PROJECT']}-backend-1"
        return int(self.engine.run("inspect", "--format", "{{.RestartCount}}", name).stdout)

    def down(self) -> None:
        self.engine.run("compose", "down", cwd=self.sample, environ=self.environ)


@pytest.fixture
def deployed(
    engine: Engine, registry: OciRegistry, sample: Path, request: pytest.FixtureRequest
) -> Iterator[Deployed]:
    deployed = Deployed(engine, registry, sample, f"sample-{abs(hash(request.node.name))}")
    yield deployed
    deployed.down()


def test_three_services_from_two_images_serve_their_revision(deployed: Deployed) -> None:
    deployed.release("")
    for offset, service in enumerate(["backend", "worker", "frontend"]):
        port = deployed.port + offset
        assert within(5, lambda port=port: ask(port, "/healthz")["status"] == "ok")  # type: ignore[misc]
        assert ask(port, "/version") == {"service": service, "version": REVISION}
    with urllib.request.urlopen(f"http://127.0.0.1:{deployed.port + 2}/", timeout=2) as page:
        assert page.headers["Content-Type"] == "text/html"
    # Stopped by TERM, not after the grace period: process 1 of a container has to ask for it.
    started = time.monotonic()
    deployed.down()
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("fault", "path", "field", "value"),
    [
        ("status-down", "/healthz", "status", "DOWN"),
        ("wrong-revision", "/version", "version", "000000000000"),
    ],
)
def test_a_fault_that_answers(deployed: Deployed, fault: str, path: str, field: str, value: str) -> None:
    deployed.release(fault)
    assert within(5, lambda: ask(deployed.port, path)[field] == value)
    assert within(5, lambda: ask(deployed.port + 1, "/healthz")["status"] == "ok")


def test_a_dead_port_is_up_for_compose_and_answers_nobody(deployed: Deployed) -> None:
    deployed.release("dead-port")
    assert within(5, lambda: ask(deployed.port + 1, "/healthz")["status"] == "ok")
    with pytest.raises(urllib.error.URLError):
        ask(deployed.port, "/healthz")
    running = deployed.engine.run(
        "compose", "ps", "--services", "--status=running", cwd=deployed.sample, environ=deployed.environ
    )
    assert "backend" in running.stdout.split()


def test_a_late_crash_is_healthy_first_and_restarted_after(deployed: Deployed) -> None:
    deployed.environ["MISSION_CONTROL_CRASH_AFTER"] = "1"
    deployed.release("crash-late")
    assert within(5, lambda: ask(deployed.port, "/healthz")["status"] == "ok")
    assert within(10, lambda: deployed.restarts() > 0)


def test_an_unknown_fault_does_not_look_healthy(deployed: Deployed) -> None:
    deployed.release("no-such-fault")
    assert within(10, lambda: deployed.restarts() > 0)
    logs = deployed.engine.run("compose", "logs", "backend", cwd=deployed.sample, environ=deployed.environ)
    assert "this image has no fault named no-such-fault" in logs.stdout
