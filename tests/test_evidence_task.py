"""The evidence task as a user meets it: what is shown, to whom, and which questions are refused."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsgate import tasks
from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import files, history
from opsgate.evidence.store import Store
from opsgate.evidence.views import FORMATS
from opsgate.settings import EVIDENCE_NEEDS, Flags, load
from opsgate.stages import evidence as stage
from tests import records, runs
from tests.test_history import failed, ledger

DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(
        ("run", "since", "status", "head", "format", "keep", "env", *runs.POLICY.__struct_fields__)
    ),
    **dict.fromkeys(("history", "verify", "replay", "prune", "json"), False),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A passed run, a failed and recovered one, one that passed too early, and one of elsewhere."""
    store = runs.store_in(tmp_path)
    runs.add_passed(store, "r1", "v1")
    runs.add_failed(store, "r2", "v2")
    runs.add(store, runs.deployed(runs.record("r3", revision="v3"), runs.probed("++++" + "-" * 40)))
    runs.add_passed(store, "r4", "v4", environment="staging")
    return store


def ask(store: Store | Path, **given: Any) -> stage.Answer:
    given = DEFAULTS | given
    directory = store.directory if isinstance(store, Store) else store
    flags = Flags(evidence_dir=str(directory), env=given["env"])
    settings = load(flags, {}, directory.parent, needs=EVIDENCE_NEEDS)
    return stage.answer(settings, given)


def told(store: Store | Path, **given: Any) -> Any:
    return json.loads(ask(store, json=True, **given).text)


def test_defaults_are_those_of_the_task() -> None:
    parameters = inspect.signature(tasks.evidence.body).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS


# --- one thing at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"head": "ab" * 32}, "--head means nothing without --verify"),
        ({"since": "7d"}, "--since means nothing without --history"),
        ({"status": "failed", "verify": True}, "--status means nothing without --history"),
        ({"attempt_timeout": "1s"}, "--attempt-timeout means nothing without --replay"),
        ({"soak": "1s", "history": True}, "--soak means nothing without --replay"),
        ({"history": True, "verify": True}, "--history and --verify do not go together"),
        ({"format": "pdf"}, "--format pdf: unknown format"),
        ({"verify": True, "format": "html"}, "--verify --format html: unknown format"),
        ({"replay": True, "format": "md"}, "--replay --format md: unknown format"),
        ({"history": True, "format": "junit"}, "--history --format junit: unknown format"),
        ({"history": True, "status": "red"}, "--status red: unknown status"),
        ({"history": True, "since": "yesterday"}, "--since yesterday: neither a date nor an age"),
        ({"history": True, "since": "2026"}, "--since 2026: neither a date nor an age"),
        ({"history": True, "since": ""}, "--since : neither a date nor an age"),
        ({"history": True, "since": "9" * 20 + "d"}, "before any date"),
        ({"history": True, "since": "0001-01-01T00:00+01:00"}, "+01:00: that is before any date"),
        ({"history": True, "since": "9999-12-31T23:59-01:00"}, "-01:00: that is after any date"),
        ({"history": True, "since": "9" * 5000 + "d"}, "neither a date nor an age"),
        ({"prune": True, "keep": "0"}, "--keep 0: not a number of runs to keep"),
        ({"prune": True, "keep": "all"}, "--keep all: not a number of runs to keep"),
        ({"keep": "5"}, "--keep means nothing without --prune"),
        ({"prune": True, "run": "r1"}, "--run means nothing with --prune"),
        ({"verify": True, "run": "r1"}, "--run means nothing with --verify"),
        ({"history": True, "run": "r1"}, "--run means nothing with --history"),
        ({"json": True, "format": "html"}, "--json and --format html do not go together"),
        ({"replay": True, "soak": "soon"}, '--soak: "soon" is not a duration'),
        ({"replay": True, "successes": "two"}, '--successes: "two" is not a whole number'),
        ({"replay": True, "soak": "2m", "deadline": "90s"}, "--soak 2m does not fit into --deadline 90s"),
        ({"run": "r9"}, "there is no record of run r9"),
        ({"run": ""}, "--run is empty"),
        ({"run": " "}, "--run is empty"),
        ({"run": "", "replay": True}, "--run is empty"),
    ],
)
def test_what_would_be_ignored_or_is_unknown_is_refused(
    store: Store, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ask(store, **given)
    assert words in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize("mode", [None, "history", "verify", "replay", "prune"])
def test_without_evidence_every_question_says_so(tmp_path: Path, mode: str | None) -> None:
    given = {mode: True} if mode else {}
    with pytest.raises(ConfigurationError, match=r"there is no record in .*nowhere"):
        ask(tmp_path / "nowhere", **given)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", ["history", "verify", "replay", "prune"])
def test_format_json_is_what_the_flag_json_is(store: Store, mode: str) -> None:
    policy = {"soak": "500ms"} if mode == "replay" else {}
    by_format = json.loads(ask(store, format="json", **{mode: True}, **policy).text)
    by_flag = told(store, **{mode: True}, **policy)
    if mode == "history":
        del by_format["figures"]["days"], by_flag["figures"]["days"]
        del by_format["figures"]["deployments_per_week"], by_flag["figures"]["deployments_per_week"]
    assert by_format == by_flag


# --- one run ------------------------------------------------------------------------------------------


def reformatted(store: Store, run_id: str) -> bytes:
    """The run's record as another program may have written it, with a field of a later version."""
    path = store.record_path(run_id)
    data = json.dumps(json.loads(path.read_bytes()) | {"later": [1e3, "\u20ac"]}, ensure_ascii=False).encode()
    path.write_bytes(data)
    return data


def test_json_is_the_file_itself(store: Store) -> None:
    data = reformatted(store, "r1")
    assert ask(store, run="r1", json=True).text.encode() == data
    assert ask(store, run="r4", format="json").text.encode() == store.read_bytes("r4")


def test_an_in_toto_statement_about_a_record_names_the_digest_of_its_file(store: Store) -> None:
    data = reformatted(store, "r1")
    statement = json.loads(ask(store, run="r1", format="intoto").text)
    digest = {"sha256": hashlib.sha256(data).hexdigest()}
    assert statement["subject"] == [{"name": "r1/evidence.json", "digest": digest}]


@pytest.mark.parametrize("form", FORMATS)
def test_a_record_that_says_what_no_run_can_have_written_is_damaged(store: Store, form: str) -> None:
    path = store.record_path("r1")
    data = path.read_bytes()
    for old, new in (
        (b'"started_at": "2026-05', b'"started_at": "2026-13'),
        (b'"at_ms": 250', b'"at_ms": ' + b"9" * 400),
        (b'"interval": 0.25', b'"interval": 0.0'),
        (b'"ci": {', b'"ci": {"x": "\xff",'),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
        with pytest.raises(EvidenceError, match="is damaged") as refused:
            ask(store, run="r1", format=form)
        assert "--verify" in refused.value.hint
        assert ask(store, verify=True).exit_code == 1


def test_a_latest_json_put_back_to_an_older_run_is_not_shown(store: Store) -> None:
    (store.directory / "latest.json").write_bytes(store.read_bytes("r1"))
    assert told(store)["run_id"] == "r4"
    assert ask(store, verify=True).exit_code == 1
    assert "ROLLOUT_GATE_STATUS=passed" in (store.directory / "latest.env").read_text()


# --- history ------------------------------------------------------------------------------------------


def test_history_lists_what_has_no_end_also_where_nothing_else_is(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    store.begin(runs.record("r1", environment="staging"))
    assert ask(store, history=True).text.splitlines()[:2] == [
        "no run matches",
        "unfinished: run r1 (under way, or killed)",
    ]
    assert told(store, history=True)["unfinished"] == ["r1"]
    assert told(store, history=True, status="passed")["unfinished"] == []
    assert told(store, history=True, since="2100-01-01")["unfinished"] == []
    with pytest.raises(ConfigurationError, match=r"no run in .* has ended yet: r1 is under way"):
        ask(store, history=True, format="html")
    with pytest.raises(ConfigurationError, match="there is no record of environment production"):
        ask(store, history=True, env="production")
    runs.add_passed(store, "r2")
    assert told(store, history=True)["unfinished"] == ["r1"]
    assert told(store, history=True, env="production")["unfinished"] == []


def test_history_names_a_run_that_went_on_after_its_line(store: Store) -> None:
    runs.add(store, runs.record("r5", revision="v5", trigger="publish"))
    runs.goes_on(store, runs.deployed(store.load("r5")))
    assert "unfinished: run r5 (under way, or killed)\n" in ask(store, history=True).text
    assert told(store, history=True)["unfinished"] == told(store, verify=True)["unfinished"] == ["r5"]
    assert told(store, history=True, env="staging")["unfinished"] == []
    page = ask(store, history=True, format="html").text
    assert "without an end" in page
    assert "<code>r5</code>" in page.partition("without an end")[2].partition("</p>")[0]
    assert "without an end" not in ask(store, history=True, format="html", env="staging").text


def test_the_run_to_look_at_is_where_the_history_was_asked_for(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path / "with spaces")
    store.begin(runs.record("r1", environment="staging"))
    with pytest.raises(ConfigurationError, match="has ended yet") as refused:
        ask(store, history=True, format="html")
    command = shlex.split(refused.value.hint.removeprefix("see it: "))
    assert command[:2] == ["opsgate", "evidence"]
    assert command[-2:] == ["--run", "r1"]
    place = command[command.index("--evidence-dir") + 1]
    assert (store.directory.parent / place).samefile(store.directory)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["r1", "r2", "r3", "r4"]),
        ({"env": "staging"}, ["r4"]),
        ({"status": "failed"}, ["r2", "r3"]),
        ({"status": "passed", "env": "production"}, ["r1"]),
        ({"since": runs.at(0)}, ["r1", "r2", "r3", "r4"]),
        ({"since": "2100-01-01"}, []),
        ({"since": "1h"}, []),
        ({"since": "36h"}, []),
        ({"since": "90s"}, []),
        ({"since": "1d12h30m"}, []),
        ({"since": "99999d"}, ["r1", "r2", "r3", "r4"]),
    ],
)
def test_history_is_filtered(store: Store, given: dict[str, Any], expected: list[str]) -> None:
    assert [run["run_id"] for run in told(store, history=True, **given)["runs"]] == expected


def test_history_as_a_page_names_the_head_that_verifies(store: Store) -> None:
    page = ask(store, history=True, format="html", env="production", status="failed").text
    assert "production: 2 runs, 2 failed" in page
    assert f"--verify --head {store.head()}" in page
    assert ask(store, verify=True, head=store.head()).exit_code == 0


def test_an_edited_time_in_the_ledger_is_told_in_words(store: Store) -> None:
    path = store.ledger.path
    path.write_bytes(path.read_bytes().replace(b'"started_at":"2026', b'"started_at":"year', 1))
    with pytest.raises(EvidenceError, match="where a time should be"):
        ask(store, history=True)
    assert ask(store, verify=True).exit_code == 1


# --- replay -------------------------------------------------------------------------------------------


def test_replay_tells_false_passes_and_seconds(store: Store) -> None:
    answer = ask(store, replay=True, soak="500ms", env="production")
    assert [line.split()[:2] for line in answer.text.splitlines()[:3]] == [
        ["same", "r1"],
        ["same", "r2"],
        ["changed", "r3"],
    ]
    assert answer.text.splitlines()[3:] == [
        "1 of 3 verdicts change under soak 0.5",
        (
            "  false passes: 0 before, 1 after "
            "(passes of what had failed, or of what a person rolled back later)"
        ),
        "  time to the verdict: 9 s before, 505 ms after (median of the 3 that both decide)",
    ]


def test_a_longer_soak_is_undecided_and_says_what_it_would_cost(store: Store) -> None:
    document = told(store, replay=True, soak="3s", run="r1")
    assert document["policy"] == {"soak": 3.0}
    assert [run["replayed"]["status"] for run in document["runs"]] == ["undecided"]
    assert document["summary"] | {"changed": 0, "undecided": 1, "seconds_more": 1.995} == document["summary"]
    assert ask(store, replay=True, soak="3s", run="r1").text.splitlines()[-1] == (
        "  undecided: 1 (not enough was recorded, or the deadline is too short for the soak); "
        "a pass would take 2 s longer"
    )


def test_a_soak_beyond_a_runs_own_deadline_says_nothing_of_it(store: Store) -> None:
    document = told(store, replay=True, soak="30s")
    assert {run["replayed"]["status"] for run in document["runs"]} == {"undecided"}
    assert document["summary"]["changed"] == 0


def test_each_run_says_whether_its_own_deadline_is_too_short(store: Store) -> None:
    longer = msgspec.structs.replace(runs.POLICY, deadline=200.0)
    runs.add(store, runs.deployed(runs.record("r5"), runs.probed("+++++", policy=longer)))
    lines = ask(store, replay=True, soak="150s").text.splitlines()
    assert lines[0].endswith("-> undecided (its deadline of 10 s is too short for a soak of 150 s)")
    assert lines[4].endswith("-> undecided (no pass before 150.0 s)")


def test_a_record_that_cannot_be_read_is_left_out_and_told(store: Store) -> None:
    (store.directory / "r2" / "evidence.json").write_text("{")
    document = told(store, replay=True)
    assert [run["run_id"] for run in document["runs"]] == ["r1", "r3", "r4"]
    assert (document["unreadable"], document["summary"]["runs"]) == (["r2"], 3)
    assert ask(store, replay=True).text.splitlines()[-1] == (
        "  left out: 1 record that cannot be read (r2); evidence --verify says what is off"
    )
    assert told(store, replay=True, env="staging")["unreadable"] == []
    with pytest.raises(EvidenceError, match="is damaged"):
        ask(store, replay=True, run="r2")


def test_a_record_that_was_dropped_on_purpose_is_not_missed(store: Store) -> None:
    for number in range(5, 9):
        runs.add_failed(store, f"r{number}", f"v{number}")
    ask(store, prune=True, keep="1")
    assert told(store, replay=True)["unreadable"] == []


def test_where_no_record_can_be_read_the_question_says_so(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    runs.add_passed(store, "r1")
    (store.directory / "r1" / "evidence.json").write_text("{")
    with pytest.raises(EvidenceError, match=r"no record with a verdict can be read: .* \(r1\)") as refused:
        ask(store, replay=True)
    assert "--verify" in refused.value.hint


def test_what_a_person_rolled_back_had_passed_falsely(store: Store) -> None:
    runs.add_passed(store, "r5", "v5")
    by_hand = runs.rolled_back(runs.record("r6", trigger="rollback"), trigger="manual")
    runs.add(store, by_hand)
    assert history.false_passes(history.newest_of_each(store.ledger.read())) == {"r5"}
    summary = told(store, replay=True)["summary"]
    assert (summary["false_passes_before"], summary["false_passes_after"]) == (1, 1)
    longer = told(store, replay=True, soak="3s")["summary"]
    assert (longer["false_passes_before"], longer["false_passes_after"]) == (1, 0)


def test_replay_needs_a_verdict(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    runs.add(store, runs.deployed(runs.record("r1")))
    with pytest.raises(ConfigurationError, match="no run has a gate with a verdict"):
        ask(store, replay=True)


# --- prune --------------------------------------------------------------------------------------------


def test_prune_drops_only_what_it_was_asked_for(store: Store) -> None:
    for number in range(5, 9):
        runs.add_failed(store, f"r{number}", f"v{number}", environment="staging")
    assert told(store, prune=True, keep="1", env="staging") == {"dropped": ["r5", "r6", "r7"]}
    assert ask(store, prune=True, keep="1", env="staging").text.startswith("dropped 0 records;")
    assert ask(store, verify=True).exit_code == 0


# --- the corpus ---------------------------------------------------------------------------------------


def test_every_record_of_this_version_can_be_read_later(tmp_path: Path) -> None:
    """Each corpus record, as a run of its own, in each format; a later version must still pass this."""
    for path in sorted(records.DIRECTORY.glob("*.json")):
        run_id = json.loads(path.read_bytes())["run_id"]
        directory = tmp_path / path.stem
        (directory / run_id).mkdir(parents=True)
        shutil.copy(path, directory / run_id / "evidence.json")
        for form in FORMATS:
            assert ask(directory, run=run_id, format=form).text, (path.name, form)
        assert told(directory, run=run_id)["run_id"] == run_id


# --- the command --------------------------------------------------------------------------------------


def command(store: Store, *flags: str) -> list[str]:
    return [sys.executable, "-m", "opsgate", "evidence", "--evidence-dir", str(store.directory), *flags]


def test_the_environment_of_the_variable_is_the_one_that_settings_read(store: Store, tmp_path: Path) -> None:
    result = subprocess.run(
        command(store, "--history", "--json"),
        env={**os.environ, "OPSGATE_ENV": " staging "},
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert [run["run_id"] for run in json.loads(result.stdout)["runs"]] == ["r4"]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    lines = ledger(*[failed(0) if number % 9 == 0 else {} for number in range(3000)])
    store.ledger.path.write_bytes(
        b"".join(msgspec.json.encode(line, order="sorted") + b"\n" for line in lines)
    )
    reads, writes = os.pipe()
    with subprocess.Popen(
        command(store, "--history"), stdout=writes, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        os.close(reads)
        os.close(writes)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, b"")


def test_every_format_can_be_written_to_a_file(store: Store, tmp_path: Path) -> None:
    for flags in (["--format", "html"], ["--history", "--format", "html"], ["--verify", "--json"]):
        path = tmp_path / "out"
        result = subprocess.run(
            command(store, *flags, "--output", str(path)),
            capture_output=True,
            check=False,
            text=True,
            cwd=tmp_path,
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "", f"written: {path}\n")
        assert path.read_text(encoding="utf-8").startswith(("<!DOCTYPE html>", "{"))
        path.unlink()


def test_what_is_odd_about_the_settings_is_said_beside_the_result(store: Store, tmp_path: Path) -> None:
    (tmp_path / "opsgate.toml").write_text('[gate]\nsook = "1s"\n')
    done = subprocess.run(
        command(store, "--history", "--json"),
        cwd=tmp_path,
        env={**os.environ, "OPSGATE_EVIDENCE_DR": "/other"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert len(json.loads(done.stdout)["runs"]) == 4
    assert [line.partition("Z warning   ")[2] for line in done.stderr.splitlines()] == [
        "OPSGATE_EVIDENCE_DR: unknown variable; did you mean OPSGATE_EVIDENCE_DIR?",
        'opsgate.toml: gate.sook: unknown key; did you mean "soak"?',
    ]


def written(store: Store, path: str, *limits: str) -> subprocess.CompletedProcess[str]:
    """The newest run as a page in that file, under limits of the shell."""
    script = "; ".join([*limits, shlex.join(["exec", *command(store, "--format", "html", "--output", path)])])
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, check=False, text=True, cwd=store.directory.parent
    )


def test_a_report_that_has_no_room_leaves_the_one_before(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pages" / "out"
    path.parent.mkdir()
    path.write_text("the one before")
    result = written(store, str(path), "ulimit -f 2")
    assert (result.returncode, path.read_text()) == (2, "the one before")
    assert "File too large" in result.stderr
    assert [item.name for item in path.parent.iterdir()] == ["out"]


def test_a_report_is_written_where_its_link_leads_and_keeps_who_may_read_it(
    store: Store, tmp_path: Path
) -> None:
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_text("x" * 1_000_000)
    path.chmod(0o600)
    link.symlink_to("out")
    assert written(store, str(link)).returncode == 0
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().endswith("</html>\n")


def test_a_report_goes_where_an_open_descriptor_leads(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file:
        files.overwrite(Path(f"/dev/fd/{file.fileno()}"), b"in place")
        assert file.read() == b"in place"


@pytest.mark.parametrize("name", ["second", "led"])
def test_a_report_does_not_part_a_file_from_who_else_has_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "out"
    with path.open("w+b") as file:
        (tmp_path / "second").hardlink_to(path)
        (tmp_path / "led").symlink_to(f"/dev/fd/{file.fileno()}")
        if name == "led":
            (tmp_path / "second").unlink()
        files.overwrite(tmp_path / name, b"in place")
        assert (path.read_bytes(), file.read()) == (b"in place", b"in place")


def test_a_report_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory") as refused:
        files.overwrite(tmp_path, b"")
    assert refused.value.filename == str(tmp_path)


def test_a_report_does_not_replace_what_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.touch()
    before = path.stat().st_ino
    monkeypatch.setattr(os, "access", lambda *_: False)
    files.overwrite(path, b"in place")
    assert (path.stat().st_ino, path.read_bytes()) == (before, b"in place")


def test_a_report_is_written_in_place_where_it_cannot_be_replaced(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("x" * 1_000_000)
    (tmp_path / ".out.tmp").mkdir()
    assert written(store, str(path)).returncode == 0
    assert path.read_text().endswith("</html>\n")
    assert written(store, "/dev/stdout").stdout == path.read_text()


def test_ten_thousand_runs_are_listed_in_half_a_second(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    store.ledger.path.write_bytes(
        b"".join(msgspec.json.encode(line, order="sorted") + b"\n" for line in ledger(*[{}] * 10_000))
    )
    for form in ("text", "json"):
        began = time.process_time()
        assert ask(store, history=True, format=form).text.count("r9999")
        assert time.process_time() - began < 0.5
