from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from opsgate.evidence import rollouts
from opsgate.evidence.record import Gate, Image, Rollback
from opsgate.evidence.store import Store
from tests import runs

if TYPE_CHECKING:
    from pathlib import Path

    from opsgate.evidence.record import Evidence, Rollout


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return runs.store_in(tmp_path)


def good(store: Store, revision: str | None = None, images: tuple[Image, ...] = ()) -> str | None:
    found = rollouts.last_good(store, "production", revision=revision, images=images)
    return found.run_id if found else None


def rolled_out(store: Store) -> Rollout | None:
    return rollouts.last_rolled_out(store, "production")


def by_hand(store: Store, run_id: str) -> None:
    runs.add(store, runs.rolled_back(runs.record(run_id, trigger="rollback"), trigger="manual"))


# --- last good ---------------------------------------------------------------------------------------


def test_nothing_is_good_before_the_first_pass(store: Store) -> None:
    assert good(store, "v1") is None
    runs.add_failed(store, "r1", "v1")
    assert good(store, "v1") is None
    assert good(store, "v2") is None


def test_the_newest_run_that_passed_with_another_revision(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add_passed(store, "r2", "v2")
    runs.add_failed(store, "r3", "v3")
    assert good(store, "v3") == "r2"
    assert good(store, "v2") == "r1"
    assert good(store) == "r2"


def test_a_release_whose_last_good_is_itself_has_an_older_one_or_none(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    assert good(store, "v1") is None
    runs.add_passed(store, "r0", "v0")
    runs.add_passed(store, "r2", "v1")
    assert good(store, "v1") == "r0"


def test_other_environments_and_runs_that_proved_nothing_do_not_count(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add_passed(store, "r2", "v2", environment="staging")
    runs.add(store, runs.deployed(runs.record("r3", revision="v3", trigger="deploy")))
    runs.add(store, runs.gated(runs.record("r4", revision="v4", trigger="gate"), runs.probed("+++++")))
    assert good(store, "v9") == "r1"


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_gate_after_a_deploy_that_did_not_succeed_proves_nothing(
    store: Store, status: Literal["failed", "interrupted"]
) -> None:
    evidence = runs.deployed(runs.record("r1", revision="v1"), runs.probed("+++++"))
    evidence.stages.deploy.status = status
    runs.add(store, evidence)
    assert good(store) is None
    assert rollouts.passed_rollout(store, "production", "v1") is None


def test_a_run_that_was_rolled_back_before_is_not_good_again(store: Store) -> None:
    evidence = runs.deployed(runs.record("r1", revision="v1"), runs.probed("+++++"))
    first = runs.rolled_back(runs.record("r1"), trigger="manual").stages.rollback
    evidence.stages.rollback = Rollback(attempted=False, withheld="no_last_good", earlier=[first])
    runs.add(store, evidence)
    assert good(store) is None


def test_a_gate_on_a_revision_deployed_elsewhere_counts(store: Store) -> None:
    gate = runs.probed("+++++")
    gate.revision = "v1"
    runs.add(store, runs.gated(runs.record("r1", revision="v1", trigger="gate"), gate))
    assert good(store, "v2") == "r1"


def test_images_tell_releases_apart_as_well_as_revisions(store: Store) -> None:
    a, b = runs.image("a"), runs.image("b")
    runs.add_passed(store, "r1", "v1", images=[a])
    assert good(store, "v1", (b,)) == "r1"
    assert good(store, "v2", (a,)) == "r1"
    assert good(store, "v1", (a,)) is None
    assert good(store, None, (a,)) is None
    assert good(store, None, (b,)) == "r1"


def test_revisions_match_by_their_beginning_where_they_are_hexadecimal(store: Store) -> None:
    runs.add_passed(store, "r1", "0123456789ab")
    assert good(store, "0123456789abcdef") is None
    assert good(store, "0123457") == "r1"


def test_a_run_that_cannot_be_named_is_no_way_back(store: Store) -> None:
    runs.add_passed(store, "r1")
    assert good(store, "v2") is None


@pytest.mark.parametrize("damage", ["edit", "remove", "empty"])
def test_a_record_that_is_not_the_one_in_the_ledger_is_passed_over(store: Store, damage: str) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add_passed(store, "r2", "v2")
    path = store.directory / "r2" / "evidence.json"
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"v2", b"v9") if damage == "edit" else b"")
    assert good(store, "v3") == "r1"


def test_it_carries_what_a_redeploy_needs(store: Store) -> None:
    evidence = runs.record("r1", revision="v1", images=[runs.image()])
    store.begin(evidence)
    store.write(store.run_directory("r1") / "pins.yaml", "services: {}\n")
    runs.deployed(evidence, runs.probed("+++++"))
    store.finish(runs.ended(evidence), "release")
    found = rollouts.last_good(store, "production", revision="v2", images=())
    assert found is not None
    assert (found.revision, found.tag, found.images) == ("v1", "t1", (runs.image(),))
    assert found.pins == str(store.directory / "r1" / "pins.yaml")
    assert found.finished_at == runs.at(30)


def test_a_clock_that_was_set_back_changes_no_order(store: Store) -> None:
    runs.add_passed(store, "r1", "v1", start=5000)
    runs.add_passed(store, "r2", "v2", start=-5000)
    assert good(store, "v3") == "r2"


# --- --to --------------------------------------------------------------------------------------------


def test_any_revision_that_passed_can_be_gone_back_to(store: Store) -> None:
    runs.add_passed(store, "r1", "0123456789ab")
    runs.add_passed(store, "r2", "v2")
    runs.add_failed(store, "r3", "v3")
    for revision, expected in (("0123456", "r1"), ("v2", "r2"), ("v3", None), ("v", None)):
        found = rollouts.passed_rollout(store, "production", revision)
        assert (found.run_id if found else None) == expected
    assert rollouts.passed_rollout(store, "staging", "v2") is None


# --- what a manual rollback leads away from ----------------------------------------------------------


def test_what_was_rolled_out_last_is_the_newest_deploy_whatever_came_of_it(store: Store) -> None:
    assert rolled_out(store) is None
    runs.add_passed(store, "r1", "v1")
    runs.add_failed(store, "r2", "v2")
    runs.add(store, runs.gated(runs.record("r3", trigger="gate"), runs.probed("+++++")))
    found = rolled_out(store)
    assert found is not None
    assert (found.run_id, found.revision) == ("r2", "v2")


def test_rolling_back_twice_in_a_row_does_not_bounce(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add_passed(store, "r2", "v2")
    for name in ("b1", "b2"):
        leaving = rolled_out(store)
        assert leaving is not None
        assert leaving.revision == "v2"
        assert good(store, leaving.revision, leaving.images) == "r1"
        by_hand(store, name)


def test_a_release_that_was_killed_is_what_was_rolled_out_last(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add_passed(store, "r2", "v2")
    store.begin(runs.deployed(runs.record("r3", revision="v3")))
    store.begin(runs.record("r4", trigger="rollback"))
    found = rolled_out(store)
    assert found is not None
    assert found.revision == "v3"
    assert good(store, found.revision) == "r2"
    runs.add_passed(store, "r5", "v5")
    after = rolled_out(store)
    assert after is not None
    assert after.revision == "v5"


def test_a_run_killed_in_a_later_task_is_known_by_its_record(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add(store, runs.record("r2", revision="v2", trigger="publish"))
    runs.goes_on(store, runs.deployed(store.load("r2")))
    found = rolled_out(store)
    assert found is not None
    assert found.revision == "v2"


def killed_in_its_deploy(store: Store, run_id: str, start: float) -> None:
    evidence = runs.deployed(store.load(run_id))
    evidence.stages.deploy.started_at = runs.at(start)
    runs.goes_on(store, evidence)


def test_a_run_killed_in_a_later_task_was_rolled_out_after_what_had_ended_then(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add(store, runs.record("r2", start=40, revision="v2", trigger="publish"), end=50)
    runs.add(store, runs.deployed(runs.record("r3", start=60, revision="v3"), runs.probed("+++++")), end=90)
    killed_in_its_deploy(store, "r2", 100)
    for run_id in ("b1", "b2"):
        leaving = rolled_out(store)
        assert leaving is not None
        assert (leaving.run_id, leaving.revision) == ("r2", "v2")
        assert good(store, leaving.revision, leaving.images) == "r3"
        rollback = runs.record(run_id, start=110, trigger="rollback")
        runs.add(store, runs.rolled_back(rollback, trigger="manual"), end=120)
    runs.add(store, runs.deployed(runs.record("r4", start=130, revision="v4")), end=140)
    after = rolled_out(store)
    assert after is not None
    assert after.run_id == "r4"


def test_a_run_that_went_on_to_its_gate_was_rolled_out_when_it_was_deployed(store: Store) -> None:
    runs.add(store, runs.deployed(runs.record("r1", revision="v1")), end=10)
    runs.add(store, runs.deployed(runs.record("r2", start=20, revision="v2")), end=30)
    evidence = store.load("r1")
    evidence.stages.gate = Gate(status="interrupted", started_at=runs.at(40))
    runs.goes_on(store, evidence)
    found = rolled_out(store)
    assert found is not None
    assert found.run_id == "r2"


def test_what_went_on_elsewhere_is_not_what_was_rolled_out_here(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add(store, runs.record("r2", revision="v2", trigger="publish", environment="staging"))
    killed_in_its_deploy(store, "r2", 100)
    found = rolled_out(store)
    assert found is not None
    assert found.run_id == "r1"


def test_runs_without_an_end_have_no_line_or_went_on_after_it(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add(store, runs.record("r2", start=10, trigger="publish"))
    runs.add(store, runs.record("r3", start=20, trigger="publish", environment="staging"))
    store.begin(runs.record("r4", start=5))
    runs.add(store, runs.record("r5", trigger="publish"))
    for run_id in ("r2", "r3"):
        killed_in_its_deploy(store, run_id, 100)

    def unended(environment: str | None = None) -> list[str]:
        return [evidence.run_id for evidence in rollouts.unended(store, environment)]

    assert unended() == ["r4", "r2", "r3"]
    assert unended("production") == ["r4", "r2"]


def test_a_rollout_without_its_record_is_still_what_was_rolled_out_last(store: Store) -> None:
    runs.add_passed(store, "r1", "v1")
    runs.add_passed(store, "r2", "v2")
    (store.directory / "r2" / "evidence.json").unlink()
    found = rolled_out(store)
    assert found is not None
    assert (found.run_id, found.revision, found.images) == ("r2", "v2", ())


# --- the day's rollbacks -----------------------------------------------------------------------------


def cut_off(evidence: Evidence) -> Evidence:
    evidence.stages.rollback = Rollback(
        status="interrupted", started_at=runs.at(20), attempted=True, trigger="auto", succeeded=None
    )
    return evidence


def test_automatic_rollbacks_of_the_day_are_counted_by_run(store: Store) -> None:
    def count(since: float = 0) -> int:
        return rollouts.automatic_rollbacks(store, "production", runs.EPOCH + since)

    assert count() == 0
    runs.add_passed(store, "r1", "v1")
    runs.add_failed(store, "r2", "v2")
    runs.add_failed(store, "r3", "v3", environment="staging")
    by_hand(store, "r4")
    assert count() == 1
    assert count(since=31) == 0
    store.begin(cut_off(runs.record("r5")))
    assert count() == 2
    assert count(since=21) == 1
    runs.add(store, runs.record("r6", trigger="publish"))
    runs.goes_on(store, cut_off(store.load("r6")))
    assert count() == 3


def test_a_rollback_that_a_person_followed_up_is_still_counted(store: Store) -> None:
    first = cut_off(runs.record("r1")).stages.rollback
    evidence = runs.rolled_back(runs.record("r1", trigger="rollback"), trigger="manual")
    evidence.stages.rollback.earlier = [first]
    runs.add(store, evidence)
    assert rollouts.automatic_rollbacks(store, "production", runs.EPOCH) == 1
    assert rollouts.automatic_rollbacks(store, "production", runs.EPOCH + 21) == 0
    assert rollouts.automatic_rollbacks(store, "staging", runs.EPOCH) == 0


def test_gates_on_what_runs_already_are_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.add_passed(store, "r1", "v1")
    for run_id, pattern in (("r2", "+++++"), ("r3", "-----")):
        runs.add(store, runs.gated(runs.record(run_id, trigger="gate"), runs.probed(pattern)))
    runs.add(store, runs.record("r4", trigger="publish"))
    read: list[str] = []
    really = store.read_bytes

    def reading(run_id: str) -> bytes:
        read.append(run_id)
        return really(run_id)

    monkeypatch.setattr(store, "read_bytes", reading)
    assert rollouts.automatic_rollbacks(store, "production", runs.EPOCH) == 0
    assert read == ["r4"]
    assert good(store, "v2") == "r1"
    found = rolled_out(store)
    assert found is not None
    assert found.run_id == "r1"
    assert {"r2", "r3"}.isdisjoint(read)
