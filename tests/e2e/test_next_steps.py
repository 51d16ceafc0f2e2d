"""What a person is told to do next, done just as it is written."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from opsgate.evidence.lock import EnvironmentLock, Holder
from tests.e2e.rig import DEPLOY, Runtime, Site

DIGEST = "sha256:" + "a" * 64
PUBLISH = "".join(f'echo "image.{name}={name}:t@{DIGEST}" >> "$OPSGATE_OUTPUT"; ' for name in ("web", "api"))
# A script may well refuse what is unset.
DUMP = (
    'set -eu; : "$OPSGATE_TAG" "$OPSGATE_LAST_GOOD_PINS" "$OPSGATE_RUN_ID" "$OPSGATE_FAILED_URLS"; '
    'echo revision=v9 >> "$OPSGATE_OUTPUT"; pwd > "$BY.pwd"; env -0 > "$BY.env"; exit 5'
)
OF_THE_RUN = {"RUN_ID", "EVIDENCE", "OUTPUT", "STATUS", "STATUS_REASON", "FAILED_URLS"}
AWAY = ("--deadline", "600ms", "--soak", "100ms")


def step(record: Any, beginning: str) -> str:
    """What follows `beginning` in the one step that has it."""
    [found] = [step for step in record["next_steps"] if beginning in step]
    return str(found.partition(beginning)[2])


def follow(site: Site, line: str) -> Any:
    """Do what a line says, `opsgate` being ours, in a shell that knows nothing of the one before."""
    variables, _, command = line.partition("opsgate ")
    given: Any = dict(word.split("=", 1) for word in shlex.split(variables))
    return site.run(*shlex.split(command), "--json", **given).document


def told(site: Site, by: str) -> dict[str, str]:
    """The variables of opsgate that are not of a run."""
    given = site.variables(f"{by}.env").items()
    ours = {name.removeprefix("OPSGATE_"): value for name, value in given if name.startswith("OPSGATE_")}
    return {name: value for name, value in ours.items() if name not in OF_THE_RUN}


@pytest.mark.parametrize("way", ["command", "redeploy", "manual", "first"])
def test_by_hand_is_all_that_the_hook_had(site: Site, way: str) -> None:
    site.configure(
        deploy=f'test "$OPSGATE_STAGE" = deploy || {{ {DUMP}; }}; echo "$(cat health)" > state',
        rollback="redeploy" if way == "redeploy" else ["exit 4", DUMP],
        extra=f"[environments.prod.publish]\ncommand = {json.dumps(PUBLISH)}\n",
    )
    if way != "first":
        (site.path / "health").write_text("up")
        site.run("release", "--revision", "v1")
    (site.path / "health").write_text("down")
    record = site.run("release", "--revision", "v2", "--json", *AWAY, code=3, BY="hook").document
    if way == "manual":
        record = site.run("rollback", "--json", code=3, BY="hook").document
    assert (len(told(site, "hook")["IMAGES"].splitlines()), told(site, "hook")["ENV"]) == (2, "prod")
    *_, line = (step for step in record["next_steps"] if step.startswith("By hand: "))
    environ = {"PATH": os.environ["PATH"], "BY": "hand"}
    shell = ["/bin/sh", "-c", line.removeprefix("By hand: ")]
    done = subprocess.run(shell, env=environ, cwd="/", check=False)
    assert done.returncode == 5
    assert (site.path / "hand.pwd").read_text() == (site.path / "hook.pwd").read_text()
    assert told(site, "hand") == told(site, "hook")


@pytest.mark.parametrize("place", ["inside it's", "outside"])
def test_a_way_back_is_looked_for_where_this_run_keeps_its_evidence(
    site: Site, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    site.configure(urls=[site.url(revision="json:version")], deploy=DEPLOY, rollback="redeploy")
    evidence = place if place != "outside" else str(tmp_path_factory.mktemp("evidence"))
    site.run("release", "--revision", "v1", "--evidence-dir", evidence)
    site.run("release", "--revision", "v2", OPSGATE_EVIDENCE_DIR=evidence)
    runtime.becomes("down", "v2")
    gate = ("gate", "--no-rollback", "--evidence-dir", evidence, *AWAY)
    record = site.run(*gate, "--json", code=1).document
    line = step(record, "Go back now: ")
    assert line == f"opsgate rollback --env prod --evidence-dir {shlex.quote(evidence)} --reason 'WHY'"
    follow(site, line)
    assert runtime.read() == ("up", "v1")


def test_a_run_goes_on_in_its_own_record_and_with_its_urls(site: Site) -> None:
    site.configure(urls=[], deploy=DEPLOY)
    url = f"{site.runtime.url}?a=1&b=2"
    record = site.run(
        "deploy", "--json", "--url", url, "--url", site.runtime.url, OPSGATE_EVIDENCE_DIR="kept"
    ).document
    done = follow(site, step(record, "Go on: "))
    assert (done["run_id"], done["status"]) == (record["run_id"], "passed")
    assert done["stages"]["deploy"]["status"] == "passed"
    assert {target["url"] for target in done["stages"]["gate"]["targets"]} == {url, site.runtime.url}


def test_urls_that_cannot_be_shown_whole_are_not_proposed_in_part(site: Site) -> None:
    site.configure(urls=[], deploy=DEPLOY)
    secret = f"{site.runtime.url}?token=opensesame"
    record = site.run("deploy", "--json", "--url", secret, "--url", site.runtime.url).document
    assert step(record, "Go on: ").endswith("opsgate gate --env prod")


def test_what_the_file_and_the_shell_say_by_themselves_is_not_repeated(site: Site) -> None:
    site.configure(top='evidence_dir = "kept"', deploy=DEPLOY)
    site.evidence = site.path / "kept"
    record = site.run("deploy", "--json", RUNTIME_HEALTH_URLS=site.runtime.url).document
    assert step(record, "Go on: ").endswith("opsgate gate --env prod")
    assert Path(site.evidence / "latest.json").exists()


def test_who_waits_is_led_to_the_same_environment_of_the_same_evidence(site: Site) -> None:
    site.configure(rollback=["true"])
    lock = EnvironmentLock(site.path / "it's kept", "prod")
    lock.acquire(Holder(run_id="r", pid=os.getpid(), host="here", started_at="then", task="release"))
    held = site.run("rollback", "--evidence-dir", "it's kept", code=75)
    lock.release()
    line = held.err.partition("In an incident `")[2].partition("` takes")[0]
    assert line.endswith(" --force")
    assert follow(site, line)["status_reason"] == "recovered"
    assert (site.path / "it's kept" / "latest.json").exists()
