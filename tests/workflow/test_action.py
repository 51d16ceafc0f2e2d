"""The composite action as another repository uses it, with an installation of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.rig import Runtime
from tests.workflow.ours import ROOT
from tests.workflow.rig import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.index, pytest.mark.xdist_group("workflow")]

OPSGATE = "octo/opsgate@0123456789abcdef0123456789abcdef01234567"
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
JOB = """
on: workflow_dispatch
jobs:
  rollout:
    runs-on: ubuntu-24.04
"""
WORKFLOW = f"""{JOB}    steps:
      - uses: {CHECKOUT}
      - id: good
        uses: {OPSGATE}
        with:
          url: URL
          env: good
          deadline: 5s
          soak: "0"
          interval: 50ms
          attempt-timeout: 2s
          successes: 2
          flaps: 1
          revision: v1
          artifact: evidence-good
      - id: bad
        continue-on-error: true
        uses: {OPSGATE}
        with:
          url: |
            URL
            http://127.0.0.1:1/
          env: bad
          deadline: 1s
          soak: 0
          rollback: false
          python-version: ""
          artifact: evidence-bad
      - id: skipped
        continue-on-error: true
        uses: {OPSGATE}
        with: {{ env: none, fail-on-skipped: true, keep-evidence: false, artifact: false }}
      - id: wrong
        continue-on-error: true
        uses: {OPSGATE}
        with: {{ task: "gate; touch injected", env: none }}
      - env:
          GOOD: ${{{{ toJSON(steps.good.outputs) }}}}
          BAD: ${{{{ steps.bad.outcome }}}} ${{{{ steps.bad.outputs.status_reason }}}}
          SKIPPED: ${{{{ steps.skipped.outcome }}}} ${{{{ steps.skipped.outputs.status_reason }}}}
          WRONG: ${{{{ steps.wrong.outcome }}}} ${{{{ steps.wrong.outputs.status_reason }}}}
        run: |
          echo "$GOOD"
          echo "bad: $BAD, skipped: $SKIPPED, wrong: $WRONG"
          ls
"""
RELEASE = f"""{JOB}    env: {{ OPSGATE_CONFIG: deploy/opsgate.toml }}
    steps:
      - uses: {CHECKOUT}
      - uses: {OPSGATE}
        with: {{ task: publish }}
      - run: |
          another="$STANDIN_HOME/cache/rollout/production/another-$GITHUB_RUN_ID"
          mkdir "$another"
          echo "of another run" >"$another/ledger.jsonl"
      - uses: {OPSGATE}
        with: {{ task: gate, url: URL, soak: 0 }}
"""
BEGUN = f"""{JOB}    steps:
      - uses: {CHECKOUT}
      - uses: {OPSGATE}
        with: {{ task: publish, keep-evidence: "FIRST" }}
      - uses: {OPSGATE}
        with: {{ task: gate, url: URL, soak: 0, evidence-dir: "${{{{ vars.NOT_SET }}}}" }}
"""
RELEASED = """
default_environment = "production"
[environments.production.publish]
command = 'echo revision=v1 >>"$OPSGATE_OUTPUT"'
"""
CONFIGURATION = """
[environments.good]
[environments.bad]
rollback = "touch rolled-back"
[environments.none]
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path / "state")
    runtime.becomes("up", "v1")
    yield runtime
    runtime.close()


def published(directory: Path) -> Path:
    """What the action needs of this repository."""
    shutil.copytree(ROOT / "opsgate", directory / "opsgate", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("action.yml", "requirements-run.lock"):
        shutil.copy(ROOT / name, directory / name)
    return directory


def test_inputs_outputs_evidence(checkout: Checkout, runtime: Runtime, tmp_path: Path) -> None:
    checkout.workflow.write_text(WORKFLOW.replace("URL", runtime.url), encoding="utf-8")
    checkout.actions[OPSGATE] = published(tmp_path / "action")
    checkout.configure(CONFIGURATION)
    run = checkout.run("601", offline=False)
    assert (run.code, run.job) == (0, "succeeded"), run
    said = [line.partition("| ")[2] for line in run.log.splitlines()]
    start = said.index("{")
    outputs = json.loads("".join(said[start : said.index("}", start) + 1]))
    assert Path(outputs.pop("evidence")).parts[-2:] == ("gh-601-1-good", "evidence.json")
    assert outputs == {"status": "passed", "status_reason": "all_probes_healthy", "revision": "v1"}
    assert "bad: failure probe_failures, skipped: failure no_urls_configured, wrong: failure " in said
    assert "injected" not in said
    assert "rolled-back" not in said
    assert [call for call in run.calls if not call.startswith("setup-python")] == [
        "restore rollout/good/",
        "save rollout/good/601-1-gate",
        "upload evidence-good",
        "restore rollout/bad/",
        "save rollout/bad/601-1-gate",
        "upload evidence-bad",
        "upload opsgate-evidence-none",
    ]
    assert (checkout.home / "artifacts/evidence-good/gh-601-1-good/evidence.json").is_file()
    assert (checkout.home / "artifacts/evidence-bad/gh-601-1-bad/evidence.json").is_file()


def test_the_steps_of_a_release_continue_one_history(
    checkout: Checkout, runtime: Runtime, tmp_path: Path
) -> None:
    """Whatever another run saves meanwhile, and wherever the configuration file is."""
    checkout.workflow.write_text(RELEASE.replace("URL", runtime.url), encoding="utf-8")
    checkout.actions[OPSGATE] = published(tmp_path / "action")
    (checkout.repository / "deploy").mkdir()
    (checkout.repository / "deploy/opsgate.toml").write_text(RELEASED, encoding="utf-8")
    checkout.configure("")
    listed: list[str] = []
    for number in ("602", "603"):
        run = checkout.run(number, offline=False)
        assert (run.code, run.job) == (0, "succeeded"), run
        assert [call for call in run.calls if not call.startswith("setup-python")] == [
            "restore rollout/production/",
            f"save rollout/production/{number}-1-publish",
            "upload opsgate-evidence-production",
            f"save rollout/production/{number}-1-gate",
            "upload opsgate-evidence-production",
        ]
        assert run.record.status_reason == "all_probes_healthy"
        listed += [f"gh-{number}-1-production"] * 2
        lines = (run.uploaded / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["run_id"] for line in lines] == listed


def test_a_history_of_one_run_does_not_take_the_place_of_a_longer_one(
    checkout: Checkout, runtime: Runtime, tmp_path: Path
) -> None:
    """The run was begun by a step that brought nothing back."""
    checkout.actions[OPSGATE] = published(tmp_path / "action")
    text = BEGUN.replace("URL", runtime.url)
    checkout.workflow.write_text(text.replace("FIRST", "true"), encoding="utf-8")
    checkout.configure(RELEASED)
    run = checkout.run("604", offline=False)
    assert (run.code, run.calls[-2]) == (0, "save rollout/production/604-1-gate"), run
    checkout.workflow.write_text(text.replace("FIRST", "false"), encoding="utf-8")
    run = checkout.run("605", offline=False)
    assert (run.code, run.job) == (0, "succeeded"), run
    assert [call for call in run.calls if not call.startswith("setup-python")] == [
        "upload opsgate-evidence-production"
    ] * 2
    assert "The run gh-605-1-production was begun without the evidence of earlier runs: " in run.log
