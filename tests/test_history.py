from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from opsgate.errors import EvidenceError
from opsgate.evidence import history, rollouts
from opsgate.evidence.ledger import Draft, Ledger, Line, chained
from opsgate.evidence.prune import prune
from opsgate.evidence.verify import verify
from tests import runs
from tests.test_ledger import draft

if TYPE_CHECKING:
    from pathlib import Path

    from opsgate.evidence.store import Store


def ledger(*drafts: dict[str, Any]) -> list[Line]:
    lines: list[Line] = []
    for number, fields in enumerate(drafts):
        begin = number * 3600.0
        fields = {  # noqa: PLW2901 - what a test leaves out
            "run_id": f"r{number}",
            "revision": f"v{number}",
            "started_at": runs.at(begin),
            "finished_at": runs.at(begin + 60),
            **fields,
        }
        lines.append(chained(draft(**fields), lines[-1] if lines else None))
    return lines


def failed(at: float, recovered: float | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "status": "failed",
        "status_reason": "probe_failures",
        "failed_at": runs.at(at),
        "recovered_at": None if recovered is None else runs.at(recovered),
        **fields,
    }


def figures(*drafts: dict[str, Any], days: float = 14) -> history.Figures:
    return history.figures(
        history.newest_of_each(ledger(*drafts)),
        now=runs.EPOCH + days * history.DAY,
        since=runs.EPOCH,
    )


def test_of_the_lines_of_one_run_the_newest_counts() -> None:
    lines = ledger({"run_id": "a", "status": "skipped"}, {"run_id": "b"}, {"run_id": "a"})
    assert [(line.run_id, line.seq) for line in history.newest_of_each(lines)] == [("b", 2), ("a", 3)]
    assert history.select(lines, status="skipped") == []


def test_runs_are_selected_by_environment_time_and_status() -> None:
    lines = ledger({}, {"environment": "staging"}, failed(0), {})
    for wanted, expected in (
        ({"environment": "staging"}, [2]),
        ({"status": "failed"}, [3]),
        ({"since": runs.EPOCH + 2 * 3600 + 60}, [3, 4]),
        ({"environment": "production", "status": "passed"}, [1, 4]),
        ({}, [1, 2, 3, 4]),
    ):
        assert [line.seq for line in history.select(lines, **wanted)] == expected


def test_nothing_has_no_rates() -> None:
    none = history.figures([], now=runs.EPOCH)
    assert (none.deployments, none.change_failure_rate, none.recovery_seconds) == (0, None, None)


def test_frequency_and_failure_rate() -> None:
    found = figures({}, failed(3600, 3700), {"deployed": False, "task": "publish"}, {}, failed(14400))
    assert (found.deployments, found.failed_deployments) == (4, 2)
    assert (found.deployments_per_week, found.change_failure_rate) == (2.0, 0.5)


def test_a_gate_on_a_new_revision_is_a_deployment_elsewhere() -> None:
    gate = {"deployed": False, "task": "gate"}
    found = figures(gate, gate | {"revision": "v0"}, gate | {"revision": None}, gate)
    assert found.deployments == 2


def test_what_a_person_rolled_back_had_failed() -> None:
    by_hand = {"task": "rollback", "deployed": False, "rollback": "manual", "status_reason": "recovered"}
    found = figures({}, {}, by_hand, by_hand)
    assert (found.deployments, found.failed_deployments) == (2, 1)


def test_time_to_recovery_is_that_of_whichever_run_proved_it() -> None:
    found = figures(
        failed(100, 160),
        failed(3700),
        failed(7300, deployed=False),
        {},
        failed(14500, environment="staging"),
    )
    assert found.recoveries == 2
    assert found.recovery_seconds == pytest.approx((60 + 3 * 3600 + 60 - 3700) / 2)


def test_an_observers_fault_is_a_false_alarm_and_no_failed_change() -> None:
    found = figures(failed(100, status_reason="observer_offline"), {})
    assert (found.false_alarms_withheld, found.failed_deployments, found.recoveries) == (1, 0, 0)


def test_ten_thousand_runs_are_listed_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(
        b"".join(msgspec.json.encode(line, order="sorted") + b"\n" for line in ledger(*[{}] * 10_000))
    )
    began = time.process_time()
    selected = history.select(Ledger(path).read(), environment="production")
    found = history.figures(selected, now=runs.EPOCH)
    assert time.process_time() - began < 0.4
    assert (len(selected), found.deployments) == (10_000, 10_000)


# --- prune -------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = runs.store_in(tmp_path)
    runs.add_passed(store, "r1", "v1", environment="staging")
    runs.add_passed(store, "r2", "v2")
    runs.add_passed(store, "r3", "v3")
    runs.add_passed(store, "r4", "v4")
    for number in range(5, 9):
        runs.add_failed(store, f"r{number}", f"v{number}")
    store.begin(runs.record("r9"))
    return store


def pruned(store: Store, keep: int, run_id: str = "p1") -> tuple[str, ...]:
    return prune(store, keep=keep, run_id=run_id, now=runs.at(100))


def test_pruning_keeps_the_newest_and_every_way_back(store: Store) -> None:
    assert pruned(store, 2) == ("r2", "r5", "r6")
    kept = [run_id for run_id in store.run_ids() if store.exists(run_id)]
    assert kept == ["r1", "r3", "r4", "r7", "r8", "r9"]
    report = verify(store)
    assert report.mismatches == ()
    assert (report.runs, report.lines, report.unfinished) == (8, 9, ("r9",))
    assert len(history.newest_of_each(store.ledger.read())) == 8
    back = rollouts.last_good(store, "production", revision="v8", images=())
    assert back is not None
    assert back.revision == "v4"


def test_pruning_again_drops_only_what_is_there(store: Store) -> None:
    pruned(store, 2)
    assert pruned(store, 2, "p2") == ()
    assert pruned(store, 1, "p3") == ("r7",)
    runs.add_passed(store, "r10", "v10")
    assert verify(store).mismatches == ()


def test_a_record_that_no_checkpoint_vouches_for_is_still_missed(store: Store) -> None:
    pruned(store, 2)
    (store.directory / "r7" / "evidence.json").unlink()
    assert [item.run_id for item in verify(store).mismatches] == ["r7"]


def test_an_edited_checkpoint_vouches_for_nothing(store: Store) -> None:
    pruned(store, 2)
    path = store.directory / "p1" / "checkpoint.json"
    path.write_bytes(path.read_bytes().replace(b"r5", b"r7"))
    assert [item.run_id for item in verify(store).mismatches] == ["r2", "r5", "r6", "p1"]


@pytest.mark.parametrize("words", [(b"checkpoint/v1", b"checkpoint/v2"), (b"{", b"\xff")])
def test_a_checkpoint_of_another_version_is_called_so(store: Store, words: tuple[bytes, bytes]) -> None:
    pruned(store, 2)
    path = store.directory / "p1" / "checkpoint.json"
    path.write_bytes(path.read_bytes().replace(*words, 1))
    *before, line = store.ledger.read()
    fields = {name: getattr(line, name) for name in Draft.__struct_fields__}
    fields["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    written = [*before, chained(Draft(**fields), before[-1])]
    store.ledger.path.write_bytes(b"".join(msgspec.json.encode(i, order="sorted") + b"\n" for i in written))
    *missed, last = verify(store).mismatches
    assert [item.run_id for item in missed] == ["r2", "r5", "r6"]
    assert (last.run_id, last.file, last.cause) == ("p1", "p1/checkpoint.json", "written by another version")


def test_an_edited_record_is_not_pruned_away(store: Store) -> None:
    path = store.directory / "r5" / "evidence.json"
    path.write_bytes(path.read_bytes().replace(b"v5", b"v6", 1))
    with pytest.raises(EvidenceError, match="record of run r5 is not the one in the ledger"):
        pruned(store, 2)
    assert store.exists("r2")
    assert len(store.ledger.read()) == 8
