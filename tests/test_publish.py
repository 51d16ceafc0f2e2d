"""Publish without an engine: tags, what production refuses, hooks, and what `docker` may answer."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.errors import ConfigurationError
from opsgate.hooks import process
from opsgate.redact import Redactor
from opsgate.stages.docker import compose, immutable

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
DIGEST = "sha256:" + "a" * 64


class Checkout:
    """A directory with an opsgate.toml, in which tasks are run as people do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = sys.executable

    def configure(self, publish: str, *, production: bool = False) -> None:
        (self.directory / "opsgate.toml").write_text(
            f"[environments.default]\nproduction = {str(production).lower()}\n"
            f"[environments.default.publish]\n{publish}\n"
        )

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Pilot", "-c", "user.email=pilot@example.com")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.directory, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change")
        return self.git("rev-parse", "HEAD")

    def publish(self, **environ: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, record, and what people are told."""
        done = subprocess.run(
            [self.python, "-m", "opsgate", "publish", "--json"],
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
                # What git takes for its own must not depend on where the tests run.
                "GIT_CEILING_DIRECTORIES": str(self.directory.parent),
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    directory = tmp_path / "checkout"
    directory.mkdir()
    return Checkout(directory)


def image(reference: str) -> str:
    return f"""command = "echo image.app={reference}@{DIGEST} >> $OPSGATE_OUTPUT; touch built" """


def test_a_hook_is_told_the_tag_and_leaves_the_pins(checkout: Checkout) -> None:
    checkout.configure(image("registry.example/app:$OPSGATE_TAG"))
    commit = checkout.commit()
    code, record, _ = checkout.publish()
    tag = record["stages"]["publish"]["tag"]
    assert code == 0
    assert re.fullmatch(commit[:12] + r"-\d{8}T\d{6}Z", tag)
    assert record["images"] == [{"name": "app", "reference": f"registry.example/app:{tag}", "digest": DIGEST}]
    pins = checkout.directory / "artifacts" / "rollout" / record["run_id"] / "pins.yaml"
    assert pins.read_text() == f'services:\n  "app":\n    image: "registry.example/app@{DIGEST}"\n'


@pytest.mark.parametrize(
    ("environ", "beginning"),
    [
        ({"GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567"}, "0123456789ab-"),
        ({"OPSGATE_REVISION": "release/41+fix"}, "release-41-f-"),
        ({"OPSGATE_REVISION": "-.v41"}, "v41-"),
    ],
)
def test_outside_a_checkout_the_tag_is_made_of_what_was_given(
    checkout: Checkout, environ: dict[str, str], beginning: str
) -> None:
    checkout.configure('command = "true"')
    code, record, _ = checkout.publish(**environ)
    assert code == 0
    assert record["stages"]["publish"]["tag"].startswith(beginning)


def test_without_a_commit_a_hook_may_still_publish_and_compose_may_not(checkout: Checkout) -> None:
    checkout.configure('command = "true"')
    code, record, _ = checkout.publish()
    assert code == 0
    assert "tag" not in record["stages"]["publish"]
    checkout.configure('compose_files = ["compose.yaml"]')
    (checkout.directory / "compose.yaml").write_text("services: {}\n")
    code, record, told = checkout.publish()
    assert code == 2
    assert "no commit to name the images after" in told
    assert "set OPSGATE_REVISION" in told
    assert record["stages"]["publish"]["status"] == "failed"


def test_production_refuses_a_dirty_tree_before_the_hook(checkout: Checkout) -> None:
    checkout.configure(image("registry.example/app:v1-41"), production=True)
    checkout.commit()
    with (checkout.directory / "opsgate.toml").open("a") as configuration:
        configuration.write("# changed\n")
    code, record, told = checkout.publish()
    assert code == 2
    assert "the work tree is dirty: M opsgate.toml" in told
    assert record["stages"]["publish"]["commands"] == []
    assert not (checkout.directory / "built").exists()
    # The evidence of the run before is ignored by git, so a clean tree stays clean.
    checkout.commit()
    code, _, told = checkout.publish()
    assert code == 0, told


def test_a_warning_of_git_is_no_dirty_file(checkout: Checkout, tmp_path: Path) -> None:
    checkout.configure(image("registry.example/app:v1-41"), production=True)
    checkout.commit()
    ignore = tmp_path / "home" / "git" / "ignore"
    ignore.parent.mkdir(parents=True)
    ignore.symlink_to(ignore)
    home = str(tmp_path / "home")
    code, _, told = checkout.publish(XDG_CONFIG_HOME=home)
    assert code == 0, told
    # What the hook has left there.
    code, _, told = checkout.publish(XDG_CONFIG_HOME=home)
    assert code == 2
    assert "the work tree is dirty: ?? built\n" in told


def test_production_publishes_a_given_revision_where_there_is_no_checkout(checkout: Checkout) -> None:
    checkout.configure(image("registry.example/app:v1-41"), production=True)
    code, _, told = checkout.publish(OPSGATE_REVISION="v41")
    assert code == 0, told


def test_production_does_not_ship_what_a_hook_pushed_under_a_floating_tag(checkout: Checkout) -> None:
    checkout.configure(image("registry.example/app:latest"), production=True)
    checkout.commit()
    code, record, _ = checkout.publish()
    # The hook has run: something was touched, so this is a failure and not a refusal.
    assert (code, record["status_reason"]) == (1, "publish_failed")
    assert "its tag can move to another image" in record["stages"]["publish"]["detail"]
    assert "\n" not in record["stages"]["publish"]["detail"]
    assert record["images"] == []


def test_no_docker_at_all(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").symlink_to(str(shutil.which("git")))
    (tools / "python").symlink_to(os.path.realpath(sys.executable))
    checkout.python = str(tools / "python")
    checkout.configure('compose_files = ["compose.yaml"]')
    (checkout.directory / "compose.yaml").write_text("services: {}\n")
    checkout.commit()
    code, record, _ = checkout.publish(PATH=str(tools))
    assert (code, record["status"], record["status_reason"]) == (1, "failed", "publish_failed")
    assert record["stages"]["publish"]["detail"].startswith("Docker is missing: neither")


RUN_TAG = "0123456789ab-20260101T000000Z"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("registry.example/app:latest", "write registry.example/app:${OPSGATE_TAG}"),
        ("registry.example/app", "without a tag it means latest"),
        ("registry.example/app:v41", "its tag can move"),
        (f"app:{RUN_TAG}", "names no registry; write REGISTRY/app:${OPSGATE_TAG}"),
        (f"acme/app:{RUN_TAG}", "names no registry; write REGISTRY/acme/app:${OPSGATE_TAG}"),
        (f"registry.example/app:{RUN_TAG}", ""),
        (f"registry.example/app:{RUN_TAG}-slim", ""),
        (f"localhost:5000/app:{RUN_TAG}", ""),
        (f"docker.io/acme/app:{RUN_TAG}", ""),
    ],
)
def test_what_a_production_image_may_be_called(reference: str, told: str) -> None:
    if not told:
        immutable.check_names({"app": reference}, RUN_TAG)
        return
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        immutable.check_names({"app": reference}, RUN_TAG)


@pytest.mark.parametrize("tag", ["latest", "main", "Stable", "prod", "v1", "1.27", "edge"])
def test_tags_that_are_known_to_float(tag: str) -> None:
    with pytest.raises(ConfigurationError, match="its tag can move"):
        immutable.check_names({"app": f"registry.example/app:{tag}"})
    immutable.check_names({"app": f"registry.example/app:{tag}-20260101"})


def test_every_wrong_name_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"app: app names no registry.*; web: .*latest"):
        immutable.check_names({"app": "app", "web": "registry.example/web"})


SINCE = "2026-01-01T12:00:00.000Z"


class Asked:
    """Stands for a session: a `docker` that answers what the test says."""

    def __init__(self, directory: Path, answers: Mapping[str, str]) -> None:
        self.environ = {"PATH": f"{directory}:{os.environ['PATH']}"}
        self.directory, self.settings, self.halt = directory, self, self
        self.publish = self
        self.compose_files = ("compose.yaml",)
        cases = "".join(
            f"{pattern}) printf '%s\\n' {shlex.quote(answer)} ;;\n" for pattern, answer in answers.items()
        )
        script = directory / "docker"
        script.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}*) echo "no such thing" >&2; exit 1 ;;\nesac\n')
        script.chmod(0o755)

    def check(self) -> None:
        pass

    def ask(self, command: str, *, limit: float) -> process.Finished:
        return process.run(
            command,
            env=self.environ,
            cwd=self.directory,
            limit=limit,
            label="test",
            redactor=Redactor(),
            log=None,
            emit=lambda _: None,
        )


def ps(service: str, state: str, code: int = 0) -> dict[str, Any]:
    return {"ID": f"id-{service}", "Service": service, "State": state, "ExitCode": code}


def inspected(state: str, code: int, restarts: int, started: str) -> str:
    status = {"Status": state, "ExitCode": code, "StartedAt": started}
    return json.dumps([{"RestartCount": restarts, "State": status}])


def test_containers_that_did_not_stay_up(tmp_path: Path) -> None:
    rows = [ps("web", "running"), ps("job", "exited", 3), ps("loop", "running"), ps("old", "running")]
    asked = Asked(
        tmp_path,
        {
            "'compose version'": "v5",
            "*'ps --all'*": "\n".join(map(json.dumps, rows)),
            "*id-web": inspected("running", 0, 0, "2026-01-01T12:00:01.5Z"),
            "*id-job": inspected("exited", 3, 0, "2026-01-01T12:00:01.5Z"),
            "*id-loop": inspected("running", 0, 4, "2026-01-01T12:00:09.123456789Z"),
            # It was restarted last week, and nothing has happened to it since.
            "*id-old": inspected("running", 0, 2, "2025-12-25T12:00:01.5Z"),
            "*logs*job": "out of fuel",
            "*logs*loop": "x" * 10_000,
        },
    )
    found = compose.fallen(asked, since=SINCE)  # type: ignore[arg-type]
    assert [(c.service, c.state, c.exit_code, c.restarts) for c in found] == [
        ("job", "exited", 3, 0),
        ("loop", "running", None, 4),
    ]
    assert found[0].log_tail == "out of fuel"
    assert len(found[1].log_tail) == compose.LOG_LIMIT


def test_an_older_compose_lists_in_one_go_and_need_not_be_inspected(tmp_path: Path) -> None:
    rows = [ps("web", "running"), ps("job", "restarting", 1)]
    asked = Asked(tmp_path, {"'compose version'": "v2", "*'ps --all'*": json.dumps(rows)})
    (found,) = compose.fallen(asked, since=SINCE)  # type: ignore[arg-type]
    assert (found.service, found.state, found.exit_code, found.restarts) == ("job", "restarting", 1, 0)


def test_a_compose_that_cannot_say_is_an_error_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(compose.EngineError, match=r"ps --all.*\(exit 1\): no such thing"):
        compose.fallen(Asked(tmp_path, {"'compose version'": "v5"}), since=SINCE)  # type: ignore[arg-type]
    garbled = Asked(tmp_path, {"'compose version'": "v5", "*'ps --all'*": "NAME  STATE"})
    with pytest.raises(compose.EngineError, match="printed no JSON"):
        compose.fallen(garbled, since=SINCE)  # type: ignore[arg-type]


def test_without_room_for_an_answer_compose_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(tmp_path, {"'compose version'": "v5", "*'ps --all'*": json.dumps([ps("web", "running")])})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(
        compose.EngineError, match=r"the answer of .*ps --all.* cannot be kept: .*nowhere"
    ) as full:
        compose.fallen(asked, since=SINCE)  # type: ignore[arg-type]
    assert "TMPDIR" in full.value.hint
