from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from opsgate.errors import EnvironmentHeld, EvidenceError
from opsgate.evidence import lock as module
from opsgate.evidence.files import replace
from opsgate.evidence.lock import EnvironmentLock, Holder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER_PROGRAM = """
import os, sys, time
from pathlib import Path
from opsgate.evidence.lock import EnvironmentLock, Holder
lock = EnvironmentLock(Path(sys.argv[1]), sys.argv[2])
lock.acquire(Holder(run_id=sys.argv[3], pid=os.getpid(), host="here", started_at="then", task="release"))
print("held", flush=True)
answers = sys.argv[4] == "answers"
while not answers or lock.taken_over_by() is None:
    time.sleep(0.01)
lock.release()
print("released", flush=True)
"""


def holder(run_id: str = "r1", pid: int = 4711) -> Holder:
    return Holder(run_id=run_id, pid=pid, host="runner-7", started_at="2026-05-28T20:26:40.000Z", task="gate")


class Other:
    """Another process that holds an environment."""

    def __init__(self, directory: Path, environment: str, run_id: str, *, answers: bool) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                HOLDER_PROGRAM,
                str(directory),
                environment,
                run_id,
                "answers" if answers else "deaf",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"


@pytest.fixture
def others() -> Iterator[list[Other]]:
    started: list[Other] = []
    yield started
    for other in started:
        other.process.kill()
        other.process.communicate()


def test_a_second_run_is_told_who_holds_the_environment(tmp_path: Path) -> None:
    elsewhere = EnvironmentLock(tmp_path, "staging")
    elsewhere.acquire(holder("elsewhere"))
    first = EnvironmentLock(tmp_path, "production")
    first.acquire(holder())
    with pytest.raises(EnvironmentHeld) as caught:
        EnvironmentLock(tmp_path, "production").acquire(holder("r2"))
    assert caught.value.exit_code == 75
    assert caught.value.message == (
        "environment production is held by run r1 (gate, process 4711 on runner-7, "
        "since 2026-05-28T20:26:40.000Z)"
    )
    first.release()
    second = EnvironmentLock(tmp_path, "production")
    second.acquire(holder("r2"))
    second.release()


def test_a_killed_holder_leaves_no_stale_lock(tmp_path: Path, others: list[Other]) -> None:
    others.append(Other(tmp_path, "production", "r1", answers=False))
    with pytest.raises(EnvironmentHeld, match=rf"run r1 \(release, process {others[0].process.pid} on here"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r2"))
    others[0].process.kill()
    others[0].process.wait()
    lock = EnvironmentLock(tmp_path, "production")
    lock.acquire(holder("r2"))
    assert lock.taken_over_by() is None


def test_who_has_only_just_locked_it_is_named_once_it_has_left_its_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EnvironmentLock(tmp_path, "production")
    first.acquire(holder())
    note = tmp_path / ".locks" / "production.holder.json"
    content = note.read_bytes()
    note.unlink()
    monkeypatch.setattr(time, "sleep", lambda _: note.write_bytes(content))
    with pytest.raises(EnvironmentHeld, match="run r1"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r2"))


def test_a_killed_run_is_not_named_in_place_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / ".locks" / "production.holder.json"
    note.parent.mkdir()
    note.write_bytes(msgspec.json.encode(holder("killed")))
    said: list[str] = []

    def looked_at_before(path: Path, data: bytes) -> None:
        with pytest.raises(EnvironmentHeld) as caught:
            EnvironmentLock(tmp_path, "production").acquire(holder("r3"))
        said.append(caught.value.message)
        replace(path, data)

    monkeypatch.setattr(module, "replace", looked_at_before)
    EnvironmentLock(tmp_path, "production").acquire(holder("r2"))
    assert said == ["environment production is held by another run"]


def test_the_lock_is_not_inherited_by_a_hook(tmp_path: Path) -> None:
    lock = EnvironmentLock(tmp_path, "production")
    lock.acquire(holder())
    child = subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)
    try:
        lock.release()
        again = EnvironmentLock(tmp_path, "production")
        again.acquire(holder("r2"))
    finally:
        child.communicate(b"\n")


def test_a_lock_that_a_file_system_will_not_give_back_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = EnvironmentLock(tmp_path, "production")
    lock.acquire(holder())
    flock = fcntl.flock
    refused: list[int] = []

    def refuse(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN and not refused:
            refused.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock.release()
    assert refused
    assert not (tmp_path / ".locks" / "production.holder.json").exists()


@pytest.mark.parametrize("environment", ["ledger", "-", "a..b", "x" * 64])
def test_each_environment_has_a_lock_of_its_own_inside_the_directory(
    tmp_path: Path, environment: str
) -> None:
    lock = EnvironmentLock(tmp_path, environment)
    lock.acquire(holder())
    with pytest.raises(EnvironmentHeld):
        EnvironmentLock(tmp_path, environment).acquire(holder("r2"))
    others = [EnvironmentLock(tmp_path, f"{environment[:32]}{end}") for end in ("x", ".taken", ".holder")]
    for other in others:
        other.acquire(holder("r3"))
    lock.release()
    lock.acquire(holder())
    assert [item.name for item in tmp_path.iterdir()] == [".locks"]
    assert all(item.is_file() for item in (tmp_path / ".locks").iterdir())


def test_a_free_environment_is_taken_over_from_nobody(tmp_path: Path) -> None:
    lock = EnvironmentLock(tmp_path, "production")
    assert lock.take_over(holder()) is None
    with pytest.raises(EnvironmentHeld, match="run r1"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r2"))


def test_a_holder_that_answers_is_taken_over_from(tmp_path: Path, others: list[Other]) -> None:
    others.append(Other(tmp_path, "production", "r1", answers=True))
    lock = EnvironmentLock(tmp_path, "production")
    taken = lock.take_over(holder("r2"), wait=30)
    assert taken is not None
    assert (taken.run_id, taken.pid, taken.host, taken.reached) == (
        "r1",
        others[0].process.pid,
        "here",
        True,
    )
    with pytest.raises(EnvironmentHeld, match="run r2"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r3"))
    assert others[0].process.wait(10) == 0
    lock.release()
    assert {item.suffix for item in (tmp_path / ".locks").iterdir()} == {".lock", ".taken"}


def test_a_holder_that_does_not_answer_is_passed_by_and_sees_it_when_it_wakes_up(
    tmp_path: Path, others: list[Other]
) -> None:
    others.append(Other(tmp_path, "production", "r1", answers=True))
    os.kill(others[0].process.pid, signal.SIGSTOP)
    lock = EnvironmentLock(tmp_path, "production")
    taken = lock.take_over(holder("r2"), wait=0.5)
    assert taken is not None
    assert (taken.run_id, taken.reached) == ("r1", False)
    os.kill(others[0].process.pid, signal.SIGCONT)
    assert others[0].process.wait(10) == 0
    with pytest.raises(EnvironmentHeld, match="run r2"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r3"))
    lock.release()
    again = EnvironmentLock(tmp_path, "production")
    again.acquire(holder("r3"))


def test_a_holder_that_is_killed_meanwhile_was_not_taken_over_from(
    tmp_path: Path, others: list[Other]
) -> None:
    others.append(Other(tmp_path, "production", "r1", answers=False))
    lock = EnvironmentLock(tmp_path, "production")
    requests = tmp_path / ".locks"

    def kill_once_asked() -> None:
        while not list(requests.glob("*.request")):
            others[0].process.poll()
        others[0].process.kill()

    killer = threading.Thread(target=kill_once_asked)
    killer.start()
    assert lock.take_over(holder("r2"), wait=30) is None
    killer.join()


def test_who_took_over_can_be_taken_over_from(tmp_path: Path) -> None:
    first, second, third = (EnvironmentLock(tmp_path, "production") for _ in range(3))
    first.acquire(holder("r1"))
    assert second.take_over(holder("r2"), wait=0.5) is not None
    taken = third.take_over(holder("r3"), wait=0.5)
    assert taken is not None
    assert taken.run_id == "r2"
    seen = [lock.taken_over_by() for lock in (first, second, third)]
    assert [item and item.run_id for item in seen] == ["r2", "r3", None]


def test_a_holder_that_was_passed_by_is_named_again_when_the_taker_has_ended(tmp_path: Path) -> None:
    deaf, taker, third = (EnvironmentLock(tmp_path, "production") for _ in range(3))
    deaf.acquire(holder("r1"))
    taker.take_over(holder("r2"), wait=0.1)
    note = tmp_path / ".locks" / "production.taker.json"
    left = note.read_bytes()
    with pytest.raises(EnvironmentHeld, match="run r2"):
        third.acquire(holder("r3"))
    taker.release()
    for killed in (False, True):
        if killed:
            note.write_bytes(left)
        with pytest.raises(EnvironmentHeld, match="run r1"):
            third.acquire(holder("r3"))
    deaf.release()
    third.acquire(holder("r3"))
    third.release()
    assert third.holder() is None


def test_a_taker_that_answers_gives_its_place_at_once(tmp_path: Path) -> None:
    deaf, taker, third = (EnvironmentLock(tmp_path, "production") for _ in range(3))
    deaf.acquire(holder("r1"))
    taker.take_over(holder("r2"), wait=0.1)

    def answer() -> None:
        if taker.taken_over_by() is not None:
            taker.release()

    taken = third.take_over(holder("r3"), wait=30, check=answer)
    assert taken is not None
    assert (taken.run_id, taken.reached) == ("r2", True)
    assert third.passed_by() == holder("r1")
    assert deaf.taken_over_by() is not None
    with pytest.raises(EnvironmentHeld, match="run r3"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r4"))
    deaf.release()
    assert third.passed_by() is None
    with pytest.raises(EnvironmentHeld, match="run r3"):
        EnvironmentLock(tmp_path, "production").acquire(holder("r4"))


def test_whom_there_is_to_wait_for_is_told_once_it_was_asked(tmp_path: Path) -> None:
    first, second = (EnvironmentLock(tmp_path, "production") for _ in range(2))
    found: list[tuple[Holder | None, int]] = []

    def told(who: Holder | None) -> None:
        found.append((who, len(list((tmp_path / ".locks").glob("*.request")))))

    assert first.take_over(holder("r1"), found=told) is None
    assert not found
    assert second.take_over(holder("r2"), wait=0.2, found=told) is not None
    assert found == [(holder("r1"), 1)]


class Stop(Exception):
    """What ends the wait."""


def stopped() -> None:
    raise Stop


@pytest.mark.parametrize("noticed", [False, True])
def test_a_request_is_taken_back_unless_it_has_been_noticed(tmp_path: Path, noticed: bool) -> None:
    first, second = (EnvironmentLock(tmp_path, "production") for _ in range(2))
    first.acquire(holder("r1"))

    def stop() -> None:
        if noticed:
            assert first.taken_over_by() == holder("r2")
        raise Stop

    with pytest.raises(Stop):
        second.take_over(holder("r2"), check=stop)
    assert second.withdraw(holder("r2")) == (holder("r1") if noticed else None)
    assert first.taken_over_by() == (holder("r2") if noticed else None)
    assert not list((tmp_path / ".locks").glob("*.request"))


def test_a_request_that_is_taken_back_while_it_is_read_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (EnvironmentLock(tmp_path, "production") for _ in range(2))
    first.acquire(holder("r1"))
    second.take_over(holder("r2"), wait=0.1)
    read = module._read

    def read_too_late(path: Path) -> Holder | None:
        content = read(path)
        monkeypatch.setattr(module, "_read", read)
        assert second.withdraw(holder("r2")) is None
        return content

    monkeypatch.setattr(module, "_read", read_too_late)
    assert first.taken_over_by() is None


def test_what_another_taker_asked_for_is_not_taken_back(tmp_path: Path) -> None:
    first, second, third = (EnvironmentLock(tmp_path, "production") for _ in range(3))
    first.acquire(holder("r1"))

    def stop() -> None:
        with pytest.raises(Stop):
            third.take_over(holder("r3"), check=stopped)
        raise Stop

    with pytest.raises(Stop):
        second.take_over(holder("r2"), check=stop)
    assert second.withdraw(holder("r2")) == holder("r1")
    assert first.taken_over_by() == holder("r3")


def test_what_an_earlier_taker_asked_for_stands_when_the_next_one_takes_its_own_back(tmp_path: Path) -> None:
    first, second, third = (EnvironmentLock(tmp_path, "production") for _ in range(3))
    first.acquire(holder("r1"))
    second.take_over(holder("r2"), wait=0.1)
    second.release()
    with pytest.raises(Stop):
        third.take_over(holder("r3"), check=stopped)
    assert third.withdraw(holder("r3")) == holder("r1")
    assert first.taken_over_by() == holder("r2")


def test_a_request_ends_only_the_run_that_it_names(tmp_path: Path) -> None:
    lost = EnvironmentLock(tmp_path, "production")
    lost.acquire(holder("r1", 1))
    elsewhere = EnvironmentLock(tmp_path, "staging")
    elsewhere.acquire(holder("r2", 2))
    EnvironmentLock(tmp_path, "staging").take_over(holder("r3", 3), wait=0.5)
    assert lost.taken_over_by() is None
    taker = EnvironmentLock(tmp_path, "production")
    taker.take_over(holder("r4", 4), wait=0.5)
    lost.release()
    taker.release()
    again = EnvironmentLock(tmp_path, "production")
    again.acquire(holder("r1", 1))
    assert again.taken_over_by() is None


def test_a_lock_that_cannot_be_made_names_the_path(tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("in the way")
    lock = EnvironmentLock(tmp_path, "production")
    for act in (lock.acquire, lock.take_over):
        with pytest.raises(EvidenceError, match=r"\.locks") as caught:
            act(holder())
        assert caught.value.exit_code == 74


def refuse(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("refused", ["replace", "replace_durably", "EnvironmentLock._try"])
def test_where_nothing_can_be_written_a_holder_is_seen_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    first, second = (EnvironmentLock(tmp_path, "production") for _ in range(2))
    first.acquire(holder("r1"))
    monkeypatch.setattr(f"{module.__name__}.replace_durably", refuse)
    monkeypatch.setattr(f"{module.__name__}.{refused}", refuse)
    with pytest.raises(EnvironmentHeld, match="run r1"):
        second.acquire(holder("r2"))
    # Who cannot be asked is not waited for.
    taken = second.take_over(holder("r2"), wait=3600)
    assert taken is not None
    assert (taken.run_id, taken.reached) == ("r1", False)
    assert second.unasked is not None
    assert second.unasked.strerror == "No space left on device"
    first.release()


def test_where_there_is_no_room_for_a_note_the_environment_is_held_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "replace", refuse)
    first, second = (EnvironmentLock(tmp_path, "production") for _ in range(2))
    first.acquire(holder("r1"))
    with pytest.raises(EnvironmentHeld, match="held by another run"):
        second.acquire(holder("r2"))
    first.release()
    second.acquire(holder("r2"))


@pytest.mark.parametrize("content", [b"{", b"\xf4\xff", b"[]"])
def test_a_holder_file_that_cannot_be_read_hides_nothing_but_the_name(tmp_path: Path, content: bytes) -> None:
    first = EnvironmentLock(tmp_path, "production")
    first.acquire(holder())
    (tmp_path / ".locks" / "production.holder.json").write_bytes(content)
    lock = EnvironmentLock(tmp_path, "production")
    with pytest.raises(EnvironmentHeld, match="held by another run"):
        lock.acquire(holder("r2"))
    taken = lock.take_over(holder("r2"), wait=0.5)
    assert taken is not None
    assert (taken.run_id, taken.reached) == ("unknown", False)
    assert lock.holder() == holder("r2")
