"""`opsgate rollback`, and what withholds the one that comes by itself."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.rig import DEPLOY, ROLLBACK, Runtime, Site, alive
from tests.ports import free_port

STATEFUL = 'test -e broken && now=down || now=up; echo "$now $OPSGATE_REVISION" > state'
AWAY = {"OPSGATE_DEADLINE": "600ms", "OPSGATE_SOAK": "100ms"}
AND_BACK = {**AWAY, "OPSGATE_DEADLINE": "3s"}
"""The deadline is the recovery's as well: a machine that stalls is no runtime that is down."""


@pytest.fixture
def shipped(site: Site) -> Site:
    """A site where v1 and then v2 were shipped and passed; `redeploy` leads back."""
    site.configure(urls=[site.url(revision="json:version")], deploy=STATEFUL, rollback="redeploy")
    for revision in ("v1", "v2"):
        site.run("release", "--revision", revision)
    return site


def test_a_drill_while_nothing_is_wrong(shipped: Site, runtime: Runtime) -> None:
    result = shipped.run("rollback", "--reason", "drill")
    assert runtime.read() == ("up", "v1")
    assert result.headline == "prod runs v1, not v2: rolled back and recovered"
    record = shipped.record()
    assert (record["status"], record["status_reason"], record["exit_code"]) == ("passed", "recovered", 0)
    assert (record["trigger"], record["revision"]) == ("rollback", "v2")
    rollback = record["stages"]["rollback"]
    assert (rollback["trigger"], rollback["reason"], rollback["attempted"]) == ("manual", "drill", True)
    assert (rollback["succeeded"], rollback["recovered"], rollback["withheld"]) == (True, True, None)
    assert shipped.ledger()[-1]["rollback"] == "manual"
    assert record["attempt_count"] == 0
    shipped.run("rollback", "--reason", "twice in a row")
    assert runtime.read() == ("up", "v1")
    assert shipped.run("evidence", "--verify").code == 0


def test_what_runs_is_what_the_runtime_says(shipped: Site) -> None:
    shipped.configure(urls=[shipped.url(revision="json:version")], rollback='echo "up v0" > state')
    result = shipped.run("rollback", "--reason", "drill")
    assert result.headline == "prod runs v0, not v1: rolled back and recovered, but to another"


def test_to_a_revision_that_passed(shipped: Site, runtime: Runtime) -> None:
    shipped.run("release", "--revision", "v3")
    shipped.run("rollback", "--to", "v1")
    assert runtime.read() == ("up", "v1")
    assert shipped.record()["stages"]["rollback"]["last_good"]["revision"] == "v1"
    result = shipped.run("rollback", "--to", "v9", code=2)
    assert "no run of prod with this revision has passed" in result.err
    assert "opsgate evidence --env prod --history --status passed" in result.err


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_run_that_was_killed_at_its_very_end_is_a_way_back(shipped: Site, more: list[str]) -> None:
    final = shipped.evidence / shipped.record()["run_id"] / "evidence.json"
    ended = final.rename(final.with_name("evidence.json.final"))
    unfinished = {
        **shipped.record(),
        "status": "failed",
        "status_reason": "interrupted",
        **dict.fromkeys(("finished_at", "duration_ms", "exit_code")),
    }
    for path in (final, shipped.evidence / "latest.json"):
        path.write_text(json.dumps(unfinished, indent=2))
    assert "to v2" in shipped.run("rollback", "--to", "v2", *more).out
    assert not ended.exists()


def test_without_looking_afterwards(shipped: Site, runtime: Runtime) -> None:
    result = shipped.run("rollback", "--no-verify", "--json")
    record = result.document
    assert (record["status"], record["status_reason"], record["exit_code"]) == (
        "skipped",
        "recovery_unverified",
        0,
    )
    assert record["stages"]["rollback"]["recovered"] is None
    assert runtime.revision == "v1"
    assert "NOT VALIDATED" in result.err
    assert "NOT VALIDATED" in result.out


def test_it_is_told_what_its_run_has_come_to(site: Site, runtime: Runtime) -> None:
    site.configure(deploy="exit 3", rollback='echo "$OPSGATE_STATUS/$OPSGATE_STATUS_REASON" > told')
    told = site.path / "told"
    site.run("rollback", "--no-verify")
    assert told.read_text() == "/\n"
    site.run("deploy", "--no-rollback", code=1, OPSGATE_RUN_ID="deployed")
    site.run("rollback", "--no-verify", OPSGATE_RUN_ID="deployed")
    assert told.read_text() == "failed/deploy_failed\n"
    runtime.becomes("down")
    site.run("gate", "--no-rollback", code=1, OPSGATE_RUN_ID="gated", **AWAY)
    for _ in range(2):
        site.run("rollback", "--no-verify", OPSGATE_RUN_ID="gated")
        assert told.read_text() == "failed/probe_failures\n"
        told.unlink()


def test_without_a_target_recovery_cannot_be_known(site: Site) -> None:
    site.configure(urls=[], rollback="true")
    record = site.run("rollback", "--json").document
    assert (record["status"], record["status_reason"]) == ("skipped", "recovery_unverified")
    assert record["stages"]["rollback"]["recovered"] is None


def test_a_dry_run_says_where_it_would_lead(shipped: Site, runtime: Runtime) -> None:
    lines = len(shipped.ledger())
    result = shipped.run("rollback", "--dry-run")
    assert STATEFUL in result.out
    assert "v1" in result.out
    assert (runtime.revision, len(shipped.ledger())) == ("v2", lines)
    order = shipped.run("rollback", "--dry-run", "--json").document["order"]
    assert [step["stage"] for step in order] == ["rollback", "recovery"]
    unproven = shipped.run("rollback", "--dry-run", "--no-verify", "--json").document["order"]
    assert unproven == order[:1]


def test_a_dry_run_says_that_nothing_would_be_started(site: Site) -> None:
    site.configure(deploy="touch deployed", rollback="redeploy")
    result = site.run("rollback", "--dry-run")
    assert "1. rollback: nothing is started: no earlier run is known to be good (no_last_good)" in result.out
    assert "touch deployed" not in result.out.partition("Order")[2]
    [step] = site.run("rollback", "--dry-run", "--json").document["order"]
    assert (step["stage"], step["command"]) == ("rollback", None)


def test_a_revision_that_is_named_for_rollouts_is_not_what_is_left(shipped: Site) -> None:
    result = shipped.run("rollback", "--reason", "drill", OPSGATE_REVISION="v9")
    assert result.headline == "prod runs v1, not v2: rolled back and recovered"
    assert shipped.record()["revision"] == "v2"
    shipped.run("release", "--revision", "v3", OPSGATE_RUN_ID="three")
    shipped.run("rollback", OPSGATE_REVISION="v9", OPSGATE_RUN_ID="three")
    assert shipped.record()["revision"] == "v3"


def test_one_that_fails_needs_a_person(shipped: Site) -> None:
    result = shipped.run("rollback", "--json", code=3, RUNTIME_ROLLBACK_COMMAND="echo no route; exit 5")
    record = result.document
    assert (record["status"], record["status_reason"]) == ("failed", "rollback_failed")
    rollback = record["stages"]["rollback"]
    assert (rollback["succeeded"], rollback["recovered"], rollback["exit_code"]) == (False, None, 5)
    steps = "\n".join(record["next_steps"])
    assert "v1" in steps
    assert "echo no route; exit 5" in steps
    assert "a person is needed now" in result.err


def test_one_that_does_not_help_needs_a_person(shipped: Site) -> None:
    record = shipped.run(
        "rollback", "--json", code=3, RUNTIME_ROLLBACK_COMMAND="echo down > state", **AWAY
    ).document
    assert (record["status"], record["status_reason"]) == ("failed", "not_recovered")
    rollback = record["stages"]["rollback"]
    assert (rollback["succeeded"], rollback["recovered"]) == (True, False)
    assert record["next_steps"]


def test_a_chain_ends_with_the_first_that_succeeds(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down", "v2")
    site.configure(
        rollback=["echo first >> order; exit 4", f"echo second >> order; {ROLLBACK}", "touch third"]
    )
    record = site.run("gate", "--json", code=1, **AND_BACK).document
    rollback = record["stages"]["rollback"]
    assert [command["exit_code"] for command in rollback["commands"]] == [4, 0]
    assert (rollback["exit_code"], rollback["succeeded"], rollback["recovered"]) == (0, True, True)
    assert (site.path / "order").read_text() == "first\nsecond\n"
    assert not (site.path / "third").exists()


def test_redeploy_gets_what_was_last_good(shipped: Site) -> None:
    good = shipped.run("evidence", "--json").document
    (shipped.path / "broken").touch()
    dump = f'env -0 > "$OPSGATE_STAGE.env"; test "$OPSGATE_STAGE" = deploy || rm -f broken; {STATEFUL}'
    shipped.run("release", "--revision", "v3", code=1, RUNTIME_DEPLOY_COMMAND=dump, **AND_BACK)
    told = shipped.variables("rollback.env")
    assert told["OPSGATE_STAGE"] == "rollback"
    assert told["OPSGATE_REVISION"] == told["OPSGATE_LAST_GOOD_REVISION"] == "v2"
    assert shipped.record()["stages"]["rollback"]["last_good"]["run_id"] == good["run_id"]
    assert shipped.variables("deploy.env")["OPSGATE_REVISION"] == "v3"


def test_the_first_release_has_nothing_to_go_back_to(site: Site) -> None:
    site.configure(deploy="echo down > state", rollback="redeploy")
    result = site.run("release", "--json", "--revision", "v1", code=3, **AWAY)
    rollback = result.document["stages"]["rollback"]
    assert (rollback["attempted"], rollback["withheld"]) == (False, "no_last_good")
    assert any("choose a release by hand" in step for step in result.document["next_steps"])
    assert "no earlier release is known to be good" in result.err
    assert site.run("rollback", "--json", code=3).document["stages"]["rollback"]["withheld"] == "no_last_good"


def test_the_cap_stops_what_comes_by_itself_and_no_person(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(top="max_rollbacks_per_day = 1", rollback="touch rolled-back")
    site.run("gate", code=3, **AWAY)
    (site.path / "rolled-back").unlink()
    record = site.run("gate", "--json", code=3, **AWAY).document
    rollback = record["stages"]["rollback"]
    assert (rollback["attempted"], rollback["withheld"]) == (False, "circuit_open")
    assert any(step.startswith("Go back now: opsgate rollback") for step in record["next_steps"])
    assert not (site.path / "rolled-back").exists()
    site.run("rollback", "--no-verify")
    assert (site.path / "rolled-back").exists()


def test_not_by_itself_when_told_not_to(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(rollback="touch rolled-back")
    record = site.run("gate", "--no-rollback", "--json", code=1, OPSGATE_ROLLBACK="true", **AWAY).document
    assert record["stages"]["rollback"]["withheld"] == "no_rollback"
    site.run("gate", code=1, OPSGATE_ROLLBACK="false", **AWAY)
    assert not (site.path / "rolled-back").exists()


def test_a_typed_flag_beats_the_variable(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(rollback="touch rolled-back")
    site.run("gate", "--rollback", code=3, OPSGATE_ROLLBACK="false", **AWAY)
    assert (site.path / "rolled-back").exists()


def test_without_evidence_a_person_still_gets_back(site: Site, runtime: Runtime) -> None:
    (site.path / "artifacts").write_text("in the way")
    site.configure(rollback='echo "up v1" > state')
    result = site.run("rollback", "--reason", "disk is gone", code=74)
    assert runtime.read() == ("up", "v1")
    assert "verdict by " in result.err.splitlines()[0]
    assert "rolling back all the same" in result.err
    record = json.loads(result.err[result.err.index("\n{") : result.err.rindex("}") + 1])
    assert record["stages"]["rollback"]["succeeded"] is True
    assert (record["exit_code"], record["status"]) == (74, "failed")
    assert "rolled back and recovered, but the evidence of it could not be written" in result.headline
    site.run("rollback", code=3, RUNTIME_ROLLBACK_COMMAND="false")
    assert site.run("rollback", "--json", code=74).document["exit_code"] == 74
    for task in ("release", "gate"):
        assert "artifacts" in site.run(task, code=2).err


def test_a_record_that_cannot_be_begun_is_told_before_the_rollback(site: Site) -> None:
    site.run("gate")
    (site.evidence / "r").write_text("in the way")
    site.configure(rollback="echo going")
    result = site.run("rollback", "--no-verify", code=74, OPSGATE_RUN_ID="r")
    assert result.err.index("evidence cannot be written: ") < result.err.index("rollback | going")
    assert result.err.count("evidence cannot be written: ") == 1


def test_mistakes_elsewhere_are_only_warnings(site: Site) -> None:
    site.configure(rollback="true", top="max_rollback_per_day = 2", incident=7)
    result = site.run("rollback", "--no-verify")
    assert "max_rollbacks_per_day" in result.err
    assert "max_rollbacks_per_day" in site.run("gate", code=2).err


def test_a_second_run_is_told_who_holds_the_environment(site: Site) -> None:
    site.configure(deploy="echo > begun; exec sleep 30", rollback="true")
    with site.during("release", OPSGATE_RUN_ID="the-holder") as holder:
        for task in ("gate", "release", "deploy", "rollback"):
            err = site.run(task, code=75).err
            assert "run the-holder" in err
            assert f"process {holder.pid}" in err
            assert re.search(r"since \d{4}-\d\d-\d\dT", err)
        assert site.run("evidence", "--verify").code == 0
        holder.kill()
        holder.communicate()
    assert site.run("gate").code == 0


def test_a_person_takes_over(site: Site, runtime: Runtime) -> None:
    site.configure(
        deploy="echo $$ > pid; echo > begun; exec sleep 30", rollback=ROLLBACK, incident="touch told"
    )
    with site.during("release", OPSGATE_RUN_ID="loser") as loser:
        hook = int((site.path / "pid").read_text())
        result = site.run("rollback", "--force", "--json", OPSGATE_RUN_ID="taker")
        taker = result.document
        assert not alive(hook)
        lost = site.ended(loser, 75)
    assert taker["status"] == "passed"
    first, second = result.err.splitlines()[:2]
    assert re.search(r"verdict by \d\d:\d\d:\d\d UTC at the latest; run loser .* is asked to stop", first)
    assert "start     verdict by " in second
    assert "took the environment over from run loser" in result.err
    assert taker["stages"]["rollback"]["took_over"]["run_id"] == "loser"
    assert taker["stages"]["rollback"]["took_over"]["reached"] is True
    record = json.loads((site.evidence / "loser" / "evidence.json").read_bytes())
    assert (record["status"], record["status_reason"], record["exit_code"]) == ("failed", "interrupted", 75)
    assert record["stages"]["deploy"]["status"] == "interrupted"
    assert record["stages"]["rollback"] == record["stages"]["gate"] == {"status": "skipped"}
    assert any("taker" in step for step in record["next_steps"])
    assert "taker" in lost.err
    assert site.run("evidence", "--verify").code == 0


def test_force_needs_nobody_to_hold_the_environment(shipped: Site) -> None:
    result = shipped.run("rollback", "--force", "--json")
    assert "took_over" not in result.document["stages"]["rollback"]
    assert "start     verdict by " in result.err.splitlines()[0]


def test_deploy_alone_then_a_manual_way_back(site: Site, runtime: Runtime) -> None:
    site.configure(urls=[site.url(revision="json:version")], deploy=DEPLOY, rollback="redeploy")
    site.run("release", "--revision", "v1")
    site.run("deploy", "--revision", "v2")
    assert runtime.revision == "v2"
    site.run("rollback")
    assert runtime.revision == "v1"


def test_what_was_proven_elsewhere_is_last_good_too(site: Site, runtime: Runtime) -> None:
    site.configure(urls=[site.url(revision="json:version")], rollback=ROLLBACK)
    runtime.becomes("up", "v1")
    site.run("gate", "--revision", "v1")
    runtime.becomes("down", "v2")
    site.run("gate", "--revision", "v2", code=1, **AND_BACK)
    assert runtime.read() == ("up", "v1")


def test_a_dead_observer_is_not_a_reason_to_roll_back(site: Site) -> None:
    site.configure(
        urls=[{"name": "gone", "url": "http://runtime.invalid/"}],
        control_urls=[f"http://127.0.0.1:{free_port()}/"],
        deploy="touch deployed",
        rollback="touch rolled-back",
    )
    record = site.run("release", "--json", code=3).document
    assert record["stages"]["rollback"]["withheld"] == "observer_offline"
    assert any("network" in step for step in record["next_steps"])
    assert (site.path / "deployed").exists()
    assert not (site.path / "rolled-back").exists()


def test_a_gate_by_itself_goes_back_to_the_release_before_the_one_that_runs(
    shipped: Site, runtime: Runtime
) -> None:
    runtime.becomes("down", "v2")
    shipped.run("gate", code=1)
    assert runtime.read() == ("up", "v1")
    rollback = shipped.record()["stages"]["rollback"]
    assert (rollback["last_good"]["revision"], rollback["recovered"]) == ("v1", True)


def test_a_second_rollback_of_one_run_keeps_the_evidence_of_the_first(shipped: Site) -> None:
    shipped.run("rollback", "--reason", "first", OPSGATE_RUN_ID="one")
    shipped.run("rollback", "--reason", "second", OPSGATE_RUN_ID="one")
    rollback = shipped.record()["stages"]["rollback"]
    assert rollback["reason"] == "second"
    assert [(item["reason"], item["recovered"]) for item in rollback["earlier"]] == [("first", True)]


def test_a_run_whose_deploy_failed_is_not_gated_into_a_good_one(shipped: Site, runtime: Runtime) -> None:
    shipped.configure(
        urls=[shipped.url()], deploy=f"{STATEFUL}; test $OPSGATE_STAGE = rollback", rollback="redeploy"
    )
    shipped.run("deploy", "--revision", "v3", code=1, OPSGATE_RUN_ID="three")
    assert runtime.read() == ("up", "v2")
    result = shipped.run("gate", code=2, OPSGATE_RUN_ID="three")
    assert "was rolled back" in result.err
    assert shipped.record()["status_reason"] == "deploy_failed"
