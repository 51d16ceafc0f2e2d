"""What every task passes on its way in and out: flags -> settings, errors and outcome -> exit code.

The only module that raises Exit.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit

from opsgate.console.safe import SafeStream
from opsgate.errors import ConfigurationError, told
from opsgate.evidence.files import overwrite
from opsgate.leave import keep_exit_codes, leave_on_signals
from opsgate.settings import Flags, Settings, load

if TYPE_CHECKING:
    from opsgate.console.plain import PlainReporter
    from opsgate.evidence.record import Trigger
    from opsgate.redact import Redactor
    from opsgate.stages.session import Session


def _flags(given: dict[str, Any]) -> Flags:
    """The flags that settings understand; one left out is None."""
    names = [name for name in Flags.__struct_fields__ if given.get(name) is not None]
    values = {name: given[name] for name in names}
    values["url"] = tuple(values.get("url", ()))
    return Flags(**values)


def load_settings(given: dict[str, Any], *, needs: frozenset[str] | None = None) -> Settings:
    """The settings under the flags `given`; see `opsgate.settings.load`."""
    return load(_flags(given), os.environ, Path.cwd(), needs=needs)


def answering(body: Callable[[], int], given: dict[str, Any] | None = None) -> None:
    """Turn what a task comes to into an exit code; an error, a defect too, into its words.

    `given` are the task's flags: what they and the file say of secrets is masked in these words as well.
    """
    leave_on_signals()
    keep_exit_codes()
    gc.freeze()
    gc.enable()
    try:
        code = body()
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody reads a traceback at three in the morning
        from opsgate import github

        known = redactor(given or {})
        what = told(error)
        words = known.scrub(str(what))
        with suppress(Exception):  # what is wrong may be there, and the words and the code must come through
            # The settings may be what is wrong: then nothing of a run has had the secrets hidden before.
            github.begin(known, os.environ, sys.stderr)
            github.refused(words, os.environ, sys.stderr)
        SafeStream(sys.stderr).line(f"opsgate: {words}")
        raise Exit(code=what.exit_code) from None
    if code:
        # After 0 the next task on the command line has its turn.
        raise Exit(code=code)


def redactor(given: dict[str, Any]) -> Redactor:
    """What hides the secrets of flags, environment and file, as far as these can be read."""
    # A flag may be what is wrong.
    for flags in (given, {"env": given.get("env")}, {}):
        with suppress(Exception):
            return load_settings(flags, needs=frozenset()).redactor
    from opsgate.redact import Redactor

    return Redactor.gather(os.environ)


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
    from opsgate.stages.run import execute
    from opsgate.stages.supervise import Task

    github.begin(settings.redactor, os.environ, sys.stderr)
    outcome = execute(
        Task(trigger, body, stages=stages, needs_evidence=needs_evidence, force=force),
        settings,
        reporter=github.grouped(reporter(sys.stderr, os.environ, summary=as_json), os.environ, sys.stderr),
        environ=os.environ,
        ci=github.facts(os.environ),
    )
    if outcome.evidence_lost:
        SafeStream(sys.stderr).line(outcome.document.rstrip("\n"))
    github.finish(outcome.record, os.environ, sys.stderr, evidence=outcome.path)
    show(outcome.document if as_json else text.render(outcome.record))
    return outcome.exit_code


def lines() -> PlainReporter:
    """For a task that is no run: what it tells people on the way, a line each on stderr."""
    from opsgate.console.plain import PlainReporter

    return PlainReporter(sys.stderr)


def show(text: str) -> OSError | None:
    """The result on stdout. Whatever becomes of it there does not change what happened; it is returned."""
    stream = SafeStream(sys.stdout)
    try:
        text.encode(stream.encoding)
    except (UnicodeEncodeError, LookupError):
        # As JSON escapes it: a document that cannot be encoded stays one.
        text = re.sub(r"[^\x00-\x7f]+", lambda match: json.dumps(match[0])[1:-1], text)
    stream.write(text)
    stream.flush()
    return stream.lost


def deliver(text: str, file: str | None) -> None:
    """A report into `file`, or on stdout where that is None: half of one is none."""
    if file is None:
        lost = show(text)
        if lost is not None:
            raise ConfigurationError(f"stdout: {lost.strerror}", "redirect it to a place with free space")
        return
    try:
        overwrite(Path(file), text.encode())
    except OSError as error:
        raise ConfigurationError(
            f"--output {file}: {error.strerror}", "name a file that can be written"
        ) from None
    SafeStream(sys.stderr).line(f"written: {file}")
