"""What doctor looks at on this machine: evidence, lock, ledger, clock, hooks. Changes nothing."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import verify
from opsgate.evidence.files import HINT
from opsgate.evidence.ledger import LEDGER
from opsgate.evidence.lock import EnvironmentLock
from opsgate.evidence.record import timestamp
from opsgate.evidence.store import Store
from opsgate.evidence.views.headline import headline
from opsgate.evidence.views.words import count
from opsgate.settings import Settings
from opsgate.stages.doctor.diagnosis import Check, Status
from opsgate.stages.outcome import command_line

SYNTAX_LIMIT: Final = 5.0
"""Seconds for the shell to read a command without running it."""
CLOCK_SLACK: Final = 60.0
"""Seconds by which clocks of machines that share evidence may differ."""
LITTLE_ROOM: Final = 64 << 20
"""Bytes that the disk of the evidence should have left: a run may keep five logs of 16 MiB."""

_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_PROGRAM: Final = re.compile(r"[A-Za-z0-9_./+:@%,\[-][^$`*?~\\(){}]*")
_LEADS_ON: Final = frozenset({"!", "{", "(", "if", "while", "until", "exec"})
"""Words of the shell after which the command itself follows."""


def configuration(settings: Settings) -> Iterator[Check]:
    """Where the settings come from, and what was odd about them."""
    source = str(settings.config_file or "no configuration file: flags, variables and defaults")
    told = f"{source}, environment {settings.environment}"
    yield Check(name="configuration", status="ok", detail=told)
    for warning in settings.warnings:
        yield Check(name="configuration", status="warning", detail=warning)


def evidence_directory(settings: Settings) -> Check:
    """Whether a run could write there, found out without writing."""
    directory = settings.evidence_dir
    try:
        wrong, place = _unwritable(directory)
        system = os.statvfs(place)
    except OSError as error:
        wrong, system = f"{error.filename or directory}: {error.strerror}", None
    room = system.f_bavail * system.f_frsize if system else 0
    if not wrong and room == 0:
        wrong = f"{directory}: its disk is full"
    if wrong:
        return Check(name="evidence directory", status="problem", detail=wrong, hint=HINT)
    there = "" if os.path.isdir(directory) else ", made by the first run"
    status: Status = "ok" if room >= LITTLE_ROOM else "warning"
    return Check(
        name="evidence directory",
        status=status,
        detail=f"{directory} can be written{there}; {room >> 20} MiB free",
        hint="" if status == "ok" else HINT,
    )


def lock(settings: Settings) -> Check:
    """Who has the environment now."""
    environment = EnvironmentLock(settings.evidence_dir, settings.environment)
    holder = environment.holder()
    if environment.is_held():
        force = f"{command_line('rollback', settings)} --force"
        return Check(
            name="lock",
            status="problem",
            detail=f"held by {holder or 'another run'}",
            hint=f"wait until it ends; in an incident `{force}` takes the environment over",
        )
    if holder is None:
        return Check(name="lock", status="ok", detail="no run is under way")
    return Check(name="lock", status="ok", detail=f"free; {holder} was killed, and its lock ended with it")


def ledger(store: Store, *, now: float) -> Iterator[Check]:
    """Whether the ledger's lines follow one another, and lie in the past; `now` in epoch seconds."""
    try:
        entries = list(store.ledger.entries())
    except EvidenceError as error:
        yield Check(name="ledger", status="problem", detail=error.message, hint=error.hint)
        return
    if not entries:
        yield Check(name="ledger", status="skipped", detail="no run has ended here yet")
    elif wrong := next((off for _, links in verify.chain(entries) for off in links), None):
        hint = f"see what is off: {_evidence(store, '--verify')}"
        yield Check(name="ledger", status="warning", detail=str(wrong), hint=hint)
    else:
        yield Check(name="ledger", status="ok", detail=f"{count(len(entries), 'line')}, an unbroken chain")
    latest = max((entry.line.finished_at for entry in entries if entry.line), default="")
    if latest > timestamp(now + CLOCK_SLACK):
        yield Check(
            name="clock",
            status="warning",
            detail=f"it is {timestamp(now)} here, and a run ended at {latest}, in the future",
            hint="set the clock of this machine, or of the one that wrote the evidence",
        )
    else:
        yield Check(name="clock", status="ok", detail=f"{timestamp(now)}, after every run of the ledger")


def last_run(settings: Settings, store: Store) -> Check:
    """What the newest run of this environment left."""
    try:
        record = store.latest(settings.environment)
    except (EvidenceError, ConfigurationError) as error:
        return Check(name="last run", status="warning", detail=error.message, hint=error.hint)
    if record is None:
        return Check(name="last run", status="skipped", detail="none: this is the first")
    status: Status = "warning" if record.status == "failed" else "ok"
    hint = f"see why: {_evidence(store, '--run', record.run_id)}" if status == "warning" else ""
    return Check(name="last run", status=status, detail=headline(record), hint=hint)


def _evidence(store: Store, *asked: str) -> str:
    return shlex.join(["opsgate", "evidence", *asked, "--evidence-dir", str(store.directory)])


def hooks(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Whether the shell can read each command, and what it begins with is there."""
    configured, chain = settings.hooks, settings.hooks.rollback
    ways_back = {
        f"rollback {number} of {len(chain)}" if len(chain) > 1 else "rollback": command
        for number, command in enumerate(chain, 1)
    }
    commands = {"publish": configured.publish, "deploy": configured.deploy, **ways_back}
    commands |= {"rollback_check": configured.rollback_check, "incident": configured.incident}
    found = {
        name: _hook(command, settings.directory, environ) for name, command in commands.items() if command
    }
    spared = {"incident"}
    if not all(found[name][0] for name in ways_back):
        # One command of a chain that still works is a way back.
        spared |= ways_back.keys()
    for name, (wrong, told) in found.items():
        status: Status = "ok" if not wrong else "warning" if name in spared else "problem"
        hint = f"mend it, or install what it calls: {commands[name]}" if wrong else ""
        yield Check(name=f"hook {name}", status=status, detail=wrong or told, hint=hint)


def _hook(command: str, directory: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong with the command, or else what there is to say of it."""
    try:
        return _looked_for(command, directory, environ)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"it cannot be looked for: {error}", ""


def _looked_for(command: str, directory: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    read = _shell(["-n", "-c", command], directory, environ)
    if read.returncode:
        return f"the shell cannot read it: {(read.stderr.strip().splitlines() or ['syntax error'])[-1]}", ""
    word = first_word(command)
    if word is None:
        return "", "the shell can read it; what it runs shows only then"
    place = directory / word
    if "/" not in word:
        where = _shell(["-c", 'command -v "$1"', "sh", word], directory, environ).stdout.strip()
        return ("", f"{word} is {where}") if where else (f"command not found: {word}", "")
    try:
        is_file = stat.S_ISREG(place.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_file = False
    if not is_file:
        return f"there is no {place}", ""
    return ("", f"{place} is there") if os.access(place, os.X_OK) else (f"{place} is not executable", "")


def first_word(command: str) -> str | None:
    """The program, function or builtin that a shell command begins with; None where only a shell can tell."""
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    before = ""
    try:
        for word in words:
            # A value that stands in several words is no assignment to go past.
            whole = word.count("${") == word.count("}") and not word.endswith("$")
            if word in _LEADS_ON or (_ASSIGNMENT.match(word) and whole):
                before = word
                continue
            # A number is the file descriptor of a redirection that follows.
            if word.isdigit() or (before == "exec" and word.startswith("-")):
                return None
            is_function = next(words, "").startswith("(")
            return word if _PROGRAM.fullmatch(word) and not is_function else None
    except ValueError:
        pass
    return None


def _shell(
    arguments: list[str], directory: Path, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", *arguments],
        cwd=directory,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SYNTAX_LIMIT,
        check=False,
    )


def _unwritable(directory: Path) -> tuple[str, Path]:
    """Why nothing can be written there, empty if it can; and the nearest directory that exists."""
    place = directory
    while not os.path.lexists(place):
        place = place.parent
    if not stat.S_ISDIR(place.stat().st_mode):
        return f"{place} is no directory", place
    needed = [place, directory / ".locks"] if place == directory else [place]
    for each in needed:
        if os.path.exists(each) and not os.access(each, os.W_OK | os.X_OK):
            return f"{each} cannot be written", place
    book = directory / LEDGER
    if os.path.exists(book) and not (os.path.isfile(book) and os.access(book, os.R_OK | os.W_OK)):
        return f"{book} cannot be read and written", place
    return "", place
