"""One run at a time for each environment, and how a person takes one over.

`.locks/` of the evidence directory holds, for each environment:

    NAME.lock                what the holder has locked; the lock ends with its process
    NAME.taken               what has locked it who took over from a process that does not answer
    NAME.holder.json         who holds it, for the message of those who come second
    NAME.RUN.PID.request     a person asks this holder to stop; renamed to .seen when the holder has noticed

The directory's name starts with a dot, so that an upload of the evidence leaves it out.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from opsgate.errors import EnvironmentHeld
from opsgate.evidence.files import DAMAGED, explained, replace, replace_durably
from opsgate.evidence.record import Takeover

if TYPE_CHECKING:
    from pathlib import Path

    from filelock import BaseFileLock

PATIENCE = 15.0
"""Seconds that a holder has to end its hook and to give the environment up."""
_POLL = 0.05


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds an environment, or asks for it."""

    run_id: str
    pid: int
    host: str
    started_at: str
    task: str

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.task}, process {self.pid} on {self.host}, since {self.started_at})"


class EnvironmentLock:
    """The lock of one environment in one evidence directory. `OSError`s become `EvidenceError`s."""

    def __init__(self, directory: Path, environment: str) -> None:
        self.environment = environment
        self._directory = directory / ".locks"
        self._locks: list[BaseFileLock] = []
        self._holder: Holder | None = None
        self._taker: Holder | None = None

    def holder(self) -> Holder | None:
        """Who left a note of holding the environment. A killed one left it too: see `is_held`."""
        return _read(self._path("holder.json"))

    def is_held(self) -> bool:
        """Whether another process holds the environment. Changes nothing."""
        return _is_locked(self._path("lock")) or _is_locked(self._path("taken"))

    def acquire(self, holder: Holder) -> None:
        """Take the environment, or raise `EnvironmentHeld` at once, naming who has it."""
        with explained("taking the lock", self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._try_free():
                raise self._held()
            self._enter(holder)

    def take_over(self, holder: Holder, *, wait: float = PATIENCE) -> Takeover | None:
        """Take the environment from whoever has it, within `wait` seconds.

        The holder is asked to stop and to give it up. Where it does not, this run goes on without it
        and the answer's `reached` is false. None: the environment was free, or its holder ended by
        itself.
        """
        with explained("taking the lock over", self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            asked: dict[str, Holder] = {}
            give_up = time.monotonic() + wait
            while not (free := self._try_free()) and time.monotonic() < give_up:
                self._ask(holder, asked)
                time.sleep(_POLL)
            if not free:
                self._try("taken")
            taken = self._taken_from(asked, reached=free)
            self._enter(holder)
            return taken

    def taken_over_by(self) -> Holder | None:
        """Who has asked this holder to stop; None while nobody has. Costs one `stat`."""
        if self._taker is None and self._holder is not None:
            request = self._request(self._holder)
            if os.path.exists(request) and (taker := _read(request)) is not None:
                self._taker = taker
                with suppress(OSError):
                    request.replace(request.with_suffix(".seen"))
        return self._taker

    def release(self) -> None:
        """Give the environment up. Never raises."""
        with suppress(OSError):
            if self._holder is not None and self.holder() == self._holder:
                self._path("holder.json").unlink()
        self._holder = None
        self._unlock()

    def _enter(self, holder: Holder) -> None:
        try:
            # A run that is continued by the same process id must not find an old request.
            for name in (self._request(holder), self._request(holder).with_suffix(".seen")):
                name.unlink(missing_ok=True)
            replace(self._path("holder.json"), msgspec.json.encode(holder))
        except BaseException:
            self._unlock()
            raise
        self._holder, self._taker = holder, None

    def _ask(self, taker: Holder, asked: dict[str, Holder]) -> None:
        """Leave a request for the holder, whoever that is by now."""
        holder = self.holder()
        if holder is None or self._request(holder).name in asked:
            return
        replace_durably(self._request(holder), msgspec.json.encode(taker))
        asked[self._request(holder).name] = holder

    def _taken_from(self, asked: dict[str, Holder], *, reached: bool) -> Takeover | None:
        """The newest holder that noticed its request, or that still has the lock."""
        taken = None
        for name, holder in asked.items():
            request = self._directory / name
            seen = request.with_suffix(".seen")
            noticed = os.path.exists(seen)
            if reached:
                request.unlink(missing_ok=True)
                seen.unlink(missing_ok=True)
            if noticed or not reached:
                taken = holder
        if taken is None:
            return None if reached else Takeover(run_id="unknown", pid=0, host="unknown", reached=False)
        return Takeover(run_id=taken.run_id, pid=taken.pid, host=taken.host, reached=reached)

    def _held(self) -> EnvironmentHeld:
        return EnvironmentHeld(
            f"environment {self.environment} is held by {self.holder() or 'another run'}",
            "Wait until it ends. In an incident `opsgate rollback --force` takes the environment over.",
        )

    def _try_free(self) -> bool:
        """Lock the environment, unless somebody has it who could not lock it either."""
        if self._try("lock"):
            if self._try("taken"):
                # Only whoever takes over from this run may need it.
                self._locks.pop().release()
                return True
            self._unlock()
        return False

    def _try(self, suffix: str) -> bool:
        from filelock import FileLock, Timeout

        lock = FileLock(self._path(suffix), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._locks.append(lock)
        return True

    def _unlock(self) -> None:
        while self._locks:
            # Where the file system refuses, the lock ends with this process; its next task finds it held.
            with suppress(OSError):
                self._locks.pop().release()

    def _path(self, suffix: str) -> Path:
        return self._directory / f"{self.environment}.{suffix}"

    def _request(self, holder: Holder) -> Path:
        return self._path(f"{holder.run_id}.{holder.pid}.request")


def _read(path: Path) -> Holder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, *DAMAGED):
        return None


def _is_locked(path: Path) -> bool:
    """Whether another process has locked the file. A shared lock for an instant tells it without a trace."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
