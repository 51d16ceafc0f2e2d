"""Runs that several tasks continue: what a later one finds, touches, and leaves of an earlier one."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
import trustme

from tests.e2e.rig import DEPLOY, ROLLBACK, Runtime, Site, send

BUSY = "echo $$ > pid; echo > begun; exec sleep 30"
NEVER: dict[str, str] = {"RUNTIME_ROLLBACK_CHECK_COMMAND": "false"}
FAILING = {"OPSGATE_DEADLINE": "600ms", "OPSGATE_SOAK": "100ms"}


@pytest.fixture
def shipped(site: Site) -> Site:
    """A site where v1 was shipped and passed."""
    site.configure(
        urls=[site.url(revision="json:version")],
        deploy=DEPLOY,
        rollback=ROLLBACK,
        extra="[environments.prod.publish]\ncommand = 'true'\n",
    )
    site.run("release", "--revision", "v1")
    return site


def record(site: Site, run_id: str) -> Any:
    return json.loads((site.evidence / run_id / "evidence.json").read_bytes())


def is_untouched(site: Site, run_id: str) -> Any:
    """The record of a run whose last task was refused before it did anything."""
    document = record(site, run_id)
    assert (document["status"], document["status_reason"], document["exit_code"]) == (
        "failed", "interrupted", 2,
    )  # fmt: skip
    assert site.run("evidence", "--verify").code == 0
    return document


def cut_off_deploy(site: Site, run_id: str, **env: str) -> None:
    """v2's deploy is begun in that run, and interrupted."""
    deploying = {"OPSGATE_RUN_ID": run_id, "RUNTIME_DEPLOY_COMMAND": BUSY, **env}
    with site.during("deploy", "--revision", "v2", **deploying) as process:
        send(process, signal.SIGTERM)
        site.ended(process, 143)


# --- mistakes ----------------------------------------------------------------------------------------


def test_a_failed_check_after_publish_touches_nothing(shipped: Site, runtime: Runtime) -> None:
    shipped.run("publish", OPSGATE_RUN_ID="r")
    result = shipped.run("deploy", "--revision", "v2", code=2, OPSGATE_RUN_ID="r", **NEVER)
    assert result.headline == "prod still runs what it ran before: not ready, nothing was touched"
    document = is_untouched(shipped, "r")
    assert document["stages"]["publish"]["status"] == "passed"
    assert document["stages"]["deploy"] == {"status": "skipped"}
    assert len(document["next_steps"]) == 1
    shipped.run("deploy", "--revision", "v2", OPSGATE_RUN_ID="r")
    assert runtime.read() == ("up", "v2")


def test_a_failed_check_after_a_deploy_that_was_cut_off(shipped: Site) -> None:
    cut_off_deploy(shipped, "r")
    result = shipped.run("deploy", "--revision", "v2", code=2, OPSGATE_RUN_ID="r", **NEVER)
    assert result.headline == "prod may run v2, which is not proven: not ready, this task touched nothing"
    steps = is_untouched(shipped, "r")["next_steps"]
    assert steps[1].startswith("Release v2 was being deployed and is not proven. Look at it: opsgate gate")
    assert "Not done because of this mistake: deploy." in steps


def test_a_gate_that_cannot_be_made_touches_nothing(site: Site) -> None:
    site.configure(deploy=DEPLOY, rollback="touch went-back")
    site.run("deploy", "--revision", "v2", OPSGATE_RUN_ID="r")
    nowhere = {"RUNTIME_HEALTH_URLS": "https://127.0.0.1:1/", "SSL_CERT_FILE": str(site.path / "nowhere")}
    result = site.run("gate", code=2, OPSGATE_RUN_ID="r", **nowhere)
    assert "Look at ca_file, REQUESTS_CA_BUNDLE" in result.err
    assert result.headline == "prod may run v2, which is not proven: not ready, this task touched nothing"
    document = is_untouched(site, "r")
    assert document["stages"]["rollback"] == {"status": "skipped"}
    assert any("Release v2 was deployed and is not proven" in step for step in document["next_steps"])
    assert not (site.path / "went-back").exists()
    site.run("gate", OPSGATE_RUN_ID="r")


@pytest.mark.parametrize(("flags", "code"), [((), 3), (("--no-rollback",), 1)], ids=["", "no-rollback"])
def test_a_release_that_is_out_and_cannot_be_gated(site: Site, flags: tuple[str, ...], code: int) -> None:
    trustme.CA().cert_pem.write_to_path(site.path / "ca.pem")
    secure = {"name": "secure", "url": "https://127.0.0.1:1/", "ca_file": "ca.pem"}
    site.configure(urls=[secure], deploy="rm ca.pem", rollback="touch went-back")
    result = site.run("release", "--revision", "v2", *flags, code=code)
    why = "which is not proven: a mistake in the configuration stopped the run"
    needed = ": a person is needed now" if code == 3 else ""
    assert result.headline == f"prod may run v2, {why}{needed}"
    document = site.record()
    assert (document["status"], document["status_reason"]) == ("failed", "interrupted")
    assert document["stages"]["deploy"]["status"] == "passed"
    mistake, unproven, undone, *back = document["next_steps"]
    assert "Look at ca_file" in mistake
    assert unproven.startswith("Release v2 was deployed and is not proven. Look at it: opsgate gate")
    assert undone == "Not done because of this mistake: gate."
    assert back[0].startswith("Go back now: opsgate rollback")
    assert not (site.path / "went-back").exists()
    assert site.run("evidence", "--verify").code == 0


def test_a_recovery_that_cannot_be_looked_at(site: Site) -> None:
    trustme.CA().cert_pem.write_to_path(site.path / "ca.pem")
    secure = {"name": "secure", "url": "https://127.0.0.1:1/", "ca_file": "ca.pem"}
    site.configure(urls=[secure], rollback="rm ca.pem")
    rollback = site.run("gate", "--json", code=3, **FAILING).document["stages"]["rollback"]
    assert (rollback["status"], rollback["succeeded"], rollback["recovered"]) == ("passed", True, None)
    assert site.run("evidence", "--verify").code == 0


def test_a_release_without_pins_has_published(site: Site) -> None:
    (site.path / "compose.yaml").write_text("services: {}\n")
    publishing = "[environments.prod.publish]\ncompose_files = ['compose.yaml']\ncommand = 'true'\n"
    site.configure(deploy="compose", rollback="touch went-back", extra=publishing)
    result = site.run("release", "--revision", "v2", code=1)
    assert result.headline == (
        "prod still runs what it ran before: a mistake in the configuration stopped the run"
    )
    document = site.record()
    assert (document["status"], document["status_reason"]) == ("failed", "interrupted")
    assert document["stages"]["deploy"] == document["stages"]["gate"] == {"status": "skipped"}
    assert "has no pins" in document["next_steps"][0]
    assert document["next_steps"][1:] == ["Not done because of this mistake: deploy, gate."]
    assert site.ledger()[-1]["deployed"] is False
    assert site.run("evidence", "--verify").code == 0


# --- a deploy that was cut off -----------------------------------------------------------------------


def test_a_gate_after_a_deploy_that_was_cut_off_proves_no_release(site: Site) -> None:
    site.configure(deploy=DEPLOY, rollback=ROLLBACK)
    site.run("release", "--revision", "v1")
    cut_off_deploy(site, "r")
    result = site.run("gate", OPSGATE_RUN_ID="r")
    assert result.headline == ("prod is healthy for 200 ms on 1 target, but the deploy of v2 was cut off")
    refused = site.run("rollback", "--to", "v2", "--dry-run", code=2)
    assert "no run of prod with this revision has passed" in refused.err
    assert site.run("evidence", "--verify").code == 0


def test_a_gate_that_sees_what_runs_says_so(shipped: Site) -> None:
    cut_off_deploy(shipped, "r", RUNTIME_DEPLOY_COMMAND=f"{DEPLOY}; {BUSY}")
    assert shipped.run("gate", OPSGATE_RUN_ID="r").headline == (
        "prod runs v2: healthy for 200 ms on 1 target, but the deploy of v2 was cut off"
    )


# --- rollbacks after rollbacks -----------------------------------------------------------------------


def test_a_rollback_that_does_not_begin_leaves_the_one_before(shipped: Site, runtime: Runtime) -> None:
    shipped.run("release", "--revision", "v2", OPSGATE_RUN_ID="r")
    shipped.run("rollback", "--reason", "first", OPSGATE_RUN_ID="r")
    before = record(shipped, "r")["stages"]["rollback"]
    env = shipped.seam(
        "import sys\n"
        "if 'opsgate' in sys.orig_argv:\n"
        "    import os, signal\n"
        "    from opsgate.evidence import rollouts\n"
        "    look, looks = rollouts.last_rolled_out, []\n"
        "    def struck(*args):\n"
        "        looks.append(args)\n"
        "        # The first look is before the run.\n"
        "        if len(looks) == 2:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return look(*args)\n"
        "    rollouts.last_rolled_out = struck\n"
    )
    shipped.run("rollback", "--reason", "second", code=143, OPSGATE_RUN_ID="r", **env)
    document = record(shipped, "r")
    assert document["status_reason"] == "interrupted"
    assert document["stages"]["rollback"] == before
    assert document["next_steps"][0] == "Not done because of the interrupt: the rollback, the recovery check."
    assert document["next_steps"][1] == "Go back now: opsgate rollback --env prod --reason 'WHY'"
    assert "runs v1, not v2: rolled back and recovered: interrupted" in shipped.run("evidence").out
    assert shipped.ledger()[-1]["rollback"] == "manual"
    refused = shipped.run("rollback", "--to", "v2", "--dry-run", code=2)
    assert "no run of prod with this revision has passed" in refused.err
    assert runtime.read() == ("up", "v1")
    assert shipped.run("evidence", "--verify").code == 0


def test_a_rollback_leaves_what_a_killed_deploy_of_an_older_run_brought_out(
    shipped: Site, runtime: Runtime
) -> None:
    shipped.run("publish", OPSGATE_RUN_ID="killed")
    shipped.run("release", "--revision", "v2")
    deploying = {"OPSGATE_RUN_ID": "killed", "RUNTIME_DEPLOY_COMMAND": f"{DEPLOY}; {BUSY}"}
    with shipped.during("deploy", "--revision", "v3", **deploying) as process:
        process.kill()
        process.communicate()
    os.kill(int((shipped.path / "pid").read_text()), signal.SIGKILL)
    assert runtime.read() == ("up", "v3")
    assert "unfinished: run killed" in shipped.run("evidence", "--history").out
    document = shipped.run("rollback", "--json", "--reason", "killed").document
    assert (document["revision"], document["status_reason"]) == ("v3", "recovered")
    assert runtime.read() == ("up", "v2")


def test_what_was_cut_off_stays_in_the_record_and_is_counted(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(top="max_rollbacks_per_day = 1", rollback=BUSY)
    with site.during("gate", OPSGATE_RUN_ID="r", **FAILING) as process:
        process.kill()
        process.communicate()
    os.kill(int((site.path / "pid").read_text()), signal.SIGKILL)
    site.configure(top="max_rollbacks_per_day = 1", rollback="true")
    for reason in ("second", "third"):
        site.run("rollback", "--no-verify", "--reason", reason, OPSGATE_RUN_ID="r")
    first, second = record(site, "r")["stages"]["rollback"]["earlier"]
    assert (first["trigger"], first["attempted"], first["status"]) == ("auto", True, "interrupted")
    assert (second["trigger"], second["reason"]) == ("manual", "second")
    assert site.ledger()[-1]["rollback"] == "manual"
    withheld = site.run("gate", "--json", code=3, **FAILING).document["stages"]["rollback"]["withheld"]
    assert withheld == "circuit_open"
    assert site.run("evidence", "--verify").code == 0


def test_why_the_gate_did_not_go_back_stays_in_the_record(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(rollback="true")
    site.run("gate", "--no-rollback", code=1, OPSGATE_RUN_ID="r", **FAILING)
    site.run("rollback", "--no-verify", OPSGATE_RUN_ID="r")
    (earlier,) = record(site, "r")["stages"]["rollback"]["earlier"]
    assert (earlier["withheld"], earlier["attempted"]) == ("no_rollback", False)
    assert site.run("evidence", "--verify").code == 0
