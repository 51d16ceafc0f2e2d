"""Streams that cannot carry what is written to them: the result and the exit code stay the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.rig import Runtime, Site

QUICK = ("--deadline", "400ms", "--soak", "0")
NAME = "Zustand … é"


def test_a_result_that_stdout_cannot_encode_stays_what_it_is(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(urls=[{"name": NAME, "url": runtime.url}])
    result = site.run("gate", "--json", *QUICK, code=1, PYTHONIOENCODING="ascii")
    assert result.out.isascii()
    assert result.document["stages"]["gate"]["targets"][0]["name"] == NAME
    assert "\\u2026" in site.run("gate", *QUICK, code=1, PYTHONIOENCODING="ascii").out
    assert NAME in site.run("gate", *QUICK, code=1, PYTHONIOENCODING="utf-8").out


@pytest.mark.parametrize("args", ["--help release", "--list"])
def test_help_may_be_read_in_part(site: Site, args: str) -> None:
    # The reader is gone before the first byte is written.
    command = f"{{ '{sys.executable}' -m opsgate {args}; echo $? >code; }} | sleep 0"
    environ = site.environ({"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "ascii"})
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=site.path, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert (site.path / "code").read_text() == "0\n"


def test_the_plan_as_json_survives_a_narrow_terminal(site: Site) -> None:
    site.configure(deploy="echo …", rollback="true")
    out = site.run("release", "--skip", "publish", "--dry-run", "--json", PYTHONIOENCODING="ascii").out
    assert "echo …" in json.dumps(json.loads(out), ensure_ascii=False)
