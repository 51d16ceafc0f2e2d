"""The console script: Invoke's program over opsgate's tasks, with exit 2 for wrong usage."""

from __future__ import annotations

import gc

from opsgate.leave import leave, leave_on_signals


def main() -> None:
    """Run the tasks named on the command line, and end the process."""
    leave(run())


def run() -> int:
    """Run the tasks named on the command line; their exit code."""
    # First of all: what follows imports for a good tenth of a second.
    leave_on_signals()
    # All that is imported lives to the end: looking for garbage among it would cost a tenth of a short run.
    # `door.answering` turns the search on again.
    gc.disable()
    _open_streams()
    try:
        _run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        # Only the help gets here: who reads no more of it has seen enough.
        return 0
    return 0


def _open_streams() -> None:
    """Give a closed standard stream a place: a file of ours must not get its number."""
    import io
    import os
    import sys

    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stderr is 2
        continue
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - a descriptor, for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The help holds a sign or two that not every terminal can show.
            stream.reconfigure(errors="backslashreplace")


def _run() -> None:
    import os
    import sys
    from collections.abc import Iterator
    from contextlib import contextmanager

    from invoke import Collection, ParseError, Program

    from opsgate import __version__, tasks
    from opsgate.console.safe import SafeStream
    from opsgate.errors import ExitCode
    from opsgate.redact import Redactor

    @contextmanager
    def usage() -> Iterator[None]:
        try:
            yield
        except ParseError as error:
            # It quotes the command line, where a URL may hold a password.
            words = Redactor.gather(os.environ).scrub(str(error))
            SafeStream(sys.stderr).line(f"opsgate: {words}\n  see opsgate --help TASK")
            sys.exit(ExitCode.NOT_READY)

    class OpsgateProgram(Program):
        """Invoke's program, but a command line that cannot be parsed is exit 2, as the contract says."""

        def parse_core(self, argv: list[str] | None) -> None:
            """Parse the flags before the task."""
            writes_no_bytecode = sys.dont_write_bytecode
            with usage():
                super().parse_core(argv)
            # Invoke turns it off for task files; modules imported later would be compiled every time.
            sys.dont_write_bytecode = writes_no_bytecode

        def parse_tasks(self) -> None:
            """Parse what follows them."""
            with usage():
                super().parse_tasks()

        def parse_cleanup(self) -> None:
            """Answer `--list` and `--help`."""
            with usage():
                super().parse_cleanup()

    OpsgateProgram(
        name="opsgate", binary="opsgate", namespace=Collection.from_module(tasks), version=__version__
    ).run()
