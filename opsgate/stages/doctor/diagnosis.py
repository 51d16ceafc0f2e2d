"""What doctor found, as values, and as text or one JSON document (schema `opsgate/doctor/v1`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from opsgate import __version__
from opsgate.errors import ConfigurationError, ExitCode, OpsgateError
from opsgate.evidence.record import Time, pretty, timestamp
from opsgate.evidence.views.words import count, plain
from opsgate.redact import Redactor
from opsgate.settings import Row, Settings, describe

SCHEMA: Final = "opsgate/doctor/v1"

Status = Literal["ok", "warning", "problem", "skipped"]
_MARKS: Final = {"ok": "ok", "warning": "warning", "problem": "PROBLEM", "skipped": "--"}
_LONGEST: Final = 8000
"""Characters of one line: a hint with a command in it must not be cut short."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. Only a problem keeps a release from being ready."""

    name: str
    status: Status
    detail: str
    hint: str = ""
    """What to do about it; empty where there is nothing to do."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found, secrets masked."""

    schema: Literal["opsgate/doctor/v1"] = SCHEMA
    opsgate_version: str = __version__
    environment: str
    checked_at: Time
    ready: bool
    exit_code: int
    configuration: tuple[Row, ...]
    checks: tuple[Check, ...]
    next_steps: tuple[str, ...]

    @property
    def as_json(self) -> str:
        """The one JSON document."""
        return pretty(self).decode()

    @property
    def as_text(self) -> str:
        """One line for each check, and what to do, below what was resolved from where."""
        return "\n".join(plain(line, _LONGEST) for line in self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        problems = sum(check.status == "problem" for check in self.checks)
        warnings = sum(check.status == "warning" for check in self.checks)
        told = [count(problems, "problem")] if problems else []
        told += [count(warnings, "warning")] if warnings else []
        said = f": {', '.join(told)}" if told else ""
        yield f"{self.environment} is {'ready' if self.ready else 'NOT ready'} for a release{said}"
        if self.configuration:
            width = max(len(row.key) for row in self.configuration)
            yield from ("", "Configuration")
            yield from (f"  {row.key:<{width}}  {row.value}  ({row.origin})" for row in self.configuration)
        width = max(len(check.name) for check in self.checks)
        yield from ("", "Checks")
        for check in self.checks:
            yield f"  {_MARKS[check.status]:7}  {check.name:<{width}}  {_one_line(check.detail)}"
        if self.next_steps:
            yield from ("", "What to do")
            yield from (f"  {number}. {_one_line(step)}" for number, step in enumerate(self.next_steps, 1))


def conclude(settings: Settings, checks: Iterable[Check], *, now: float) -> Diagnosis:
    """The diagnosis that these checks make; `now` in seconds since the epoch."""
    return _concluded(settings.environment, describe(settings), checks, settings.redactor, now)


def misconfigured(error: ConfigurationError, environment: str, redactor: Redactor) -> Diagnosis:
    """The diagnosis where the configuration cannot be used: nothing else was looked at."""
    checks = [problem("configuration", error)]
    return _concluded(redactor.scrub(environment), (), checks, redactor, time.time())


def problem(name: str, error: OpsgateError) -> Check:
    """What went wrong, as a check."""
    return Check(name=name, status="problem", detail=error.message, hint=error.hint)


def _concluded(
    environment: str, rows: tuple[Row, ...], checks: Iterable[Check], redactor: Redactor, now: float
) -> Diagnosis:
    shown = tuple(
        Check(
            name=redactor.scrub(check.name),
            status=check.status,
            detail=redactor.scrub(check.detail),
            hint=redactor.scrub(check.hint),
        )
        for check in checks
    )
    ready = all(check.status != "problem" for check in shown)
    urgent = sorted((check for check in shown if check.hint), key=lambda check: check.status != "problem")
    return Diagnosis(
        environment=environment,
        checked_at=timestamp(now),
        ready=ready,
        exit_code=ExitCode.PASSED if ready else ExitCode.NOT_READY,
        configuration=rows,
        checks=shown,
        next_steps=tuple(dict.fromkeys(f"{check.name}: {check.hint}" for check in urgent)),
    )


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
