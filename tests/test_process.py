"""Each limit of a hook, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.hooks import group, process
from opsgate.hooks.process import Finished, explain, run
from opsgate.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
SECRET = "hunter2secret"
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


class Hook:
    """Runs commands in one directory; knows every line that was shown."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "hook.log"
        self.lines: list[str] = []
        self.run_id = f"test-{uuid.uuid4().hex}"

    def __call__(self, command: str, **changes: Any) -> Finished:
        arguments: dict[str, Any] = {
            "env": {"PATH": os.environ["PATH"], "OPSGATE_RUN_ID": self.run_id},
            "cwd": self.directory,
            "limit": 30.0,
            "label": "deploy",
            "redactor": Redactor([SECRET]),
            "log": self.log,
            "emit": self.lines.append,
        }
        return run(command, **(arguments | changes))

    def appears(self, name: str) -> Callable[[], bool]:
        """A `cut` that says yes once the hook has made this file."""
        return (self.directory / name).exists

    def pid(self, name: str) -> int:
        return int((self.directory / name).read_text())


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    made = Hook(tmp_path)
    yield made
    for entry in tmp_path.glob("*.pid"):
        with suppress(OSError, ValueError):
            os.kill(int(entry.read_text()), signal.SIGKILL)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(pid: int) -> bool:
    """Whether the process ends within seconds: KILL takes effect a little after it was sent."""
    end = time.monotonic() + 5
    while lives(pid) and time.monotonic() < end:
        os.sched_yield()
    return not lives(pid)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_success(hook: Hook) -> None:
    result = hook("echo out; echo err >&2; pwd")
    assert result.succeeded
    assert (result.exit_code, result.explanation, result.survivors) == (0, "", ())
    assert not result.output_held
    assert hook.lines == ["out", "err", str(hook.directory)]
    assert result.output_tail == f"out\nerr\n{hook.directory}\n"
    assert hook.log.read_text() == result.output_tail
    assert 0 <= result.duration_ms < 5000


def test_stdout_and_stderr_keep_their_order(hook: Hook) -> None:
    hook("for n in 1 2 3 4 5; do echo o$n; echo e$n >&2; done")
    assert hook.lines == [f"{stream}{n}" for n in range(1, 6) for stream in "oe"]


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("exit 3", 3, "exit 3"),
        ("no-such-command-here", 127, "command not found (exit 127)"),
        (". ./hook.txt; ./hook.txt", 126, "permission denied, or not a program (exit 126)"),
        ("kill -KILL $$", 137, "killed by SIGKILL (out of memory?)"),
        ("kill -TERM $$", 143, "killed by SIGTERM"),
        ("sh -c 'kill -KILL $$'; exit $?", 137, "exit 137: killed by SIGKILL (out of memory?)"),
        ("exit 255", 255, "exit 255"),
        ("exit 129", 129, "exit 129"),
    ],
)
def test_endings_are_told_apart(hook: Hook, command: str, code: int, words: str) -> None:
    (hook.directory / "hook.txt").touch(mode=0o644)
    result = hook(command)
    assert (result.exit_code, result.explanation) == (code, words)
    assert not result.succeeded


@pytest.mark.parametrize(
    ("limit", "words"),
    [(240.0, "timed out after 4 min"), (90.0, "timed out after 90 s"), (0.5, "timed out after 0.5 s")],
)
def test_limits_in_words(limit: float, words: str) -> None:
    assert explain(-15, "timed out", limit) == words


def test_a_real_time_signal_has_a_number() -> None:
    assert explain(-40, "", 1) == "killed by signal 40"


def test_the_environment_is_exactly_the_given_one(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED_FROM_OUTSIDE", "1")
    hook("env", env={"PATH": os.environ["PATH"], "GIVEN": "yes"})
    assert "GIVEN=yes" in hook.lines
    assert not any(line.startswith("LEAKED") for line in hook.lines)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"cwd": Path("/no/such/place")},
            "deploy could not be started: No such file or directory: /no/such/place",
        ),
        ({"env": {"BIG": "x" * 4_000_000}}, "deploy could not be started: Argument list too long"),
        ({"env": {"NUL": "a\0b"}}, "deploy could not be started: embedded null byte"),
    ],
)
def test_what_cannot_be_started_is_told(hook: Hook, changes: dict[str, Any], words: str) -> None:
    before = open_files()
    result = hook("true", **changes)
    assert result.exit_code is None
    assert not result.succeeded
    assert result.explanation.startswith(words)
    assert open_files() == before


def test_a_session_of_its_own(hook: Hook) -> None:
    hook(f"'{sys.executable}' -c 'import os; print(os.getsid(0), os.getpgid(0), os.getppid())'; echo $$")
    session, group, parent = hook.lines[0].split()
    assert session == group == parent == hook.lines[1]
    assert int(session) != os.getsid(0)


def test_the_time_limit_ends_the_whole_group(hook: Hook) -> None:
    result = hook("sleep 60 & echo $! > a.pid; sleep 60 | cat & echo $! > b.pid; wait", limit=1.5, grace=5)
    assert result.timed_out
    assert not result.succeeded
    assert result.exit_code == 143
    assert result.explanation == "timed out after 1.5 s"
    assert 1500 <= result.duration_ms < 6000
    assert gone(hook.pid("a.pid"))
    assert gone(hook.pid("b.pid"))


def test_term_comes_first_and_can_be_answered(hook: Hook) -> None:
    result = hook("trap 'echo cleaning up; exit 0' TERM; sleep 60 & wait", limit=1.5, grace=5)
    assert result.timed_out
    assert not result.succeeded
    assert result.exit_code == 0
    assert hook.lines == ["cleaning up"]
    assert result.duration_ms < 6000


def test_a_group_that_ignores_term_is_killed(hook: Hook) -> None:
    result = hook("trap '' TERM; sleep 60 & echo $! > a.pid; sleep 60", limit=1.5, grace=0.4)
    assert result.timed_out
    assert result.exit_code == 137
    assert 1900 <= result.duration_ms < 7000
    assert gone(hook.pid("a.pid"))


@linux
def test_a_child_that_ignores_term_is_killed_after_its_shell_is_gone(hook: Hook) -> None:
    child = 'trap "" TERM; echo $$ > a.pid; touch ready; while :; do sleep 60; done'
    result = hook(
        f"sh -c '{child}' & while [ ! -e ready ]; do sleep 0.01; done; exec sleep 60", limit=2, grace=0.4
    )
    assert result.timed_out
    assert result.exit_code == 143
    assert 2400 <= result.duration_ms < 8000
    assert gone(hook.pid("a.pid"))


def test_output_flows_while_a_hook_is_being_ended(hook: Hook) -> None:
    # A handler that has to write more than a pipe holds would otherwise never come to its end.
    result = hook(
        "trap 'head -c 1000000 /dev/zero; echo; echo done; exit 7' TERM; sleep 60 & wait", limit=1.5, grace=9
    )
    assert result.exit_code == 7
    assert hook.lines[-1] == "done"


def test_an_interrupt_ends_it(hook: Hook) -> None:
    result = hook("echo $$ > a.pid; touch ready; sleep 60", cut=hook.appears("ready"))
    assert result.interrupted
    assert not result.timed_out
    assert (result.exit_code, result.explanation) == (143, "interrupted")
    assert result.duration_ms < 9000
    assert gone(hook.pid("a.pid"))


def test_an_interrupt_kills_within_its_shorter_grace(hook: Hook) -> None:
    begun = time.monotonic()
    result = hook("trap '' TERM; touch ready; sleep 60", cut=hook.appears("ready"), grace=60)
    assert result.interrupted
    assert result.exit_code == 137
    assert 3.0 <= time.monotonic() - begun < 10


def test_an_interrupt_shortens_the_grace_of_a_time_limit(hook: Hook) -> None:
    result = hook(
        "trap 'touch asked' TERM; echo $$ > a.pid; while :; do sleep 0.05; done",
        limit=1.5, grace=60, cut=hook.appears("asked"),
    )  # fmt: skip
    assert result.interrupted
    assert result.duration_ms < 10_000
    assert gone(hook.pid("a.pid"))


def test_a_hook_that_has_exited_is_finished(hook: Hook) -> None:
    result = hook("sleep 60 & echo $! > a.pid; echo started", limit=20)
    assert result.succeeded
    assert result.duration_ms < 5000
    assert hook.lines == ["started"]
    assert lives(hook.pid("a.pid"))
    assert result.output_held


def test_a_child_that_floods_the_pipe_does_not_hold_the_hook(hook: Hook) -> None:
    result = hook("yes & echo $! > a.pid; echo started", limit=20)
    assert result.succeeded
    assert result.output_held
    assert gone(hook.pid("a.pid")), "nobody reads what it writes"
    assert result.duration_ms < 5000


def test_output_that_is_shown_slowly_is_not_held(hook: Hook) -> None:
    def slowly(line: str) -> None:
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass
        hook.lines.append(line)

    # More than one pipe of it: the last one alone takes longer to show than may come after the exit.
    line = "x" * 63
    result = hook(f"yes {line} | head -c 131072", emit=slowly)
    assert result.succeeded
    assert not result.output_held
    assert len(hook.log.read_bytes()) == 131072
    result = hook(f"sleep 60 & echo $! > a.pid; yes {line} | head -c 131072", emit=slowly)
    assert result.output_held


def test_output_that_comes_just_after_the_exit_is_kept(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DRAIN", 10.0)
    hook("(sleep 0.1; echo late) & echo early")
    assert hook.lines == ["early", "late"]


def test_an_exit_before_the_limit_is_no_timeout(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is left behind holds the output for longer than the limit.
    monkeypatch.setattr(process, "DRAIN", 1.5)
    result = hook("sleep 60 & echo $! > a.pid; exit 4", limit=1.0)
    assert (result.exit_code, result.timed_out) == (4, False)


@linux
@pytest.mark.parametrize("by_key", [False, True])
def test_an_interrupt_just_after_the_exit_ends_nothing(hook: Hook, by_key: bool) -> None:
    asked: list[bool] = []

    def cut() -> bool:
        if asked or not (hook.directory / "ready").exists():
            return bool(asked)
        (hook.directory / "go").touch()
        while lives(hook.pid("b.pid")):
            os.sched_yield()
        asked.append(True)
        if by_key:
            raise KeyboardInterrupt
        return True

    result = hook(
        "sleep 60 & echo $! > a.pid; echo $$ > b.pid; touch ready; while [ ! -e go ]; do sleep 0.01; done",
        cut=cut,
    )
    assert asked == [True]
    assert result.succeeded
    assert result.explanation == ""
    assert lives(hook.pid("a.pid"))


def test_a_hook_that_closes_its_output_is_still_waited_for(hook: Hook) -> None:
    result = hook("exec >&- 2>&-; sleep 0.3; exit 5")
    assert result.exit_code == 5
    assert result.duration_ms >= 300


@linux
def test_what_is_between_two_programs_is_reported_too(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    def environment(pid: int) -> list[bytes]:
        looked_at.append(pid)
        return really(pid) if looked_at.count(pid) > 1 else [b""]

    looked_at: list[int] = []
    really = group._environment
    monkeypatch.setattr(group, "_environment", environment)
    result = hook("sleep 60 > /dev/null 2>&1 & echo $! > a.pid")
    assert result.survivors == (hook.pid("a.pid"),)


@linux
@pytest.mark.parametrize(
    "escape",
    [
        "setsid sleep 60 > /dev/null 2>&1 & echo $! > a.pid",
        "(setsid sh -c 'echo $$ > a.pid; exec sleep 60' > /dev/null 2>&1 &)",
        "(nohup sleep 60 > /dev/null 2>&1 & echo $! > a.pid)",
    ],
)
def test_what_a_hook_leaves_behind_is_reported_and_let_live(hook: Hook, escape: str) -> None:
    result = hook(f"{escape}; while [ ! -s a.pid ]; do sleep 0.01; done")
    assert result.succeeded
    assert not result.output_held
    assert result.survivors == (hook.pid("a.pid"),)
    assert lives(hook.pid("a.pid"))


@linux
def test_what_escapes_a_time_limit_is_reported(hook: Hook) -> None:
    result = hook("setsid sleep 60 & echo $! > a.pid; wait", limit=1.5, grace=5)
    assert result.timed_out
    assert result.survivors == (hook.pid("a.pid"),)
    assert result.duration_ms < 6000


@linux
def test_survivors_are_this_hooks_own(hook: Hook) -> None:
    older = subprocess.Popen(["sleep", "60"], env={"OPSGATE_RUN_ID": hook.run_id, "PATH": os.environ["PATH"]})
    try:
        # Start times are counted in hundredths of a second.
        while hook("exec sleep 0.02").survivors:
            pass
        assert hook("true").survivors == ()
    finally:
        older.kill()
        older.wait()


def test_secrets_are_masked_everywhere(hook: Hook) -> None:
    result = hook("printf 'a hunter2'; sleep 0.2; echo 'secret b'; printf hunter2secret >&2")
    assert hook.lines == ["a *** b", "***"]
    assert result.output_tail == "a *** b\n***"
    assert hook.log.read_text() == "a *** b\n***"


def test_output_is_made_harmless(hook: Hook) -> None:
    result = hook(r"printf '::error::x\n50%%\r::notice::y\r\n\033[2Jz ##[error]w\n'")
    assert hook.lines == ["\\::error::x", "50%", "\\::notice::y", "\\x1b[2Jz ##\\[error]w"]
    assert result.output_tail.splitlines() == hook.lines
    assert hook.log.read_text().splitlines() == hook.lines


def test_split_utf8(hook: Hook) -> None:
    hook(r"printf '\303'; sleep 0.1; printf '\244\n'")
    assert hook.lines == ["ä"]


def test_a_chain_shares_one_log(hook: Hook) -> None:
    hook("echo first; exit 1")
    hook("echo second")
    assert hook.log.read_text() == "first\nsecond\n"


def test_a_log_that_cannot_be_written_is_told(hook: Hook) -> None:
    result = hook("echo fine", log=hook.directory / "missing" / "x.log")
    assert result.succeeded
    assert "No such file" in result.log_error
    assert hook.lines == ["fine"]


def test_without_a_log(hook: Hook) -> None:
    assert hook("echo fine", log=None).log_error == ""


def in_a_process_of_its_own(body: str, directory: Path) -> subprocess.Popen[str]:
    """Python that has `go(command, **changes)`, which prints how it ended as JSON."""
    script = """
        import json, os, resource, signal, sys, time
        from pathlib import Path
        from opsgate.hooks.process import run
        from opsgate.redact import Redactor
        def go(command, emit=lambda line: None, **changes):
            options = dict(env=dict(os.environ), cwd=Path("."), limit=60.0, label="deploy",
                           redactor=Redactor(["hunter2secret"]), log=Path("hook.log"), emit=emit)
            result = run(command, **(options | changes))
            return {name: getattr(result, name) for name in result.__struct_fields__}
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script) + textwrap.dedent(body)],
        cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flood", "cpu"),
    [
        ("head -c 256M /dev/zero | tr '\\0' x", 1.2),
        ("yes | head -c 256M", 1.2),
        ("yes hunter2secret | head -c 256M", 1.2),
        ("head -c 100M /dev/zero", 3.0),
        ("head -c 50M /dev/urandom", 3.0),
        ("yes 'https://host/?token=abc' | tr '\\n' '\\r' | head -c 100M", 3.0),
    ],
)
def test_a_flood_costs_little_and_no_memory(tmp_path: Path, flood: str, cpu: float) -> None:
    measured = in_a_process_of_its_own(
        f"""
        shown = []
        go("echo warm hunter2secret; head -c 200000 /dev/urandom")
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        result = go({flood!r} + "; echo; echo the end", emit=shown.append)
        after = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps(dict(
            cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            seconds=time.monotonic() - begun,
            grown=after.ru_maxrss - before.ru_maxrss,
            tail=result["output_tail"], shown=len(shown), chars=sum(map(len, shown)), last=shown[-1],
            code=result["exit_code"], log=os.path.getsize("hook.log"))))
        """,
        tmp_path,
    )
    out, _ = measured.communicate(timeout=100)
    seen = json.loads(out)
    assert seen["code"] == 0
    assert seen["cpu"] < cpu
    assert seen["grown"] < 8 * 1024  # KiB
    # A burst and a trickle of lines and characters, and the end of it.
    assert seen["shown"] < 2100 + 100 * seen["seconds"]
    assert seen["chars"] < 1_000_000 + 32 * 1024 * seen["seconds"]
    assert seen["last"].endswith("the end")
    assert seen["tail"].endswith("the end\n")
    assert len(seen["tail"].encode()) <= 64 * 1024
    assert seen["log"] <= 16 * 1024 * 1024


def test_stdin_is_closed(tmp_path: Path) -> None:
    process = in_a_process_of_its_own(
        "print(json.dumps(go('cat; read -r line || echo nothing to read')['output_tail']))", tmp_path
    )
    out, _ = process.communicate("what opsgate itself is given\n", timeout=30)
    assert json.loads(out) == "nothing to read\n"


def test_signals_that_only_set_a_flag_do_not_disturb(tmp_path: Path) -> None:
    process = in_a_process_of_its_own(
        """
        seen = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda signum, frame: seen.append(signum))
        me = os.getpid()
        result = go(f"for s in TERM INT HUP; do kill -$s {me}; sleep 0.1; done; echo ok; exit 6")
        print(json.dumps([seen, result["exit_code"], result["interrupted"], result["output_tail"]]))
        """,
        tmp_path,
    )
    out, _ = process.communicate(timeout=30)
    assert json.loads(out) == [[signal.SIGTERM, signal.SIGINT, signal.SIGHUP], 6, False, "ok\n"]


def test_ctrl_c_without_a_handler_ends_the_hook(tmp_path: Path) -> None:
    process = in_a_process_of_its_own(
        """
        result = go(f"echo $$ > a.pid; sleep 0.2; kill -INT {os.getpid()}; sleep 60")
        print(json.dumps([result["interrupted"], result["explanation"]]))
        """,
        tmp_path,
    )
    out, _ = process.communicate(timeout=30)
    assert json.loads(out) == [True, "interrupted"]
    assert gone(int((tmp_path / "a.pid").read_text()))


def test_an_exception_in_the_caller_leaves_no_orphan(hook: Hook) -> None:
    def broken() -> bool:
        if (hook.directory / "ready").exists():
            raise LookupError
        return False

    with pytest.raises(LookupError):
        hook("sleep 60 & echo $! > a.pid; echo $$ > b.pid; touch ready; wait", cut=broken)
    assert gone(hook.pid("a.pid"))
    assert gone(hook.pid("b.pid"))


def test_no_configuration_of_invoke_changes_a_hook(tmp_path: Path) -> None:
    (tmp_path / ".invoke.yaml").write_text(
        "run: {dry: true, echo: true, pty: true}\ntimeouts: {command: 1}\n"
    )
    body = "os.environ['INVOKE_RUN_DRY'] = '1'; print(json.dumps(go('echo real; exit 3')))"
    process = in_a_process_of_its_own(body, tmp_path)
    out, _ = process.communicate(timeout=30)
    seen = json.loads(out)
    assert (seen["exit_code"], seen["output_tail"]) == (3, "real\n")
