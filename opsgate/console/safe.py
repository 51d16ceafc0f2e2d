"""A stream that takes text and never complains."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO


class SafeStream(io.TextIOBase):
    """Writes to another text stream; what cannot be encoded is escaped, what cannot be written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._to = stream

    def line(self, text: str) -> None:
        """`text` and a line feed, in one write, so that lines of others do not cut in."""
        self.write(f"{text}\n")
        self.flush()

    def write(self, text: str) -> int:
        """Writes what can be written; says that all was."""
        encoding = self.encoding
        with contextlib.suppress(OSError, ValueError, LookupError):
            self._to.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flushes where that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._to.flush()

    def isatty(self) -> bool:
        """As the stream behind it."""
        return self._to.isatty()

    def fileno(self) -> int:
        """As the stream behind it."""
        return self._to.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind it, UTF-8 where it has none."""
        return getattr(self._to, "encoding", None) or "utf-8"
