"""Releases on a real engine: what was pushed runs, what is broken goes back, and nothing goes by tag."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.docker.releases import MANIFEST, Mission, pinned

if TYPE_CHECKING:
    from tests.docker.bench import Engine

pytestmark = pytest.mark.docker


def test_a_release_runs_what_was_pushed_and_a_broken_one_goes_back_to_it(mission: Mission) -> None:
    first = mission.run("release")
    assert first.code == 0, first
    assert "there is no last good to go back to" in first.err
    images = pinned(first.record)
    for image in first.record["images"]:
        assert mission.served(image["reference"])[0] == image["digest"]
    # Three containers from two images, each by the digest that the registry gave.
    assert mission.running() == images
    tag = first.stages["publish"]["tag"]
    commit, _, stamp = tag.partition("-")
    assert commit == mission.git("rev-parse", "HEAD")[:12]
    assert re.fullmatch(r"\d{8}T\d{6}Z", stamp)
    commands = [command["command"].split()[-3:] for command in first.stages["publish"]["commands"]]
    assert commands == [["build", "backend", "frontend"], ["push", "backend", "frontend"]]
    assert all("docker compose " in line for line in first.err.splitlines() if "done in" in line)

    mission.commit()
    mission.configure(soak="1500ms")
    broken = mission.run("release", MISSION_CONTROL_FAULT="crash-late")
    assert (broken.code, broken.record["status"]) == (1, "failed"), broken
    assert broken.stages["rollback"]["succeeded"] is broken.stages["rollback"]["recovered"] is True
    assert pinned(broken.record) != images
    assert mission.running() == images
    deployed = datetime.fromisoformat(broken.stages["deploy"]["started_at"])
    ended = datetime.fromisoformat(broken.record["finished_at"])
    assert (ended - deployed).total_seconds() < 60
    # What a person would look up first: the gate says that it failed, the container says why.
    (container,) = broken.stages["deploy"]["containers"]
    assert container["service"] == "backend"
    assert container["restarts"] > 0
    assert "out of fuel" in container["log_tail"]
    assert "out of fuel" in broken.err
    assert mission.run("evidence", "--verify").code == 0


def test_a_first_release_that_crashes_at_once_has_nowhere_to_go(mission: Mission) -> None:
    done = mission.run("release", "--deadline", "3s", MISSION_CONTROL_FAULT="no-such-fault")
    assert done.code == 3, done
    assert done.stages["rollback"]["withheld"] == "no_last_good"
    (container,) = done.stages["deploy"]["containers"]
    assert container["service"] == "backend"
    assert container["state"] in {"restarting", "running", "exited"}
    assert "this image has no fault named no-such-fault" in container["log_tail"]
    assert [step for step in done.record["next_steps"] if "No earlier run is known to be good" in step]


def test_a_tag_that_was_moved_after_publish_moves_nothing(mission: Mission) -> None:
    published = mission.run("publish", OPSGATE_RUN_ID="moved")
    assert published.code == 0, published
    assert published.reason == "not_gated"
    backend, frontend = (image["reference"] for image in published.record["images"])
    mission.engine.run("tag", backend, frontend)
    mission.engine.run("push", frontend)
    assert mission.served(frontend)[0] != published.record["images"][1]["digest"]

    assert mission.run("deploy", OPSGATE_RUN_ID="moved").code == 0
    gated = mission.run("gate", OPSGATE_RUN_ID="moved")
    assert (gated.code, gated.reason) == (0, "all_probes_healthy"), gated
    assert mission.running() == pinned(published.record)


def test_a_deploy_that_does_nothing_is_seen(mission: Mission) -> None:
    assert mission.run("release").code == 0
    before = mission.running()
    mission.commit()
    mission.configure('deploy = "true"\n')
    done = mission.run("release", "--deadline", "3s")
    assert (done.code, done.reason) == (1, "wrong_revision"), done
    assert mission.running() == before
    # Nothing was deployed by compose: no container is blamed.
    assert "containers" not in done.stages["deploy"]


def test_the_second_way_back_when_the_images_are_gone(mission: Mission, engine: Engine) -> None:
    """Retention rules of a registry and a nightly prune: the last good images are nowhere left."""
    first = mission.run("release")
    assert first.code == 0, first
    saved = mission.directory / "spare.tar"
    references = [image["reference"] for image in first.record["images"]]
    engine.run("save", "--output", str(saved), *references)
    for image in first.record["images"]:
        host, _, path = image["reference"].partition("/")
        url = f"http://{host}/v2/{path.rpartition(':')[0]}/manifests/{image['digest']}"
        assert requests.delete(url, headers={"Accept": MANIFEST}, timeout=5).status_code == 202
    (mission.directory / "spare.yaml").write_text(
        "services:\n"
        f"  backend: {{image: '{references[0]}'}}\n"
        f"  worker: {{image: '{references[0]}'}}\n"
        f"  frontend: {{image: '{references[1]}'}}\n"
    )
    up = "up -d --no-build"
    spare = f"docker load -q -i spare.tar && docker compose -f compose.yaml -f spare.yaml {up}"
    mission.configure(
        f"""deploy = 'docker compose -f compose.yaml -f "$OPSGATE_PINS" {up} && docker image prune -a -f'
rollback = ['docker compose -f compose.yaml -f "$OPSGATE_LAST_GOOD_PINS" {up}', '{spare}']
"""
    )
    mission.commit()
    done = mission.run("release", "--deadline", "6s", MISSION_CONTROL_FAULT="dead-port")
    assert done.code == 1, done
    lost, saved_the_day = done.stages["rollback"]["commands"]
    assert lost["exit_code"] != 0
    assert "not found" in lost["output_tail"]
    assert saved_the_day["exit_code"] == 0
    assert done.stages["rollback"]["recovered"] is True
    # It was known before anything was shipped.
    warnings = done.stages["preflight"]["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "no way back for backend",
        "no way back for frontend",
    ]
    assert all("does not serve it any more" in warning for warning in warnings)
    assert done.err.index("no way back for backend") < done.err.index("building")


def test_a_deploy_without_pins_starts_nothing(mission: Mission) -> None:
    done = mission.run("deploy")
    assert done.code == 2, done
    assert "starts images by digest only" in done.err
    assert mission.running() == {}
    assert "started_at" not in done.stages["deploy"]


def test_a_person_goes_back_with_the_pins_of_the_release_before(mission: Mission) -> None:
    first, revision = mission.run("release"), mission.git("rev-parse", "HEAD")[:12]
    mission.commit()
    second = mission.run("release")
    assert (first.code, second.code) == (0, 0)
    assert mission.running() == pinned(second.record)
    back = mission.run("rollback", "--reason", "the page is wrong")
    assert (back.code, back.reason) == (0, "recovered"), back
    assert mission.running() == pinned(first.record)
    assert back.stages["rollback"]["last_good"]["revision"] == revision
    assert Path(back.stages["rollback"]["last_good"]["pins"]).is_file()


MIGRATE = """\
  migrate:
    image: ${MISSION_CONTROL_REGISTRY}/mission-control/backend:${OPSGATE_TAG:-unreleased}
    network_mode: host
    entrypoint: [/bin/busybox, sh, -c, '[ -z "$$MISSION_CONTROL_FAULT" ] || { echo no such table; exit 3; }']

  frontend:
    depends_on: {migrate: {condition: service_completed_successfully}}
"""


def test_a_migration_that_fails_is_named_and_the_release_before_comes_back(mission: Mission) -> None:
    compose = mission.directory / "compose.yaml"
    compose.write_text(compose.read_text().replace("  frontend:\n", MIGRATE))
    mission.commit()
    first = mission.run("release")
    assert first.code == 0, first
    done = mission.run("release", MISSION_CONTROL_FAULT="status-down")
    assert (done.code, done.reason) == (1, "deploy_failed"), done
    detail = done.stages["deploy"]["detail"]
    assert "docker compose up failed (exit 1)" in detail
    assert "didn't complete successfully: exit 3" in detail
    (container,) = done.stages["deploy"]["containers"]
    assert (container["service"], container["exit_code"]) == ("migrate", 3)
    assert container["log_tail"] == "no such table"
    assert done.stages["rollback"]["recovered"] is True
    assert mission.running() == pinned(first.record)
