"""A command's stderr kept apart from its stdout, for the one file format that wants both."""

from __future__ import annotations

import math
import os
import select
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from opsgate.hooks.process import DRAIN, TICK
from opsgate.hooks.stream import Stream
from opsgate.redact import Redactor

PIECE: Final = 64 * 1024


class Errors:
    """What the rollback wrote to stderr."""

    text = ""


@contextmanager
def errors_apart(
    command: str, redactor: Redactor, emit: Callable[[str], None]
) -> Iterator[tuple[str, Errors]]:
    """The command with its stderr kept apart, masked, harmless and bounded like all of its output.

    The text is there when the block has ended. Where no pipe can be made, or no thread to read
    it, stderr goes with stdout.
    """
    errors, stream, ended = Errors(), Stream(redactor, None, emit), threading.Event()
    with ExitStack() as stack:
        try:
            scratch = tempfile.TemporaryDirectory(prefix="opsgate-", ignore_cleanup_errors=True)
            pipe = Path(stack.enter_context(scratch)) / "stderr"
            os.mkfifo(pipe)
            # Open for both: the pipe has no end while a command of the rollback may still come.
            descriptor = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            reader = threading.Thread(target=_drain, args=(descriptor, stream, ended))
            reader.start()
        except (OSError, RuntimeError):
            yield command, errors
            return
        try:
            yield f"exec 2>{shlex.quote(str(pipe))}\n{command}", errors
        finally:
            ended.set()
            reader.join()
            errors.text = stream.finish()


def _drain(descriptor: int, stream: Stream, ended: threading.Event) -> None:
    """Read until the command has ended; a process that it left behind is heard a moment longer."""
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    give_up = math.inf
    while time.monotonic() < give_up:
        if readable.poll(TICK * 1000):
            stream.feed(os.read(descriptor, PIECE))
        elif ended.is_set():
            return
        if ended.is_set() and give_up == math.inf:
            give_up = time.monotonic() + DRAIN
