"""A stream that takes text and never complains."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TextIO


class SafeStream(io.TextIOBase):
    """Writes to another text stream; what cannot be encoded is escaped, what cannot be written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._to = stream
        self.lost: OSError | None = None
        """Why some of it was dropped; None when all was written, or nobody reads it any more."""

    def line(self, text: str) -> None:
        """`text` and a line feed, in one write, so that lines of others do not cut in."""
        self.write(f"{text}\n")
        self.flush()

    def write(self, text: str) -> int:
        """Writes what can be written; says that all was."""
        encoding = self.encoding
        try:
            self._to.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._give_up(error)
        except (ValueError, LookupError):
            pass
        return len(text)

    def flush(self) -> None:
        """Flushes where that is possible."""
        try:
            self._to.flush()
        except OSError as error:
            self._give_up(error)
        except ValueError:
            pass

    def _give_up(self, error: OSError) -> None:
        """Lets the descriptor lead nowhere: what its buffer still holds would fail at exit, with code 120."""
        if isinstance(error, BlockingIOError):
            return
        if not isinstance(error, BrokenPipeError):
            self.lost = error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._to.fileno())
            os.close(nowhere)

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
