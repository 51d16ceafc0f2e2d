from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from opsgate.errors import EnvironmentHeld, EvidenceError
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
    assert "rollback --force" in caught.value.hint
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
    assert json.loads((tmp_path / ".locks" / "production.holder.json").read_text())["run_id"] == "r2"
