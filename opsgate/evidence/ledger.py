"""The ledger: one line for each task that ended, each holding the hash of the line before.

A line is durable before the run counts as finished. What stands after the last newline was cut short
by a crash: readers ignore it, and the next append cuts it off. Appends are serialised by a lock on the
ledger file itself, which ends with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from opsgate.errors import EvidenceError
from opsgate.evidence.files import DAMAGED, explained, sync_directory, write_all
from opsgate.evidence.record import Status, StatusReason, Trigger
from opsgate.verdict.targets import Whole

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = "ledger.jsonl"
GENESIS = "0" * 64
"""`prev` of the first line."""
LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process's append; one takes milliseconds."""
_BLOCK = 64 * 1024


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What a line says about its run. Times are RFC 3339 in UTC."""

    run_id: str
    environment: str
    task: Trigger | Literal["prune"]
    revision: str | None
    status: Status
    status_reason: StatusReason
    started_at: str
    finished_at: str
    deployed: bool
    """This run's deploy stage was begun: its hook may have been started."""
    rollback: Literal["auto", "manual"] | None
    failed_at: str | None
    """When the deploy or the gate was known to have failed."""
    recovered_at: str | None
    """When the runtime was proven to serve again after a rollback."""
    sha256: str
    """Of the record file's bytes."""


class Line(Draft, frozen=True, kw_only=True):
    """A line of the ledger."""

    seq: Whole
    prev: str
    hash: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it stands in the file, whether or not it can be read."""

    number: int
    """Counted from 1."""
    raw: bytes
    line: Line | None


class Ledger:
    """The file `ledger.jsonl` of an evidence directory. Every `OSError` becomes an `EvidenceError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Line]:
        """All lines that can be read, oldest first."""
        data = self._whole_lines()
        try:
            return _LINES.decode_lines(data)
        except DAMAGED:
            return [line for raw in data.splitlines() if (line := parse(raw)) is not None]

    def entries(self) -> Iterator[Entry]:
        """All lines with what was written, for verification."""
        for number, raw in enumerate(self._whole_lines().split(b"\n")[:-1], 1):
            yield Entry(number=number, raw=raw, line=parse(raw))

    def newest_first(self) -> Iterator[Line]:
        """The lines that can be read, backwards, reading no more of the file than is asked for."""
        with explained("reading the ledger", self.path):
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                yield from _backwards(descriptor)
            finally:
                os.close(descriptor)

    def head(self) -> Line | None:
        """The newest line."""
        return next(self.newest_first(), None)

    def first_of(self, run_id: str) -> Line | None:
        """The oldest line of a run."""
        needle = msgspec.json.encode(run_id)
        if needle not in self._whole_lines():
            return None
        return next((line for line in self.read() if line.run_id == run_id), None)

    def append(self, draft: Draft) -> Line:
        """Add a line, durably and alone."""
        with explained("writing the ledger", self.path), self.locked() as tail:
            return tail.append(draft)

    @contextmanager
    def locked(self) -> Iterator[Tail]:
        """Hold the ledger against other processes. What fails in the meantime is the caller's to explain."""
        with explained("opening the ledger", self.path):
            is_new = not os.path.exists(self.path)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            with explained("locking the ledger", self.path):
                _lock(descriptor, self.path)
                if is_new:
                    sync_directory(self.path.parent)
                tail = Tail(descriptor, self.path)
            yield tail
        finally:
            os.close(descriptor)

    def _whole_lines(self) -> bytes:
        with explained("reading the ledger", self.path):
            try:
                data = self.path.read_bytes()
            except FileNotFoundError:
                return b""
        return data[: data.rfind(b"\n") + 1]


class Tail:
    """The end of a ledger that this process holds."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path
        self._end: int

    def append(self, draft: Draft) -> Line:
        """Write and fsync a line; if that fails it is cut off again. Raises `OSError`."""
        self._end = _end_of_last_line(self._descriptor)
        if os.fstat(self._descriptor).st_size != self._end:
            self.cut()
        line = chained(draft, next(_backwards(self._descriptor), None))
        try:
            write_all(self._descriptor, msgspec.json.encode(line, order="sorted") + b"\n")
            os.fsync(self._descriptor)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = str(self._path)
            with suppress(OSError):
                self.cut()
            raise
        return line

    def cut(self) -> None:
        """Back to where the ledger ended before the newest `append`."""
        os.ftruncate(self._descriptor, self._end)
        os.fsync(self._descriptor)


def chained(draft: Draft, last: Line | None) -> Line:
    """The line that follows `last`."""
    fields: dict[str, Any] = msgspec.to_builtins(draft)
    fields["seq"] = last.seq + 1 if last else 1
    fields["prev"] = last.hash if last else GENESIS
    return Line(**fields, hash=line_hash(fields))


def line_hash(fields: dict[str, Any]) -> str:
    """SHA-256 of a line's fields but `hash`, as RFC 8785 writes them."""
    others = {key: value for key, value in fields.items() if key != "hash"}
    return hashlib.sha256(msgspec.json.encode(others, order="sorted")).hexdigest()


def parse(raw: bytes) -> Line | None:
    """The line, or None when it is none."""
    try:
        return _LINES.decode(raw)
    except DAMAGED:
        return None


_LINES = msgspec.json.Decoder(Line)


def _lock(descriptor: int, path: Path) -> None:
    give_up = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise EvidenceError(
                    f"writing the ledger failed: another process has held {path} for {LOCK_TIMEOUT:.0f} s",
                    "Look for a stopped opsgate process (`fuser` names it) and end or continue it.",
                ) from None
            time.sleep(0.005)
        else:
            return


def _end_of_last_line(descriptor: int) -> int:
    for offset, block in _blocks(descriptor, os.fstat(descriptor).st_size):
        newline = block.rfind(b"\n")
        if newline >= 0:
            return offset + newline + 1
    return 0


def _backwards(descriptor: int) -> Iterator[Line]:
    beginning = b""
    for _, block in _blocks(descriptor, _end_of_last_line(descriptor)):
        beginning, *whole = (block + beginning).split(b"\n")
        yield from filter(None, map(parse, reversed(whole)))
    yield from filter(None, [parse(beginning)])


def _blocks(descriptor: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The file's blocks up to `end` with their offsets, the last one first."""
    while end > 0:
        start = max(0, end - _BLOCK)
        yield start, os.pread(descriptor, end - start, start)
        end = start
