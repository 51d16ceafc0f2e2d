"""The console script: Invoke's program over opsgate's tasks, with exit 2 for wrong usage."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from opsgate.stages.halt import leave_on_signals

if TYPE_CHECKING:
    from invoke import Program


def main() -> None:
    """Run the tasks named on the command line."""
    # First of all: what follows imports for a good tenth of a second.
    leave_on_signals()
    _program().run()


def _program() -> Program:
    from invoke import Collection, ParseError, Program

    from opsgate import __version__, tasks

    class OpsgateProgram(Program):
        """Invoke's program, but a command line that cannot be parsed is exit 2, as the contract says."""

        def parse_tasks(self) -> None:
            """Parse what follows the core flags."""
            try:
                super().parse_tasks()
            except ParseError as error:
                print(f"opsgate: {error}\n  see opsgate --help TASK", file=sys.stderr)
                sys.exit(2)

    return OpsgateProgram(
        name="opsgate", binary="opsgate", namespace=Collection.from_module(tasks), version=__version__
    )
