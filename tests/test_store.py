from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import files, repair, rollouts
from opsgate.evidence.lock import EnvironmentLock, Holder
from opsgate.evidence.prune import prune
from opsgate.evidence.record import decode
from opsgate.evidence.schema import json_schema
from opsgate.evidence.store import Store
from opsgate.evidence.verify import verify
from opsgate.redact import Redactor
from tests import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return runs.store_in(tmp_path)


def shown(store: Store) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((store.directory / "latest.json").read_text())
    return document


# --- one run -----------------------------------------------------------------------------------------


def test_the_record_exists_as_failed_before_anything_happens(store: Store) -> None:
    store.begin(runs.record("r1"))
    document = json.loads((store.directory / "r1" / "evidence.json").read_text())
    assert (document["status"], document["status_reason"], document["finished_at"]) == (
        "failed",
        "interrupted",
        None,
    )
    assert shown(store) == document
    assert "ROLLOUT_GATE_STATUS=failed\n" in (store.directory / "latest.env").read_text()
    assert store.ledger.read() == []


def test_a_finished_run_has_its_record_its_line_and_latest(store: Store) -> None:
    line = runs.add_passed(store, "r1", "v41")
    data = (store.directory / "r1" / "evidence.json").read_bytes()
    assert (store.directory / "latest.json").read_bytes() == data
    assert line.sha256 == hashlib.sha256(data).hexdigest()
    assert (line.status, line.revision, line.deployed, line.task) == ("passed", "v41", True, "release")
    assert store.head() == line.hash
    assert sorted(item.name for item in (store.directory / "r1").iterdir()) == ["evidence.json"]
    assert not list(store.directory.glob(".*.tmp"))


def test_previous_is_the_last_hash_before_the_run(store: Store) -> None:
    first = runs.add_passed(store, "r1")
    store.begin(runs.record("r2"))
    runs.add_passed(store, "r3", environment="staging")
    runs.add_passed(store, "r4")
    assert [store.load(run_id).previous for run_id in ("r1", "r2", "r3")] == [None, first.hash, first.hash]
    assert store.load("r4").previous == store.ledger.read()[1].hash


def test_a_record_that_cannot_be_seen_is_not_taken_for_none(store: Store) -> None:
    path = store.record_path("r1")
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)
    with pytest.raises(EvidenceError, match=r"looking for a record .*evidence\.json: Too many levels"):
        store.exists("r1")


def test_a_run_continued_by_another_task_keeps_its_previous_and_gets_a_second_line(store: Store) -> None:
    runs.add_passed(store, "r0")
    published = runs.record("r1", trigger="publish")
    runs.add(store, runs.deployed(published))
    runs.add_passed(store, "r2", environment="staging")
    gate = store.load("r1")
    before = gate.previous
    gate.trigger, gate.finished_at, gate.status, gate.status_reason = "gate", None, "failed", "interrupted"
    store.begin(gate, continuing=True)
    assert gate.previous == before
    assert shown(store)["run_id"] == "r1"
    store.finish(runs.ended(runs.gated(gate, runs.probed("+++++"))), "gate")
    assert [line.task for line in store.ledger.read() if line.run_id == "r1"] == ["publish", "gate"]
    assert verify(store).ok


def test_a_new_run_never_takes_the_place_of_another(store: Store) -> None:
    runs.add_passed(store, "r1")
    with pytest.raises(ConfigurationError, match="r1 exists already"):
        store.begin(runs.record("r1"))
    assert store.load("r1").status == "passed"


def test_a_damaged_record_is_put_aside_not_overwritten(store: Store) -> None:
    runs.add_passed(store, "r1")
    (store.directory / "r1" / "evidence.json").write_text("{")
    store.begin(runs.record("r1"))
    assert (store.directory / "r1" / "evidence.json.damaged").read_text() == "{"


def test_a_run_whose_record_was_lost_begins_where_it_began(store: Store) -> None:
    runs.add_passed(store, "r0")
    first = runs.add_passed(store, "r1")
    runs.add_passed(store, "r2")
    (store.directory / "r1" / "evidence.json").unlink()
    again = runs.record("r1")
    store.begin(again)
    assert again.previous == first.prev


def test_secrets_are_masked_in_the_record_latest_and_the_ledger(tmp_path: Path) -> None:
    store = Store(tmp_path / "rollout", Redactor(["hunter2-hunter2"]))
    store.prepare()
    runs.add(store, runs.deployed(runs.record("r1", revision="v-hunter2-hunter2"), runs.probed("+++++")))
    written = b"".join(path.read_bytes() for path in store.directory.rglob("*") if path.is_file())
    assert b"v-***" in written
    assert b"hunter2" not in written
    assert verify(store).ok


@pytest.mark.parametrize("run_id", ["../r1", "a/b", ".hidden", "", "r" * 65, "r1\n", "ü"])
def test_a_run_id_never_leads_out_of_the_directory(store: Store, run_id: str) -> None:
    for act in (store.run_directory, store.exists, store.load):
        with pytest.raises(ConfigurationError, match="is not a run id"):
            act(run_id)


def test_what_is_wrong_with_a_record_is_said(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="no record of run r1"):
        store.load("r1")
    (store.directory / "r1").mkdir()
    (store.directory / "r1" / "evidence.json").write_text('{"schema": "opsgate/evidence/v1"}')
    with pytest.raises(EvidenceError, match=r"r1/evidence\.json is damaged: .*run_id"):
        store.load("r1")


# --- latest ------------------------------------------------------------------------------------------


def test_latest_is_the_newest_run_of_all_or_of_one_environment(store: Store) -> None:
    assert store.latest() is None
    runs.add_passed(store, "r1", start=0)
    runs.add_passed(store, "r2", environment="staging", start=10)
    store.begin(runs.record("r3", environment="qa", start=20))
    for environment, expected in ((None, "r3"), ("production", "r1"), ("staging", "r2"), ("qa", "r3")):
        newest = store.latest(environment)
        assert newest is not None
        assert newest.run_id == expected
    assert store.latest("nowhere") is None


def test_a_killed_run_is_the_latest_of_its_environment(store: Store) -> None:
    runs.add_passed(store, "r1", start=0)
    store.begin(runs.record("r2", start=10))
    runs.add_passed(store, "r3", environment="staging", start=20)
    newest = store.latest("production")
    assert newest is not None
    assert newest.run_id == "r2"


def test_without_latest_json_the_ledger_says_which_run_is_the_latest(store: Store) -> None:
    runs.add_passed(store, "r1")
    runs.add_passed(store, "r2")
    (store.directory / "latest.json").unlink()
    newest = store.latest()
    assert newest is not None
    assert newest.run_id == "r2"
    repair.complete(store)
    assert shown(store)["run_id"] == "r2"


# --- killed at each step -----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from opsgate.evidence import repair
from tests import runs

base = Path(sys.argv[1])
STEPS = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "ftruncate", "close")


def count(limit):
    left = [limit]
    def wrapped(real):
        def step(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return step
    for name in STEPS:
        setattr(os, name, wrapped(getattr(os, name)))


def prepared(directory):
    store = runs.store_in(directory)
    runs.add_passed(store, "r1", "v1")
    return store


def one_run(store):
    repair.complete(store)
    evidence = runs.record("r2", revision="v2")
    store.begin(evidence)
    runs.deployed(evidence, runs.probed("+++++"))
    evidence.status, evidence.status_reason = "failed", "interrupted"
    store.save(evidence)
    evidence.status, evidence.status_reason = "passed", "all_probes_healthy"
    store.finish(runs.ended(evidence), "release")


number = 0
while True:
    store = prepared(base / str(number))
    child = os.fork()
    if child == 0:
        count(number)
        one_run(store)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    number += 1
print(number)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_step_is_whole_or_not_passed(tmp_path: Path) -> None:
    swept = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
    )
    steps = int(swept.stdout)
    assert steps > 40
    outcomes = [_after_the_kill(tmp_path / str(number)) for number in range(steps + 1)]
    assert outcomes == sorted(outcomes)
    assert {False, True} == set(outcomes)


def _after_the_kill(directory: Path) -> bool:
    """Whether the killed run counts as finished; whatever it is, everything must agree."""
    store = Store(directory / "rollout", Redactor())
    finished = any(line.run_id == "r2" for line in store.ledger.read())
    for path in (store.directory / "latest.json", store.directory / "r2" / "evidence.json"):
        if path.exists() and (evidence := decode(path.read_bytes())).run_id == "r2":
            assert finished or evidence.status == "failed"
    store.prepare()
    repair.complete(store)
    if finished:
        assert store.load("r2").status == "passed"
        assert shown(store)["status"] == "passed"
    report = verify(store)
    assert report.mismatches == ()
    assert report.unfinished == (() if finished or not store.exists("r2") else ("r2",))
    assert not list(store.directory.rglob("*.final"))
    runs.add_passed(store, "r3", "v3")
    assert not list(store.directory.glob(".latest*"))
    assert verify(store).mismatches == ()
    good = rollouts.last_good(store, "production", revision="v3", images=())
    assert good is not None
    assert good.revision == ("v2" if finished else "v1")
    return finished


def test_every_step_of_finishing_is_durable_before_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut can lose is what was not fsynced."""
    evidence = runs.deployed(runs.record("r1"), runs.probed("+++++"))
    store.begin(evidence)
    names: dict[int, str] = {}
    steps: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}

    def opened(path: Any, *rest: Any) -> int:
        descriptor: int = real["open"](path, *rest)
        names[descriptor] = str(Path(path).relative_to(store.directory.parent))
        return descriptor

    def noted(name: str) -> Any:
        def step(descriptor: int, *rest: Any) -> Any:
            steps.append((name, names[descriptor]))
            return real[name](descriptor, *rest)

        return step

    def replaced(source: Any, target: Any) -> None:
        steps.append(("replace", str(Path(target).relative_to(store.directory.parent))))
        real["replace"](source, target)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "replace", replaced)
    for name in ("write", "fsync"):
        monkeypatch.setattr(os, name, noted(name))
    store.finish(runs.ended(evidence), "release")
    monkeypatch.undo()
    expected = [
        ("write", "rollout/r1/evidence.json.final"),
        ("fsync", "rollout/r1/evidence.json.final"),
        ("fsync", "rollout/r1"),
        ("write", "rollout/ledger.jsonl"),
        ("fsync", "rollout/ledger.jsonl"),
        ("replace", "rollout/r1/evidence.json"),
        ("replace", "rollout/latest.json"),
        ("replace", "rollout/latest.env"),
        ("fsync", "rollout/r1"),
        ("fsync", "rollout"),
    ]
    assert [step for step in steps if ".tmp" not in step[1]] == expected


def test_a_final_record_without_a_line_is_thrown_away_not_believed(store: Store) -> None:
    runs.add_passed(store, "r1")
    evidence = runs.record("r2")
    store.begin(evidence)
    waiting = store.directory / "r2" / "evidence.json.final"
    waiting.write_bytes((store.directory / "r1" / "evidence.json").read_bytes())
    repair.complete(store)
    assert not waiting.exists()
    assert store.load("r2").status == "failed"


def test_completing_with_nothing_to_complete_writes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.add_passed(store, "r1")
    monkeypatch.setattr(os, "write", lambda *_: pytest.fail("something was written"))
    repair.complete(store)


def test_an_edited_latest_json_is_left_for_verify_to_report(store: Store) -> None:
    runs.add_passed(store, "r1")
    path = store.directory / "latest.json"
    data = path.read_bytes()
    for old, new in ((b'"passed"', b'"failed"'), (b'"finished_at"', b'"finished_af"'), (b"{", b"[")):
        path.write_bytes(data.replace(old, new, 1))
        repair.complete(store)
        assert path.read_bytes() == data.replace(old, new, 1)
        assert [item.file for item in verify(store).mismatches] == ["latest.json"]


def test_a_latest_json_that_a_power_cut_left_empty_is_made_again(store: Store) -> None:
    runs.add_passed(store, "r1")
    for name in ("latest.json", "latest.env"):
        (store.directory / name).write_bytes(b"")
    repair.complete(store)
    assert (store.directory / "latest.json").read_bytes() == store.read_bytes("r1")
    assert b"ROLLOUT_GATE_STATUS=passed" in (store.directory / "latest.env").read_bytes()
    assert not verify(store).mismatches


@pytest.mark.parametrize(
    "content", [b" ", b"\xf4\xff", b"[]", b'{"run_id": 1}', b'{"run_id": "../x"}', b"null"]
)
def test_a_latest_json_that_cannot_be_read_stops_nothing(store: Store, content: bytes) -> None:
    runs.add_passed(store, "r1")
    (store.directory / "latest.json").write_bytes(content)
    repair.complete(store)
    assert [item.file for item in verify(store).mismatches] == ["latest.json"]
    newest = store.latest()
    assert newest is not None
    assert newest.run_id == "r1"
    runs.add_passed(store, "r2")
    assert verify(store).ok


# --- no place to write -------------------------------------------------------------------------------


def test_prepare_makes_the_directory_and_keeps_it_out_of_git(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "b", Redactor())
    store.prepare()
    store.prepare()
    assert [(item.name, item.read_text()) for item in store.directory.iterdir()] == [(".gitignore", "*\n")]


@pytest.mark.parametrize("kept", ["nothing", ".gitkeep", "runs"])
def test_a_directory_made_by_others_is_kept_out_of_git_as_well(store: Store, kept: str) -> None:
    # Made before opsgate came, or brought back from where dotfiles are left out.
    (store.directory / ".gitignore").unlink()
    if kept == "runs":
        for revision in ("v1", "v2", "v3", "v4"):
            runs.add_passed(store, revision, revision)
        assert prune(store, keep=1, run_id="p1", now=runs.at(90)) == ("v1", "v2")
    elif kept == ".gitkeep":
        (store.directory / kept).touch()
    store.prepare()
    assert (store.directory / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("foreign", ["README.md", ".git", "src"])
def test_where_somebody_else_keeps_files_git_still_sees_them(store: Store, foreign: str) -> None:
    runs.add_passed(store, "r1", "v1")
    (store.directory / ".gitignore").unlink()
    (store.directory / foreign).mkdir()
    store.prepare()
    assert not (store.directory / ".gitignore").exists()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EvidenceError, match=r"preparing .* failed: .*/file.*: ") as caught:
            Store(directory, Redactor()).prepare()
        assert "--evidence-dir" in caught.value.hint


def test_a_directory_that_vanishes_during_the_run_is_an_error_not_a_crash(store: Store) -> None:
    evidence = runs.record("r1")
    store.begin(evidence)
    store.directory.rename(store.directory.with_name("elsewhere"))
    for act in (lambda: store.save(evidence), lambda: store.finish(runs.ended(evidence), "release")):
        with pytest.raises(EvidenceError, match="No such file or directory"):
            act()
    assert not store.directory.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "opsgate-test", str(place)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_nothing_is_lost_and_nothing_says_passed(small_disk: Path) -> None:
    store = runs.store_in(small_disk)
    runs.add_passed(store, "r1")
    evidence = runs.record("r2")
    store.begin(evidence)
    kept = (store.directory / "ledger.jsonl").read_bytes()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"x" * 256 * 1024)
    runs.deployed(evidence, runs.probed("+++++"))
    for act in (lambda: store.save(evidence), lambda: store.finish(runs.ended(evidence), "release")):
        with pytest.raises(EvidenceError, match="No space left on device"):
            act()
    with pytest.raises(EvidenceError, match="No space left on device"):
        store.prepare()
    assert (store.directory / "ledger.jsonl").read_bytes() == kept
    assert store.load("r2").status_reason == "interrupted"
    assert not [path for path in store.directory.rglob("*") if path.suffix in {".tmp", ".final"}]
    filler.unlink()
    assert verify(store).ok
    store.finish(evidence, "release")
    assert verify(store).ok


def test_a_disk_that_became_read_only_is_named_and_can_still_be_read(small_disk: Path) -> None:
    store = runs.store_in(small_disk)
    runs.add_passed(store, "r1")
    evidence = runs.record("r2")
    store.begin(evidence)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    lock = EnvironmentLock(store.directory, "production")
    holder = Holder(run_id="r2", pid=1, host="here", started_at="then", task="release")
    for act in (
        store.prepare,
        lambda: store.save(evidence),
        lambda: store.finish(runs.ended(evidence), "release"),
        lambda: store.begin(runs.record("r3")),
        lambda: lock.acquire(holder),
    ):
        with pytest.raises(EvidenceError, match="Read-only file system") as caught:
            act()
        assert str(small_disk) in caught.value.message
    repair.complete(store)
    assert verify(store).unfinished == ("r2",)
    assert store.load("r1").status == "passed"


@pytest.mark.parametrize("failing", range(8))
def test_a_run_that_cannot_finish_stays_unfinished_whatever_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Each fsync and rename of `finish` fails once."""
    runs.add_passed(store, "r1")
    evidence = runs.deployed(runs.record("r2"), runs.probed("+++++"))
    store.begin(evidence)
    evidence.status, evidence.status_reason = "failed", "interrupted"
    store.save(evidence)
    evidence.status, evidence.status_reason = "passed", "all_probes_healthy"
    calls: list[str] = []

    def failing_once(name: str) -> None:
        real = getattr(os, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == failing + 1:
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, step)

    for name in ("fsync", "replace", "rename"):
        failing_once(name)
    finished = False
    with suppress(EvidenceError):
        store.finish(runs.ended(evidence), "release")
        finished = True
    assert len(calls) > failing
    monkeypatch.undo()
    repair.complete(store)
    assert any(line.run_id == "r2" for line in store.ledger.read()) is finished
    assert shown(store)["status"] == store.load("r2").status
    assert (store.load("r2").status == "passed") is finished
    assert verify(store).mismatches == ()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.replace_durably(path, b"old")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        files.replace_durably(path, b"new")
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("file", b"old")]


# --- schema ------------------------------------------------------------------------------------------


def test_the_shipped_schema_is_that_of_the_records() -> None:
    shipped = ROOT / "opsgate" / "evidence" / "evidence.schema.json"
    assert json.loads(shipped.read_text()) == json.loads(json.dumps(json_schema()))


def test_records_keep_to_the_shipped_schema(store: Store) -> None:
    import jsonschema

    runs.add_passed(store, "r1", "v1", images=[runs.image()])
    runs.add_failed(store, "r2", "v2")
    store.begin(runs.record("r3"))
    for run_id in ("r1", "r2", "r3"):
        jsonschema.validate(json.loads(store.read_bytes(run_id)), json_schema())
