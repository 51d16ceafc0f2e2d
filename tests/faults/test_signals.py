"""SIGINT, SIGTERM and SIGHUP at every stage of every task."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.e2e.rig import Result, Runtime, Site
from tests.faults.rig import DEPLOY, RUN, asked, configure, held, struck
from tests.faults.table import FAULTS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOON = ("--deadline", "1s")
"""When a gate fails of which no recovery is expected."""
each_signal = pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)


def record(site: Site) -> Any:
    return json.loads((site.evidence / RUN / "evidence.json").read_bytes())


def check_interrupted(site: Site, result: Result, signum: int) -> Any:
    """What holds whenever a signal ended a run."""
    assert result.code == 128 + signum, result
    document = record(site)
    assert document["status"] == "failed"
    assert document["exit_code"] == 128 + signum
    assert document["finished_at"] is not None
    assert site.ledger()[-1]["run_id"] == RUN
    assert f"interrupted by {signal.Signals(signum).name}" in result.err
    assert site.run("evidence", "--verify").code == 0
    return document


@each_signal
@pytest.mark.parametrize(
    ("task", "stage", "hook"),
    [
        ("release", "preflight", "rollback_check"),
        ("release", "publish", "publish"),
        ("release", "deploy", "deploy"),
        ("publish", "preflight", "rollback_check"),
        ("publish", "publish", "publish"),
        ("deploy", "preflight", "rollback_check"),
        ("deploy", "deploy", "deploy"),
    ],
)
def test_a_hook_is_ended_and_nothing_more_is_started(
    site: Site, runtime: Runtime, signum: signal.Signals, task: str, stage: str, hook: str
) -> None:
    with held(site, hook, task, OPSGATE_REVISION="v2") as run:
        run.send(signum)
        result = run.end()
    document = check_interrupted(site, result, signum)
    assert document["status_reason"] == "interrupted"
    assert document["stages"][stage]["status"] == "interrupted"
    assert document["stages"]["gate"] == document["stages"]["rollback"] == {"status": "skipped"}
    assert runtime.read() == ("up", "v1")
    assert not (site.path / "went-back").exists()
    steps = "\n".join(document["next_steps"])
    FAULTS["signal-before-deploy"].check(result, document)
    if stage == "deploy":
        FAULTS["signal-in-deploy"].check(result, document)
        assert "opsgate gate --env prod" in steps
        assert "Last good: v1, run first" in steps
        assert "No earlier run" not in steps
    else:
        assert "Last good" not in steps


@each_signal
@pytest.mark.parametrize("task", ["release", "deploy"])
def test_the_look_before_the_rollout_is_broken_off(
    site: Site, runtime: Runtime, signum: signal.Signals, task: str
) -> None:
    runtime.becomes("hang")
    with struck(site, task, "--attempt-timeout", "20s", "--deadline", "60s") as run:
        asked(runtime)
        run.send(signum)
        result = run.end()
    document = check_interrupted(site, result, signum)
    assert document["stages"]["preflight"]["status"] == "interrupted"
    assert document["stages"]["deploy"] == {"status": "skipped"}


@each_signal
@pytest.mark.parametrize("task", ["release", "gate"])
def test_the_gate_is_broken_off(site: Site, runtime: Runtime, signum: signal.Signals, task: str) -> None:
    (site.path / "health").write_text("hang")
    if task == "gate":
        runtime.becomes("hang", "v2")
    before = 1 if task == "release" else 0
    args = ["--attempt-timeout", "20s", "--deadline", "60s"]
    with struck(site, task, *args) as run:
        asked(runtime, before)
        run.send(signum)
        result = run.end()
    document = check_interrupted(site, result, signum)
    FAULTS["signal-in-gate"].check(result, document)
    assert document["stages"]["gate"]["status"] == "interrupted"
    if task == "release":
        assert "Release v2 was deployed and is not proven" in document["next_steps"][0]
    assert document["stages"]["rollback"] == {"status": "skipped"}
    assert not (site.path / "went-back").exists()


@each_signal
@pytest.mark.parametrize("task", ["release", "deploy", "gate", "rollback"])
def test_a_rollback_is_not_cut_off_by_the_first_signal(
    site: Site, runtime: Runtime, signum: signal.Signals, task: str
) -> None:
    fail(site, runtime, task)
    with held(site, "rollback", *ARGS[task], *SOON) as run:
        run.send(signum)
        run.says(f"a second {signum.name} would end it")
        run.go()
        result = run.end()
    document = check_interrupted(site, result, signum)
    rollback = document["stages"]["rollback"]
    assert (rollback["attempted"], rollback["succeeded"], rollback["recovered"]) == (True, True, None)
    assert rollback["status"] == "passed"
    assert document["status_reason"] == REASONS[task]
    assert runtime.read() == ("up", "v1")
    FAULTS["signal-in-rollback"].check(result, document)
    assert "Not done because of the interrupt: the recovery check" in "\n".join(document["next_steps"])


@each_signal
@pytest.mark.parametrize("task", ["release", "deploy", "gate", "rollback"])
def test_a_second_signal_of_the_same_kind_cuts_the_rollback_off(
    site: Site, runtime: Runtime, signum: signal.Signals, task: str
) -> None:
    fail(site, runtime, task)
    with held(site, "rollback", *ARGS[task], *SOON) as run:
        run.send(signum)
        run.says(f"a second {signum.name} would end it")
        run.send(signum)
        result = run.end()
    document = check_interrupted(site, result, signum)
    rollback = document["stages"]["rollback"]
    assert (rollback["attempted"], rollback["succeeded"], rollback["recovered"]) == (True, False, None)
    assert rollback["status"] == "interrupted"
    assert document["status_reason"] == REASONS[task]
    assert not (site.path / "went-back").exists()
    FAULTS["second-signal-in-rollback"].check(result, document)
    steps = "\n".join(document["next_steps"])
    assert "By hand: " in steps
    assert "Last good: v1, run first" in steps


@pytest.mark.parametrize("signum", SIGNALS[:2], ids=lambda signum: signum.name)
def test_two_different_signals_do_not_cut_a_rollback_off(
    site: Site, runtime: Runtime, signum: signal.Signals
) -> None:
    fail(site, runtime, "gate")
    with held(site, "rollback", "gate", *SOON) as run:
        run.send(signum)
        run.says(f"a second {signum.name} would end it")
        run.send(signal.SIGHUP)
        run.go()
        result = run.end()
    document = check_interrupted(site, result, signum)
    assert document["stages"]["rollback"]["succeeded"] is True


@each_signal
@pytest.mark.parametrize("task", ["release", "deploy", "gate", "rollback"])
def test_the_recovery_check_is_broken_off(
    site: Site, runtime: Runtime, signum: signal.Signals, task: str
) -> None:
    fail(site, runtime, task)
    (site.path / "after").write_text("hang")
    with struck(site, *ARGS[task], "--deadline", "3s", "--attempt-timeout", "20s") as run:
        run.until(runtime.hung.is_set, "recovery was not probed")
        run.send(signum)
        result = run.end()
    document = check_interrupted(site, result, signum)
    rollback = document["stages"]["rollback"]
    assert (rollback["succeeded"], rollback["recovered"]) == (True, None)
    assert rollback["recovery"]["status"] == "interrupted"
    FAULTS["signal-in-recovery"].check(result, document)
    assert document["status_reason"] == REASONS[task]


@each_signal
def test_an_incident_hook_does_not_hold_up_the_end(
    site: Site, runtime: Runtime, signum: signal.Signals
) -> None:
    fail(site, runtime, "gate")
    with held(site, "incident", "gate") as run:
        run.send(signum)
        result = run.end()
    document = record(site)
    FAULTS["signal-in-incident"].check(result, document)
    assert (document["exit_code"], document["stages"]["rollback"]["recovered"]) == (1, True)


@each_signal
@pytest.mark.parametrize("busy", ["rollback_check", "probing"])
def test_doctor_is_broken_off_and_has_changed_nothing(
    site: Site, runtime: Runtime, signum: signal.Signals, busy: str
) -> None:
    before = sorted(site.evidence.rglob("*"))
    if busy == "probing":
        runtime.becomes("hang")
        started = struck(site, "doctor", OPSGATE_ATTEMPT_TIMEOUT="20s", OPSGATE_DEADLINE="60s")
    else:
        started = held(site, busy, "doctor")
    with started as run:
        if busy == "probing":
            asked(runtime)
        run.send(signum)
        result = run.end()
    FAULTS["signal-in-doctor"].check(result)
    assert result.code == 128 + signum
    assert sorted(site.evidence.rglob("*")) == before


ARGS = {
    "release": ("release",),
    "deploy": ("deploy", "--revision", "v2"),
    "gate": ("gate", "--revision", "v2"),
    "rollback": ("rollback",),
}
REASONS = {
    "release": "probe_failures",
    "deploy": "deploy_failed",
    "gate": "probe_failures",
    "rollback": "interrupted",
}


def fail(site: Site, runtime: Runtime, task: str) -> None:
    """Make the task come to a rollback."""
    if task == "rollback":
        site.run("deploy", "--revision", "v2", OPSGATE_RUN_ID="second")
    elif task == "gate":
        runtime.becomes("down", "v2")
    elif task == "deploy":
        configure(site, deploy=f"{DEPLOY}; exit 1")
    (site.path / "health").write_text("down")
