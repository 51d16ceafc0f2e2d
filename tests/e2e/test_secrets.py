"""Secrets planted where opsgate takes text in, looked for in every byte that it writes."""

from __future__ import annotations

import pytest

from tests.e2e.rig import Result, Site

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
