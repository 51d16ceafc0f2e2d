from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsgate.errors import EvidenceError
from opsgate.evidence import ledger as module
from opsgate.evidence.ledger import GENESIS, Draft, Ledger, line_hash

if TYPE_CHECKING:
    from pathlib import Path

APPENDER = """
import sys
from pathlib import Path
import msgspec
from opsgate.evidence.ledger import Draft, Ledger
ledger = Ledger(Path(sys.argv[1]))
draft = msgspec.json.decode(sys.argv[2], type=Draft)
sys.stdin.read(1)
for number in range(int(sys.argv[4])):
    ledger.append(msgspec.structs.replace(draft, run_id=f"{sys.argv[3]}-{number}"))
"""


def draft(run_id: str = "r1", **fields: Any) -> Draft:
    values: dict[str, Any] = {
        "run_id": run_id,
        "environment": "production",
        "task": "release",
        "revision": "v41",
        "status": "passed",
        "status_reason": "all_probes_healthy",
        "started_at": "2026-05-28T20:26:40.000Z",
        "finished_at": "2026-05-28T20:27:10.000Z",
        "deployed": True,
        "rollback": None,
        "failed_at": None,
        "recovered_at": None,
        "sha256": "0" * 64,
    }
    return Draft(**values | fields)


def ledger_of(tmp_path: Path, *run_ids: str) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for run_id in run_ids:
        ledger.append(draft(run_id))
    return ledger


def test_a_line_has_the_fields_of_the_contract_and_the_hash_of_its_own_json(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "r1", "r2")
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert " ".join(sorted(lines[0])) == (
        "deployed environment failed_at finished_at hash prev recovered_at revision rollback run_id seq "
        "sha256 started_at status status_reason task"
    )
    previous = "0" * 64
    for seq, line in enumerate(lines, 1):
        stated = line.pop("hash")
        canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(canonical).hexdigest() == stated
        assert (line["seq"], line["prev"]) == (seq, previous)
        previous = stated


def test_two_lines_under_one_lock_follow_each_other(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "r1")
    with ledger.locked() as tail:
        second, third = tail.append(draft("r2")), tail.append(draft("r3"))
        assert third.prev == second.hash
        assert [line.run_id for line in ledger.read()] == ["r1", "r2", "r3"]
        tail.cut()
    assert [line.run_id for line in ledger.read()] == ["r1", "r2"]


def test_an_empty_or_missing_ledger_has_no_lines_and_no_head(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert (ledger.read(), ledger.head(), list(ledger.newest_first())) == ([], None, [])
    ledger.path.touch()
    assert (ledger.read(), ledger.head(), list(ledger.newest_first())) == ([], None, [])
    assert ledger.append(draft()).prev == GENESIS


@pytest.mark.parametrize("torn", [b'{"seq":3,"run', b"\0" * 700, b"\xff\xfe", b"x" * 200_000])
def test_a_torn_last_line_is_ignored_and_cut_off_by_the_next_append(tmp_path: Path, torn: bytes) -> None:
    ledger = ledger_of(tmp_path, "r1", "r2")
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + torn)
    assert [line.run_id for line in ledger.read()] == ["r1", "r2"]
    head = ledger.head()
    assert head is not None
    assert head.run_id == "r2"
    added = ledger.append(draft("r3"))
    assert (added.seq, added.prev) == (3, head.hash)
    assert ledger.path.read_bytes().startswith(whole)
    assert [line.run_id for line in ledger.read()] == ["r1", "r2", "r3"]


def test_a_first_line_that_was_torn_leaves_an_empty_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_bytes(b'{"seq":1')
    assert ledger.read() == []
    assert ledger.append(draft()).seq == 1
    assert len(ledger.read()) == 1


def test_a_damaged_line_in_the_middle_hides_no_other(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "r1", "r2", "r3")
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(lines[0] + b"rubbish\n" + lines[2])
    assert [line.run_id for line in ledger.read()] == ["r1", "r3"]
    assert [line.run_id for line in ledger.newest_first()] == ["r3", "r1"]
    assert [entry.line is None for entry in ledger.entries()] == [False, True, False]


def test_backwards_is_forwards_reversed_over_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(tmp_path, *(f"r{number}" for number in range(30)))
    forwards = ledger.read()
    for size in (1, 7, 400, 513, 4096):
        monkeypatch.setattr(module, "_BLOCK", size)
        assert list(ledger.newest_first()) == forwards[::-1]


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_line_that_cannot_be_made_durable_is_cut_off_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    ledger = ledger_of(tmp_path, "r1")
    before = ledger.path.read_bytes()
    real = getattr(os, failing)
    calls: list[int] = []

    def fail_once(descriptor: int, *rest: Any) -> Any:
        calls.append(descriptor)
        if len(calls) > 1:
            return real(descriptor, *rest)
        if rest:
            os.pwrite(descriptor, rest[0][:10], len(before))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail_once)
    with pytest.raises(EvidenceError, match="No space left on device") as caught:
        ledger.append(draft("r2"))
    assert str(ledger.path) in caught.value.message
    assert ledger.path.read_bytes() == before


def test_a_ledger_that_is_a_directory_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for act in (ledger.read, ledger.head, lambda: ledger.append(draft())):
        with pytest.raises(EvidenceError, match=r"ledger\.jsonl"):
            act()


def test_a_process_that_holds_the_ledger_for_ever_is_an_error_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.05)
    ledger = ledger_of(tmp_path, "r1")
    with ledger.locked(), pytest.raises(EvidenceError, match="another process has held"):
        ledger.append(draft("r2"))


def test_two_processes_appending_at_once_make_one_chain(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    text = msgspec.json.encode(draft()).decode()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(ledger.path), text, name, "200"], stdin=subprocess.PIPE
        )
        for name in ("a", "b")
    ]
    for worker in workers:
        worker.communicate(b"g", timeout=60)
        assert worker.returncode == 0
    lines = ledger.read()
    assert len(lines) == 400
    assert [line.seq for line in lines] == list(range(1, 401))
    assert [line.prev for line in lines] == [GENESIS, *(line.hash for line in lines[:-1])]
    assert {line.run_id for line in lines} == {f"{name}-{number}" for name in "ab" for number in range(200)}


def test_first_of_a_run_is_its_oldest_line(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "r1", "r2", "r1")
    first = ledger.first_of("r1")
    assert first is not None
    assert first.seq == 1
    assert ledger.first_of("r") is None


@given(
    st.dictionaries(
        st.text("abcdefghij_", min_size=1),
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    )
)
def test_the_hash_is_that_of_any_json_library_with_sorted_keys(fields: dict[str, Any]) -> None:
    others = {key: value for key, value in fields.items() if key != "hash"}
    canonical = json.dumps(others, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert line_hash(fields | {"hash": "f" * 64}) == hashlib.sha256(canonical).hexdigest()
