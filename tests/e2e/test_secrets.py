"""Secrets planted where opsgate takes text in, looked for in every byte that it writes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.e2e.rig import Result, Runtime, Site

SECRET = "hunter2-under-the-mat"
QUICK = ("--deadline", "400ms", "--soak", "0")


def told(site: Site, result: Result) -> str:
    """Everything that a command wrote, wherever."""
    files = [path for path in site.evidence.rglob("*") if path.is_file()]
    return result.out + result.err + "".join(path.read_text(errors="replace") for path in files)


def test_a_rollback_check_that_fails_is_named_masked(site: Site) -> None:
    site.configure(deploy="true", rollback="true", rollback_check=f"test {SECRET} = x")
    result = site.run("deploy", code=2, DEPLOY_TOKEN=SECRET)
    assert SECRET not in told(site, result)
    assert "rollback_check: test *** = x" in result.err


@pytest.mark.parametrize(
    "left",
    [
        SECRET,
        f"{'x' * 45}{SECRET}",
        f"revision={'x' * 45} {SECRET}",
        f"image.{SECRET}=%",
        f"image.a=%{'x' * 100}{SECRET}",
    ],
)
def test_what_a_hook_left_by_mistake_is_told_masked(site: Site, left: str) -> None:
    site.configure(deploy=f"echo {left} >> $OPSGATE_OUTPUT", rollback=None)
    result = site.run("deploy", *QUICK, code=1 if "=" in left else 0, DEPLOY_TOKEN=SECRET)
    assert SECRET[:8] not in told(site, result)
    assert "OPSGATE_OUTPUT" in result.err + result.out


def test_a_header_that_cannot_be_sent_is_told_masked(site: Site) -> None:
    site.configure(urls=[site.url(request_headers={"X-Api-Key": f" {SECRET}"})])
    result = site.run("gate", code=2)
    assert SECRET not in told(site, result)
    assert "no request can be made of it" in result.err


def test_an_error_before_anything_began_is_told_masked(site: Site) -> None:
    patterns = '[redact]\npatterns = ["hunter2[a-z-]+"]'
    for keys, args in (
        ({"deadline": SECRET}, ["gate"]),
        ({}, ["gate", "--soak", SECRET]),
        ({}, ["gate", "--env", SECRET]),
        ({}, ["evidence", "--run", SECRET]),
        ({}, ["evidence", "--output", f"/{SECRET}/x"]),
        ({}, ["rollback", "--to", SECRET]),
    ):
        site.configure(gate=keys, rollback="true")
        known = site.run(*args, code=2, DEPLOY_TOKEN=SECRET)
        assert SECRET not in told(site, known)
        site.configure(gate=keys, rollback="true", extra=patterns)
        described = site.run(*args, code=2)
        assert SECRET not in told(site, described), described


def test_a_workflow_hides_the_secrets_of_a_run_that_cannot_begin(site: Site) -> None:
    result = site.run("gate", "--soak", SECRET, code=2, GITHUB_ACTIONS="true", DEPLOY_TOKEN=SECRET)
    hidden, _, rest = result.err.rpartition("::add-mask::")
    assert f"::add-mask::{SECRET}\n" in hidden
    assert SECRET not in rest
    assert "::error title=opsgate::--soak: " in rest


def test_a_command_line_that_cannot_be_parsed_is_quoted_masked(site: Site) -> None:
    result = site.run("gate", f"http://someone:{SECRET}@host.invalid/", code=2)
    assert SECRET not in told(site, result)
    assert "http://***@host.invalid/" in result.err


def test_a_diagnosis_of_a_bad_configuration_is_masked(site: Site) -> None:
    site.configure(gate={"deadline": SECRET}, extra='[redact]\npatterns = ["hunter2[a-z-]+"]')
    result = site.run("doctor", "--json", code=2)
    assert SECRET not in told(site, result)
    assert "***" in result.out
    assert SECRET not in told(
        site, site.run("doctor", "--json", "--env", SECRET, code=2, DEPLOY_TOKEN=SECRET)
    )


def test_a_head_that_is_none_is_not_repeated(site: Site) -> None:
    site.run("gate")
    result = site.run("evidence", "--verify", "--head", SECRET, code=1)
    assert SECRET not in told(site, result)
    assert "what was given as its head" in result.out


def test_a_secret_in_base64_is_hidden_however_it_is_wrapped(site: Site) -> None:
    token = "".join(f"{index}-{SECRET}." for index in range(4))
    lines = [f"printf 'user:%s' \"$DEPLOY_TOKEN\" | base64 -w {width}" for width in (20, 64, 76)]
    site.configure(deploy="; ".join(lines), rollback=None)
    result = site.run("deploy", *QUICK, DEPLOY_TOKEN=token)
    encoded = base64.b64encode(f"user:{token}".encode()).decode()
    shown = told(site, result)
    assert "deploy | ***" in result.err
    assert not [at for at in range(8, len(encoded) - 8) if encoded[at : at + 8] in shown]


def test_a_credential_behind_its_scheme_is_hidden_where_it_stands_alone(site: Site) -> None:
    headers = f"-H 'Authorization: token {SECRET}-1' -H 'X-Auth: Bearer token-{SECRET}-2'"
    query = f"'http://host.invalid/?a=1;api_key={SECRET}-3'"
    said = f"echo {SECRET}-1; echo token-{SECRET}-2; echo {SECRET}-3"
    site.configure(deploy=f"true {headers} {query}; {said}", rollback=None)
    result = site.run("deploy", *QUICK)
    assert SECRET not in told(site, result)
    assert result.err.count("deploy | ***\n") == 3


@pytest.mark.parametrize("task", ["deploy", "rollback", "rollback_check", "incident", "publish"])
def test_a_secret_of_a_command_in_the_file_is_hidden_in_all_that_it_says(
    site: Site, runtime: Runtime, task: str
) -> None:
    command = f"true --token {SECRET}-1; true 'http://host.invalid/?key={SECRET}-2'; echo {SECRET}-2; exit 3"
    hooks = {"deploy": "true", "rollback": "true", "rollback_check": "true", "incident": "true"}
    hooks[task] = command
    publish = hooks.pop("publish", "true")
    site.configure(extra=f"[publish]\ncommand = {json.dumps(publish)}\n", **dict[str, Any](hooks))
    runtime.becomes("down")
    ran = site.start("release", *QUICK, GITHUB_ACTIONS="true")
    out, err = ran.communicate(timeout=60)
    shown = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("::add-mask::"))
    views = [site.run("evidence", "--format", form) for form in ("text", "html", "json")]
    views += [site.run("rollback", "--dry-run"), site.run("release", "--dry-run", "--json")]
    assert SECRET not in told(site, Result(0, out, shown)) + "".join(view.out + view.err for view in views)
    assert f"{task} | ***" in err
