"""The prober: dispatch, commands, and what an attempt looks like in the record."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsgate.errors import ConfigurationError
from opsgate.probe.exchange import ProbeFailure
from opsgate.probe.kinds import PROBES, Prober
from opsgate.probe.pattern import Searcher, worst_case
from opsgate.redact import Redactor
from opsgate.verdict.expect import SearchTimeout
from opsgate.verdict.targets import Attempt, Expectation, Target
from tests.live.servers import LATE, Server, document, healthy, status


@pytest.fixture
def prober(tmp_path: Path) -> Iterator[Prober]:
    made = Prober(
        environ={"PATH": os.environ["PATH"], "GREETING": "hello"},
        redactor=Redactor(["whisper-it"]),
        cwd=tmp_path,
    )
    yield made
    made.close()


def run(prober: Prober, command: str, limit: float = 5.0) -> Attempt:
    return prober(Target(name="it", command=command), limit, 7).attempt


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Any, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_the_closed_list_of_schemes() -> None:
    assert list(PROBES) == ["http", "https", "tcp", "command"]


def test_an_unknown_scheme_names_the_valid_ones(prober: Prober) -> None:
    for ask in (lambda t: prober(t, 1.0, 0), lambda t: prober.prepare([t])):
        with pytest.raises(ConfigurationError) as error:
            ask(Target(name="it", url="gopher://127.0.0.1/"))
        assert str(error.value) == (
            "target it: cannot probe 'gopher'\n  Valid are: http, https, tcp, command."
        )


def test_an_attempt_in_the_record(prober: Prober) -> None:
    with Server(healthy()) as server:
        made = prober(Target(name="it", url=server.url), 2.0, 1234).attempt
    assert made == Attempt(
        at_ms=1234,
        elapsed_ms=made.elapsed_ms,
        ok=True,
        status_code=200,
        remote_ip="127.0.0.1",
        bytes=len(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n")
        + len(b"Connection: close\r\n\r\n")
        + 15,
    )
    assert made.elapsed_ms == round(made.elapsed_ms, 1) > 0


def test_the_scheme_may_be_in_capitals(prober: Prober) -> None:
    with Server(healthy()) as server:
        assert prober(Target(name="it", url=server.url.replace("http", "HTTP")), 2.0, 0).attempt.ok


def test_redirects_and_their_heads_count_as_bytes(prober: Prober) -> None:
    with Server(status(302, ("Location", "http://other.example.com/"))) as server:
        made = prober(Target(name="it", url=server.url), 2.0, 0).attempt
    assert (made.kind, made.status_code) == ("redirect", 302)
    assert made.bytes > 0


def test_a_revision_is_masked_too(prober: Prober) -> None:
    expect = Expectation(revision="json:version")
    with Server(document(version="whisper-it")) as server:
        assert prober(Target(name="it", url=server.url, expect=expect), 2.0, 0).attempt.revision == "***"


# Commands


@pytest.mark.parametrize(
    ("command", "kind", "detail"),
    [
        ("exit 0", None, ""),
        ("echo one; echo two", None, "two"),
        ("echo two; echo; echo '  '", None, "two"),
        ("echo on stderr >&2", None, "on stderr"),
        ("echo $GREETING", None, "hello"),
        ("printf 'no newline'", None, "no newline"),
        ("printf '\\033[31mred'", None, "�[31mred"),
        ("printf 'a\\377b'", None, "a�b"),
        ("echo it is whisper-it", None, "it is ***"),
        ("echo bad; exit 3", "exit", "exit 3: bad"),
        ("exit 1", "exit", "exit 1"),
        ("kill -9 $$", "exit", "killed by signal 9"),
        ("read x || echo closed", None, "closed"),
        ("exec 1>&- 2>&-; sleep 0.1; exit 4", "exit", "exit 4"),
        ("head -c 300 /dev/zero | tr '\\0' y", None, "y" * 199 + "…"),
    ],
)
def test_command(prober: Prober, command: str, kind: str | None, detail: str) -> None:
    made = run(prober, command)
    assert (made.ok, made.kind, made.detail) == (kind is None, kind, detail)
    assert (made.at_ms, made.status_code, made.remote_ip) == (7, None, None)


def test_a_command_that_does_not_exist(prober: Prober) -> None:
    made = run(prober, "no-such-command-anywhere")
    assert made.kind == "exit"
    assert made.detail.startswith("exit 127: ")


def test_a_command_runs_in_the_directory_given(prober: Prober, tmp_path: Path) -> None:
    assert run(prober, "pwd").detail == str(tmp_path)


def test_a_directory_that_is_gone() -> None:
    prober = Prober(environ={}, redactor=Redactor(), cwd=Path("/no/such/directory"))
    made = run(prober, "true")
    assert made.kind == "exit"
    assert made.detail == "cannot run the command: No such file or directory"


def test_past_the_limit_the_whole_group_is_killed(prober: Prober, tmp_path: Path) -> None:
    made = run(prober, "trap '' TERM; sleep 60 & echo $! > child; wait", limit=1.5)
    assert made.kind == "timeout"
    assert 1490 <= made.elapsed_ms < 1500 + LATE
    child = int((tmp_path / "child").read_text())
    assert wait_until(lambda: not is_running(child))


def test_a_child_left_behind_holds_up_nothing(prober: Prober, tmp_path: Path) -> None:
    made = run(prober, "sleep 60 & echo $! > child; echo done")
    assert (made.ok, made.detail) == (True, "done")
    assert made.elapsed_ms < 3000
    child = int((tmp_path / "child").read_text())
    assert wait_until(lambda: not is_running(child))


def test_a_child_left_behind_that_floods(prober: Prober) -> None:
    made = run(prober, "yes & sleep 0.5; exit 3")
    assert (made.kind, made.detail) == ("exit", "exit 3: y")
    assert made.elapsed_ms < 5000


def test_a_command_that_floods(prober: Prober) -> None:
    made = run(prober, "yes", limit=1.0)
    assert made.kind == "timeout"
    assert made.bytes > 65536
    assert made.elapsed_ms < 1000 + LATE


def test_closing_ends_commands_that_run(prober: Prober, tmp_path: Path) -> None:
    made: list[Attempt] = []
    thread = threading.Thread(target=lambda: made.append(run(prober, "echo $$ > pid; sleep 60", limit=30)))
    thread.start()
    assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    prober.close()
    thread.join(5)
    assert made[0].detail == f"killed by signal {int(signal.SIGKILL)}"


def test_after_closing_no_command_is_started(prober: Prober, tmp_path: Path) -> None:
    prober.close()
    made = run(prober, "touch started")
    assert (made.kind, made.detail) == ("exit", "cannot run the command: the run is over")
    assert not (tmp_path / "started").exists()


def test_a_command_whose_run_ends_while_it_starts_is_killed(
    prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def slow(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*args, **options)
        prober.close()
        return process

    monkeypatch.setattr(subprocess, "Popen", slow)
    assert run(prober, "sleep 60", limit=30).detail == f"killed by signal {int(signal.SIGKILL)}"


def test_a_command_that_cannot_be_signalled_holds_up_nothing(
    prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(group: int, signum: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "killpg", refuse)
    made: list[Attempt] = []
    command = "echo $$ > pid; exec sleep 60"
    thread = threading.Thread(target=lambda: made.append(run(prober, command, limit=0.5)))
    thread.start()
    thread.join(20)
    assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    left = int((tmp_path / "pid").read_text())
    try:
        assert [attempt.kind for attempt in made] == ["timeout"]
        assert is_running(left)
    finally:
        os.kill(left, signal.SIGKILL)
    # It is waited for all the same: no zombie stays.
    assert wait_until(lambda: not Path(f"/proc/{left}").exists())


# Patterns


@pytest.fixture
def searcher() -> Iterator[Searcher]:
    made = Searcher()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("ready", "all ready", True),
        ("a.*b.*c", "a" * 30_000 + "b" * 20_000 + "c", True),
        ("a.*b.*c$", "a" * 99 + "b" * 99 + "d", False),
        (r"(?i)^\s*OK\s*$", "\n ok \n", True),
        ("(ab)+c", "ababab\udcffc", False),
        ("(\0|ü)+x", "\0üx", True),
    ],
)
def test_search(searcher: Searcher, pattern: str, text: str, found: bool) -> None:
    assert searcher(pattern, text, lambda: 20.0) is found


def test_a_search_without_end_is_given_up_and_the_next_one_works(searcher: Searcher) -> None:
    began = time.monotonic()
    with pytest.raises(SearchTimeout):
        searcher("(a+)+b", "a" * 5000, lambda: 0.3)
    assert time.monotonic() - began < 3.0
    assert searcher("(a+)+b", "aab", lambda: 20.0)


def test_searches_do_not_wait_for_each_other_longer_than_they_may(searcher: Searcher) -> None:
    took: list[float] = []

    def one() -> None:
        began = time.monotonic()
        with pytest.raises(SearchTimeout):
            searcher("(a+)+b", "a" * 5000, lambda: max(0.001, began + 0.5 - time.monotonic()))
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 8
    assert max(took) < 3.0


def test_a_child_is_kept_for_the_next_search(searcher: Searcher) -> None:
    for _ in range(3):
        assert searcher("(a)+b", "aab", lambda: 20.0)
    assert len(searcher._all) == 1
    (child,) = searcher._all
    searcher.close()
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_died_is_replaced(searcher: Searcher) -> None:
    assert searcher("(a)+b", "aab", lambda: 20.0)
    (child,) = searcher._all
    child.kill()
    child.wait()
    with pytest.raises(SearchTimeout):
        searcher("(a)+b", "aab", lambda: 20.0)
    assert searcher("(a)+b", "aab", lambda: 20.0)


def test_a_child_whose_time_is_over_before_it_is_asked_is_ended(searcher: Searcher) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def left() -> float:
        started.extend(searcher._all)
        if started:
            raise ProbeFailure("timeout", "over")
        return 20.0

    with pytest.raises(ProbeFailure, match="over"):
        searcher("(a)+b", "aab", left)
    assert [child.returncode for child in started] == [-signal.SIGKILL]
    assert not searcher._all
    assert searcher("(a)+b", "aab", lambda: 20.0)


def test_after_closing_no_child_is_started(searcher: Searcher) -> None:
    assert searcher("(a)+b", "aab", lambda: 20.0)
    searcher.close()
    with pytest.raises(SearchTimeout):
        searcher("(a)+b", "aab", lambda: 20.0)
    assert not searcher._all


@pytest.mark.parametrize(
    ("pattern", "size", "cheap"),
    [
        ("ready", 65_536, True),
        (r"version \d", 65_536, True),
        (r"\*\+\{", 65_536, True),
        (r"\d+", 900, True),
        (r"\d+", 65_536, False),
        ("(a)+", 10, False),
        ("a?" * 40 + "a" * 40, 40, False),
        ("(a|aa){1,40}b", 40, False),
        ("(?x)(a+) +b", 28, False),
        ("(?ix:(a+) # many\n +b)", 28, False),
        ("(?P<x>ready)", 65_536, True),
    ],
)
def test_which_searches_are_cheap(pattern: str, size: int, cheap: bool) -> None:
    assert (worst_case(pattern, size) <= 1_000_000) is cheap


def test_a_machine_without_threads_or_descriptors_is_a_failed_attempt(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    slow = Target(name="it", url="http://127.0.0.1/", expect=Expectation(body_regex="(a|aa)+$"))
    with Server(document(status="ok")) as server:
        monkeypatch.setattr(subprocess, "Popen", refuse)
        found = prober(msgspec.structs.replace(slow, url=server.url), 5.0, 0).attempt
    assert (found.kind, found.detail) == ("timeout", "this machine: Too many open files")
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    found = prober(Target(name="it", url="http://host.invalid/"), 5.0, 0).attempt
    assert (found.kind, found.detail) == ("timeout", "this machine: can't start new thread")


def test_a_search_that_the_end_of_the_run_cuts_off_is_given_up(searcher: Searcher) -> None:
    assert searcher("(a|b)+$", "ab", lambda: 20.0)
    child = next(iter(searcher._all))
    assert child.stdout is not None
    child.stdout.close()
    with pytest.raises(SearchTimeout):
        searcher("(a|b)+$", "ab", lambda: 20.0)
