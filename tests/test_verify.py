from __future__ import annotations

import hashlib
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsgate.errors import EvidenceError
from opsgate.evidence import lines, prune, repair, verdicts
from opsgate.evidence.ledger import Draft, chained
from opsgate.evidence.record import Deploy, Gate, Publish, Rollback, decode
from opsgate.evidence.verify import Report, verify
from opsgate.verdict.targets import Policy
from tests import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opsgate.evidence.record import Evidence, Status, StatusReason
    from opsgate.evidence.store import Store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A history of four runs, as files."""
    store = runs.store_in(tmp_path_factory.mktemp("original"))
    runs.add_passed(store, "r1", "v1", start=0)
    runs.add_failed(store, "r2", "v2", start=100)
    store.begin(runs.record("r3", start=200))
    runs.add_passed(store, "r4", "v4", start=300)
    runs.add(store, runs.rolled_back(runs.record("r5", trigger="rollback", start=400), trigger="manual"))
    paths = [path for path in store.directory.rglob("*") if path.is_file() and path.name != ".gitignore"]
    return {str(path.relative_to(store.directory)): path.read_bytes() for path in paths}


@pytest.fixture
def store(tmp_path: Path, original: dict[str, bytes]) -> Store:
    store = runs.store_in(tmp_path)
    for name, data in original.items():
        path = store.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return store


def causes(report: Report) -> list[tuple[str | None, str, str]]:
    return [(item.run_id, item.file, item.cause) for item in report.mismatches]


def ledger_lines(store: Store) -> list[bytes]:
    return store.ledger.path.read_bytes().splitlines(keepends=True)


def forge(store: Store, run_id: str, change: Callable[[Evidence], object]) -> None:
    """Change a record, and all records and lines after it so that every hash fits."""
    written, last = b"", None
    new: dict[str | None, str] = {}
    for line in store.ledger.read():
        path = store.directory / line.run_id / "evidence.json"
        evidence = decode(path.read_bytes())
        evidence.previous = new.get(evidence.previous, evidence.previous)
        if line.run_id == run_id:
            change(evidence)
        data = msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n"
        path.write_bytes(data)
        last = chained(lines.draft(evidence, evidence.trigger, hashlib.sha256(data).hexdigest()), last)
        new[line.hash] = last.hash
        written += msgspec.json.encode(last, order="sorted") + b"\n"
    store.ledger.path.write_bytes(written)
    (store.directory / "latest.json").unlink(missing_ok=True)


def test_an_untouched_history_is_ok_and_lists_what_has_no_end(store: Store) -> None:
    report = verify(store)
    assert report.ok
    assert (report.runs, report.lines, report.unfinished) == (4, 4, ("r3",))
    assert report.head == store.head()


def test_an_empty_directory_is_ok(tmp_path: Path) -> None:
    assert verify(runs.store_in(tmp_path)) == Report(runs=0, lines=0, mismatches=(), unfinished=(), head=None)


def test_every_flipped_byte_of_a_finished_record_names_its_run(store: Store) -> None:
    path = store.directory / "r2" / "evidence.json"
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        report = verify(store)
        assert not report.ok
        assert report.mismatches[0].file == "r2/evidence.json"
        assert "r2" not in report.unfinished


def test_a_byte_flipped_around_the_end_does_not_make_a_run_unfinished(store: Store) -> None:
    path = store.directory / "r1" / "evidence.json"
    data = path.read_bytes()
    start = data.index(b'"finished_at"')
    for place in range(start, start + 45):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            assert not verify(store).ok


def test_every_flipped_byte_of_the_ledger_is_found_in_its_line(store: Store) -> None:
    data = store.ledger.path.read_bytes()
    for place in range(0, len(data) - 1, 41):
        store.ledger.path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        report = verify(store)
        number = data[:place].count(b"\n") + 1
        assert not report.ok
        assert report.mismatches[0].file == f"ledger.jsonl line {number}"


def test_a_line_written_otherwise_than_it_was_is_edited_even_where_it_says_the_same(store: Store) -> None:
    first, *others = ledger_lines(store)
    store.ledger.path.write_bytes(b"".join([first.replace(b":", b": ", 1), *others]))
    assert causes(verify(store)) == [("r1", "ledger.jsonl line 1", "edited")]


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("file", ["r1/evidence.json", "latest.json", "ledger.jsonl"])
def test_json_that_is_nested_without_end_is_edited(store: Store, file: str) -> None:
    path = store.directory / file
    data = path.read_bytes().rstrip()
    path.write_bytes(data[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")
    report = verify(store)
    assert {(item.file.partition(" ")[0], item.cause) for item in report.mismatches} >= {(file, "edited")}


def test_the_first_thing_off_comes_first(store: Store) -> None:
    for run_id in ("r4", "r1"):
        path = store.directory / run_id / "evidence.json"
        path.write_bytes(path.read_bytes().replace(b'"v', b'"w', 1))
    assert [item.run_id for item in verify(store).mismatches][:1] == ["r1"]
    assert str(verify(store).mismatches[0]) == (
        "run r1: r1/evidence.json: its sha256 is not the one in line 1 of the ledger (edited)"
    )


def test_a_missing_record(store: Store) -> None:
    (store.directory / "r2" / "evidence.json").unlink()
    assert causes(verify(store)) == [("r2", "r2/evidence.json", "missing")]


def test_a_missing_ledger_is_missed(store: Store) -> None:
    store.ledger.path.unlink()
    report = verify(store)
    assert [run for run, _, cause in causes(report) if cause == "cut off"] == ["r1", "r2", "r4", "r5"]
    assert report.unfinished == ("r3",)


def test_lines_cut_off_the_end_show_by_their_records(store: Store) -> None:
    store.ledger.path.write_bytes(b"".join(ledger_lines(store)[:-1]))
    assert causes(verify(store)) == [("r5", "r5/evidence.json", "cut off")]


def test_lines_and_records_cut_off_the_end_show_by_the_head_that_was_kept(store: Store) -> None:
    head = store.head()
    assert verify(store, head).ok
    assert verify(store, store.ledger.read()[0].hash).ok
    store.ledger.path.write_bytes(b"".join(ledger_lines(store)[:-1]))
    for name in ("r5/evidence.json", "latest.json"):
        (store.directory / name).unlink()
    assert verify(store).ok
    report = verify(store, head)
    assert causes(report) == [(None, "ledger.jsonl", "cut off")]
    assert str(head) in report.mismatches[0].detail


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((1, 2, 3), ("r2", "ledger.jsonl line 1", "missing")),
        ((0, 2, 3), ("r4", "ledger.jsonl line 2", "missing")),
        ((0, 2, 1, 3), ("r4", "ledger.jsonl line 2", "missing")),
        ((1, 0, 2, 3), ("r2", "ledger.jsonl line 1", "missing")),
        ((0, 1, 1, 2, 3), ("r2", "ledger.jsonl line 3", "re-ordered")),
    ],
)
def test_lines_that_are_gone_or_elsewhere(
    store: Store, order: tuple[int, ...], expected: tuple[str, str, str]
) -> None:
    lines = ledger_lines(store)
    store.ledger.path.write_bytes(b"".join(lines[index] for index in order))
    assert expected in causes(verify(store))[:1]


def test_a_line_put_out_of_order_is_called_so(store: Store) -> None:
    lines = ledger_lines(store)
    store.ledger.path.write_bytes(b"".join((lines[0], lines[2], lines[1], lines[3])))
    assert "re-ordered" in {cause for _, _, cause in causes(verify(store))}


def test_a_torn_last_line_is_no_mismatch(store: Store) -> None:
    with store.ledger.path.open("ab") as file:
        file.write(b'{"seq": 5')
    assert verify(store).ok


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda e: setattr(e.stages.gate, "status", "failed"), "its attempts say passed"),
        (lambda e: setattr(e, "status", "failed"), "status is failed (all_probes_healthy)"),
        (lambda e: setattr(e, "attempt_count", 1), "attempt_count is 1"),
        (lambda e: setattr(e, "failed_urls", ["x"]), "failed_urls"),
        (lambda e: setattr(e.stages.gate.targets[0], "flaps", 3), "not what its attempts say"),
        (lambda e: setattr(e.stages.gate, "targets", []), "without anything that was probed"),
        (lambda e: setattr(e, "previous", "e" * 64), "`previous` is not the hash"),
        (lambda e: setattr(e.stages.rollback, "recovered", True), "nothing was probed"),
    ],
)
def test_a_forged_history_still_contradicts_its_attempts(
    store: Store, change: Callable[[Evidence], object], detail: str
) -> None:
    forge(store, "r1", lambda _: None)
    assert verify(store).ok
    forge(store, "r1", change)
    assert any(detail in item.detail and item.run_id == "r1" for item in verify(store).mismatches)


def test_a_failed_gate_forged_to_passed_is_found(store: Store) -> None:
    def pass_it(evidence: Evidence) -> None:
        evidence.status, evidence.status_reason = "passed", "all_probes_healthy"
        evidence.stages.gate.status, evidence.stages.gate.status_reason = "passed", "all_probes_healthy"

    forge(store, "r2", pass_it)
    details = [item.detail for item in verify(store).mismatches]
    assert details[0] == (
        "the gate says passed (all_probes_healthy), but its attempts say failed (probe_failures)"
    )


def say(evidence: Evidence, status: Status, reason: StatusReason, exit_code: int = 0) -> Evidence:
    evidence.status, evidence.status_reason, evidence.exit_code = status, reason, exit_code
    return evidence


def skip_the_gate(evidence: Evidence) -> None:
    gate = evidence.stages.gate
    gate.status, gate.status_reason = "skipped", "no_urls_configured"
    say(evidence, "skipped", "no_urls_configured")


def forget_the_gate(evidence: Evidence) -> None:
    evidence.stages.gate, evidence.stages.rollback = Gate(), Rollback()
    say(evidence, "skipped", "not_gated")


def pass_every_attempt(evidence: Evidence) -> None:
    [target] = evidence.stages.gate.targets or []
    target.attempts = [msgspec.structs.replace(each, ok=True) for each in target.attempts]
    evidence.stages.gate.status, evidence.stages.gate.status_reason = "passed", "all_probes_healthy"
    say(evidence, "passed", "all_probes_healthy")


def recover_unseen(evidence: Evidence) -> None:
    assert evidence.stages.rollback.recovery
    evidence.stages.rollback.recovery.status = "interrupted"


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda e: say(e, "passed", "recovered"), "status is passed (recovered)"),
        (lambda e: say(e, "skipped", "recovery_unverified"), "status is skipped (recovery_unverified)"),
        (lambda e: say(e, "failed", "rollback_failed", 3), "status is failed (rollback_failed)"),
        (lambda e: say(e, "skipped", "not_gated"), "status is skipped (not_gated)"),
        (forget_the_gate, "attempt_count is 50, but there are 0 attempts"),
        (skip_the_gate, "the gate is skipped, but there was something to probe"),
        (pass_every_attempt, "is healthy, its kind is status"),
        (lambda e: setattr(e.stages.rollback, "commands", [runs.ran("rollback", 1)]), "says exit 1"),
        (lambda e: setattr(e.stages.rollback, "exit_code", 1), "its exit_code 1"),
        (lambda e: setattr(e.stages.rollback, "commands", []), "its last command is not there"),
        (lambda e: setattr(e.stages.rollback, "attempted", False), "but a command was run"),
        (lambda e: setattr(e.stages.rollback, "recovered", False), "rollback.recovered is False"),
        (recover_unseen, "rollback.recovered is True, but the recovery interrupted"),
        (lambda e: setattr(e.stages.deploy, "commands", [runs.ran("deploy", 1)]), "says exit 1"),
        (lambda e: setattr(e.stages.deploy, "commands", []), "was not run"),
        (lambda e: setattr(e.stages.deploy, "status", "failed"), "but its command succeeded"),
        (lambda e: setattr(e, "exit_code", 0), "exit_code is 0, but status is failed"),
        (lambda e: setattr(e, "exit_code", None), "exit_code is None, but status is failed"),
        (lambda e: setattr(e, "previous", None), "`previous` is not the hash"),
    ],
)
def test_a_failed_run_forged_with_every_hash_contradicts_itself(
    store: Store, change: Callable[[Evidence], object], detail: str
) -> None:
    forge(store, "r2", change)
    details = [item.detail for item in verify(store).mismatches if item.run_id == "r2"]
    assert any(detail in each for each in details), details


@pytest.mark.parametrize("exit_code", [1, 74, 130])
def test_a_run_that_passed_has_ended_with_0(store: Store, exit_code: int) -> None:
    forge(store, "r1", lambda evidence: setattr(evidence, "exit_code", exit_code))
    assert [item.detail for item in verify(store).mismatches] == [
        f"exit_code is {exit_code}, but status is passed (all_probes_healthy)"
    ]


def skipped_without_urls(evidence: Evidence, exit_code: int = 0) -> None:
    gate = evidence.stages.gate = runs.probed("-")
    (target,) = gate.targets or []
    gate.status, gate.status_reason, target.required = "skipped", "no_urls_configured", False
    evidence.attempt_count, evidence.failed_urls = 1, []
    say(evidence, "skipped", "no_urls_configured", exit_code)


def lost(evidence: Evidence) -> None:
    runs.gated(evidence, runs.probed("+++++"))
    say(evidence, "failed", "interrupted", 74)


def taken_over(evidence: Evidence) -> None:
    runs.rolled_back(runs.deployed(evidence, runs.probed("-" * 50)))
    rollback = evidence.stages.rollback
    rollback.status, rollback.commands = "interrupted", [runs.ran("rollback", 143)]
    rollback.succeeded, rollback.exit_code, rollback.recovered = False, 143, None
    rollback.recovery = msgspec.UNSET
    say(evidence, "failed", "interrupted", 75)


def broken_off(evidence: Evidence) -> None:
    """A signal during the recovery check: what was known of it stays."""
    runs.rolled_back(runs.deployed(evidence, runs.probed("-" * 50)))
    rollback = evidence.stages.rollback
    assert rollback.recovery
    rollback.status, rollback.recovered, rollback.recovery.status = "passed", None, "interrupted"
    say(evidence, "failed", "probe_failures", 130)


def defective_rollback(evidence: Evidence) -> None:
    runs.deployed(evidence, runs.probed("-" * 50))
    evidence.stages.rollback = Rollback(
        status="interrupted", attempted=True, trigger="auto", commands=[], succeeded=None, recovered=None
    )
    say(evidence, "failed", "probe_failures", 70)


def unusable_outputs(evidence: Evidence) -> None:
    runs.deployed(evidence)
    evidence.stages.deploy.status, evidence.stages.deploy.detail = "failed", "image a: no reference"
    say(evidence, "failed", "deploy_failed", 3)


def rolled_back_by_hand(evidence: Evidence) -> None:
    """A person's rollback that continues a run whose gate had failed, and whose first rollback as well."""
    runs.rolled_back(runs.deployed(evidence, runs.probed("-" * 50)), recovered=False)
    first = evidence.stages.rollback
    runs.rolled_back(evidence, trigger="manual")
    evidence.stages.rollback.earlier = [first]
    evidence.trigger = "rollback"
    say(evidence, "passed", "recovered")


def not_looked_at(evidence: Evidence) -> None:
    """A rollback with --no-verify."""
    runs.rolled_back(evidence, trigger="manual")
    evidence.stages.rollback.recovery, evidence.stages.rollback.recovered = msgspec.UNSET, None
    evidence.trigger = "rollback"
    say(evidence, "skipped", "recovery_unverified", 74)


def nothing_to_go_back_to(evidence: Evidence) -> None:
    evidence.stages.rollback = Rollback(
        attempted=False, trigger="manual", withheld="no_last_good", commands=[], succeeded=None
    )
    evidence.trigger = "rollback"
    say(evidence, "failed", "rollback_failed", 3)


def deployed_after_a_gate_that_was_cut_off(evidence: Evidence) -> None:
    gate = evidence.stages.gate = runs.probed("-----")
    gate.status, gate.status_reason = "interrupted", msgspec.UNSET
    evidence.attempt_count, evidence.failed_urls = 5, gate.failed_names
    evidence.stages.publish = Publish(status="interrupted", started_at=runs.at(0), duration_ms=5)
    evidence.stages.deploy = Deploy(status="passed", started_at=runs.at(0), commands=[runs.ran("deploy")])
    say(evidence, "skipped", "not_gated")


@pytest.mark.parametrize(
    "happen",
    [
        skipped_without_urls,
        partial(skipped_without_urls, exit_code=1),
        partial(skipped_without_urls, exit_code=74),
        lambda e: say(e, "failed", "interrupted", 2),
        lambda e: say(e, "failed", "internal_error", 70),
        lambda e: say(runs.gated(e, runs.probed("+++++")), "failed", "interrupted", 129),
        lost,
        taken_over,
        broken_off,
        defective_rollback,
        unusable_outputs,
        rolled_back_by_hand,
        not_looked_at,
        nothing_to_go_back_to,
        deployed_after_a_gate_that_was_cut_off,
    ],
)
def test_a_run_that_ended_otherwise_contradicts_nothing(
    store: Store, happen: Callable[[Evidence], object]
) -> None:
    evidence = runs.record("r6", start=500)
    store.begin(evidence)
    runs.ended(evidence, 600)
    happen(evidence)
    store.finish(evidence, evidence.trigger)
    assert verify(store).mismatches == ()


def test_a_rollback_may_begin_where_the_ledger_cannot_be_read(store: Store) -> None:
    forge(store, "r5", lambda evidence: setattr(evidence, "previous", None))
    assert verify(store).ok


def test_a_run_beside_the_first_ones_of_other_environments_has_none_before_it(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    evidence = runs.record("r1", start=200)
    store.begin(evidence)
    runs.add_passed(store, "r2", environment="staging", start=0)
    store.finish(runs.ended(runs.deployed(evidence, runs.probed("+++++")), 230), "release")
    assert verify(store).ok


# --- what no run can have written ---------------------------------------------------------------------


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        start = data.index(b'"gate"')
        assert old in data[start:]
        return data[:start] + data[start:].replace(old, new, 1)

    return change


IMPOSSIBLE = {
    "a month": replaced(b'"started_at": "2026-05', b'"started_at": "2026-13'),
    "a day": replaced(b'"started_at": "2026-05-28', b'"started_at": "2026-02-30'),
    "a year": replaced(b'"started_at": "2026', b'"started_at": "9999'),
    "a duration": replaced(b'"duration_ms": 1500', b'"duration_ms": 1000000000000000000'),
    "a negative duration": replaced(b'"duration_ms": 1500', b'"duration_ms": -1'),
    "a start": replaced(b'"at_ms": 250', b'"at_ms": ' + b"9" * 400),
    "a number without end": replaced(b'"elapsed_ms": 5.0', b'"elapsed_ms": 1e999'),
    "no interval": replaced(b'"interval": 0.25', b'"interval": 0.0'),
    "hardly an interval": replaced(b'"interval": 0.25', b'"interval": 5e-324'),
    "no successes": replaced(b'"successes": 3', b'"successes": 0'),
    "a count": replaced(b'"flaps": 0,', b'"flaps": ' + b"9" * 4000 + b","),
    "bytes": replaced(b'"revision": null', b'"revision": null, "x": "\xff"'),
}
"""Edits of a record that say something beyond any run."""


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_no_run_can_have_written_is_edited_and_the_others_are_still_checked(
    store: Store, change: Callable[[bytes], bytes]
) -> None:
    path = store.directory / "r2" / "evidence.json"
    path.write_bytes(change(path.read_bytes()))
    (store.directory / "r4" / "evidence.json").unlink()
    (store.directory / "latest.json").unlink()
    assert set(causes(verify(store))) == {
        ("r2", "r2/evidence.json", "edited"),
        ("r4", "r4/evidence.json", "missing"),
    }
    with pytest.raises(EvidenceError, match=r"r2/evidence\.json is damaged"):
        store.load("r2")


def test_a_check_that_breaks_down_at_a_record_is_a_finding_about_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(evidence: Evidence) -> Iterator[str]:
        yield from [] if evidence.run_id != "r2" else [str(1 / 0)]

    monkeypatch.setattr("opsgate.evidence.verify.disagreements", broken)
    assert [str(item) for item in verify(store).mismatches] == [
        "run r2: r2/evidence.json: holds what no run can have written: division by zero (edited)"
    ]


@pytest.mark.parametrize("member", [b'"x":"\xff"', b'"x":1e999', b'"x":' + b"9" * 400])
def test_a_line_with_a_member_that_cannot_be_read_is_edited(store: Store, member: bytes) -> None:
    first, *others = ledger_lines(store)
    store.ledger.path.write_bytes(b"".join([first.replace(b"}", b"," + member + b"}"), *others]))
    assert causes(verify(store)) == [("r1", "ledger.jsonl line 1", "edited")]


def test_a_line_whose_number_is_beyond_any_is_no_line(store: Store) -> None:
    first, *others = ledger_lines(store)
    broken = first.replace(b'"seq":1', b'"seq":' + b"9" * 400)
    store.ledger.path.write_bytes(b"".join([broken, *others]))
    assert causes(verify(store))[0] == (None, "ledger.jsonl line 1", "edited")


@pytest.mark.parametrize(
    "path",
    [
        "stages.gate.targets[0].attempts[0].kind",
        "stages.gate.policy.successes",
        "stages.deploy.commands[0].survivors",
        "stages.preflight.status",
        "ci.actor",
        "finished_at",
    ],
)
def test_a_field_that_is_always_there_is_missed_however_deep(store: Store, path: str) -> None:
    file = store.directory / "r1" / "evidence.json"
    document = place = json.loads(file.read_bytes())
    *way, last = path.replace("[0]", ".0").split(".")
    for step in way:
        place = place[int(step)] if step.isdecimal() else place[step]
    del place[last]
    file.write_bytes(json.dumps(document, indent=2).encode())
    assert f"fields are missing: {path}" in [item.detail for item in verify(store).mismatches]


def test_of_many_missing_fields_some_are_named(store: Store) -> None:
    file = store.directory / "r1" / "evidence.json"
    document = json.loads(file.read_bytes())
    document["ci"] = {}
    file.write_bytes(json.dumps(document).encode())
    named = "ci.provider, ci.repository, ci.workflow, ci.run_url, ci.commit and 1 more"
    assert f"fields are missing: {named}" in [item.detail for item in verify(store).mismatches]


def test_a_field_that_a_later_version_added_is_passed_over(store: Store) -> None:
    file = store.directory / "r5" / "evidence.json"
    data = (
        file.read_bytes().replace(b'"policy": {', b'"policy": {"patience": 3,').replace(b"{", b'{"x": 1,', 1)
    )
    file.write_bytes(data)
    (store.directory / "latest.json").write_bytes(data)
    assert [item.detail for item in verify(store).mismatches] == [
        "its sha256 is not the one in line 4 of the ledger"
    ]


@pytest.mark.parametrize(
    ("run_id", "field", "value"),
    [
        ("r2", "rollback", None),
        ("r1", "rollback", "auto"),
        ("r2", "failed_at", None),
        ("r1", "failed_at", runs.at(1)),
        ("r2", "recovered_at", runs.at(1)),
        ("r1", "recovered_at", runs.at(2)),
        ("r1", "deployed", False),
        ("r1", "task", "gate"),
        ("r2", "finished_at", runs.at(9)),
    ],
)
def test_a_ledger_forged_alone_contradicts_its_records(
    store: Store, run_id: str, field: str, value: object
) -> None:
    written, last = b"", None
    for line in store.ledger.read():
        draft = {name: getattr(line, name) for name in Draft.__struct_fields__}
        last = chained(Draft(**{**draft, field: value} if line.run_id == run_id else draft), last)
        written += msgspec.json.encode(last, order="sorted") + b"\n"
    store.ledger.path.write_bytes(written)
    details = [item.detail for item in verify(store).mismatches if item.run_id == run_id]
    assert any(detail.startswith(f"{field} is ") for detail in details), details


def test_an_unfinished_record_that_says_passed_is_off(store: Store) -> None:
    path = store.directory / "r3" / "evidence.json"
    path.write_bytes(path.read_bytes().replace(b'"status": "failed"', b'"status": "passed"', 1))
    assert causes(verify(store)) == [("r3", "r3/evidence.json", "edited")]


def test_a_record_of_another_version_is_called_so(store: Store) -> None:
    path = store.directory / "r4" / "evidence.json"
    path.write_bytes(path.read_bytes().replace(b"evidence/v1", b"evidence/v2"))
    assert causes(verify(store))[0] == ("r4", "r4/evidence.json", "written by another version")


def test_an_edited_copy_of_the_newest_record_is_found(store: Store) -> None:
    path = store.directory / "latest.json"
    path.write_bytes(path.read_bytes().replace(b'"passed"', b'"failed"', 1))
    repair.complete(store)
    assert causes(verify(store)) == [(None, "latest.json", "edited")]


def show(store: Store, run_id: str) -> None:
    """Make `latest.json` a copy of that run's record, as it stands now."""
    (store.directory / "latest.json").write_bytes(store.read_bytes(run_id))


@pytest.mark.parametrize("run_id", ["r1", "r4"])
def test_a_latest_json_put_back_to_an_older_run_is_found_and_not_believed(store: Store, run_id: str) -> None:
    show(store, run_id)
    repair.complete(store)
    assert [str(item) for item in verify(store).mismatches] == [
        (
            f"latest.json: is a copy of {run_id}/evidence.json, "
            "but the newest record is r5/evidence.json (edited)"
        )
    ]
    newest = store.latest()
    assert newest is not None
    assert newest.run_id == "r5"
    shown = (store.directory / "latest.env").read_text()
    assert "ROLLOUT_GATE_STATUS_REASON=recovered\n" in shown


def test_a_copy_that_lags_behind_honestly_is_no_finding(store: Store) -> None:
    # Another run is under way, or was killed.
    runs.add_passed(store, "r6", environment="staging", start=500)
    store.save(store.load("r3"))
    assert verify(store).ok
    # The newest record is gone: that alone is told.
    show(store, "r5")
    (store.directory / "r6" / "evidence.json").unlink()
    assert causes(verify(store)) == [("r6", "r6/evidence.json", "missing")]


def test_a_run_killed_before_latest_json_followed_is_no_finding_and_brought_up_to_date(store: Store) -> None:
    line = runs.add_passed(store, "r6", start=500)
    final = store.read_bytes("r6")
    # Killed between two renames.
    (store.directory / ".latest.json.tmp").write_bytes(final)
    show(store, "r5")
    assert verify(store).ok
    repair.complete(store)
    assert (store.directory / "latest.json").read_bytes() == final
    # A power cut: no rename was kept.
    show(store, "r5")
    (store.directory / "r6" / "evidence.json.final").write_bytes(final)
    repair.complete(store)
    assert (store.directory / "latest.json").read_bytes() == final
    assert verify(store, line.hash).ok


def test_after_a_prune_the_newest_record_is_still_the_one_of_the_last_run(store: Store) -> None:
    prune.prune(store, keep=1, run_id="p1", now=runs.at(900))
    assert verify(store).ok
    show(store, "r4")
    assert causes(verify(store)) == [(None, "latest.json", "edited")]


def test_a_run_that_is_continued_is_compared_with_its_newest_line_only(store: Store) -> None:
    runs.add(store, runs.deployed(runs.record("r6", trigger="publish")))
    evidence = store.load("r6")
    runs.goes_on(store, evidence)
    assert verify(store).unfinished == ("r6", "r3")
    evidence.trigger = "gate"
    store.finish(runs.ended(runs.gated(evidence, runs.probed("+++++"))), "gate")
    assert verify(store).ok


# --- replay ------------------------------------------------------------------------------------------


def replayed(evidence: Evidence, **policy: Any) -> tuple[str, str | None, float | None]:
    answer = verdicts.replay(evidence, msgspec.structs.replace(runs.POLICY, **policy))
    assert answer is not None
    assert answer.changed is (answer.replayed.status not in {answer.recorded.status, "undecided"})
    return answer.replayed.status, answer.replayed.status_reason, answer.replayed.at_ms


def test_a_longer_soak_shows_a_false_pass() -> None:
    evidence = runs.gated(runs.record("r1"), runs.probed("+++++"))
    assert replayed(evidence) == ("passed", "all_probes_healthy", 1005)
    assert replayed(evidence, soak=0.5) == ("passed", "all_probes_healthy", 505)
    assert replayed(evidence, soak=2.0) == ("undecided", None, None)


def test_a_shorter_soak_would_have_passed_what_crashed_later() -> None:
    evidence = runs.gated(runs.record("r1"), runs.probed("++++" + "-" * 40))
    assert evidence.status == "failed"
    assert replayed(evidence, soak=0.5) == ("passed", "all_probes_healthy", 505)
    assert replayed(evidence, soak=0.5, attempt_timeout=0.001)[0] == "failed"


def test_a_gate_that_gave_up_in_time_is_decided_again_where_no_run_could_have_begun_later() -> None:
    evidence = runs.gated(runs.record("r1"), runs.probed("-----"))
    assert replayed(evidence)[:2] == ("failed", "probe_failures")
    assert replayed(evidence, soak=2.0)[:2] == ("failed", "probe_failures")
    assert replayed(evidence, soak=0.5)[0] == "undecided"
    unstable = runs.gated(runs.record("r2"), runs.probed("+++-" * 4))
    assert replayed(unstable, flaps=9)[0] == "undecided"


def test_a_run_without_a_verdict_has_nothing_to_replay() -> None:
    assert verdicts.replay(runs.record("r1"), Policy()) is None


@settings(max_examples=200)
@given(
    st.lists(st.text("+-?", min_size=1, max_size=50), min_size=1, max_size=3),
    st.sampled_from([0.0, 1.0, 3.0]),
)
def test_a_gate_agrees_with_its_own_attempts_whatever_they_were(patterns: list[str], soak: float) -> None:
    policy = msgspec.structs.replace(runs.POLICY, soak=soak)
    evidence = runs.ended(runs.gated(runs.record("r1"), runs.probed(*patterns, policy=policy)))
    assert list(verdicts.disagreements(evidence)) == []


# --- size --------------------------------------------------------------------------------------------


def test_a_thousand_runs_are_verified_in_a_tenth_of_the_time_for_ten_thousand(tmp_path: Path) -> None:
    store = runs.store_in(tmp_path)
    evidence = runs.ended(runs.deployed(runs.record("r0"), runs.probed("+" * 80, "+" * 80)))
    last, written = None, []
    for number in range(1000):
        evidence.run_id, evidence.previous = f"r{number}", last.hash if last else None
        data = msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n"
        last = chained(lines.draft(evidence, "release", hashlib.sha256(data).hexdigest()), last)
        written.append(msgspec.json.encode(last, order="sorted"))
        (store.directory / evidence.run_id).mkdir()
        (store.directory / evidence.run_id / "evidence.json").write_bytes(data)
    store.ledger.path.write_bytes(b"\n".join(written) + b"\n")
    began = time.process_time()
    report = verify(store)
    assert report.ok, report.mismatches[0]
    assert time.process_time() - began < 2


def test_the_report_is_plain_data(store: Store) -> None:
    assert json.loads(msgspec.json.encode(verify(store)))["unfinished"] == ["r3"]
