"""Signals, kills and defects: what is said, what is kept, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.rig import DEPLOY, ROLLBACK, Runtime, Site, alive, send

BUSY = "echo $$ > pid; echo > begun; exec sleep 30"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SOON = 5.0
"""Seconds after a signal in which opsgate has ended."""


def hook_is_gone(site: Site) -> bool:
    """Whether it has ended; what was killed a moment ago has its time to die."""
    pid, give_up = int((site.path / "pid").read_text()), time.monotonic() + 3
    while alive(pid) and time.monotonic() < give_up:
        time.sleep(0.02)
    return not alive(pid)


def until_held(process: subprocess.Popen[str], name: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if f"a second {name} would end it" in line:
            return
    pytest.fail("the signal was not held")


@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
@pytest.mark.parametrize("stage", ["publish", "deploy"])
def test_a_signal_during_a_rollout(site: Site, signum: signal.Signals, stage: str) -> None:
    publish = BUSY if stage == "publish" else "true"
    site.configure(
        deploy=BUSY,
        rollback="touch rolled-back",
        incident='echo "$OPSGATE_STATUS_REASON" > told',
        extra=f"[environments.prod.publish]\ncommand = {json.dumps(publish)}\n",
    )
    with site.during("release", "--json", "--revision", "v2") as process:
        send(process, signum)
        began = time.monotonic()
        result = site.ended(process, CODES[signum])
    assert time.monotonic() - began < SOON
    record = result.document
    assert (record["status"], record["status_reason"]) == ("failed", "interrupted")
    assert record["exit_code"] == CODES[signum]
    assert record["finished_at"]
    assert record["stages"][stage]["status"] == "interrupted"
    assert record["stages"]["rollback"] == record["stages"]["gate"] == {"status": "skipped"}
    assert not (site.path / "rolled-back").exists()
    assert (site.path / "told").read_text() == "interrupted\n"
    assert hook_is_gone(site)
    steps = "\n".join(record["next_steps"])
    assert ("v2 was being deployed and is not proven" in steps) is (stage == "deploy")
    assert ("opsgate gate --env prod" in steps) is (stage == "deploy")
    assert site.ledger()[-1]["status_reason"] == "interrupted"
    assert site.run("evidence", "--verify").code == 0


def test_a_signal_during_a_deploy_keeps_the_revision_that_it_left(site: Site) -> None:
    left = 'echo "up v7" > state; echo revision=v7 > "$OPSGATE_OUTPUT"'
    site.configure(urls=[site.url(revision="json:version")], deploy=f"{left}; {BUSY}", rollback="true")
    with site.during("release", "--json", GITHUB_SHA="0" * 40) as process:
        send(process, signal.SIGTERM)
        record = site.ended(process, 143).document
    assert (record["status_reason"], record["revision"]) == ("interrupted", "v7")
    # What a person's rollback leads away from is what was left, and nothing has changed.
    later = site.run("rollback", "--json", code=3).document
    assert (later["status_reason"], later["revision"]) == ("not_recovered", "v7")


def test_a_signal_during_the_gate(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(
        urls=[site.url(), {"name": "slow", "command": BUSY}],
        rollback="touch rolled-back",
        gate={"deadline": "60s", "attempt_timeout": "30s"},
    )
    with site.during("gate", "--json") as process:
        send(process, signal.SIGTERM)
        began = time.monotonic()
        record = site.ended(process, 143).document
    assert time.monotonic() - began < SOON
    assert (record["status_reason"], record["stages"]["gate"]["status"]) == ("interrupted", "interrupted")
    assert not (site.path / "rolled-back").exists()
    assert hook_is_gone(site)


def test_a_signal_while_nothing_decides_leaves_the_gate_to_be_run_again(site: Site) -> None:
    gate = {"deadline": "60s", "attempt_timeout": "30s"}
    busy = {"name": "slow", "command": BUSY}
    # First with a target that decides: what an interrupted gate has tried is none of the next one's.
    for urls in ([site.url(), busy], [site.url(required=False), {**busy, "required": False}]):
        site.configure(urls=urls, gate=gate)
        with site.during("gate", "--json", OPSGATE_RUN_ID="r") as process:
            send(process, signal.SIGINT)
            document = site.ended(process, 130).document
        assert (document["status"], document["status_reason"]) == ("failed", "interrupted")
        assert document["stages"]["gate"]["status"] == "interrupted"
    assert document["stages"]["gate"]["targets"] == []
    assert site.run("evidence", "--verify").code == 0
    site.configure(urls=[site.url(required=False)])
    gate = site.run("gate", "--json", OPSGATE_RUN_ID="r").document["stages"]["gate"]
    assert (gate["status"], gate["status_reason"]) == ("skipped", "no_urls_configured")
    assert [target["name"] for target in gate["targets"]] == ["api"]


def test_the_first_signal_lets_a_rollback_end(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(rollback=f"echo > begun; cat go; {ROLLBACK}; echo done")
    go = site.path / "go"
    os.mkfifo(go)
    with site.during("gate", "--json", "--deadline", "500ms", "--soak", "100ms") as process:
        send(process, signal.SIGTERM)
        go.write_text("on\n")
        record = site.ended(process, 143).document
    rollback = record["stages"]["rollback"]
    assert (rollback["attempted"], rollback["succeeded"], rollback["recovered"]) == (True, True, None)
    assert record["status_reason"] == "probe_failures"
    assert runtime.read()[0] == "up"
    assert "recovery" not in rollback
    assert record["next_steps"]
    assert site.run("evidence", "--verify").code == 0


def test_the_second_signal_ends_a_rollback(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(rollback=BUSY)
    with site.during("gate", "--json", "--deadline", "500ms", "--soak", "100ms") as process:
        send(process, signal.SIGINT)
        until_held(process, "SIGINT")
        send(process, signal.SIGINT)
        result = site.ended(process, 130)
    record = result.document
    assert record["status_reason"] == "probe_failures"
    rollback = record["stages"]["rollback"]
    assert (rollback["attempted"], rollback["succeeded"], rollback["recovered"]) == (True, False, None)
    assert hook_is_gone(site)
    assert "a person is needed now" in result.err


def test_a_signal_during_a_manual_rollback(site: Site) -> None:
    site.configure(rollback=BUSY)
    with site.during("rollback", "--json") as process:
        send(process, signal.SIGTERM)
        until_held(process, "SIGTERM")
        send(process, signal.SIGTERM)
        record = site.ended(process, 143).document
    assert (record["status_reason"], record["stages"]["rollback"]["recovered"]) == ("interrupted", None)
    assert hook_is_gone(site)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
@pytest.mark.parametrize("after_ms", [0, 60, 120, 180, 300])
def test_a_signal_at_the_very_beginning(site: Site, signum: signal.Signals, after_ms: int) -> None:
    site.configure(gate={"deadline": "30s", "soak": "20s"})
    process = site.start("gate")
    while not handles(process, signum):
        assert process.poll() is None
    time.sleep(after_ms / 1000)
    send(process, signum)
    site.ended(process, CODES[signum])


def handles(process: subprocess.Popen[str], signum: signal.Signals) -> bool:
    """Whether the process has a handler of its own for SIGTERM and, by then, for the others."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in (signum, signal.SIGHUP))


def test_sigkill_at_any_moment(site: Site, runtime: Runtime) -> None:
    site.configure(
        urls=[site.url(revision="json:version")],
        deploy=DEPLOY,
        rollback=ROLLBACK,
        extra="[environments.prod.publish]\ncommand = 'echo published'\n",
    )
    began = time.monotonic()
    site.run("release", "--revision", "v0")
    usual = time.monotonic() - began
    for attempt in range(6):
        process = site.start("release", "--revision", f"v{attempt}")
        time.sleep(random.uniform(0.2, 1.0) * usual)
        process.kill()
        process.communicate()
        site.check_records()
        for path in site.evidence.glob("*/evidence.json"):
            record = json.loads(path.read_bytes())
            assert record["status"] != "passed" or record["finished_at"]
    for line in site.ledger():
        record = json.loads((site.evidence / line["run_id"] / "evidence.json").read_bytes())
        assert record["finished_at"] == line["finished_at"] or record["finished_at"] is None
    site.run("release", "--revision", "v99")
    assert site.record()["status"] == "passed"
    assert "MISMATCH" not in site.run("evidence", "--verify").out


def test_a_killed_run_is_listed_as_unfinished(site: Site) -> None:
    site.configure(deploy=BUSY, rollback="true")
    with site.during("release", OPSGATE_RUN_ID="killed") as process:
        process.kill()
        process.communicate()
    record = site.record()
    assert (record["status"], record["status_reason"], record["finished_at"]) == (
        "failed",
        "interrupted",
        None,
    )
    assert site.latest_env()["STATUS"] == "failed"
    assert "unfinished: run killed" in site.run("evidence", "--verify").out
    assert "has not finished" in site.run("evidence").headline
    site.run("gate")
    assert "unfinished: run killed" in site.run("evidence", "--verify").out


def broken_opsgate(site: Site, module: str, line: str) -> dict[str, str]:
    """An environment in which a function of opsgate has a defect."""
    return site.seam(
        f"import sys\nif 'opsgate' in sys.orig_argv:\n    import {module} as broken\n    {line}\n"
    )


def test_a_defect_keeps_the_record(site: Site) -> None:
    env = broken_opsgate(site, "opsgate.stages.gate", "broken.probing = None")
    result = site.run("gate", "--json", code=70, **env)
    record = result.document
    assert (record["status"], record["status_reason"], record["exit_code"]) == (
        "failed",
        "internal_error",
        70,
    )
    assert record["finished_at"]
    assert re.search(r"a defect in opsgate: AttributeError\(.*\) in opsgate\.stages\.gate, line", result.err)
    assert (site.evidence / record["run_id"] / "defect.log").exists()
    assert site.run("evidence", "--verify").code == 0


def test_a_defect_after_a_failed_gate_still_rolls_back(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(rollback=ROLLBACK)
    told = "lambda self, name, *_: {'rollback': None}[name]"
    env = broken_opsgate(site, "opsgate.console.plain", f"broken.PlainReporter.stage_done = {told}")
    record = site.run("gate", "--deadline", "500ms", "--soak", "0", "--json", code=70, **env).document
    assert runtime.read()[0] == "up"
    assert record["stages"]["rollback"]["succeeded"] is True


def test_a_defect_in_telling_others_does_not_change_the_run(site: Site) -> None:
    env = broken_opsgate(site, "opsgate.stages.incident.incident", "broken.run = None")
    result = site.run("gate", "--json", code=0, **env)
    assert result.document["status"] == "passed"
    assert "not everybody was told: a defect in opsgate: TypeError(" in result.err
    assert "head " in result.err


def test_a_defect_without_a_run_is_told_by_its_own_line(site: Site) -> None:
    site.run("gate")
    # It shows in a library, which cannot know what was meant.
    env = broken_opsgate(site, "opsgate.evidence.store", "broken.Store.latest = lambda *_: broken.Path(5)")
    result = site.run("evidence", code=70, GITHUB_ACTIONS="true", **env)
    annotation, told, *hint = result.err.splitlines()
    assert re.fullmatch(
        r"opsgate: a defect in opsgate: TypeError\(.*\) in opsgate\.stages\.evidence, line \d+", told
    )
    assert annotation.startswith("::error title=opsgate::a defect in opsgate: TypeError(")
    assert hint == ["  Report it, with the command that led here."]


def test_a_defect_in_annotating_hides_neither_the_words_nor_the_code(site: Site) -> None:
    env = broken_opsgate(site, "opsgate.github", "broken.begin = None")
    result = site.run("evidence", "--run", "none", code=2, GITHUB_ACTIONS="true", **env)
    assert "opsgate: there is no record of run none" in result.err


def test_a_defect_after_the_attempts_counts_them(site: Site) -> None:
    env = broken_opsgate(site, "opsgate.console.plain", "broken.PlainReporter.probed = None")
    record = site.run("gate", "--json", code=70, **env).document
    (target,) = record["stages"]["gate"]["targets"]
    assert record["attempt_count"] == len(target["attempts"]) >= 2
    assert site.run("evidence", "--verify").code == 0


def test_a_defect_before_any_record_is_still_70_in_one_line(site: Site) -> None:
    env = broken_opsgate(site, "opsgate.evidence.store", "broken.Store.prepare = None")
    result = site.run("gate", code=70, **env)
    assert "defect in opsgate" in result.err


def test_evidence_lost_during_a_run_is_never_passed(site: Site, runtime: Runtime) -> None:
    away = "rm -rf artifacts && touch artifacts"
    site.configure(deploy=f"{away}; {DEPLOY}")
    result = site.run("release", "--json", code=74)
    record = result.document
    assert (record["status"], record["exit_code"]) == ("failed", 74)
    assert json.loads(result.err[result.err.index("\n{") : result.err.rindex("\n}") + 2]) == record
    assert runtime.read()[0] == "up"


def test_evidence_lost_does_not_stop_a_rollback(site: Site, runtime: Runtime) -> None:
    site.configure(deploy="rm -rf artifacts; touch artifacts; echo down > state", rollback=ROLLBACK)
    record = site.run("release", "--deadline", "4s", "--soak", "100ms", "--json", code=74).document
    assert record["stages"]["rollback"]["recovered"] is True
    assert runtime.read()[0] == "up"


@pytest.mark.parametrize(
    ("name", "code"), [("INT", 130), ("HUP", 0)], ids=["a background job", "under nohup"]
)
def test_a_signal_that_was_ignored_by_the_caller(site: Site, name: str, code: int) -> None:
    # The shell hands its ignored signals on; only an ignored SIGHUP is somebody's wish.
    soak = "10s" if code else "1s"
    script = f"trap '' {name}; exec {sys.executable} -m opsgate gate --soak {soak} --deadline 30s"
    process = subprocess.Popen(
        ["/bin/sh", "-c", script],
        cwd=site.path,
        env=site.environ({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert any("healthy" in line for line in process.stderr)
    process.send_signal(signal.Signals[f"SIG{name}"])
    site.ended(process, code)
