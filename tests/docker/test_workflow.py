"""The workflow with the sample's images: built, pushed, run and rolled back on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.workflow.rig import Checkout

if TYPE_CHECKING:
    from tests.docker.bench import Engine, OciRegistry

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CONFIGURATION = """
[environments.test]
urls = [
  { name = "backend", url = "http://127.0.0.1:PORT/healthz" },
  { name = "version", url = "http://127.0.0.1:PORT/version", revision = "json:version" },
]
deploy = "compose"
rollback = "redeploy"
rollback_check = "examples/mission-control/docker/prepare"
[environments.test.publish]
compose_files = ["examples/mission-control/compose.yaml"]
[gate]
deadline = "10s"
soak = "1500ms"
# Docker starts a crashed container again after 100 ms: what is asked less often may not see it.
interval = "50ms"
attempt_timeout = "1s"
"""


@pytest.fixture
def project() -> str:
    return f"workflow-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def checkout(tmp_path: Path, engine: Engine, project: str) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    yield checkout
    engine.run(
        "compose",
        "-p",
        project,
        "down",
        "--timeout",
        "1",
        cwd=checkout.repository / "examples/mission-control",
    )


def test_images_are_published_and_a_bad_one_goes_back(
    checkout: Checkout, engine: Engine, registry: OciRegistry, project: str
) -> None:
    checkout.configure(CONFIGURATION)
    environ = {name: value for name, value in engine.environ().items() if name.startswith("DOCKER_")}
    environ |= {"MISSION_CONTROL_PROJECT": project, "MISSION_CONTROL_CRASH_AFTER": "1"}
    env = [f"{name}={value}" for name, value in environ.items()]
    variables = [f"MISSION_CONTROL_REGISTRY={registry.host}/{project}"]

    good = checkout.run("501", env=env, variables=variables)
    assert (good.code, good.job) == (0, "succeeded"), good
    assert {image.name for image in good.record.images} == {"backend", "frontend"}
    assert all(image.reference.startswith(f"{registry.host}/{project}/") for image in good.record.images)
    assert (good.uploaded / good.record.run_id / "pins.yaml").is_file()

    bad = checkout.run("502", env=[*env, "MISSION_CONTROL_FAULT=crash-late"], variables=variables)
    assert (bad.code, bad.job) == (1, "failed"), bad
    rollback = bad.record.stages.rollback
    assert (rollback.succeeded, rollback.recovered) == (True, True), bad
    assert rollback.last_good
    assert rollback.last_good.images == tuple(good.record.images)
    listed = engine.run(
        "ps",
        "--no-trunc",
        "--filter",
        f"label=com.docker.compose.project={project}",
        "--format",
        "{{.Image}}",
    )
    assert set(listed.stdout.split()) == {image.pinned for image in good.record.images}
