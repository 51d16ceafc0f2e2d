from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from opsgate.console import reporter
from opsgate.console.plain import BURST, CHANGES, PlainReporter
from opsgate.evidence.record import Evidence, decode
from opsgate.evidence.views.text import render
from opsgate.verdict.judge import Failed, Passed, Tally, Waiting
from opsgate.verdict.targets import Attempt, Policy, Target
from tests import records

ROOT = Path(__file__).resolve().parent.parent
NOON = 1_764_000_065.0  # 2025-11-24 16:01:05 UTC
POLICY = Policy(deadline=60, soak=15)


def record(name: str = "passed") -> Evidence:
    return decode((records.DIRECTORY / f"{name}.json").read_bytes())


class Told:
    """A plain reporter whose clock follows the attempts, and what it has written."""

    def __init__(self, names: int | list[str] = 1, *, summary: bool = False) -> None:
        self.stream = io.StringIO()
        self.reporter = PlainReporter(self.stream, summary=summary, wall=lambda: NOON + self.now)
        self.now = 0.0
        self.names = [f"t{i}" for i in range(names)] if isinstance(names, int) else names
        self.tallies = [Tally() for _ in self.names]

    def probing(self) -> Told:
        self.reporter.probing([Target(name=name, url="http://h/") for name in self.names], POLICY, "gate")
        self.stream.truncate(0)
        self.stream.seek(0)
        return self

    def attempt(self, at_ms: int, kind: str | None = None, *, index: int = 0, detail: str = "") -> None:
        self.now = at_ms / 1000
        attempt = Attempt(at_ms=at_ms, elapsed_ms=12, ok=kind is None, kind=kind, detail=detail)  # type: ignore[arg-type]
        self.tallies[index] = self.tallies[index].after(attempt, POLICY)
        self.reporter.attempt(index, attempt, self.tallies[index])
        self.turn(at_ms)

    def turn(self, now_ms: int) -> None:
        self.now = now_ms / 1000
        self.reporter.turn(now_ms)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


# --- plain lines ----------------------------------------------------------------------------------


def test_first_line_names_the_worst_case() -> None:
    told = Told()
    told.reporter.started(record(), verdict_by=NOON + 135)
    assert told.lines == [
        (
            "16:01:05Z start     verdict by 16:03:20 UTC at the latest; "
            "release on production, run gh-4711-1-production, revision v42"
        )
    ]


def test_first_line_without_a_gate_promises_no_verdict() -> None:
    told = Told()
    told.reporter.started(record(), verdict_by=None)
    assert "verdict by" not in told.lines[0]


def test_attempts_are_told_only_when_something_changes() -> None:
    told = Told().probing()
    for at in range(0, 1000, 250):
        told.attempt(at, "refused")
    told.attempt(1000, "timeout")
    told.attempt(1250, "refused")
    for at in range(1500, 5000, 250):
        told.attempt(at)
    told.attempt(5000, "status", detail="status 503")
    assert told.lines == [
        "16:01:05Z gate      t0: failing: refused: connection refused",
        "16:01:06Z gate      t0: failing: timeout: no answer in time",
        "16:01:06Z gate      t0: healthy (12 ms), soak until 16:01:21",
        "16:01:10Z gate      t0: lost health after 3.5 s: status 503",
    ]


def test_a_long_gate_is_never_silent() -> None:
    told = Told(["backend", "frontend"]).probing()
    for at in range(0, 50_000, 250):
        told.attempt(at, "refused")
        told.attempt(at, index=1)
    beats = [line for line in told.lines if "1 of 2 targets healthy" in line]
    assert len(beats) == 3
    assert beats[0].endswith(
        "1 of 2 targets healthy; backend: refused: connection refused; 45 s to the deadline"
    )


def test_a_gate_whose_targets_hang_is_not_silent_either() -> None:
    told = Told(["backend"]).probing()
    for now in range(0, 50_000, 100):
        told.turn(now)
    assert [line.partition("gate      ")[2] for line in told.lines] == [
        "0 of 1 target healthy; backend: waits; 45 s to the deadline",
        "0 of 1 target healthy; backend: waits; 30 s to the deadline",
        "0 of 1 target healthy; backend: waits; 15 s to the deadline",
    ]


def test_a_flapping_target_does_not_flood_the_log() -> None:
    told = Told().probing()
    for turn in range(500):
        told.attempt(turn * 20, "refused" if turn % 2 else None)
    assert len(told.lines) == CHANGES


def test_hundreds_of_targets_do_not_flood_the_log() -> None:
    told = Told(500).probing()
    for index in range(500):
        told.attempt(0, "refused", index=index)
    assert len(told.lines) == BURST


def test_a_target_that_is_not_required_says_so() -> None:
    told = Told().probing()
    told.reporter.probing([Target(name="metrics", url="http://h/", required=False)], POLICY, "gate")
    told.attempt(0, "dns")
    assert told.lines[-1].endswith("metrics (not required): failing: dns: name not resolved")


def test_a_tolerated_failure_is_told_as_a_warning() -> None:
    told = Told().probing()
    told.attempt(0, detail="warning: body does not contain ready")
    assert told.lines[0].endswith("; warning: body does not contain ready")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Passed(), "verdict: passed"),
        (Failed("unstable"), "verdict: failed, unstable"),
        (Waiting(), "cut off without a verdict"),
    ],
)
def test_verdict_is_told(verdict: Passed | Failed | Waiting, words: str) -> None:
    told = Told().probing()
    told.reporter.probed(verdict)
    assert told.lines == [f"16:01:05Z gate      {words}"]


def test_stages_and_notes() -> None:
    told = Told()
    told.reporter.stage("deploy")
    told.reporter.stage_done("deploy", "failed", 4.25)
    told.reporter.stage_done("rollback", "skipped", 0)
    told.reporter.note("resuming run r1")
    told.reporter.warn("OPSGATE_DEADLIN is not known\n  did you mean OPSGATE_DEADLINE?")
    assert [line[10:] for line in told.lines] == [
        "deploy    begins",
        "deploy    failed after 4.2 s",
        "rollback  skipped",
        "note      resuming run r1",
        "warning   OPSGATE_DEADLIN is not known did you mean OPSGATE_DEADLINE?",
    ]


def test_hook_lines_have_a_prefix() -> None:
    told = Told()
    told.reporter.hook_line("publish", "::error::not for the runner")
    assert told.lines == ["publish | ::error::not for the runner"]


def test_result_goes_to_the_stream_only_when_nothing_else_shows_it() -> None:
    for summary in (False, True):
        told = Told(summary=summary)
        told.reporter.finished(record("failed-recovered"), "ab" * 32)
        assert "ab" * 32 in told.lines[-1]
        assert told.lines[:-1] == (render(record("failed-recovered")).splitlines() if summary else [])


@hypothesis.given(st.text(max_size=200), st.text(max_size=200))
def test_foreign_text_stays_on_its_line(name: str, detail: str) -> None:
    told = Told([name]).probing()
    told.attempt(0, "status", detail=detail)
    told.reporter.note(detail)
    written = told.stream.getvalue()
    assert len(written.split("\n")) == 3
    assert written.replace("\n", "").isprintable()
    assert "##[" not in written


# --- streams that fail ----------------------------------------------------------------------------


def everything(told: PlainReporter) -> None:
    told.started(record(), verdict_by=1e30)
    told.probing([Target(name="tärget ✓", url="http://h/")], POLICY, "gate")
    attempt = Attempt(at_ms=0, elapsed_ms=1, ok=True)
    told.attempt(0, attempt, Tally().after(attempt, POLICY))
    told.attempt(7, attempt, Tally())
    told.turn(20_000)
    told.hook_line("publish", "\udcff é")
    told.probed(Passed())
    told.finished(record(), None)


def test_a_closed_stream_costs_only_the_text() -> None:
    stream = io.StringIO()
    stream.close()
    everything(PlainReporter(stream, summary=True))


def test_a_pipe_that_nobody_reads_costs_only_the_text() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    everything(PlainReporter(stream, summary=True))
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_an_ascii_stream_gets_escapes() -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding="ascii", write_through=True)
    everything(PlainReporter(stream))
    assert b"t\\xe4rget \\u2713: healthy" in data.getvalue()
    assert b"publish | \\udcff \\xe9" in data.getvalue()


# --- which reporter -------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "live"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "CI": ""}, True),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_a_table_only_on_a_terminal(stream: io.StringIO, environ: dict[str, str], live: bool) -> None:
    assert (type(reporter(stream, environ)).__name__ == "LiveReporter") == live


def test_plain_lines_do_not_pay_for_rich() -> None:
    code = (
        "import sys, io; from opsgate.console import reporter; reporter(io.StringIO(), {});"
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- a real terminal ------------------------------------------------------------------------------


class Screen:
    """The other end of a pseudo terminal that the driver has as its standard error."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self.master, slave = os.openpty()
        self.resize(24, 100)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.console_driver", *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=slave,
        )
        os.close(slave)
        self.output = ""
        # A read may end within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def hang_up(self) -> None:
        if self.master >= 0:
            os.close(self.master)
        self.master = -1

    def step(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def read_until(self, pattern: str, *, since: int = 0) -> None:
        """Reads until the pattern is there, or the driver is gone."""
        end = time.monotonic() + 30
        while not re.search(pattern, self.output[since:]):
            ready, _, _ = select.select([self.master], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{pattern} did not come: {self.output[since:]!r}"
            try:
                self.output += self._decoder.decode(os.read(self.master, 1 << 16))
            except OSError:
                break

    def rest(self) -> str:
        """Everything up to the driver's end."""
        self.read_until(r"(?!)")
        assert self.process.wait(10) == 0
        return self.output


@contextlib.contextmanager
def screen(*arguments: str, environ: dict[str, str] | None = None) -> Iterator[Screen]:
    shown = Screen(list(arguments), environ or {})
    try:
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        if shown.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                shown.process.stdin.close()
        shown.hang_up()


def frames(output: str) -> list[list[str]]:
    """The drawings of the table, each as its lines without escapes."""
    plain = re.sub(r"\x1b\[(?!2K)[0-9;?]*[A-Za-z]", "", output)
    drawn = re.split(r"(?=gate: \d+ of)", plain)[1:]
    assert drawn
    return [[line.rstrip() for line in re.split(r"\x1b\[2K|\r?\n", one) if line.strip()] for one in drawn]


def test_two_hundred_targets_fit_on_24_lines_the_worst_first() -> None:
    with screen("200", "1") as shown:
        shown.read_until(r"more targets, none of them worse")
        shown.step()
        output = shown.rest()
    for frame in frames(output)[:-1]:
        assert len(frame) <= 24
        assert all(len(line) <= 100 for line in frame)
    first = next(frame for frame in frames(output) if "target-" in "".join(frame))
    assert "195 of 200 targets healthy" in first[0]
    assert first[1].split()[:4] == ["target", "state", "run", "latency"]
    assert [line.split()[0] for line in first[2:7]] == [
        "target-7", "target-57", "target-107", "target-157", "target-199",
    ]  # fmt: skip
    assert "refused: conn" in first[2]


def test_what_fails_stands_above_what_has_not_answered_yet() -> None:
    with screen("3", "1", "silent") as shown:
        shown.read_until(r"soaking")
        shown.step()
        output = shown.rest()
    first = next(frame for frame in frames(output) if "soaking" in "".join(frame))
    states = [line.split()[:2] for line in first[2:5]]
    assert states == [["target-2", "failing"], ["target-0", "waiting"], ["target-1", "soaking"]]


def test_the_table_leaves_a_plain_summary_and_the_cursor() -> None:
    with screen("3", "1") as shown:
        shown.read_until(r"soaking")
        shown.step()
        output = shown.rest()
    after = output.rpartition("\x1b[?25h")[2]
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h")
    assert not re.search(r"\x1b\[[0-9;]*m", after)
    lines = [re.sub(r"^.*?\d\d:\d\d:\d\dZ", "", line) for line in after.split("\r\n")]
    worst = "target-2: failing, 0 healthy attempts in a row of 1, last failure: refused: connection refused"
    assert f" gate      {worst}" in lines
    assert " gate      verdict: passed" in lines


def test_the_table_follows_the_size_of_the_terminal() -> None:
    with screen("200", "2") as shown:
        shown.read_until(r"none of them worse")
        shown.resize(12, 60)
        before = len(shown.output)
        shown.step()
        shown.read_until(r"(?s)gate: .*gate: .*none of them worse.*gate: ", since=before)
        late = frames(shown.output[before:])[1:-1]
        shown.step()
        shown.rest()
    assert late
    for frame in late:
        assert len(frame) <= 12
        assert all(len(line) <= 60 for line in frame)


def test_no_color_means_no_colour() -> None:
    colour = r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[0-9;]*m"
    for environ, expected in (({}, True), ({"NO_COLOR": "1"}, False)):
        with screen("3", "1", environ=environ) as shown:
            shown.read_until(r"failing")
            shown.step()
            assert bool(re.search(colour, shown.rest())) == expected


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"CI": "true"}])
def test_a_terminal_that_cannot_draw_gets_lines(environ: dict[str, str]) -> None:
    with screen("3", "1", environ=environ) as shown:
        shown.step()
        output = shown.rest()
    assert "\x1b" not in output
    assert "target-2: failing: refused: connection refused" in output


def test_a_table_that_no_thread_can_draw_gives_way_to_lines() -> None:
    with screen("3", "1", "threadless") as shown:
        shown.step()
        output = shown.rest()
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h")
    after = output.rpartition("\x1b[?25h")[2]
    assert "target-2: failing: refused: connection refused" in after
    assert "verdict: passed" in after


def test_a_gate_that_is_cut_off_gives_the_terminal_back() -> None:
    with screen("3", "1", "stop") as shown:
        shown.read_until(r"soaking")
        shown.step()
        output = shown.rest()
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_a_terminal_that_goes_away_costs_only_the_text() -> None:
    with screen("3", "2") as shown:
        shown.read_until(r"soaking")
        shown.hang_up()
        shown.step()
        shown.step()
        assert shown.process.wait(20) == 0
