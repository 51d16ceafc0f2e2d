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
PLAN = "Find the environment and what this run has left"
RESTORED = "Note that it was asked for"


def step(name: str) -> str:
    """One step, as it stands in the file."""
    return TEXT.partition(f"    - name: {name}\n")[2].partition("\n    - name: ")[0]


def script(name: str) -> str:
    found = re.search(r"      run: (?:\|\n)?(.+\n(?:        .*\n|\n)*)", step(name) + "\n")
    assert found
    return textwrap.dedent(found[1])


def executed(
    name: str, environ: dict[str, str], cwd: Path | None = None, /, **inputs: str
) -> subprocess.CompletedProcess[str]:
    """The step as the runner starts it, with nothing but its own variables."""
    given = {**INPUTS, **{key.replace("_", "-"): value for key, value in inputs.items()}}
    variables = re.findall(
        r"^        ([A-Z_]+): \$\{\{ inputs\.([a-z-]+)(?: \|\| '([^']*)')? \}\}$", step(name), re.MULTILINE
    )
    assert set(inputs) <= {value.replace("-", "_") for _, value, _ in variables}
    own = {variable: given[value] or otherwise for variable, value, otherwise in variables}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script(name)],
        env={"PATH": os.environ["PATH"], **own, **environ},
        cwd=cwd,
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
    environ = {"PYTHON": str(said), "GITHUB_WORKSPACE": "/w", "OPSGATE_FAIL_ON_SKIPPED": "from outside"}
    done = executed(RUN, environ, **inputs)
    assert done.returncode == 0, done.stderr
    skipped, *call = done.stdout.splitlines()
    assert skipped == ("false" if inputs.get("fail_on_skipped") == "false" else "from outside")
    assert call[:3] == ["-I", "-m", "opsgate"]
    return [word for word in call[4:] if word not in {"--evidence-dir", "/w/artifacts/rollout"}]


@pytest.mark.parametrize("name", [INSTALL, PLAN, RESTORED, RUN])
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


@pytest.mark.parametrize(("given", "expected"), [("kept here", "/w/kept here"), ("/var/kept", "/var/kept")])
def test_evidence_is_kept_below_the_workspace(said: Path, given: str, expected: str) -> None:
    """There the cache and the artifact are looked for, wherever the configuration file is."""
    assert words(said, evidence_dir=given) == [expected]


def test_a_variable_that_is_not_set_leaves_the_evidence_where_it_is(said: Path) -> None:
    """`evidence-dir: ${{ vars.X }}` is empty: what is run, kept and uploaded is the default directory."""
    assert words(said, evidence_dir="") == []
    used = re.findall(r"\$\{\{ (inputs\.evidence-dir.*?) \}\}", TEXT)
    assert used == [f"inputs.evidence-dir || '{INPUTS['evidence-dir']}'"] * 5


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


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace whose configuration file names two environments, one of them as the default."""
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/opsgate.toml").write_text(
        'default_environment = "production"\n[environments.production]\n[environments.staging]\n'
    )
    return tmp_path


def planned(
    workspace: Path, *, environ: dict[str, str] | None = None, warns: str = "", **inputs: str
) -> dict[str, str]:
    """What the step finds in attempt 1 of run 7."""
    python = workspace / "python"
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    output = workspace / "output"
    output.write_text("")
    runner = {
        "PYTHON": str(python),
        "GITHUB_ACTIONS": "true",
        "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_WORKSPACE": str(workspace),
        "GITHUB_OUTPUT": str(output),
        "RUNNER_TEMP": str(workspace),
        "OPSGATE_CONFIG": "deploy/opsgate.toml",
    }
    done = executed(PLAN, {**runner, **(environ or {})}, workspace, **inputs)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(warns)
    assert len(done.stderr.splitlines()) == bool(warns)
    return dict(line.split("=") for line in output.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [("", "", "production"), ("", "staging", "staging"), ("production", "staging", "production")],
)
def test_the_environment_is_the_one_that_opsgate_means(
    workspace: Path, given: str, variable: str, expected: str
) -> None:
    found = planned(workspace, environ={"OPSGATE_ENV": variable}, env=given)
    assert found == {"environment": expected}


def test_a_mistake_elsewhere_is_left_to_the_task(workspace: Path) -> None:
    """A flag may stand in for what is wrong."""
    assert planned(workspace, environ={"RUNTIME_HEALTH_URLS": "ftp://x"}) == {"environment": "production"}


def test_without_an_environment_there_is_nothing_to_bring_back(workspace: Path) -> None:
    assert planned(workspace, env="prodution") == {}


BEGUN = "::warning title=opsgate::The run gh-7-1-production was begun without the evidence of earlier runs: "


@pytest.mark.parametrize("directory", ["", "artifacts/rollout", "kept here", "/kept"])
def test_what_an_earlier_step_of_this_run_left_is_seen(workspace: Path, directory: str) -> None:
    directory = f"{workspace}{directory}" if directory.startswith("/") else directory
    kept = workspace / (directory or "artifacts/rollout")
    for run, warns, expected in (
        ("gh-7-1-staging", "", {"environment": "production"}),
        ("gh-6-1-production", "", {"environment": "production"}),
        ("gh-7-1-production", BEGUN, {"environment": "production", "begun": "true"}),
    ):
        (kept / run).mkdir(parents=True)
        assert planned(workspace, warns=warns, evidence_dir=directory) == expected
    # Who keeps nothing has nothing to be warned of.
    assert planned(workspace, evidence_dir=directory, keep_evidence="false") == expected


def test_a_step_goes_on_from_what_an_earlier_one_has_brought_back(workspace: Path) -> None:
    """Only then is this run's history the whole one, which may take the place of the one that is kept."""
    (workspace / "artifacts/rollout/gh-7-1-production").mkdir(parents=True)
    environ = {"RUNNER_TEMP": str(workspace), "ENVIRONMENT": "staging"}
    assert executed(RESTORED, environ).returncode == 0
    assert planned(workspace, warns=BEGUN) == {"environment": "production", "begun": "true"}
    assert executed(RESTORED, {**environ, "ENVIRONMENT": "production"}).returncode == 0
    found = {"environment": "production", "begun": "true", "kept": "true"}
    assert planned(workspace) == found
    assert planned(workspace, keep_evidence="false") == found
