"""What hooks are told, where they run, what becomes of their output, and that no secret gets anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.e2e.rig import ROLLBACK, Runtime, Site, alive

DIGEST = "sha256:" + "b" * 64
ALWAYS: Final = {
    f"OPSGATE_{name}"
    for name in (
        "RUN_ID", "ENV", "STAGE", "REVISION", "IMAGES", "PINS", "EVIDENCE", "OUTPUT", "TAG",
        "STATUS", "STATUS_REASON", "FAILED_URLS",
        "LAST_GOOD_REVISION", "LAST_GOOD_IMAGES", "LAST_GOOD_PINS",
    )
}  # fmt: skip
DUMP = 'to="$PWD/$OPSGATE_STAGE"; env -0 > "$to.env"; cp "$OPSGATE_EVIDENCE" "$to.json"; pwd > "$to.pwd"; '
PUBLISH = (
    f'echo "image.web=web:t@{DIGEST}" > "$OPSGATE_OUTPUT"; '
    'echo "revision=$(cat version)" >> "$OPSGATE_OUTPUT"'
)


@pytest.fixture
def told(site: Site, runtime: Runtime) -> Site:
    """A site whose release v2 failed after v1 had passed; each hook wrote down what it was told."""
    site.configure(
        deploy=DUMP + 'echo "$(cat health) $OPSGATE_REVISION" > state',
        rollback=DUMP + ROLLBACK,
        rollback_check=DUMP,
        incident=DUMP,
        extra=f"[environments.prod.publish]\ncommand = {json.dumps(DUMP + PUBLISH)}\n",
    )
    (site.path / ".git").mkdir()
    for revision, health, code in (("v1", "up", 0), ("v2", "down", 1)):
        (site.path / "version").write_text(revision)
        (site.path / "health").write_text(health)
        site.cwd = site.path / "a" / "b"
        site.cwd.mkdir(parents=True, exist_ok=True)
        site.run("release", code=code)
    return site


def test_every_variable_is_set_for_every_hook(told: Site, runtime: Runtime) -> None:
    record = told.record()
    run = told.evidence / record["run_id"]
    for stage in ("rollback_check", "publish", "deploy", "rollback", "incident"):
        given = told.variables(f"{stage}.env")
        assert set(given) >= ALWAYS, stage
        assert given["OPSGATE_RUN_ID"] == record["run_id"]
        assert given["OPSGATE_ENV"] == "prod"
        assert given["OPSGATE_STAGE"] == stage
        assert given["OPSGATE_EVIDENCE"] == str(run / "evidence.json")
        assert Path(given["OPSGATE_OUTPUT"]).is_absolute()
        assert (told.path / f"{stage}.pwd").read_text().strip() == str(told.path)
    image = f"web=web:t@{DIGEST}"
    deploy = told.variables("deploy.env")
    assert (deploy["OPSGATE_REVISION"], deploy["OPSGATE_IMAGES"]) == ("v2", image)
    assert deploy["OPSGATE_PINS"] == str(run / "pins.yaml")
    assert deploy["OPSGATE_STATUS"] == deploy["OPSGATE_FAILED_URLS"] == deploy["OPSGATE_LAST_GOOD_PINS"] == ""
    for stage in ("rollback", "incident"):
        given = told.variables(f"{stage}.env")
        assert (given["OPSGATE_STATUS"], given["OPSGATE_STATUS_REASON"]) == ("failed", "probe_failures")
        assert given["OPSGATE_FAILED_URLS"] == runtime.url
        assert (given["OPSGATE_LAST_GOOD_REVISION"], given["OPSGATE_LAST_GOOD_IMAGES"]) == ("v1", image)
        pins = Path(given["OPSGATE_LAST_GOOD_PINS"])
        assert pins.is_file()
        assert pins != Path(given["OPSGATE_PINS"])


def test_a_list_that_no_program_could_be_started_with_is_cut(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    urls = [f"{runtime.url}?{index}&{'x' * 4000}" for index in range(40)]
    site.configure(urls=urls, rollback='printf %s "$OPSGATE_FAILED_URLS" > failed')
    record = site.run("gate", "--json", "--deadline", "600ms", "--soak", "0", code=3).document
    assert record["stages"]["rollback"]["commands"][0]["explanation"] == ""
    told = (site.path / "failed").read_text()
    assert told.splitlines() == record["failed_urls"][: told.count("\n") + 1]
    assert 60 * 1024 < len(told) <= 64 * 1024 < len("\n".join(record["failed_urls"]))


def test_the_record_so_far_is_there_for_each_hook(told: Site) -> None:
    documents = {
        stage: json.loads((told.path / f"{stage}.json").read_bytes())
        for stage in ("rollback_check", "publish", "deploy", "rollback", "incident")
    }
    for document in documents.values():
        assert document["status"] == "failed"
    assert documents["publish"]["stages"]["publish"]["status"] == "interrupted"
    assert documents["deploy"]["stages"]["publish"]["status"] == "passed"
    assert documents["rollback"]["stages"]["gate"]["status"] == "failed"
    assert documents["rollback"]["status_reason"] == "probe_failures"
    assert documents["rollback"]["stages"]["rollback"]["attempted"] is True
    assert documents["incident"] == told.record()


def test_a_hook_runs_alone_and_without_input(site: Site) -> None:
    command = "cat; test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$"
    site.configure(deploy=command)
    record = site.run("deploy", "--json").document
    assert record["stages"]["deploy"]["status"] == "passed"


def test_output_is_streamed_made_harmless_and_kept(site: Site) -> None:
    site.configure(
        deploy=r"printf '::error::no\n##[error]no\nred\033[31m\n'; echo late >&2; exit 3", rollback=None
    )
    result = site.run("deploy", "--json", code=1)
    assert "deploy | red\\x1b[31m" in result.err
    assert "deploy | late" in result.err
    tail = result.document["stages"]["deploy"]["commands"][0]["output_tail"]
    log = (site.evidence / result.document["run_id"] / "deploy.log").read_text()
    for text in (tail, log, result.err):
        assert not any(line.startswith("::") for line in text.splitlines())
        assert "##[error]" not in text
        assert "late" in text


def test_a_hook_that_takes_too_long_is_ended_with_its_group(site: Site) -> None:
    site.configure(
        deploy="sleep 60 & echo $! > child; sleep 60",
        extra='[environments.prod.timeouts]\ndeploy = "1500ms"\n',
    )
    record = site.run("deploy", "--json", code=1).document
    command = record["stages"]["deploy"]["commands"][0]
    assert command["timed_out"] is True
    assert "timed out after" in command["explanation"]
    assert not alive(int((site.path / "child").read_text()))


@pytest.mark.parametrize("left", ["revision=two words", "image.web=not an image", "image.web=:"])
def test_what_a_hook_leaves_must_be_usable(site: Site, left: str) -> None:
    site.configure(
        extra=f"[environments.prod.publish]\ncommand = {json.dumps(f'echo {left!r} > $OPSGATE_OUTPUT')}\n"
    )
    record = site.run("publish", "--json", code=1).document
    assert record["status_reason"] == "publish_failed"
    assert "OPSGATE_OUTPUT" in record["stages"]["publish"]["detail"]
    assert "\n" not in record["stages"]["publish"]["detail"]


def test_an_empty_revision_is_none(site: Site, runtime: Runtime) -> None:
    # A hook passes on what it was told, and that is empty when unknown: no reason to undo a rollout.
    site.configure(deploy='printf "revision=%s\\n" v7 "" > "$OPSGATE_OUTPUT"')
    assert site.run("deploy", "--json").document["revision"] == "v7"
    site.configure(deploy='echo "revision=$OPSGATE_REVISION" > "$OPSGATE_OUTPUT"', rollback="touch undone")
    record = site.run("deploy", "--json").document
    assert (record["stages"]["deploy"]["status"], record["revision"]) == ("passed", None)
    assert not (site.path / "undone").exists()


@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
def test_an_output_file_that_is_none_is_not_waited_for(site: Site, make: str) -> None:
    site.configure(deploy=f'rm "$OPSGATE_OUTPUT"; {make} "$OPSGATE_OUTPUT"')
    assert site.run("deploy", "--json").document["stages"]["deploy"]["status"] == "passed"


def test_a_revision_that_the_deploy_left_counts(site: Site, runtime: Runtime) -> None:
    site.configure(
        urls=[site.url(revision="json:version")],
        deploy='echo "up v7" > state; echo revision=v7 > "$OPSGATE_OUTPUT"',
    )
    record = site.run("release", "--json", GITHUB_SHA="0" * 40).document
    assert (record["status"], record["revision"]) == ("passed", "v7")
    assert (
        site.run("release", "--json", "--revision", "v8", code=1).document["status_reason"]
        == "wrong_revision"
    )


@pytest.mark.parametrize(
    "end",
    ["echo image.web=registry.invalid/web:t >> $OPSGATE_OUTPUT; exit 1", "exec sleep 60",
     "echo image.web=not an image >> $OPSGATE_OUTPUT"],
    ids=["fails", "takes-too-long", "leaves-something-unusable"],
)  # fmt: skip
def test_a_revision_that_a_failed_deploy_left_has_to_be_gone(site: Site, end: str) -> None:
    site.configure(
        urls=[site.url(revision="json:version")],
        deploy=f'echo "up v7" > state; echo revision=v7 > "$OPSGATE_OUTPUT"; {end}',
        rollback="true",
        extra='[environments.prod.timeouts]\ndeploy = "2s"\n',
    )
    result = site.run("release", "--json", code=3, GITHUB_SHA="0" * 40)
    record = result.document
    assert (record["status_reason"], record["revision"], record["images"]) == ("deploy_failed", "v7", [])
    rollback = record["stages"]["rollback"]
    assert (rollback["succeeded"], rollback["recovered"]) == (True, False)
    assert "digests" not in result.err, "a registry was asked on the way to the rollback"


def test_a_revision_that_was_given_comes_before_that_of_a_failed_deploy(site: Site) -> None:
    site.configure(deploy='echo revision=v7 > "$OPSGATE_OUTPUT"; exit 1')
    assert site.run("deploy", "--json", "--revision", "v8", code=1).document["revision"] == "v8"


def test_an_incident_hook_that_fails_changes_nothing(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(incident="exit 9")
    result = site.run("gate", "--json", "--deadline", "500ms", code=1)
    assert "the incident hook failed" in result.err
    assert site.record() == result.document
    runtime.becomes("up")
    site.configure(incident="touch told")
    site.run("gate")
    assert not (site.path / "told").exists()


SECRETS: Final = {
    "userinfo": "hunter2-in-userinfo",
    "query": "hunter2/in+query",
    "token": "hunter2-the-bearer",
    "header": "hunter2-in-a-header",
    "environment": "hunter2-from-the-environment",
    "pattern": "AKIA0123456789ABCDEF",
    "command": "hunter2-in-the-command",
}


def test_no_secret_reaches_anything(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    host = runtime.url.partition("://")[2]
    leak = "; ".join(
        f"printf '%s\\n' '{text}'"
        for secret in SECRETS.values()
        for text in (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode())
    )
    urls: list[dict[str, Any]] = [
        {"url": f"http://someone:{SECRETS['userinfo']}@{host}?token={quote(SECRETS['query'], safe='')}"},
        {"url": runtime.url, "request_headers": {"X-Api-Key": SECRETS["header"]}},
        {"name": "inside", "command": f"echo {SECRETS['environment']} $DEPLOY_TOKEN; exit 1"},
    ]
    hook = f"true --password={SECRETS['command']}; {leak}; env; exit 1"
    site.configure(
        urls=urls,
        deploy="true",
        rollback=hook,
        incident=hook,
        top='[redact]\npatterns = ["AKIA[0-9A-Z]{16}"]',
    )
    environment = {
        "RUNTIME_HEALTH_TOKEN": SECRETS["token"],
        "DEPLOY_TOKEN": SECRETS["environment"],
        "COMMAND_PASSWORD": SECRETS["command"],
    }
    said = ""
    for args in (["release", "--json"], ["release"], ["deploy", "--dry-run"], ["release", "--dry-run"]):
        code = {"release": 3, "deploy": 2}[args[0]] if "--dry-run" not in args or args[0] == "deploy" else 0
        result = site.run(*args, "--deadline", "400ms", "--soak", "0", code=code, **environment)
        said += result.out + result.err
    for form in ("text", "md", "html", "junit", "env", "json"):
        said += site.run("evidence", "--format", form).out
    files = [path for path in site.evidence.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"rollback.log", "incident.log", "ledger.jsonl", "evidence.json"}
    said += "".join(path.read_text() for path in files)
    for name, secret in SECRETS.items():
        forms = [secret, quote(secret, safe="")]
        if name != "pattern":
            # What only a pattern describes is not known in another form.
            forms.append(base64.b64encode(secret.encode()).decode())
        for text in forms:
            assert text not in said, f"{name} as {text}"
    assert "***" in said


def test_commands_are_recorded_masked(site: Site) -> None:
    site.configure(deploy="curl -H 'Authorization: Bearer abcdef1234567890' https://x.invalid", rollback=None)
    record = site.run("deploy", "--json", code=1).document
    assert "abcdef1234567890" not in json.dumps(record)
    assert "***" in record["stages"]["deploy"]["commands"][0]["command"]


def test_in_a_workflow_each_secret_is_masked_and_commands_go_to_stderr(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    result = site.run(
        "gate", "--json", "--deadline", "400ms", "--soak", "0", code=1,
        GITHUB_ACTIONS="true", CI="true", RUNTIME_HEALTH_TOKEN="hunter2-the-bearer",
    )  # fmt: skip
    assert "::add-mask::hunter2-the-bearer\n" in result.err
    assert "hunter2" not in result.err.replace("::add-mask::hunter2-the-bearer", "")
    assert isinstance(result.document, dict)


def test_exit_codes_survive_an_inherited_ignored_sigchld(site: Site) -> None:
    env = site.seam("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    site.configure(urls=[{"name": "inside", "command": "true"}], deploy="exit 3", rollback=None)
    assert site.run("gate", "--json", code=0, **env).document["status"] == "passed"
    record = site.run("deploy", "--json", code=1, **env).document
    assert record["stages"]["deploy"]["commands"][0]["exit_code"] == 3
