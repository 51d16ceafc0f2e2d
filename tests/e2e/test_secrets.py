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


@pytest.mark.parametrize("left", [f"{SECRET}", f"image.{SECRET}=%", f"x.{SECRET}=1"])
def test_what_a_hook_left_by_mistake_is_told_masked(site: Site, left: str) -> None:
    site.configure(deploy=f"echo {left} >> $OPSGATE_OUTPUT", rollback=None)
    result = site.run("deploy", *QUICK, code=1 if left.startswith("image.") else 0, DEPLOY_TOKEN=SECRET)
    assert SECRET not in told(site, result)
    assert "OPSGATE_OUTPUT" in result.err + result.out


def test_a_header_that_cannot_be_sent_is_told_masked(site: Site) -> None:
    site.configure(urls=[site.url(request_headers={"X-Api-Key": f" {SECRET}"})])
    result = site.run("gate", code=2)
    assert SECRET not in told(site, result)
    assert "no request can be made of it" in result.err
