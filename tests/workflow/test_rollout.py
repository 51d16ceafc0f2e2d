"""The workflow's real steps, run by act against the real sample runtime: every way a rollout can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.workflow.rig import Checkout, Run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

RELEASES = """
[environments.test]
urls = [
  { name = "backend", url = "http://127.0.0.1:PORT/healthz" },
  { name = "version", url = "http://127.0.0.1:PORT/version", revision = "json:version" },
]
deploy = "python3 examples/mission-control/control.py deploy"
rollback = "redeploy"
rollback_check = "python3 examples/mission-control/control.py check"
[environments.test.publish]
command = "python3 examples/mission-control/control.py publish"
[gate]
deadline = "4s"
soak = "200ms"
attempt_timeout = "1s"
"""
ARTIFACTS = "repos/nektos/act/actions/artifacts"
NOTHING = "[environments.test]\n"
TOKEN = "runtime-token-0123456789"


def verified(run: Run) -> bool:
    """Whether the uploaded evidence holds, checked as a person who downloads it would."""
    done = subprocess.run(
        [sys.executable, "-m", "opsgate", "evidence", "--verify", "--evidence-dir", run.uploaded],
        cwd=run.uploaded,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.startswith("verified: ")


def serving(checkout: Checkout) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{checkout.port}/version", timeout=5) as answer:
        return str(json.load(answer)["version"])


def test_a_release_a_bad_one_rolled_back_and_a_second_look(checkout: Checkout) -> None:
    checkout.configure(RELEASES)

    good = checkout.run("101", secrets=[f"RUNTIME_HEALTH_TOKEN={TOKEN}"])
    assert (good.code, good.job) == (0, "succeeded"), good
    record = good.record
    assert (record.run_id, record.status, record.trigger) == ("gh-101-1-test", "passed", "gate")
    assert record.revision == serving(checkout)
    outputs = good.outputs("gate")
    assert Path(outputs.pop("evidence")).parts[-2:] == ("gh-101-1-test", "evidence.json")
    assert outputs == {
        "status": "passed",
        "status_reason": "all_probes_healthy",
        "revision": record.revision,
    }
    assert f"## test runs {record.revision}" in good.summary("gate")
    assert {path.name for path in good.uploaded.iterdir()} >= {"latest.json", "latest.env", "ledger.jsonl"}
    assert verified(good)
    assert good.calls == [
        "setup-python 3.13",
        "restore rollout/test/",
        f"gh {ARTIFACTS}?name=rollout-evidence-test&per_page=100",
        "login ghcr.io nektos/act with a password",
        "save rollout/test/101-1",
        "upload rollout-evidence-test",
    ]
    for kept in good.uploaded.rglob("*"):
        assert not kept.is_file() or TOKEN.encode() not in kept.read_bytes()
    assert TOKEN not in good.log

    later = "2026-01-02T00:00:00Z"
    checkout.forget(
        good,
        {"id": 2, "created_at": later, "workflow_run": {"head_repository_id": 6}},
        {"id": 3, "created_at": later, "workflow_run": {"head_branch": "other"}},
        {"id": 4, "created_at": later, "expired": True},
        {"id": 5, "created_at": "2025-12-31T00:00:00Z"},
    )
    bad = checkout.run("102", env=["MISSION_CONTROL_FAULT=dead-port"])
    assert (bad.code, bad.job) == (1, "failed"), bad
    assert (bad.record.status, bad.record.exit_code) == ("failed", 1)
    assert (bad.record.stages.rollback.succeeded, bad.record.stages.rollback.recovered) == (True, True)
    assert serving(checkout) == record.revision
    assert bad.outputs("gate")["status_reason"] == "probe_failures"
    assert bad.log.count("::error") == 2
    assert "rolled back and recovered" in bad.summary("gate")
    assert verified(bad)
    assert f"gh {ARTIFACTS}/1/zip" in bad.calls
    assert len((bad.uploaded / "ledger.jsonl").read_text().splitlines()) == 6

    looked = checkout.run("103", inputs=["gate_only=true"])
    assert not any(call.startswith("gh ") for call in looked.calls)
    assert (looked.code, looked.job) == (0, "succeeded"), looked
    assert [looked.ran(step) for step in ("publish", "deploy", "gate")] == [False, False, True]
    assert not any(call.startswith("login") for call in looked.calls)
    assert looked.outputs("gate")["status"] == "passed"
    assert looked.record.trigger == "gate"


@pytest.mark.parametrize(
    ("branch", "inputs", "code"),
    [("main", [], 1), ("main", ["allow_skipped_gate=true"], 0), ("feature", [], 0)],
)
def test_a_skipped_gate_fails_on_main_unless_allowed(
    checkout: Checkout, branch: str, inputs: list[str], code: int
) -> None:
    checkout.configure(NOTHING, branch=branch)
    run = checkout.run("201", inputs=inputs)
    assert (run.code, run.job) == (code, "failed" if code else "succeeded"), run
    assert [run.ran(step) for step in ("publish", "deploy", "gate")] == [False, False, True]
    assert run.outputs("gate")["status"] == "skipped"
    assert run.record.status_reason == "no_urls_configured"
    assert "NOT VALIDATED" in run.summary("gate")
    assert "::warning" in run.log
    assert verified(run)


def test_a_failed_publish_deploys_nothing(checkout: Checkout) -> None:
    publish = 'command = "python3 examples/mission-control/control.py publish"'
    checkout.configure(RELEASES.replace(publish, "command = \"echo 'no space left'; exit 4\""))
    run = checkout.run("301")
    assert (run.code, run.job) == (1, "failed"), run
    assert [run.ran(step) for step in ("publish", "deploy", "gate")] == [True, False, False]
    assert run.outputs("publish")["status_reason"] == "publish_failed"
    assert run.record.stages.rollback.status == "skipped"
    assert "publish failed" in run.summary("publish")
    assert verified(run)


def test_wrong_configuration_still_uploads(checkout: Checkout) -> None:
    checkout.configure("[environments.test]\nurl = []\n")
    run = checkout.run("302")
    assert (run.code, run.job) == (1, "failed"), run
    assert "::error title=opsgate::opsgate.toml: environments.test.url: unknown key; did you mean" in run.log
    assert [run.ran(step) for step in ("publish", "deploy", "gate")] == [False, False, False]
    assert run.calls[-1] == "upload rollout-evidence-none"


def test_evidence_that_the_file_puts_elsewhere_is_uploaded_too(checkout: Checkout) -> None:
    checkout.configure('evidence_dir = "elsewhere"\n[environments.test]\n')
    run = checkout.run("304", inputs=["allow_skipped_gate=true"])
    assert (run.code, run.record.status_reason) == (0, "no_urls_configured"), run
    assert run.calls[-2:] == ["save rollout/test/304-1", "upload rollout-evidence-test"]
    assert verified(run)


AFTER = """
  after:
    needs: rollout
    if: ${{ always() }}
    runs-on: ubuntu-24.04
    steps:
      - env:
          STATUS: ${{ needs.rollout.outputs.status }}
          REASON: ${{ needs.rollout.outputs.status_reason }}
        run: echo "the job says <$STATUS> <$REASON>"
"""


@pytest.mark.parametrize(
    ("deploy", "says"),
    [
        ("echo 'x = [' >>opsgate.toml", "<failed> <>"),  # done, and the gate after it cannot begin
        ("exit 4", "<failed> <deploy_failed>"),
        ("true", "<skipped> <no_urls_configured>"),
    ],
)
def test_the_job_says_what_the_gate_said(checkout: Checkout, deploy: str, says: str) -> None:
    checkout.workflow.write_text(checkout.workflow.read_text(encoding="utf-8") + AFTER, encoding="utf-8")
    checkout.configure(f'[environments.test]\ndeploy = "{deploy}"\n')
    run = checkout.run("303", job="after", inputs=["allow_skipped_gate=true"])
    assert f"the job says {says}\n" in run.log, run


@pytest.fixture
def begun(checkout: Checkout) -> Path:
    """Where a deploy that takes its time leaves its own process id and opsgate's."""
    begun = checkout.path / "begun"
    hook = f"echo $$ $PPID > {begun}; echo begun; exec sleep 60"
    deploy = 'deploy = "python3 examples/mission-control/control.py deploy"'
    checkout.configure(RELEASES.replace(deploy, f'deploy = "{hook}"').replace('rollback = "redeploy"', ""))
    return begun


def test_a_signal_as_the_runner_sends_it_arrives(checkout: Checkout, begun: Path) -> None:
    with checkout.running("401") as act:
        act.wait_for("deploy | begun")
        hook, opsgate = map(int, begun.read_text().split())
        os.kill(opsgate, signal.SIGINT)
        run = act.ended()
    assert (run.code, run.job) == (1, "failed"), run
    assert (run.record.status_reason, run.record.exit_code) == ("interrupted", 130)
    assert run.record.finished_at is not None
    assert run.outputs("deploy")["status_reason"] == "interrupted"
    assert "which is not proven" in run.summary("deploy")
    assert verified(run)
    with pytest.raises(ProcessLookupError):
        os.kill(hook, 0)


def test_a_run_that_is_cancelled_uploads_what_it_knew(checkout: Checkout, begun: Path) -> None:
    """This runner kills at once, which is the worst that a cancelled job can meet."""
    with checkout.running("402") as act:
        act.wait_for("deploy | begun")
        act.process.send_signal(signal.SIGINT)
        run = act.ended()
    os.killpg(int(begun.read_text().split()[0]), signal.SIGKILL)
    assert (run.code, run.job) == (1, "failed"), run
    assert not run.ran("gate")
    assert (run.record.status, run.record.status_reason) == ("failed", "interrupted")
    assert run.record.finished_at is None
    assert run.calls[-2:] == ["save rollout/test/402-1", "upload rollout-evidence-test"]
    assert verified(run)
