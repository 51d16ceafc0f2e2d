"""Output is masked, harmless and bounded on its way to the person, the log and the record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsgate.hooks import stream as stream_module
from opsgate.hooks.stream import LOG, TAIL, Stream, harmless
from opsgate.redact import Redactor

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2secret"
REDACTOR = Redactor([SECRET])


class Clock:
    """A clock that a test moves by hand; seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pieces(data: bytes, *, size: int = 64 * 1024, log: Path | None = None) -> tuple[list[str], str]:
    lines: list[str] = []
    stream = Stream(REDACTOR, log, lines.append, clock=Clock())
    for at in range(0, len(data), size):
        stream.feed(data[at : at + size])
    return lines, stream.finish()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("bell\x07 nul\x00 del\x7f csi\x9b", "bell\\x07 nul\\x00 del\\x7f csi\\x9b"),
        ("one\rtwo\r\nthree", "one\ntwo\nthree"),
        ("abc\u202edcba\u2066x\u200f", "abc\\u202edcba\\u2066x\\u200f"),
        ("line\u2028sep\x85nel\x0cff", "line\\u2028sep\\x85nel\\x0cff"),
        ("::error::boom", "\\::error::boom"),
        ("ok\n  ::set-output name=x::y", "ok\n  \\::set-output name=x::y"),
        ("ok\r::add-mask::x", "ok\n\\::add-mask::x"),
        ("\u00a0::warning::x", "\u00a0\\::warning::x"),
        ("a ##[error]b", "a ##\\[error]b"),
        ("std::string ## [x]", "std::string ## [x]"),
        ("größe 😀", "größe 😀"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


def test_lines_as_they_come() -> None:
    lines, tail = pieces(b"one\ntwo\r\nthree\rfour", size=3)
    assert lines == ["one", "two", "three", "four"]
    assert tail == "one\ntwo\nthree\nfour"


@given(size=st.integers(1, 40))
def test_any_split_gives_the_same(size: int) -> None:
    data = f"größe {SECRET} 😀\r\n::error::x\r##[group]\n\n{SECRET}\nrest".encode()
    lines, tail = pieces(data, size=size)
    assert lines == ["größe *** 😀", "\\::error::x", "##\\[group]", "", "***", "rest"]
    assert tail == "\n".join(lines)


def test_a_line_that_is_a_short_secret_reaches_nobody(tmp_path: Path) -> None:
    log, lines = tmp_path / "deploy.log", list[str]()
    stream = Stream(Redactor(["abc12"]), log, lines.append)
    stream.feed(b"abc12\r\nthe abc12 in words\nab")
    stream.feed(b"c12")
    assert stream.finish() == "***\nthe abc12 in words\n***"
    assert lines == ["***", "the abc12 in words", "***"]
    assert log.read_text() == "***\nthe abc12 in words\n***"


def test_bytes_that_are_no_text() -> None:
    lines, _ = pieces(b"a\xff\xfeb\xc3\n\xc3\xa4\n")
    assert lines == ["a\ufffd\ufffdb\ufffd", "ä"]


def test_a_secret_of_bytes_that_are_no_text() -> None:
    lines: list[str] = []
    stream = Stream(Redactor([b"caf\xe9-secret".decode("utf-8", "surrogateescape")]), None, lines.append)
    stream.feed(b"a caf\xe9-secret b\xe9\n")
    assert stream.finish() == "a *** b\ufffd\n"


def test_the_log_is_whole_masked_and_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "deploy.log"
    pieces(f"first {SECRET}\n".encode(), log=log)
    pieces(b"::error::second\x1b\n", log=log)
    assert log.read_text() == "first ***\n\\::error::second\\x1b\n"


def test_the_log_ends_at_its_limit_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "LOG", 1 << 20)
    log = tmp_path / "deploy.log"
    pieces(b"ab\n" * 200, log=log)
    assert log.stat().st_size == 600
    pieces(("ä" * 30 + "\n").encode() * 20_000, log=log)
    assert log.stat().st_size <= 1 << 20
    assert log.read_text().endswith("[cut off here: a log keeps the first 1 MiB of output]\n")
    before = log.read_bytes()
    pieces(b"more\n", log=log)
    assert log.read_bytes() == before


def test_the_room_of_the_log_counts_what_the_hook_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise a flood of secrets, which masking shortens, would have to be masked for much longer.
    monkeypatch.setattr(stream_module, "LOG", 1000)
    pieces(f"{SECRET}\n".encode() * 500, size=140, log=tmp_path / "x.log")
    assert (tmp_path / "x.log").stat().st_size < 500


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    for log in (tmp_path / "missing" / "x.log", tmp_path):
        stream = Stream(REDACTOR, log, lines.append)
        stream.feed(b"line\n")
        assert stream.finish() == "line\n"
        assert str(log) in stream.log_error
    assert lines == ["line", "line"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.symlink_to("/dev/full")
    lines: list[str] = []
    stream = Stream(REDACTOR, log, lines.append)
    stream.feed(b"line\n")
    stream.feed(b"more\n")
    assert stream.finish() == "line\nmore\n"
    assert "No space left" in stream.log_error
    assert lines == ["line", "more"]


def test_a_person_who_went_away_stops_nothing(tmp_path: Path) -> None:
    def gone(_line: str) -> None:
        raise BrokenPipeError

    stream = Stream(REDACTOR, tmp_path / "x.log", gone)
    stream.feed(b"one\n")
    stream.feed(b"two\n")
    assert stream.finish() == "one\ntwo\n"
    assert (tmp_path / "x.log").read_text() == "one\ntwo\n"


def test_the_tail_is_the_newest_64_kib() -> None:
    _, tail = pieces("".join(f"{n:06d} ä\n" for n in range(20_000)).encode())
    assert len(tail.encode()) <= TAIL
    assert len(tail.encode()) > TAIL - 16
    assert tail.endswith("019999 ä\n")


def test_a_cut_tail_cannot_begin_with_a_command() -> None:
    for shift in range(4):
        end = "::error::boom" + "y" * (TAIL - 14 + shift)
        _, tail = pieces(("x" * 20 + end).encode())
        assert not tail.startswith("::")


def test_a_flood_is_summed_up_and_its_end_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "deploy.log"
    lines, tail = pieces(b"".join(b"%07d ....................\n" % n for n in range(100_000)), log=log)
    assert len(lines) < 2100
    assert lines[:3] == [f"{n:07d} ...................." for n in range(3)]
    assert lines[-1].startswith("0099999")
    notice = next(line for line in lines if line.startswith("…"))
    assert "MiB more, not shown here; deploy.log keeps" in notice
    assert tail.endswith("0099999 ....................\n")
    assert log.read_text().count("\n") == 100_000


def test_after_a_pause_a_person_sees_more_of_a_flood() -> None:
    clock = Clock()
    lines: list[str] = []
    stream = Stream(REDACTOR, None, lines.append, clock=clock)
    for n in range(5000):
        stream.feed(b"%d\n" % n)
    assert lines[-1] == "1999"
    clock.now += 60
    stream.feed(b"after\n")
    assert lines[-2].startswith("… ")
    assert lines[-1] == "after"
    assert stream.finish().endswith("4999\nafter\n")
    assert lines[-1] == "after"


def test_past_the_limits_nothing_is_processed_but_the_end_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "LOG", 100_000)
    data = b"".join(b"%07d %s\n" % (n, SECRET.encode()) for n in range(100_000))
    for size in (64 * 1024, 1000, 65_521):
        lines, tail = pieces(data, size=size, log=tmp_path / f"{size}.log")
        assert lines[-1] == "0099999 ***"
        assert tail.endswith("0099998 ***\n0099999 ***\n")
        assert "secret" not in tail + "".join(lines)
        assert len(tail) > TAIL // 2
        assert all(line.endswith(" ***") for line in tail.splitlines())


def test_a_long_line_is_folded_without_showing_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "LINE", 5000)
    data = (f"{'x' * 37}{SECRET}" * 4000 + "\n").encode()
    for size in (64 * 1024, 777, 50):
        log = tmp_path / f"{size}.log"
        lines, tail = pieces(data, size=size, log=log)
        for text in (*lines, tail, log.read_text()):
            assert "hunter" not in text
            assert "secret" not in text
        assert all(len(line) < 2100 for line in lines)
        assert log.read_text().replace("\n", "") == ("x" * 37 + "***") * 4000


def test_a_secret_whose_beginning_was_dropped_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    # No newline at all and no log: what is kept of the flood begins anywhere.
    for shift in range(0, 26, 9):
        monkeypatch.setattr(stream_module, "SHOWN", 100_000)
        lines, tail = pieces(("y" * shift + f"{SECRET} " * 300_000).encode(), size=50_021)
        for text in (*lines, tail):
            assert text.startswith("…") or not text.strip("y* \n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.binary(max_size=3000), size=st.integers(1, 500))
def test_any_bytes_at_all(data: bytes, size: int) -> None:
    lines, tail = pieces(data, size=size)
    for line in lines:
        assert line.isprintable() or "\t" in line or not line.isascii()
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    assert "\r" not in tail
    assert "\x1b" not in tail


def test_limits_of_the_contract() -> None:
    assert TAIL == 64 * 1024
    assert LOG == 16 * 1024 * 1024
