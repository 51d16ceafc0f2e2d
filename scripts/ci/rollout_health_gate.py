#!/usr/bin/env python3
"""opsgate's gate behind the flags and files of an older script, so that its pipelines keep working.

It reads its flags only: no configuration file, no RUNTIME_* variable, no lock, no cap on rollbacks.
A round is one attempt at every URL at once; the first round in which all are healthy passes.
Exit 0: passed, or skipped. Exit 1: failed, or skipped with --fail-on-skipped. Exit 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

# The checkout that this file is in comes first, whatever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if find_spec("msgspec") is None:
    print("rollout gate: opsgate's packages are missing; install them: pip install opsgate", file=sys.stderr)
    raise SystemExit(2)

import msgspec

from opsgate.console.safe import SafeStream
from opsgate.errors import ConfigurationError, Interrupted
from opsgate.evidence.files import overwrite
from opsgate.evidence.record import timestamp
from opsgate.evidence.views.words import count
from opsgate.hooks import process
from opsgate.hooks.apart import errors_apart
from opsgate.hooks.stream import harmless
from opsgate.leave import keep_exit_codes, leave_on_signals
from opsgate.probe.kinds import Prober
from opsgate.redact import Redactor, found_in, mask_url
from opsgate.settings.durations import MOST
from opsgate.settings.mistakes import Mistake
from opsgate.settings.targets import url_target
from opsgate.settings.urls import HTTP, check_url, normal, split_list
from opsgate.stages import rounds
from opsgate.stages.halt import Halt
from opsgate.verdict.judge import Failed, Passed
from opsgate.verdict.targets import Attempt, Expectation

HEALTHY: Final = Expectation(status=((200, 399),))
MOST_ATTEMPTS: Final = 10_000
NOT_VALIDATED: Final = "NOT VALIDATED: no URL was given (--urls), nothing was probed"


class Told:
    """What a person watching is told, on stderr; a stream that went away is nobody's failure."""

    def __init__(self) -> None:
        self._stream = SafeStream(sys.stderr)

    def __call__(self, text: str) -> None:
        """One line."""
        self._stream.line(f"rollout gate: {text}")

    def hook(self, line: str) -> None:
        """One line that the rollback printed."""
        self._stream.line(f"rollback | {line}")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--urls", default="", help="URLs to probe, separated by commas (default: none, status skipped)")
    add("--attempts", type=_count, default=6, help="rounds that the deadline is worked out from (default: 6)")
    add("--timeout-seconds", type=_positive, default=5.0, help="limit of one attempt (default: 5)")
    add("--sleep-seconds", type=_seconds, default=15.0, help="longest wait between rounds (default: 15)")
    add("--rollback-on-fail", action="store_true", help="run the rollback when the gate fails (default: no)")
    add("--rollback-command", default="", help="command for /bin/sh (default: none)")
    add("--rollback-timeout-seconds", type=_positive, default=180.0, help="its limit (default: 180)")
    add("--evidence-file", default="", help="where the evidence goes as well, as JSON (default: nowhere)")
    add("--env-file", default="", help="where the outcome goes as shell variables (default: nowhere)")
    add("--fail-on-skipped", action="store_true", help="exit 1 when nothing was probed (default: exit 0)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gate; the exit code."""
    flags = parser()
    options = flags.parse_args(argv)
    try:
        urls = urls_of(options.urls)
    except Mistake as error:
        words = f"--urls: {error.text}{f'. {error.hint}' if error.hint else ''}"
        flags.error(Redactor.gather(os.environ).scrub(words))
    secrets = [secret for text in (options.rollback_command, *urls) for secret in found_in(text)]
    gate = Gate(options, urls, Redactor.gather(os.environ, secrets))
    try:
        # Until the end the files say what is true if this process is killed.
        gate.write()
        return gate.run()
    except OSError as error:
        flags.error(f"{error.filename}: {error.strerror}")
    except ConfigurationError as error:
        flags.error(gate.redactor.scrub(str(error)))


def urls_of(text: str) -> list[str]:
    """The URLs, each once. Raises `Mistake` for what is none."""
    found: dict[str, str] = {}
    for part in split_list(text):
        url = check_url(part, HTTP)
        found.setdefault(normal(url), url)
    return list(found.values())


class Gate:
    """One gate and the document that it makes. Until it has ended the document says `failed`."""

    def __init__(self, options: argparse.Namespace, urls: list[str], redactor: Redactor) -> None:
        self.options, self.redactor, self.tell = options, redactor, Told()
        self.targets = [msgspec.structs.replace(url_target(url), expect=HEALTHY) for url in urls]
        self.shown = [redactor.scrub(mask_url(url)) for url in urls]
        self.rounds: list[rounds.Round] = []
        self.document: dict[str, Any] = {
            "status": "failed",
            "status_reason": "interrupted",
            "checked_at": timestamp(time.time()),
            "urls": self.shown,
            "attempts": [],
            "failed_urls": self.shown,
            "rollback": _rollback(redactor.scrub(options.rollback_command)),
        }

    def run(self) -> int:
        """Probe, roll back where that is asked for, write everything; the exit code."""
        interrupted = None
        with Halt() as halt:
            try:
                self.decide(halt)
                if self.document["status"] == "failed" and self.options.rollback_on_fail:
                    self.roll_back(halt)
                halt.check()
            except Interrupted as stop:
                interrupted = stop
                self.tell(stop.message)
        self.note_rounds()
        code = {"passed": 0, "failed": 1, "skipped": int(self.options.fail_on_skipped)}
        try:
            self.write()
        except OSError as error:
            self.tell(f"the evidence cannot be written: {error.filename}: {error.strerror}")
            return 1
        finally:
            SafeStream(sys.stdout).line(self.text)
        return interrupted.exit_code if interrupted else code[self.document["status"]]

    def decide(self, halt: Halt) -> None:
        """Probe until there is a verdict, and write it down."""
        if not self.targets:
            self.document |= {"status": "skipped", "status_reason": "no_urls_configured"}
            self.tell(NOT_VALIDATED)
            return
        options = self.options
        policy = rounds.policy(
            attempts=options.attempts, timeout=options.timeout_seconds, sleep=options.sleep_seconds
        )
        self.tell(f"{count(len(self.targets), 'URL')}, verdict within {policy.deadline:g} s")
        prober = Prober(environ=os.environ, redactor=self.redactor)
        try:
            prober.prepare(self.targets)
            verdict = rounds.probe(self.targets, policy, prober, self.take, halt.check)
        finally:
            prober.close()
        passed = isinstance(verdict, Passed)
        reason = verdict.reason if isinstance(verdict, Failed) else "all_probes_healthy"
        self.document |= {"status": "passed" if passed else "failed", "status_reason": reason}
        self.note_rounds()
        failed = self.document["failed_urls"]
        self.tell(f"{self.document['status']} ({reason}){': ' if failed else ''}{', '.join(failed)}")

    def take(self, attempts: rounds.Round) -> None:
        """Keep a finished round, and tell what it found unless the one before found the same."""
        before = self.rounds[-1] if self.rounds else []
        self.rounds.append(attempts)
        failed = [failing for failing in zip(self.shown, attempts, strict=True) if not failing[1].ok]
        if [attempt.kind for attempt in attempts] != [attempt.kind for attempt in before]:
            why = "".join(f"; {url}: {_detail(attempt)}" for url, attempt in failed)
            healthy = f"{len(attempts) - len(failed)} of {count(len(attempts), 'URL')} healthy"
            self.tell(f"round {len(self.rounds)}: {healthy}{why}")

    def roll_back(self, halt: Halt) -> None:
        """Run the rollback; the first signal does not cut it off."""
        command, note = self.options.rollback_command, self.document["rollback"]
        if not command.strip():
            note["stderr"] = "a rollback was asked for, and no --rollback-command is given"
            self.tell(note["stderr"])
            return
        halt.check()
        note["attempted"], note["succeeded"] = True, False
        with suppress(OSError):
            self.write()
        limit = self.options.rollback_timeout_seconds
        with halt.shielded(), errors_apart(command, self.redactor, self.tell.hook) as (wrapped, errors):
            done = process.run(
                wrapped,
                env=os.environ,
                cwd=Path.cwd(),
                limit=limit,
                label="rollback",
                redactor=self.redactor,
                log=None,
                emit=self.tell.hook,
                cut=halt.pending,
            )
        ended = done.exit_code is not None and not done.timed_out and not done.interrupted
        note |= {
            "succeeded": done.succeeded,
            "exit_code": done.exit_code if ended else None,
            "stdout": done.output_tail,
            "stderr": errors.text if ended else f"{errors.text}{done.explanation}\n",
        }
        self.tell(f"rollback: {done.explanation or 'succeeded'}")

    def note_rounds(self) -> None:
        """Bring rounds and failed URLs in the document up to date."""
        self.document["attempts"] = [
            {
                "attempt": number,
                "all_ok": all(attempt.ok for attempt in attempts),
                "results": [_result(*pair) for pair in zip(self.shown, attempts, strict=True)],
            }
            for number, attempts in enumerate(self.rounds, 1)
        ]
        if self.rounds:
            last = zip(self.shown, self.rounds[-1], strict=True)
            self.document["failed_urls"] = [url for url, attempt in last if not attempt.ok]

    @property
    def text(self) -> str:
        """The document."""
        return json.dumps(self.document, indent=2, sort_keys=True)

    def write(self) -> None:
        """Write both files, if asked for. Raises `OSError`."""
        for name, content in (
            (self.options.evidence_file, f"{self.text}\n"),
            (self.options.env_file, env_lines(self.document)),
        ):
            if name:
                _put(Path(name), content)


def env_lines(document: dict[str, Any]) -> str:
    """The outcome as shell variables, like opsgate's `latest.env`."""
    rollback = document["rollback"]
    succeeded = rollback["succeeded"] if rollback["attempted"] else None
    values = {
        "STATUS": document["status"],
        "STATUS_REASON": document["status_reason"],
        "FAILED_URL_COUNT": len(document["failed_urls"]),
        "ROLLBACK_ATTEMPTED": str(rollback["attempted"]).lower(),
        "ROLLBACK_SUCCEEDED": "unknown" if succeeded is None else str(succeeded).lower(),
        "ROLLBACK_EXIT_CODE": rollback["exit_code"],
        "ATTEMPT_COUNT": len(document["attempts"]),
    }
    return "".join(f"ROLLOUT_GATE_{name}={value}\n" for name, value in values.items())


def _rollback(command: str) -> dict[str, Any]:
    """A rollback that was not attempted."""
    return {
        "attempted": False,
        "succeeded": None,
        "exit_code": None,
        "command": command,
        "stdout": "",
        "stderr": "",
    }


def _result(url: str, attempt: Attempt) -> dict[str, Any]:
    return {
        "url": url,
        "ok": attempt.ok,
        "status_code": attempt.status_code,
        "detail": _detail(attempt),
        "elapsed_ms": round(attempt.elapsed_ms),
    }


def _detail(attempt: Attempt) -> str:
    return harmless(attempt.detail) or ("ok" if attempt.ok else str(attempt.kind))


def _put(path: Path, content: str) -> None:
    """Write a file whole, its directory made if need be."""
    path.resolve().parent.mkdir(parents=True, exist_ok=True)
    overwrite(path, content.encode())


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_ATTEMPTS:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {MOST_ATTEMPTS}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, at most {MOST:g}")
    return number


def _positive(text: str) -> float:
    number = _seconds(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


if __name__ == "__main__":
    leave_on_signals()
    keep_exit_codes()
    raise SystemExit(main())
