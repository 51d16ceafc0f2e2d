"""The command line: tasks, flags, usage errors, settings from everywhere, evidence shown and verified."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.e2e.rig import DEPLOY, Runtime, Site

TASKS = {"release", "publish", "deploy", "gate", "rollback", "evidence", "doctor", "init"}
COMMON = {"env", "evidence-dir", "json"}
POLICY = {"deadline", "soak", "interval", "attempt-timeout", "successes", "flaps"}
GATE = COMMON | POLICY | {"url", "revision", "[no-]rollback", "fail-on-skipped"}
FLAGS = {
    "release": GATE | {"skip", "gate-only", "dry-run"},
    "deploy": GATE,
    "gate": GATE,
    "publish": COMMON,
    "doctor": COMMON,
    "rollback": COMMON | POLICY | {"reason", "to", "[no-]verify", "force", "dry-run"},
}


def test_the_tasks_and_nothing_else(site: Site) -> None:
    listed = {line.split()[0] for line in site.run("--list").out.splitlines() if re.match(r"  \w", line)}
    assert listed == TASKS


@pytest.mark.parametrize("task", FLAGS)
def test_help_explains_every_flag_with_its_default(site: Site, task: str) -> None:
    out = site.run("--help", task).out
    options = re.split(r"\n  (?=--)", out.partition("Options:")[2].rstrip())[1:]
    told = {re.match(r"--([^\s=]+)", option)[1]: " ".join(option.split()) for option in options}  # type: ignore[index]
    assert set(told) == FLAGS[task]
    for flag, text in told.items():
        assert "(default: " in text, flag


def test_tasks_follow_each_other_until_one_fails(site: Site, runtime: Runtime) -> None:
    site.configure(deploy=DEPLOY, extra="[environments.prod.publish]\ncommand = 'true'\n")
    site.run("publish", "deploy", "gate", OPSGATE_RUN_ID="r1", OPSGATE_REVISION="v5")
    assert (site.record()["status"], runtime.revision) == ("passed", "v5")
    site.run("publish", "deploy", "gate", code=1, OPSGATE_RUN_ID="r2", RUNTIME_PUBLISH_COMMAND="false")
    assert site.record()["stages"]["deploy"] == {"status": "skipped"}


def test_the_same_tasks_by_invoke(site: Site) -> None:
    (site.path / "tasks.py").write_text(
        "from invoke import Collection\n"
        "import opsgate.tasks\n\n"
        "namespace = Collection.from_module(opsgate.tasks)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "gate", "--json"],
        cwd=site.path, env=site.environ({}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["status"] == "passed"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["gate", "--bogus"], "--bogus"),
        (["gates"], "gates"),
        (["gate", "--deadline"], "deadline"),
        (["--help", "gates"], "gates"),
        (["--bogus"], "--bogus"),
        (["gate", "--deadline", "soon"], "--deadline"),
        (["gate", "--soak", "5s", "--deadline", "5s"], "must be shorter than the deadline"),
        (["gate", "--env", "production"], "prod"),
        (["gate", "--url", "ftp://x.example/"], "ftp"),
        (["gate", "--successes", "0"], "--successes"),
        (["evidence", "--format", "pdf"], "choose one of"),
        (["evidence"], "there is no record"),
        (["evidence", "--run", "none"], "none"),
        (["evidence", "--run", "../x"], "run id"),
        (["evidence", "--verify"], "there is no record"),
    ],
    ids=" ".join,
)
def test_wrong_usage_touches_nothing(site: Site, runtime: Runtime, args: list[str], words: str) -> None:
    result = site.run(*args, code=2)
    assert words in result.err
    assert result.out == ""
    assert not site.evidence.exists()
    assert runtime.requests == []


def test_a_bad_file_is_named_with_the_keys_path_and_the_nearest_name(site: Site, runtime: Runtime) -> None:
    site.configure(extra="deadlin = '3s'\n")
    for task in ("release", "gate", "publish", "deploy"):
        err = site.run(task, code=2).err
        assert "opsgate.toml" in err
        assert "environments.prod.gate.deadlin" in err
        assert "deadline" in err
    assert not site.evidence.exists()
    assert runtime.requests == []


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(site: Site) -> None:
    assert "OPSGATE_DEADLINE" in site.run("gate", OPSGATE_DEADLNE="9s").err
    assert "OPSGATE_DEADLINE" in site.run("release", "--dry-run", OPSGATE_DEADLNE="9s").out


def test_an_empty_variable_counts_as_unset(site: Site) -> None:
    empty = dict.fromkeys(("OPSGATE_DEADLINE", "OPSGATE_RUN_ID", "RUNTIME_HEALTH_URLS", "OPSGATE_ENV"), "")
    result = site.run("gate", "--json", code=0, **empty)
    assert result.document["stages"]["gate"]["policy"]["deadline"] == 2.0


def test_evidence_goes_where_it_is_told_to(site: Site) -> None:
    for name, args, env in (
        ("by-flag", ["--evidence-dir", "by-flag"], {"OPSGATE_EVIDENCE_DIR": "by-variable"}),
        ("by-variable", [], {"OPSGATE_EVIDENCE_DIR": "by-variable"}),
    ):
        site.run("gate", *args, code=0, **env)
        assert (site.path / name / "latest.json").is_file()
    site.configure(top='evidence_dir = "by-file"')
    site.cwd = site.path / "inner"
    site.cwd.mkdir()
    site.run("gate", OPSGATE_CONFIG="../opsgate.toml")
    assert (site.path / "by-file" / "latest.env").is_file()


def test_settings_from_pyproject(site: Site) -> None:
    text = (site.path / "opsgate.toml").read_text()
    (site.path / "opsgate.toml").unlink()
    text = re.sub(r"^\[", "[tool.opsgate.", text, flags=re.MULTILINE)
    (site.path / "pyproject.toml").write_text(f"[tool.opsgate]\n{text}")
    assert site.run("gate", "--json").document["environment"] == "prod"


def test_json_is_one_document_and_everything_else_goes_to_stderr(site: Site, runtime: Runtime) -> None:
    site.configure(deploy=f"echo from the hook; {DEPLOY}", rollback="echo went back")
    for args, code in (
        (["gate"], 0),
        (["release"], 0),
        (["deploy"], 0),
        (["rollback"], 0),
        (["release", "--dry-run"], 0),
        (["rollback", "--dry-run"], 0),
        (["evidence", "--verify"], 0),
        (["evidence", "--history"], 0),
        (["evidence", "--replay", "--soak", "1s"], 0),
        (["doctor"], 0),
    ):
        assert site.run(*args, "--json", code=code).document, args
    runtime.becomes("down")
    site.configure(rollback="echo went back; exit 1")
    assert site.run("gate", "--deadline", "400ms", "--soak", "0", "--json", code=3).document


def test_a_flipped_byte_is_found_and_named(site: Site) -> None:
    for _ in range(3):
        site.run("gate")
    middle = site.ledger()[1]["run_id"]
    path = site.evidence / middle / "evidence.json"
    good = path.read_bytes()
    assert site.run("evidence", "--verify").out.startswith("verified: 3 runs")
    for position in (5, good.index(b'"passed"') + 3, len(good) // 2):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        result = site.run_unchecked("evidence", "--verify", code=1)
        assert middle in result.out.splitlines()[1]
    path.write_bytes(good)
    ledger = site.evidence / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    for damaged in ([lines[0], lines[2]], lines[:2]):
        ledger.write_text("".join(damaged))
        assert site.run("evidence", "--verify", code=1).out.startswith("MISMATCH")
    ledger.write_text("".join(lines[:2]))
    (site.evidence / site.record()["run_id"] / "evidence.json").unlink()
    (site.evidence / "latest.json").unlink()
    (site.evidence / "latest.env").unlink()
    site.run("evidence", "--verify")
    head = json.loads(lines[2])["hash"]
    assert "cut off" in site.run("evidence", "--verify", "--head", head, code=1).out
    site.run("evidence", "--verify", "--head", json.loads(lines[1])["hash"])


def test_the_ledgers_hashes_are_those_of_the_contract(site: Site) -> None:
    import hashlib

    for _ in range(2):
        site.run("gate")
    previous = "0" * 64
    for seq, line in enumerate(site.ledger(), 1):
        assert (line["seq"], line["prev"]) == (seq, previous)
        data = (site.evidence / line["run_id"] / "evidence.json").read_bytes()
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
        previous = line.pop("hash")
        canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert previous == hashlib.sha256(canonical.encode()).hexdigest()
    assert (site.evidence / "latest.json").read_bytes() == data


def test_what_would_a_longer_soak_have_said(site: Site) -> None:
    site.run("gate")
    out = site.run("evidence", "--replay", "--deadline", "1s", "--soak", "900ms").out
    assert "passed" in out
    assert "undecided" in out or "failed" in out


def test_a_run_is_shown_whatever_its_status(site: Site, runtime: Runtime) -> None:
    first = site.run("gate", "--json").document["run_id"]
    runtime.becomes("down")
    site.run("gate", "--deadline", "400ms", "--soak", "0", code=1)
    assert site.run("evidence", "--json").document["status"] == "failed"
    assert site.run("evidence", "--run", first, "--json").document["status"] == "passed"
    page = site.path / "report.html"
    result = site.run("evidence", "--format", "html", "--output", str(page))
    assert result.out == ""
    assert page.read_text().lower().startswith("<!doctype html>")
    assert "--output" in site.run("evidence", "--output", "no/such/directory/x", code=2).err
    history = site.run("evidence", "--history").out
    assert first in history
    assert first not in site.run("evidence", "--history", "--status", "failed").out


def test_an_unwritable_directory_stops_before_anything_is_touched(site: Site, runtime: Runtime) -> None:
    (site.path / "artifacts").write_text("a file is in the way")
    site.configure(deploy="touch deployed")
    for task in ("release", "deploy", "gate"):
        result = site.run(task, code=2)
        assert str(site.evidence) in result.err
    assert not (site.path / "deployed").exists()
    assert runtime.requests == []


def test_durations_in_every_form(site: Site) -> None:
    for text, seconds in (("1h30m", 5400.0), ("7", 7.0)):
        policy = site.run("gate", "--deadline", text, "--json").document["stages"]["gate"]["policy"]
        assert policy["deadline"] == seconds


def test_the_evidence_directory_stays_out_of_git(site: Site) -> None:
    subprocess.run(["git", "init", "-q"], cwd=site.path, check=True)
    site.run("gate")
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=site.path, capture_output=True, text=True, check=True
    )
    assert "artifacts" not in status.stdout


@pytest.mark.parametrize("streams", [">/dev/full", "2>/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", "| true"])
def test_nothing_that_becomes_of_the_output_changes_the_result(site: Site, streams: str) -> None:
    command = f"'{sys.executable}' -m opsgate gate --fail-on-skipped --json {streams}"
    subprocess.run(["/bin/sh", "-c", command], cwd=site.path, env=site.environ({}), check=True)
    assert site.record()["status"] == "passed"
    site.run("evidence", "--verify")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_report_that_was_not_written_says_so(site: Site) -> None:
    site.run("gate")
    command = [sys.executable, "-m", "opsgate", "evidence", "--format", "html"]

    def into(stdout: IO[str]) -> subprocess.CompletedProcess[str]:
        where, pipe = site.environ({}), subprocess.PIPE
        return subprocess.run(
            command, cwd=site.path, env=where, stdout=stdout, stderr=pipe, text=True, check=False
        )

    with Path("/dev/full").open("w") as full:
        done = into(full)
    assert done.returncode == 2
    assert done.stderr == (
        "opsgate: stdout: No space left on device\n  redirect it to a place with free space\n"
    )
    assert "No space left on device" in site.run(*command[3:], "--output", "/dev/full", code=2).err
    # Whoever reads only the beginning, such as `head`, has what they wanted.
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        assert into(gone).returncode == 0


def test_version(site: Site) -> None:
    assert re.match(r"opsgate \d+\.\d+", site.run("--version").out, re.IGNORECASE)
