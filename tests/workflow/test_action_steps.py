"""The bash of the composite action by itself: what becomes of each input, without act or an installation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.workflow.ours import ROOT

TOOLS = Path(sys.executable).parent
TEXT = (ROOT / "action.yml").read_text(encoding="utf-8")
INPUTS = {
    name: default.strip('"')
    for name, default in re.findall(
        r"^  ([a-z-]+):\n    description: .*\n    default: (.*)$", TEXT, re.MULTILINE
    )
}
INSTALL, RUN = "Install opsgate", "Run opsgate"


def step(name: str) -> str:
    """One step, as it stands in the file."""
    return TEXT.partition(f"    - name: {name}\n")[2].partition("\n    - name: ")[0]


def script(name: str) -> str:
    found = re.search(r"      run: \|\n((?:        .*\n|\n)+)", step(name) + "\n")
    assert found
    return textwrap.dedent(found[1])


def executed(name: str, environ: dict[str, str], **inputs: str) -> subprocess.CompletedProcess[str]:
    """The step as the runner starts it, with nothing but its own variables."""
    given = {**INPUTS, **{key.replace("_", "-"): value for key, value in inputs.items()}}
    variables = dict(
        re.findall(r"^        ([A-Z_]+): \$\{\{ inputs\.([a-z-]+) \}\}$", step(name), re.MULTILINE)
    )
    assert set(inputs) <= {value.replace("-", "_") for value in variables.values()}
    own = {variable: given[value] for variable, value in variables.items()}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script(name)],
        env={"PATH": os.environ["PATH"], **own, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """A python that prints what it is asked for."""
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$OPSGATE_FAIL_ON_SKIPPED" "$@"\n', encoding="utf-8")
    stub.chmod(0o755)
    return stub


def words(said: Path, **inputs: str) -> list[str]:
    """What opsgate is called with, after the task and the directory of evidence."""
    done = executed(RUN, {"PYTHON": str(said), "OPSGATE_FAIL_ON_SKIPPED": "from outside"}, **inputs)
    assert done.returncode == 0, done.stderr
    skipped, *call = done.stdout.splitlines()
    assert skipped == ("false" if inputs.get("fail_on_skipped") == "false" else "from outside")
    assert call[:3] == ["-I", "-m", "opsgate"]
    return [word for word in call[4:] if word not in {"--evidence-dir", "artifacts/rollout"}]


@pytest.mark.parametrize("name", [INSTALL, RUN])
def test_the_steps_pass_shellcheck(name: str) -> None:
    for command in (
        ["bash", "-n"],
        [f"{TOOLS}/shellcheck", "--shell=bash", "--enable=all", "--exclude=SC2250,SC2312,SC2154", "-"],
    ):
        done = subprocess.run(command, input=script(name), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_flag_of_the_gate_is_an_input() -> None:
    """What `opsgate gate` takes, the action takes."""
    done = subprocess.run(
        [sys.executable, "-m", "opsgate", "--help", "gate"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    options = set(re.findall(r"^  --(?:\[no-\])?([a-z-]+)", done.stdout, re.MULTILINE))
    assert "attempt-timeout" in options
    assert options <= set(INPUTS)


def test_nothing_given_is_nothing_asked(said: Path) -> None:
    assert words(said) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rollback", "true", ["--rollback"]),
        ("rollback", "false", ["--no-rollback"]),
        ("fail_on_skipped", "true", ["--fail-on-skipped"]),
        ("fail_on_skipped", "false", []),
        ("json", "true", ["--json"]),
        ("soak", "0", ["--soak", "0"]),
        ("attempt_timeout", "5s", ["--attempt-timeout", "5s"]),
        ("revision", "v1; touch injected $(id)", ["--revision", "v1; touch injected $(id)"]),
        ("env", "*", ["--env", "*"]),
    ],
)
def test_an_input_is_a_flag(said: Path, name: str, value: str, expected: list[str]) -> None:
    assert words(said, **{name: value}) == expected


def test_publish_takes_no_policy(said: Path) -> None:
    assert words(said, task="publish", soak="1s", rollback="false", fail_on_skipped="true", json="true") == [
        "--json"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "rollback"),
        ("rollback", "no"),
        ("fail_on_skipped", "yes"),
        ("fail_on_skipped", "True"),
        ("json", "1"),
        ("keep_evidence", ""),
        ("task", "gate\n::notice::injected"),
    ],
)
def test_a_word_that_means_nothing_stops_before_anything(tmp_path: Path, name: str, value: str) -> None:
    environ = {"PYTHON": "false", "RUNNER_TEMP": str(tmp_path), "GITHUB_ACTION_PATH": str(ROOT)}
    done = executed(INSTALL, environ, **{name: value})
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"::error title=opsgate::{name.replace('_', '-')}: ")


def test_the_code_is_that_of_the_commit_that_was_asked_for(tmp_path: Path) -> None:
    """The packages are there from another commit of the action, which has the same ones."""
    home = tmp_path / "opsgate-environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (home / "installed.lock").write_bytes((ROOT / "requirements-run.lock").read_bytes())
    output = tmp_path / "output"
    environ = {
        "PYTHON": sys.executable,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(output),
    }
    done = executed(INSTALL, environ)
    assert done.returncode == 0, done.stderr
    assert output.read_text(encoding="utf-8") == f"python={home}/bin/python\n"
    (link,) = home.rglob("opsgate.pth")
    assert link.read_text(encoding="utf-8") == f"{ROOT}\n"
