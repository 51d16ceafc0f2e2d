"""`opsgate release`, and the tasks that are its parts."""

from __future__ import annotations

import json

import pytest

from tests.e2e.rig import BROKEN, DEPLOY, ROLLBACK, Runtime, Site
from tests.ports import free_port

DIGEST = "sha256:" + "a" * 64
PUBLISH = (
    f'echo publishing; echo "revision=r-$(cat version)" > "$OPSGATE_OUTPUT"; '
    f'echo "image.backend=backend:t@{DIGEST}" >> "$OPSGATE_OUTPUT"'
)
STATEFUL = 'echo deploying; test -e broken && now=down || now=up; echo "$now $OPSGATE_REVISION" > state'


@pytest.fixture
def shipped(site: Site) -> Site:
    """A site where release r-1 was shipped and passed."""
    site.configure(
        urls=[site.url(revision="json:version")],
        deploy=STATEFUL,
        rollback=ROLLBACK,
        extra=f"[environments.prod.publish]\ncommand = {json.dumps(PUBLISH)}\n",
    )
    (site.path / "version").write_text("1")
    site.run("release")
    return site


def test_a_release_ships_and_proves(shipped: Site, runtime: Runtime) -> None:
    record = shipped.record()
    assert runtime.read() == ("up", "r-1")
    assert (record["status"], record["trigger"], record["revision"]) == ("passed", "release", "r-1")
    assert {name: stage["status"] for name, stage in record["stages"].items()} == {
        "preflight": "passed", "publish": "passed", "deploy": "passed", "gate": "passed",
        "rollback": "skipped",
    }  # fmt: skip
    assert record["images"] == [{"name": "backend", "reference": "backend:t", "digest": DIGEST}]
    assert record["stages"]["gate"]["revision"] == "r-1"
    assert record["stages"]["preflight"]["targets"][0]["attempts"][0]["revision"] == "v0"
    directory = shipped.evidence / record["run_id"]
    assert {path.name for path in directory.iterdir()} == {
        "evidence.json", "publish.log", "deploy.log", "pins.yaml",
    }  # fmt: skip
    assert f"backend@{DIGEST}" in (directory / "pins.yaml").read_text()
    visible = {path.name for path in shipped.evidence.iterdir() if not path.name.startswith(".")}
    assert visible == {record["run_id"], "latest.json", "latest.env", "ledger.jsonl"}
    (line,) = shipped.ledger()
    assert set(line) == {
        "seq", "run_id", "environment", "task", "revision", "status", "status_reason", "started_at",
        "finished_at", "deployed", "rollback", "failed_at", "recovered_at", "sha256", "prev", "hash",
    }  # fmt: skip
    assert (line["deployed"], line["rollback"], line["prev"]) == (True, None, "0" * 64)
    assert record["previous"] is None
    assert shipped.run("evidence", "--verify").code == 0


def test_a_broken_release_is_rolled_back_and_stays_failed(shipped: Site, runtime: Runtime) -> None:
    (shipped.path / "version").write_text("2")
    (shipped.path / "broken").touch()
    result = shipped.run("release", code=1)
    assert runtime.read() == ("up", "r-1")
    assert result.headline == "prod runs r-1, not r-2: rolled back and recovered"
    record = shipped.record()
    assert (record["status"], record["status_reason"], record["exit_code"]) == ("failed", "probe_failures", 1)
    rollback = record["stages"]["rollback"]
    assert (rollback["attempted"], rollback["succeeded"], rollback["recovered"]) == (True, True, True)
    assert (rollback["trigger"], rollback["withheld"], rollback["exit_code"]) == ("auto", None, 0)
    assert rollback["reason"] is None
    assert set(rollback["commands"][0]) >= {"command", "exit_code", "duration_ms", "timed_out", "output_tail"}
    assert rollback["recovery"]["status"] == "passed"
    assert rollback["recovery"]["targets"][0]["healthy"] is True
    assert record["next_steps"] == []
    assert shipped.latest_env()["ROLLBACK_ATTEMPTED"] == "true"
    assert shipped.latest_env()["ROLLBACK_SUCCEEDED"] == "true"
    assert shipped.latest_env()["ROLLBACK_EXIT_CODE"] == "0"
    first, second = shipped.ledger()
    assert record["previous"] == first["hash"] == second["prev"]
    assert second["rollback"] == "auto"
    assert second["failed_at"] < second["recovered_at"]
    assert shipped.run("evidence", "--verify").code == 0


def test_a_runtime_that_was_down_before_blocks_nothing(shipped: Site, runtime: Runtime) -> None:
    runtime.becomes("down", "r-1")
    record = shipped.run("release", "--json").document
    assert record["status"] == "passed"
    assert record["stages"]["preflight"]["targets"][0]["healthy"] is False

    runtime.becomes("down", "r-1")
    (shipped.path / "broken").touch()
    result = shipped.run("release", "--no-rollback", code=1)
    assert "already down before the rollout" in result.out
    record = shipped.record()
    assert record["stages"]["rollback"]["withheld"] == "no_rollback"
    assert record["stages"]["rollback"]["attempted"] is False


def test_a_deploy_that_changed_nothing_is_a_stale_revision(shipped: Site) -> None:
    (shipped.path / "version").write_text("2")
    shipped.run("release", code=3, RUNTIME_DEPLOY_COMMAND="true", RUNTIME_ROLLBACK_COMMAND="false")
    record = shipped.record()
    assert record["status_reason"] == "wrong_revision"
    assert record["stages"]["rollback"]["succeeded"] is False
    assert shipped.run("evidence").headline.startswith("prod does not run r-2: the rollback failed")


def test_recovery_needs_the_failed_revision_gone(shipped: Site, runtime: Runtime) -> None:
    (shipped.path / "version").write_text("2")
    (shipped.path / "broken").touch()
    command = 'echo "up $OPSGATE_REVISION" > state'
    record = shipped.run("release", "--json", code=3, RUNTIME_ROLLBACK_COMMAND=command).document
    assert runtime.read() == ("up", "r-2")
    rollback = record["stages"]["rollback"]
    assert (rollback["succeeded"], rollback["recovered"]) == (True, False)
    assert {attempt["kind"] for attempt in rollback["recovery"]["targets"][0]["attempts"]} == {"revision"}
    assert record["next_steps"]


def test_recovery_forgives_what_the_old_release_never_met(site: Site, runtime: Runtime) -> None:
    runtime.becomes("up", "v1")
    site.configure(urls=[site.url(json={"version": "v2"})], deploy="true", rollback="true")
    record = site.run("release", "--json", code=1, OPSGATE_REVISION="v2").document
    assert record["status_reason"] == "probe_failures"
    assert record["stages"]["rollback"]["recovered"] is True
    assert "warning" in json.dumps(record["stages"]["rollback"]["recovery"]["targets"])


def test_a_failed_deploy_is_rolled_back(shipped: Site, runtime: Runtime) -> None:
    (shipped.path / "version").write_text("2")
    for task in ("deploy", "release"):
        args = [task, "--json", *(["--revision", "r-2"] if task == "deploy" else [])]
        record = shipped.run(*args, code=1, RUNTIME_DEPLOY_COMMAND=f"{BROKEN}; exit 7").document
        assert (record["status"], record["status_reason"]) == ("failed", "deploy_failed")
        assert record["stages"]["deploy"]["commands"][0]["exit_code"] == 7
        assert record["stages"]["gate"] == {"status": "skipped"}
        assert record["stages"]["rollback"]["recovered"] is True
        assert runtime.read() == ("up", "r-1")


def test_a_failed_publish_touches_nothing(shipped: Site, runtime: Runtime) -> None:
    for task in ("publish", "release"):
        result = shipped.run(task, "--json", code=1, RUNTIME_PUBLISH_COMMAND="echo no space left; exit 1")
        record = result.document
        assert (record["status"], record["status_reason"]) == ("failed", "publish_failed")
        assert record["stages"]["rollback"] == record["stages"]["deploy"] == {"status": "skipped"}
        assert "publish | no space left" in result.err
        assert runtime.read() == ("up", "r-1")


def test_the_way_back_is_proven_before_the_first_side_effect(shipped: Site, runtime: Runtime) -> None:
    for task in ("release", "publish", "deploy"):
        result = shipped.run(task, code=2, RUNTIME_ROLLBACK_CHECK_COMMAND="echo no route to host; exit 9")
        assert "the rollback check failed" in result.err
        assert "rollback_check | no route to host" in result.err
        record = shipped.record()
        assert record["stages"]["publish"] == record["stages"]["deploy"] == {"status": "skipped"}
        assert record["stages"]["preflight"]["status"] == "failed"
        assert record["exit_code"] == 2
    assert runtime.read() == ("up", "r-1")
    assert shipped.run("release", RUNTIME_ROLLBACK_CHECK_COMMAND="true").code == 0


def test_single_tasks_continue_one_record(shipped: Site, runtime: Runtime) -> None:
    (shipped.path / "version").write_text("2")
    published = shipped.run("publish", "--json", OPSGATE_RUN_ID="run-7").document
    assert (published["status"], published["status_reason"], published["exit_code"]) == (
        "skipped",
        "not_gated",
        0,
    )
    assert runtime.revision == "r-1"
    deployed = shipped.run("deploy", "--json", "--fail-on-skipped", OPSGATE_RUN_ID="run-7").document
    assert (deployed["status_reason"], deployed["trigger"]) == ("not_gated", "deploy")
    assert runtime.revision == "r-2"
    result = shipped.run("gate", OPSGATE_RUN_ID="run-7")
    record = shipped.record()
    assert (record["status"], record["trigger"], record["run_id"]) == ("passed", "gate", "run-7")
    assert [record["stages"][name]["status"] for name in ("publish", "deploy", "gate")] == ["passed"] * 3
    assert record["stages"]["gate"]["revision"] == "r-2"
    assert record["started_at"] == published["started_at"]
    assert result.headline.startswith("prod runs r-2: healthy")
    assert [line["task"] for line in shipped.ledger()] == ["release", "publish", "deploy", "gate"]
    assert record["previous"] == shipped.ledger()[0]["hash"]
    assert "4 ledger lines" in shipped.run("evidence", "--verify").out

    before = (shipped.evidence / "run-7" / "evidence.json").read_bytes()
    for task in ("publish", "deploy", "gate", "release"):
        refused = shipped.run(task, code=2, OPSGATE_RUN_ID="run-7")
        assert "run-7 has completed its stage" in refused.err
    assert (shipped.evidence / "run-7" / "evidence.json").read_bytes() == before
    assert len(shipped.ledger()) == 4
    shipped.run("rollback", OPSGATE_RUN_ID="run-7")
    shipped.run("rollback", OPSGATE_RUN_ID="run-7")
    assert runtime.revision == "r-1"
    assert shipped.run("evidence", "--verify").code == 0


def test_a_release_continues_what_it_skips(shipped: Site, runtime: Runtime) -> None:
    (shipped.path / "version").write_text("2")
    shipped.run("publish", OPSGATE_RUN_ID="run-8")
    shipped.run("release", "--skip", "publish", OPSGATE_RUN_ID="run-8")
    assert (runtime.revision, shipped.record()["status"]) == ("r-2", "passed")


@pytest.mark.parametrize("task", ["deploy", "gate"])
def test_what_was_not_published_goes_no_further(shipped: Site, task: str) -> None:
    shipped.run("publish", code=1, OPSGATE_RUN_ID="run-8", RUNTIME_PUBLISH_COMMAND="exit 3")
    refused = shipped.run(task, code=2, OPSGATE_RUN_ID="run-8")
    assert "run-8 was not published" in refused.err
    assert shipped.record()["status_reason"] == "publish_failed"


def test_nothing_is_brought_out_after_the_gate_of_a_run(shipped: Site, runtime: Runtime) -> None:
    shipped.run("gate", OPSGATE_RUN_ID="run-8")
    for task in ("publish", "deploy"):
        assert "run-8 was gated already" in shipped.run(task, code=2, OPSGATE_RUN_ID="run-8").err
    assert runtime.revision == "r-1"


def test_a_run_belongs_to_one_environment(shipped: Site) -> None:
    shipped.run("publish", OPSGATE_RUN_ID="run-9")
    with (shipped.path / "opsgate.toml").open("a") as file:
        file.write(f'\n[environments.other]\nurls = ["{shipped.runtime.url}"]\n')
    assert (
        "run-9 belongs to environment prod"
        in shipped.run("gate", "--env", "other", code=2, OPSGATE_RUN_ID="run-9").err
    )


def test_steps_of_a_workflow_continue_one_record(shipped: Site) -> None:
    actions = {
        "GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_RUN_ID": "4711", "GITHUB_RUN_ATTEMPT": "2",
        "GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567", "GITHUB_REPOSITORY": "example/shop",
        "GITHUB_SERVER_URL": "https://github.example", "GITHUB_WORKFLOW": "publish",
        "GITHUB_ACTOR": "someone",
    }  # fmt: skip
    for task in ("publish", "deploy", "gate"):
        shipped.run(task, code=0, **actions)
    record = shipped.record()
    assert record["run_id"] == "gh-4711-2-prod"
    assert record["ci"] == {
        "provider": "github", "repository": "example/shop", "workflow": "publish",
        "run_url": "https://github.example/example/shop/actions/runs/4711",
        "commit": actions["GITHUB_SHA"], "actor": "someone",
    }  # fmt: skip
    assert record["status"] == "passed"


def test_the_commit_names_the_revision_where_nobody_else_does(site: Site, runtime: Runtime) -> None:
    site.configure(urls=[site.url(revision="json:version")], deploy=DEPLOY)
    sha = "0123456789abcdef0123456789abcdef01234567"
    record = site.run("release", "--json", GITHUB_SHA=sha).document
    assert record["revision"] == runtime.revision == sha[:12]


def test_gate_only_and_skip(shipped: Site, runtime: Runtime) -> None:
    (shipped.path / "version").write_text("2")
    record = shipped.run("release", "--gate-only", "--json").document
    assert (record["status"], runtime.revision) == ("passed", "r-1")
    assert record["stages"]["publish"] == record["stages"]["deploy"] == {"status": "skipped"}
    record = shipped.run("release", "--skip", "deploy", "--no-rollback", "--json", code=1).document
    assert record["stages"]["publish"]["status"] == "passed"
    assert (record["status_reason"], runtime.revision) == ("wrong_revision", "r-1")
    assert "only publish and deploy can be skipped" in shipped.run("release", "--skip", "gate", code=2).err


def test_without_a_target_a_release_is_not_validated(site: Site) -> None:
    site.configure(urls=[], deploy=DEPLOY)
    result = site.run("release")
    assert "NOT VALIDATED" in result.headline
    assert "NOT VALIDATED" in result.err
    site.run("release", "--fail-on-skipped", code=1)
    record = site.run(
        "deploy", "--json", code=3, RUNTIME_DEPLOY_COMMAND="false", RUNTIME_ROLLBACK_COMMAND="true"
    )
    assert record.document["stages"]["rollback"]["recovered"] is None


def test_a_dry_run_prints_the_plan_and_runs_nothing(shipped: Site, runtime: Runtime) -> None:
    before = sorted(path for path in shipped.evidence.rglob("*"))
    asked = len(runtime.requests)
    (shipped.path / "broken").touch()
    result = shipped.run("release", "--dry-run", RUNTIME_ROLLBACK_CHECK_COMMAND="touch ran")
    assert sorted(path for path in shipped.evidence.rglob("*")) == before
    assert len(runtime.requests) == asked
    assert runtime.read() == ("up", "r-1")
    assert not (shipped.path / "ran").exists()
    order = [
        result.out.index(f". {stage}") for stage in ("preflight", "publish", "deploy", "gate", "rollback")
    ]
    assert order == sorted(order)
    assert STATEFUL in result.out
    assert "gate.soak" in result.out
    document = shipped.run("release", "--dry-run", "--json").document
    assert [step["stage"] for step in document["order"]] == [
        "preflight", "publish", "deploy", "gate", "rollback",
    ]  # fmt: skip


def test_nothing_to_do_is_wrong_usage(site: Site) -> None:
    assert "has no deploy hook" in site.run("deploy", code=2).err
    assert "has nothing to publish" in site.run("publish", code=2).err
    assert "has no rollback" in site.run("rollback", code=2).err
    assert not site.evidence.exists()


def test_the_worst_case_counts_every_stage(shipped: Site) -> None:
    with (shipped.path / "opsgate.toml").open("a") as file:
        file.write('[environments.prod.timeouts]\npublish = "10m"\ndeploy = "1h"\n')
    first = shipped.run("release", "--deadline", "50m").err.splitlines()[0]
    started = shipped.record()["started_at"]
    told = first.partition("verdict by ")[2][:8]
    minutes = {"started": _minutes(started[11:19]), "told": _minutes(told)}
    assert 120 <= (minutes["told"] - minutes["started"]) % (24 * 60) < 122


def _minutes(clock: str) -> float:
    hours, minutes, seconds = map(int, clock.split(":"))
    return hours * 60 + minutes + seconds / 60


def test_closed_ports_are_refused(site: Site) -> None:
    record = site.run(
        "gate", "--url", f"http://127.0.0.1:{free_port()}/", "--json", "--deadline", "500ms", "--soak", "0",
        code=1,
    ).document  # fmt: skip
    assert record["stages"]["gate"]["targets"][0]["attempts"][0]["kind"] == "refused"


def test_the_plan_names_the_images_that_compose_would_build(site: Site) -> None:
    (site.path / "compose.yaml").write_text(
        "services:\n  backend:\n    build: .\n    image: 'registry.example.com/app/backend:${OPSGATE_TAG}'\n"
    )
    site.configure(extra='[environments.prod.publish]\ncompose_files = ["compose.yaml"]\n')
    image = "registry.example.com/app/backend:${OPSGATE_TAG}"
    assert site.run("release", "--dry-run", "--json").document["images"] == [image]
    assert f"Images\n  {image}\n" in site.run("release", "--dry-run").out
    assert "Images" not in site.run("release", "--gate-only", "--dry-run").out
