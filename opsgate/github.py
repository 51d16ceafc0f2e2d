"""What GitHub Actions is told: masks, outputs, summary, annotations, groups. Nothing of it anywhere else.

Workflow commands go to the stream given, stderr, never to stdout, which carries the result. None of
this can fail a run: what cannot be written is said, and that is all.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar, cast

from opsgate.evidence.record import Ci, Evidence

if TYPE_CHECKING:
    from opsgate.evidence.record import TargetResult
    from opsgate.redact import Redactor

R = TypeVar("R")

SUMMARY_LIMIT: Final = 1024 * 1024
"""Bytes of one step's summary; the runner drops a larger one whole."""
ANNOTATIONS: Final = 10
"""Of one level in one step; the runner shows no more."""
_LONGEST: Final = 4000
_GROUPED: Final = frozenset({"publish", "deploy"})
_CUT: Final = "The rest has no room in this summary: see the evidence."


def active(environ: Mapping[str, str]) -> bool:
    """Whether this runs in GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true"


def facts(environ: Mapping[str, str]) -> Ci:
    """Where this run takes place; outside of CI only who started it."""
    if not active(environ):
        return Ci(actor=environ.get("USER") or environ.get("LOGNAME") or None)
    server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
    run = environ.get("GITHUB_RUN_ID", "")
    return Ci(
        provider="github",
        repository=repository or None,
        workflow=environ.get("GITHUB_WORKFLOW") or None,
        run_url=f"{server}/{repository}/actions/runs/{run}" if server and repository and run else None,
        commit=environ.get("GITHUB_SHA") or None,
        actor=environ.get("GITHUB_ACTOR") or None,
    )


def begin(redactor: Redactor, environ: Mapping[str, str], stream: TextIO) -> None:
    """Have the runner hide every secret from its log."""
    if active(environ):
        for secret in redactor.masks():
            _say(stream, f"::add-mask::{_data(secret)}")


def grouped(reporter: R, environ: Mapping[str, str], stream: TextIO) -> R:
    """The reporter, with the output of publish and deploy folded into a group of the log each."""
    return cast("R", _Groups(reporter, stream)) if active(environ) else reporter


def finish(record: Evidence, environ: Mapping[str, str], stream: TextIO, *, evidence: Path) -> None:
    """Outputs, job summary and annotations of a finished run, whose secrets are masked already.

    `evidence` is the record's file. Files that the runner does not take are a line on the stream.
    """
    if not active(environ):
        return
    outputs = {
        "status": record.status,
        "status_reason": record.status_reason,
        "revision": record.revision or "",
        "evidence": str(evidence),
    }
    _append("GITHUB_OUTPUT", lambda _: "".join(_output(*item) for item in outputs.items()), environ, stream)
    _append("GITHUB_STEP_SUMMARY", lambda room: _summary(record, room), environ, stream)
    for line in _annotations(record):
        _say(stream, line)


def refused(words: str, environ: Mapping[str, str], stream: TextIO) -> None:
    """An annotation for what no record tells: where a task stopped, and what to do."""
    if active(environ):
        _say(stream, _command("error", "opsgate", words[:_LONGEST]))


class _Groups:
    """A reporter that opens and closes groups around another one's lines."""

    def __init__(self, inner: Any, stream: TextIO) -> None:
        self._inner, self._stream = inner, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def stage(self, name: str) -> None:
        if name in _GROUPED:
            _say(self._stream, f"::group::opsgate {_data(name)}")
        self._inner.stage(name)

    def stage_done(self, name: str, status: str, seconds: float) -> None:
        # Closed first: how it ended must not be folded away.
        if name in _GROUPED:
            _say(self._stream, "::endgroup::")
        self._inner.stage_done(name, status, seconds)


def _append(variable: str, text: Callable[[int], str], environ: Mapping[str, str], stream: TextIO) -> None:
    """Append to the runner's file; `text` is told how many bytes a summary may still have."""
    name = environ.get(variable, "")
    if not name:
        return
    path = Path(name)
    try:
        there = path.stat().st_size if os.path.exists(path) else 0
        # What another program of the step left without an end of line is not ours to go on with.
        start = b"\n" if there and _last_byte(path) != b"\n" else b""
        added = text(SUMMARY_LIMIT - there - len(start)).encode("utf-8", "replace")
        with path.open("ab") as file:
            file.write(start + added if added else b"")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        _say(stream, f"::warning title=opsgate::{_data(f'{variable} cannot be written: {reason}')}")


def _last_byte(path: Path) -> bytes:
    """The end of a file that is not empty."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def _output(name: str, value: str) -> str:
    """One output. A value cannot end its block, and so add outputs: its delimiter cannot be guessed."""
    delimiter = f"opsgate_{secrets.token_hex(16)}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def _summary(record: Evidence, room: int) -> str:
    """The Markdown view; where there is no room for it, its first words."""
    from opsgate.evidence.views import markdown

    blocks = markdown.render(record).rstrip("\n").split("\n\n")
    if record.status_reason == "not_gated":
        # The step that decides follows, with the whole run: this one must not stand above it as its result.
        blocks = [blocks[0].removeprefix("## ")]
    whole, short = "\n\n".join(blocks), "\n\n".join([*blocks[:2], _CUT])
    return next((f"{text}\n\n" for text in (whole, short) if _size(text) + 2 <= room), "")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _annotations(record: Evidence) -> Iterator[str]:
    """An error for each failed target, or one for the run; a warning where nothing was validated."""
    from opsgate.evidence.views.headline import NOT_VALIDATED, headline
    from opsgate.evidence.views.words import count, plain

    told = plain(headline(record), 400)
    if record.status == "skipped" and record.status_reason != "not_gated":
        yield _command("warning", f"opsgate: {NOT_VALIDATED}", told)
    if record.status != "failed":
        return
    title = f"opsgate: {record.environment}: {record.status_reason}"
    failed = _failed(record)
    if not failed:
        yield _command("error", title, told)
        return
    shown = failed if len(failed) <= ANNOTATIONS else failed[: ANNOTATIONS - 1]
    for target in shown:
        yield _command("error", title, _why(record, target))
    if len(failed) > len(shown):
        more = f"and {count(len(failed) - len(shown), 'more target')}: see the job summary"
        yield _command("error", title, more)
    yield _command("notice", "opsgate", told)


def _failed(record: Evidence) -> list[TargetResult]:
    """The required targets that the verdict, or the recovery check of a manual rollback, was about."""
    stages = record.stages
    gate = stages.rollback.recovery if record.trigger == "rollback" else stages.gate
    if not gate or gate.status != "failed":
        return []
    return [target for target in gate.required if not target.healthy]


def _why(record: Evidence, target: TargetResult) -> str:
    from opsgate.evidence.views.phrases import why_and_before
    from opsgate.evidence.views.words import plain

    name = target.name if target.url in {None, target.name} else f"{target.name} ({target.url})"
    return f"{plain(name, 400)}: {why_and_before(record, target)}"


def _command(name: str, title: str, text: str) -> str:
    return f"::{name} title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    """`text` as the data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """`text` as a property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _say(stream: TextIO, line: str) -> None:
    """One line, whatever the stream can encode; a stream that has gone away is no reason to fail."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError, LookupError):
        return
