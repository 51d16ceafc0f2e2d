"""A hook's output on its way to the person, the log and the record: masked, harmless, bounded.

Whatever a hook prints, memory stays flat. Output is read in pieces of 64 KiB. While the log has
room, or the person's share of a flood is not used up, a piece is decoded, masked and made
harmless; past that only the newest raw bytes are kept, for the tail.
"""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opsgate.redact import Redactor

TAIL: Final = 64 * 1024
"""Bytes of text kept for the record."""
LOG: Final = 16 * 1024 * 1024
"""Most bytes a log file grows to."""
LINE: Final = 64 * 1024
"""Longer lines are folded."""
SHOWN: Final = 2000
"""Characters of one line that a person is shown."""
LAST: Final = 20
"""Lines shown at the end of a flood."""

_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]+"
)
_COMMAND: Final = re.compile(r"^([^\S\n]*)::|##(?=\[)", re.MULTILINE)


def harmless(text: str) -> str:
    r"""The text with control and direction characters spelt out and workflow commands broken.

    Newlines and tabs stay. `::error::` at the start of a line becomes `\::error::`, and
    `##[error]` becomes `##\[error]`: neither is read by a runner any more, from whatever file.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _broken(_UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text))


def _broken(text: str) -> str:
    return _COMMAND.sub(lambda match: "##\\" if match[1] is None else f"{match[1]}\\::", text)


class Share:
    """How much of a flood a person is shown: a burst, then a trickle, measured in lines and characters."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._lines = self._most_lines = 2000.0
        self._chars = self._most_chars = 512 * 1024.0
        self._dry = False

    def left(self) -> int:
        """Lines that may be shown now; 0 until a fair number has gathered again."""
        now = self._clock()
        passed, self._at = now - self._at, now
        self._lines = min(self._most_lines, self._lines + 100 * passed)
        self._chars = min(self._most_chars, self._chars + 32 * 1024 * passed)
        # Without the wait for a quarter, a flood would be shown as single lines between notices.
        if min(self._lines / self._most_lines, self._chars / self._most_chars) >= 1 / 4:
            self._dry = False
        return 0 if self._dry else int(self._lines)

    def take(self, line: str) -> bool:
        """Count one shown line; false when it was the last."""
        self._lines -= 1
        self._chars -= len(line)
        self._dry = self._lines < 1 or self._chars < 0
        return not self._dry


class Log:
    """The log file: appended to, never larger than `LOG`, and never a reason to stop a hook."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._room = LOG if path else 0
        self.error = ""

    @property
    def open(self) -> bool:
        """Whether more text would be kept."""
        return self._room > 0

    def write(self, text: str, raw: int) -> None:
        """Append as much as there is room for; the last line then says that it was cut off.

        `raw` is what the hook wrote, in bytes: masking shortens, and the room counts whichever is more.
        """
        if not self._room or self._path is None:
            return
        try:
            if self._file is None:
                self._file = self._path.open("ab")
                self._room = max(0, LOG - self._file.tell())
            data = text.encode("utf-8", "replace")
            notice = f"\n[cut off here: a log keeps the first {LOG >> 20} MiB of output]\n".encode()
            if self._room < len(notice):
                # An earlier command of the chain was cut off here already, and said so.
                self._room = 0
                return
            if len(data) > self._room - len(notice):
                kept = data[: self._room - len(notice)].decode("utf-8", "ignore").encode()
                data = kept + notice
                self._room = 0
            else:
                self._room -= min(self._room - len(notice), max(len(data), raw))
            self._file.write(data)
            self._file.flush()
        except OSError as exc:
            self._fail(exc)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as exc:
                self._fail(exc)

    def _fail(self, exc: OSError) -> None:
        self.error = self.error or f"{self._path}: {exc.strerror or exc}"
        self._room = 0


class Stream:
    """Takes a hook's raw output, gives masked and harmless text to `emit`, line by line, and to the log."""

    def __init__(
        self,
        redactor: Redactor,
        log: Path | None,
        emit: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redactor = redactor
        self._emit = emit
        self._log = Log(log)
        self._where = f"; {log.name} keeps the first {LOG >> 20} MiB" if log else ""
        self._share = Share(clock)
        self._reach = redactor.reach
        self._carry = b""
        self._raw: deque[bytes] = deque()
        self._raw_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._hidden = 0

    @property
    def log_error(self) -> str:
        """Why the log is incomplete, or empty."""
        return self._log.error

    def feed(self, data: bytes) -> None:
        """Take the next piece, at most 64 KiB."""
        if not (self._log.open or self._share.left()):
            self._skip(data)
            return
        self._resume()
        data = self._carry + data
        # A last CR may be half of a CRLF; it waits for the next piece.
        cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
        block, self._carry = data[:cut], data[cut:]
        if block:
            self._show(self._masked(block), len(block))
        if len(self._carry) > LINE + self._reach:
            self._fold()

    def finish(self) -> str:
        """The end of the output: shows what is left and gives the tail, at most 64 KiB of UTF-8."""
        self._resume()
        if self._carry:
            self._show(self._masked(self._carry), len(self._carry))
            self._carry = b""
        tail = "".join(self._tail)
        if self._hidden:
            self._show_end(tail)
        self._log.close()
        return _end(tail)

    def _skip(self, data: bytes) -> None:
        if self._carry:
            data, self._carry = self._carry + data, b""
        self._hidden += len(data)
        self._raw.append(data)
        self._raw_size += len(data)
        while self._raw_size - len(self._raw[0]) > TAIL + LINE + self._reach:
            self._raw_size -= len(self._raw.popleft())
            self._tail.clear()
            self._tail_size = 0

    def _resume(self) -> None:
        """Turn what was kept raw into text again, without a secret whose beginning is gone."""
        if not self._raw:
            return
        data = b"".join(self._raw)
        self._raw.clear()
        self._raw_size = 0
        skip = 0
        if not self._tail:
            start = data.find(b"\n", 0, self._reach) + 1
            data = data[start:]
            skip = 0 if start else self._reach
        cut = data.rfind(b"\n") + 1
        block, self._carry = data[:cut], data[cut:]
        if block:
            self._keep(harmless(self._masked(block, skip)))
        elif skip:
            self._keep(harmless(self._folded(skip)))

    def _fold(self) -> None:
        before = len(self._carry)
        text = self._folded()
        self._show(text, before - len(self._carry))

    def _folded(self, skip: int = 0) -> str:
        """As much of an unfinished line as can be masked safely, as a line of its own."""
        head, rest = self._redactor.part(self._carry.decode("utf-8", "surrogateescape"), skip=skip)
        self._carry = rest.encode("utf-8", "surrogateescape")
        return _decoded(head) + "\n"

    def _masked(self, data: bytes, skip: int = 0) -> str:
        return _decoded(self._redactor.scrub_lines(data.decode("utf-8", "surrogateescape"), skip=skip))

    def _show(self, masked: str, raw: int) -> None:
        text = harmless(masked)
        self._log.write(text, raw)
        self._keep(text)
        left = self._share.left()
        if left and self._hidden:
            self._notice()
        lines = text.split("\n", left)
        rest = lines.pop()
        if rest and not text.endswith("\n") and len(lines) < left:
            lines.append(rest)
            rest = ""
        for index, line in enumerate(lines):
            self._say(line)
            if not self._share.take(line):
                rest = "\n".join((*lines[index + 1 :], rest))
                break
        self._hidden += len(rest)

    def _keep(self, text: str) -> None:
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail_size - len(self._tail[0]) >= TAIL:
            self._tail_size -= len(self._tail.popleft())

    def _notice(self) -> None:
        amount = f"{self._hidden / 2**20:,.1f} MiB" if self._hidden >= 2**20 else f"{self._hidden:,} bytes"
        self._say(f"… {amount} more, not shown here{self._where}")
        self._hidden = 0

    def _show_end(self, tail: str) -> None:
        hidden = self._hidden
        self._notice()
        last: list[str] = []
        for line in reversed(tail[-LAST * SHOWN :].splitlines()[-LAST:]):
            hidden -= len(line) + 1
            if hidden < -1:
                break
            last.append(line)
        for line in reversed(last):
            self._say(_broken(line))

    def _say(self, line: str) -> None:
        if len(line) > SHOWN:
            line = f"{line[:SHOWN]} … {len(line) - SHOWN:,} characters more"
        try:
            self._emit(line)
        except (OSError, ValueError):
            # A terminal that went away is no reason to leave a rollback half done.
            self._emit = _nowhere


def _decoded(text: str) -> str:
    """Bytes that are no UTF-8 become U+FFFD, but only after masking: a secret may hold such bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _end(text: str) -> str:
    """The last 64 KiB, from the start of a line unless that is far."""
    data = text.encode("utf-8", "replace")
    if len(data) <= TAIL:
        return text
    start = data.find(b"\n", len(data) - TAIL - 1, len(data) - TAIL + SHOWN) + 1
    # Cut in the middle of a line, a rest could begin with what was harmless before.
    return _broken(data[start or 1 - TAIL :].decode("utf-8", "ignore"))


def _nowhere(_line: str) -> None:
    """Where output goes when nobody listens any more."""
