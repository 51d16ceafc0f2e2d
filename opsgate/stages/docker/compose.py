"""Docker compose, as a command: what it would build, how it is started, what did not stay up.

No Docker library: what runs here is what a person can type, and it stands in the record.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from opsgate.errors import ConfigurationError, ExitCode, OpsgateError
from opsgate.evidence.record import Command, Container
from opsgate.settings import Settings
from opsgate.stages.session import Session

PLUGIN: Final = "docker compose"
STANDALONE: Final = "docker-compose"
LOOK_LIMIT: Final = 20.0
"""Seconds for a question to compose; it reads files, and asks the engine at most for a list."""
GLANCE_LIMIT: Final = 5.0
"""Seconds for one question about containers: a rollback waits for the answers."""
LOG_LINES: Final = 20
LOG_LIMIT: Final = 4096
"""Characters kept of one container's log."""
MOST_CONTAINERS: Final = 20

_ANSWER_LIMIT: Final = 16 * 1024 * 1024
_WORDS_LIMIT: Final = 600
_FALLEN: Final = frozenset({"exited", "dead", "restarting", "removing"})
_LOGIN: Final = ("unauthorized", "denied", "authentication required", "no basic auth credentials")


class EngineError(OpsgateError):
    """Docker, compose or the engine said no; the message carries its words."""

    exit_code = ExitCode.FAILED


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service of the compose files, variables filled in."""

    name: str
    image: str | None
    builds: bool
    """It has a build section."""


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the engine knows it."""

    id: str
    by_manifest: bool
    """The id is its manifest's digest; in the classic store it is that of its configuration."""


def require_files(settings: Settings) -> None:
    """Raise `ConfigurationError` unless there are compose files, and all of them exist."""
    if not settings.publish.compose_files:
        raise ConfigurationError(
            f"environment {settings.environment} has no compose files",
            'name them in opsgate.toml: [publish] compose_files = ["compose.yaml"]',
        )
    for file in settings.publish.compose_files:
        if not os.path.isfile(settings.directory / file):
            raise ConfigurationError(
                f"publish.compose_files: {settings.directory / file} does not exist, or cannot be reached",
                "relative paths start at the configuration file's directory",
            )


def program(session: Session) -> str | None:
    """`docker compose`, or `docker-compose` where only that is there; None without either."""
    if session.ask(f"{PLUGIN} version", limit=LOOK_LIMIT).succeeded:
        return PLUGIN
    session.halt.check()
    # A wheel puts it beside the Python that runs opsgate, which need not be on the PATH.
    path = os.pathsep.join([session.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which(STANDALONE, path=path)
    if found is None:
        return None
    return STANDALONE if shutil.which(STANDALONE, path=session.environ.get("PATH")) else shlex.quote(found)


def require_program(session: Session) -> str:
    """As `program`; raises `EngineError` where there is neither."""
    found = program(session)
    if found is None:
        raise EngineError(
            "Docker is missing: neither `docker compose` nor `docker-compose` can be run here",
            "install Docker with its compose plugin, or name commands of your own to publish and to deploy",
        )
    return found


def base(settings: Settings, compose: str) -> str:
    """The command up to its verb: the program and the configured files."""
    return " ".join([compose, *(f"-f {shlex.quote(file)}" for file in settings.publish.compose_files)])


def up(settings: Settings, compose: str | None) -> str:
    """The deploy command: whatever `OPSGATE_PINS` names, started; it waits for nothing.

    Without Docker (`compose` is None) it is the command all the same, and fails when it is run.
    """
    # Without its pins compose would go by tag: an empty variable has to end it.
    pins = '-f "${OPSGATE_PINS:?this release left no pins}"'
    return f"{base(settings, compose or PLUGIN)} {pins} up -d --no-build"


def services(session: Session, command: str) -> list[Service]:
    """Read what the compose files say, every profile included. Raises `EngineError`."""
    document = _json(session, f"{command} --profile '*' config --format json", LOOK_LIMIT)
    listed = document.get("services") if isinstance(document, dict) else None
    return [
        Service(name=name, image=service.get("image"), builds=bool(service.get("build")))
        for name, service in (listed or {}).items()
    ]


def local_images(session: Session, references: Iterable[str]) -> dict[str, Local]:
    """What the engine has under each reference; empty where there is no `docker` to ask."""
    found = {}
    for reference in references:
        try:
            seen = _json(session, f"docker image inspect {shlex.quote(reference)}", LOOK_LIMIT)[0]
            found[reference] = Local(id=str(seen["Id"]), by_manifest="Descriptor" in seen)
        except (EngineError, LookupError, TypeError):
            continue
    return found


def failure(done: Command, what: str) -> EngineError:
    """The error of a command that failed, in the engine's own words."""
    words = said(done.output_tail)
    hint = ""
    if any(sign in words.lower() for sign in _LOGIN):
        hint = "log in with docker login, as somebody who may push there"
    return EngineError(
        f"{what} failed ({done.explanation}): {words}" if words else f"{what} failed: {done.explanation}",
        hint,
    )


def said(output: str) -> str:
    """The last thing that a command said: its last three lines, on one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-_WORDS_LIMIT:]


def fallen(session: Session, *, since: str) -> list[Container]:
    """The containers of this project that exited or were restarted since then (a record's time).

    Raises `EngineError` where compose cannot say.
    """
    command = base(session.settings, program(session) or PLUGIN)
    listed = _rows(session, f"{command} ps --all --format json")
    looked_at = [_inspected(session, row, since) for row in listed[:MOST_CONTAINERS]]
    found = [container for container in looked_at if container is not None]
    # Who is down comes before what they said: there may be no time for both.
    for container in found:
        container.log_tail = _log(session, command, container.service)
    return found


def _rows(session: Session, command: str) -> list[dict[str, Any]]:
    """What `ps` lists: newer ones print an object a line, older ones a list."""
    text = _output(session, command, GLANCE_LIMIT).strip()
    try:
        parsed = (
            json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        )
    except ValueError:
        raise EngineError(f"`{command}` printed no JSON") from None
    return [row for row in parsed if isinstance(row, dict)]


def _inspected(session: Session, row: dict[str, Any], since: str) -> Container | None:
    """A container that did not stay up; None for one that did."""
    state, exit_code, restarts, started = str(row.get("State", "")), row.get("ExitCode"), 0, ""
    identity = str(row.get("ID", ""))
    try:
        seen = _json(session, f"docker inspect --type container {shlex.quote(identity)}", GLANCE_LIMIT)[0]
        state, exit_code = seen["State"]["Status"], seen["State"]["ExitCode"]
        restarts, started = int(seen["RestartCount"]), seen["State"]["StartedAt"]
    except (EngineError, LookupError, TypeError, ValueError):
        # Without the docker program `ps` alone has to do: it does not count restarts.
        started = since
    restarted = restarts > 0 and started[: len(since) - 1] >= since[:-1]
    if state not in _FALLEN and not restarted:
        return None
    return Container(
        service=str(row.get("Service", "")),
        state=state,
        exit_code=exit_code if isinstance(exit_code, int) and (state in _FALLEN) else None,
        restarts=restarts,
        log_tail="",
    )


def _log(session: Session, command: str, service: str) -> str:
    arguments = f"logs --no-color --no-log-prefix --tail {LOG_LINES} {shlex.quote(service)}"
    tail = session.ask(f"{command} {arguments}", limit=GLANCE_LIMIT).output_tail
    session.halt.check()
    return tail.strip()[-LOG_LIMIT:]


def _json(session: Session, command: str, limit: float) -> Any:
    text = _output(session, command, limit)
    try:
        return json.loads(text)
    except ValueError:
        raise EngineError(f"`{command}` printed no JSON") from None


def _output(session: Session, command: str, limit: float) -> str:
    """What a question printed on stdout. Raises `EngineError` with what it said on stderr."""
    try:
        with tempfile.TemporaryDirectory(prefix="opsgate-", ignore_cleanup_errors=True) as scratch:
            answer = Path(scratch) / "answer"
            finished = session.ask(f"{command} >{shlex.quote(str(answer))}", limit=limit)
            session.halt.check()
            if finished.succeeded:
                with answer.open("rb") as file:
                    return file.read(_ANSWER_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        hint = "free some space in the temporary directory, or name another one in TMPDIR"
        raise EngineError(f"the answer of `{command}` cannot be kept: {error}", hint) from None
    words = said(finished.output_tail)
    raise EngineError(f"`{command}` failed ({finished.explanation}){f': {words}' if words else ''}")
