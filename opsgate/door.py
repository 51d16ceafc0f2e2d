"""What every task passes on its way in and out: flags -> settings, errors and outcome -> exit code.

The only module that raises Exit.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit

from opsgate.errors import ConfigurationError, OpsgateError
from opsgate.leave import leave_on_signals
from opsgate.settings import Flags, Settings, load

if TYPE_CHECKING:
    from opsgate.evidence.record import Trigger
    from opsgate.stages.session import Session


def _flags(given: dict[str, Any]) -> Flags:
    """The flags that settings understand; one left out is None."""
    names = [name for name in Flags.__struct_fields__ if given.get(name) is not None]
    values = {name: given[name] for name in names}
    values["url"] = tuple(values.get("url", ()))
    if values.get("rollback"):
        del values["rollback"]
    return Flags(**values)


def load_settings(given: dict[str, Any], *, needs: frozenset[str] | None = None) -> Settings:
    """The settings under the flags `given`; see `opsgate.settings.load`."""
    return load(_flags(given), os.environ, Path.cwd(), needs=needs)


def answering(body: Callable[[], int]) -> None:
    """Turn what a task comes to into an exit code; an error, a defect too, into its words."""
    leave_on_signals()
    gc.freeze()
    gc.enable()
    try:
        code = body()
    except OpsgateError as error:
        from opsgate import github

        github.refused(str(error), os.environ, sys.stderr)
        raise Exit(f"opsgate: {error}", code=error.exit_code) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody reads a traceback at three in the morning
        raise Exit(f"opsgate: {_defect(error)}", code=OpsgateError.exit_code) from None
    if code:
        # After 0 the next task on the command line has its turn.
        raise Exit(code=code)


def _defect(error: Exception) -> str:
    """A defect in one line that can be reported, without the secrets of the environment."""
    from opsgate.redact import Redactor

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" in {Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}" if trace else ""
    return Redactor.gather(os.environ).scrub(f"a defect in opsgate: {error!r}{where}")


def run(
    trigger: Trigger,
    settings: Settings,
    body: Callable[[Session], None],
    *,
    as_json: bool,
    stages: tuple[str, ...] = (),
    needs_evidence: bool = True,
    force: bool = False,
) -> int:
    """Execute one run, and print its result."""
    from opsgate import github
    from opsgate.console import reporter
    from opsgate.evidence.views import text
    from opsgate.stages.run import Task, execute

    github.begin(settings.redactor, os.environ, sys.stderr)
    outcome = execute(
        Task(trigger, body, stages=stages, needs_evidence=needs_evidence, force=force),
        settings,
        reporter=github.grouped(reporter(sys.stderr, os.environ, summary=as_json), os.environ, sys.stderr),
        environ=os.environ,
        ci=github.facts(os.environ),
    )
    if outcome.evidence_lost:
        print(outcome.document, end="", file=sys.stderr)
    github.finish(outcome.record, os.environ, sys.stderr, evidence=outcome.path)
    show(outcome.document if as_json else text.render(outcome.record))
    return outcome.exit_code


def show(text: str) -> None:
    """The result on stdout. A reader that has gone away, or a full disk, does not change what happened."""
    try:
        print(text, end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def deliver(text: str, file: str | None) -> None:
    """The result into `file`, or on stdout where that is None."""
    if file is None:
        show(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"--output {file}: {error.strerror}", "name a file that can be written"
        ) from None
    print(f"written: {file}", file=sys.stderr)
