"""The bash of the workflow's own steps by itself: the environment of a runner, and gh answering anything."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

from opsgate.stages.init.init import Workflow
from tests.workflow.ours import OURS

TOOLS = Path(sys.executable).parent
PLAN, FALLBACK = "Read the plan", "Bring it back from the newest artifact"
OWN = {"head_repository_id": 5, "repository_id": 5, "head_branch": "main"}
ARTIFACT = {"id": 1, "created_at": "2026-01-01T00:00:00Z", "expired": False, "workflow_run": OWN}


def scripts(text: str) -> dict[str, str]:
    """What each step with a script runs, by the step's name."""
    found = re.findall(r"      - name: (.*)\n(?:        .*\n)*?        run: \|\n((?:          .*\n)+)", text)
    return {name: textwrap.dedent(script) for name, script in found}


class Step:
    """A step as the runner starts it."""

    def __init__(self, path: Path) -> None:
        self.path, self.output, self.bin = path, path / "output", path / "bin"
        self.bin.mkdir()
        (self.bin / "python").symlink_to(sys.executable)

    def has(self, program: str, text: str) -> None:
        """Put a program on the path that runs this line of the shell."""
        (self.bin / program).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (self.bin / program).chmod(0o755)

    def lists(self, *artifacts: dict[str, Any], archive: bytes = b"") -> None:
        """Let gh answer with these artifacts, and with this archive for each."""
        (self.path / "list.json").write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")
        (self.path / "archive").write_bytes(archive)
        self.has(
            "gh", f'echo "$2" >>{self.path}/asked; case $2 in */zip) cat archive;; *) cat list.json;; esac'
        )

    def run(self, name: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", scripts(OURS.render())[name]],
            env={
                "PATH": f"{self.bin}:{os.defpath}",
                "GITHUB_OUTPUT": str(self.output),
                "GITHUB_REPOSITORY": "octo/app",
                "GITHUB_REF_NAME": "main",
                "RUNNER_TEMP": str(self.path),
                "NAME": "rollout-evidence-prod",
                **environ,
            },
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def fetched(self) -> list[str]:
        """Numbers of the artifacts that were asked for."""
        return re.findall(r"/(\d+)/zip$", (self.path / "asked").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def archive(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, text in files.items():
            file.writestr(name.replace("_", "."), text)
    return packed.getvalue()


@pytest.mark.parametrize("text", [OURS.render(), Workflow().render()], ids=["ours", "init"])
def test_every_script_passes_shellcheck(text: str) -> None:
    assert {PLAN, FALLBACK} <= set(scripts(text))
    for script in scripts(text).values():
        for command in (["bash", "-n"], [f"{TOOLS}/shellcheck", "--shell=bash", "-"]):
            done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_newest_artifact_of_ones_own_comes_back(step: Step) -> None:
    step.lists(
        ARTIFACT,
        {**ARTIFACT, "id": 2, "created_at": "2026-01-02T00:00:00Z"},
        {**ARTIFACT, "id": 3, "created_at": "2026-01-03T00:00:00Z", "workflow_run": None},
        {
            **ARTIFACT,
            "id": 4,
            "created_at": "2026-01-03T00:00:00Z",
            "workflow_run": {**OWN, "head_branch": None},
        },
        archive=archive(ledger_jsonl="{}\n"),
    )
    done = step.run(FALLBACK)
    assert (done.returncode, done.stderr) == (0, "")
    assert step.fetched == ["2"]
    assert (step.path / "artifacts/rollout/ledger.jsonl").read_text(encoding="utf-8") == "{}\n"


@pytest.mark.parametrize(
    "artifacts", [[], [{**ARTIFACT, "expired": True}], [{**ARTIFACT, "workflow_run": None}]]
)
def test_where_there_is_none_nothing_comes_back(step: Step, artifacts: list[dict[str, Any]]) -> None:
    step.lists(*artifacts)
    assert step.run(FALLBACK).returncode == 0
    assert step.fetched == []
    assert not (step.path / "artifacts").exists()


@pytest.mark.parametrize("gh", ["exit 1", "echo '<html>'", "echo '{}'", "echo 401 >&2; exit 4"])
def test_what_could_not_be_looked_up_is_a_failure(step: Step, gh: str) -> None:
    """So that this run's history does not take the place of a longer one."""
    step.has("gh", gh)
    assert step.run(FALLBACK).returncode != 0


def test_half_an_archive_is_a_failure(step: Step) -> None:
    step.lists(ARTIFACT, archive=archive(ledger_jsonl="{}\n")[:30])
    assert step.run(FALLBACK).returncode != 0


@pytest.mark.parametrize("stages", [[], ["gate"], ["publish", "deploy", "gate"]])
def test_the_plan_says_which_steps_there_are(step: Step, stages: list[str]) -> None:
    plan = {"environment": "prod", "order": [{"stage": stage} for stage in stages]}
    step.has("invoke", f"cat <<'E'\n{json.dumps(plan)}\nE")
    assert step.run(PLAN).returncode == 0
    said = dict(line.split("=") for line in step.output.read_text(encoding="utf-8").splitlines())
    assert said == {
        "environment": "prod",
        "publish": "true" if "publish" in stages else "false",
        "deploy": "true" if "deploy" in stages else "false",
    }


@pytest.mark.parametrize("invoke", ["exit 2", "echo '{}'; exit 2", "echo nonsense"])
def test_without_a_plan_nothing_begins(step: Step, invoke: str) -> None:
    step.has("invoke", invoke)
    assert step.run(PLAN).returncode != 0
    assert not step.output.exists() or step.output.read_text(encoding="utf-8") == ""
