"""Searching a pattern in a text that a server chose, within a time limit.

Python's `re` cannot be interrupted from another thread and lets no other run meanwhile: a pattern
that backtracks without end would stop every probe, and the verdict with them. So all but the
cheapest searches happen in a child process, which can be killed and is otherwise kept for the next.
"""

from __future__ import annotations

import math
import re
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opsgate.verdict.expect import SearchTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

_CHILDREN: Final = 4
_CHEAP: Final = 1_000_000
"""Steps that may be taken in this process: some milliseconds."""
# The alarm ends a child whose parent was killed while it was searching.
_CHILD: Final = """
import re, signal, sys
read, write = sys.stdin.buffer, sys.stdout.buffer
while head := read.readline():
    seconds, pattern, text = map(int, head.split())
    pattern, text = (read.read(size).decode("utf-8", "surrogatepass") for size in (pattern, text))
    signal.alarm(seconds)
    found = re.search(pattern, text)
    signal.alarm(0)
    write.write(b"1" if found else b"0")
    write.flush()
"""


class Searcher:
    """Searches for the probes of one run, a few at the same time."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(_CHILDREN)
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __call__(self, pattern: str, text: str, left: Callable[[], float]) -> bool:
        """Whether the pattern is found; `left` gives the seconds that remain, and raises when none do.

        Raises `SearchTimeout` when they do not suffice, or when the run is over.
        """
        if worst_case(pattern, len(text)) <= _CHEAP or not sys.executable:
            return re.search(pattern, text) is not None
        if not self._places.acquire(timeout=left()):
            raise SearchTimeout
        try:
            child = self._child()
            try:
                found = _ask(child, pattern, text, left())
            except BaseException:
                self._end(child)
                raise
            with self._lock:
                self._idle.append(child)
            return found
        finally:
            self._places.release()

    def close(self) -> None:
        """End the children; none is started afterwards."""
        with self._lock:
            self._closed = True
            children, self._idle = list(self._all), []
        for child in children:
            self._end(child)

    def _child(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise SearchTimeout
            if self._idle:
                return self._idle.pop()
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._all.add(child)
            return child

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._all.discard(child)
        child.send_signal(signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        child.wait()


def _ask(child: subprocess.Popen[bytes], pattern: str, text: str, limit: float) -> bool:
    """The child's answer; raises `SearchTimeout` when it gave none in time."""
    assert child.stdin is not None  # noqa: S101 - for the type checker
    assert child.stdout is not None  # noqa: S101 - as above
    first, second = (part.encode("utf-8", "surrogatepass") for part in (pattern, text))
    head = b"%d %d %d\n" % (math.ceil(limit) + 1, len(first), len(second))
    try:
        child.stdin.write(head + first + second)
        child.stdin.flush()
        answer = select.poll()
        answer.register(child.stdout, select.POLLIN)
        found = child.stdout.read(1) if answer.poll(limit * 1000) else b""
    except (OSError, ValueError):
        # The child has ended, or its pipes were closed with the run.
        raise SearchTimeout from None
    if not found:
        raise SearchTimeout
    return found == b"1"


def worst_case(pattern: str, size: int) -> float:
    """A generous bound on the steps of a search in a text of this size; infinite where there is none."""
    plain = re.sub(r"\\.", "x", pattern, flags=re.DOTALL)
    # Where white space means nothing, a group and its repetition may be apart.
    if re.search(r"\)[*+?{]|\(\?[a-zA-Z]*x", plain):
        return math.inf
    repeats = len(re.findall(r"[*+{]", plain))
    choices = len(re.findall(r"[?|]", plain))
    return float(max(size, 1)) ** (repeats + 1) * 2.0 ** min(choices, 60)
