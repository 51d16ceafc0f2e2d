"""One run at a time for each environment, and how a person takes one over.

`.locks/` of the evidence directory holds, for each environment:

    NAME.lock                what the holder has locked; the lock ends with its process
    NAME.taken               what has locked it who took over from a process that does not answer
    NAME.holder.json         who has NAME.lock, for the message of those who come second
    NAME.taker.json          who has taken over; the holder that was passed by keeps its note with its lock
    NAME.RUN.PID.request     a person asks this holder to stop; renamed to .seen when the holder has noticed

The directory's name starts with a dot, so that an upload of the evidence leaves it out.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from opsgate.errors import EnvironmentHeld
from opsgate.evidence.files import DAMAGED, explained, replace, replace_durably
from opsgate.evidence.record import Takeover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from filelock import BaseFileLock

PATIENCE = 15.0
"""Seconds that a holder has to end its hook and to give the environment up."""
_POLL = 0.05
_LOOKS: Final = 10
_LOOK: Final = 0.01
"""Seconds between looks for the note of a run that has only just locked the environment."""


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
        self.unasked: OSError | None = None
        """Why the holder could not be asked to give the environment up."""
        self._directory = directory / ".locks"
        self._locks: dict[str, BaseFileLock] = {}
        self._holder: Holder | None = None
        self._asked: dict[Path, Holder] = {}
        self._asked_before: dict[Path, Holder] = {}
        self._takers: set[Path] = set()
        """Requests to those who themselves have passed a holder by."""
        self._taker: Holder | None = None

    def holder(self) -> Holder | None:
        """Who left a note of holding the environment. A killed one left it too: see `is_held`."""
        taker = _read(self._path("taker.json"))
        if taker is not None and _is_locked(self._path("taken")):
            return taker
        return _read(self._path("holder.json")) or taker

    def is_held(self) -> bool:
        """Whether another process holds the environment. Changes nothing."""
        return _is_locked(self._path("lock")) or _is_locked(self._path("taken"))

    def passed_by(self) -> Holder | None:
        """Who still has the lock of the environment that this run took."""
        if "lock" in self._locks or not _is_locked(self._path("lock")):
            return None
        return _read(self._path("holder.json"))

    def acquire(self, holder: Holder) -> None:
        """Take the environment, or raise `EnvironmentHeld` at once, naming who has it."""
        with explained("taking the lock", self._directory):
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                free = self._try_for_a_moment()
            except OSError:
                self._unlock()
                # That it is held can be seen without writing.
                if not self.is_held():
                    raise
                free = False
        if not free:
            raise EnvironmentHeld(
                f"environment {self.environment} is held by {self.holder() or 'another run'}"
            )
        self._enter(holder)

    def take_over(
        self,
        holder: Holder,
        *,
        wait: float = PATIENCE,
        found: Callable[[Holder | None], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> Takeover | None:
        """Take the environment from whoever has it, within `wait` seconds.

        The holder is asked to stop and to give it up. Where it does not, or cannot be asked, this run
        goes on without it and the answer's `reached` is false. None: the environment was free, or its
        holder ended by itself. `found` is called once if there is somebody to wait for; what `check`
        raises ends the wait.
        """
        with explained("taking the lock over", self._directory):
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                reached = self._wait(holder, wait, found, check)
            except OSError as error:
                self._unlock()
                if not self.is_held():
                    raise
                self.unasked, reached = error, False
        if not reached:
            # Where another taker has this one too and does not answer, the run goes on without any lock.
            with suppress(OSError):
                self._try("taken")
        taken = self._taken_from(reached=reached)
        self._enter(holder)
        return taken

    def withdraw(self, taker: Holder) -> Holder | None:
        """Take back what `taker` asked for; the newest holder that ends all the same.

        It has noticed by now, or somebody else has asked as well.
        """
        late = None
        for request, holder in self._asked.items():
            with suppress(OSError):
                if _read(request) == taker:
                    if earlier := self._asked_before.get(request):
                        replace(request, msgspec.json.encode(earlier))
                    else:
                        request.unlink()
                        continue
            late = holder
        return late

    def taken_over_by(self) -> Holder | None:
        """Who has asked this holder to stop; None while nobody has. Costs one `stat`."""
        if self._taker is None and self._holder is not None:
            request = self._request(self._holder)
            if os.path.exists(request) and (taker := _read(request)) is not None:
                try:
                    request.replace(request.with_suffix(".seen"))
                except FileNotFoundError:
                    # Withdrawn this very moment.
                    return self._taker
                except OSError:
                    pass
                self._taker = taker
        return self._taker

    def release(self) -> None:
        """Give the environment up. Never raises."""
        for note in (self._path("holder.json"), self._path("taker.json")):
            with suppress(OSError):
                if self._holder is not None and _read(note) == self._holder:
                    note.unlink()
        self._holder = None
        self._unlock()

    def _enter(self, holder: Holder) -> None:
        """Begin to hold it; where a full disk has no room for the note, without a name."""
        self._holder, self._taker = holder, None
        with suppress(OSError):
            # A run that is continued by the same process id must not find an old request.
            for name in (self._request(holder), self._request(holder).with_suffix(".seen")):
                name.unlink(missing_ok=True)
            note = "holder.json" if "lock" in self._locks else "taker.json"
            replace(self._path(note), msgspec.json.encode(holder))

    def _wait(
        self,
        taker: Holder,
        seconds: float,
        found: Callable[[Holder | None], None],
        check: Callable[[], None],
    ) -> bool:
        """Whether whoever had the environment gave it up."""
        give_up = time.monotonic() + seconds
        free = self._try_for_a_moment()
        if not free:
            self._ask(taker)
            found(next(iter(self._asked.values()), None))
        while not free and time.monotonic() < give_up:
            check()
            time.sleep(_POLL)
            self._ask(taker)
            free = self._try_free() or self._try_place()
        check()
        return free

    def _ask(self, taker: Holder) -> None:
        """Leave a request for the holder, whoever that is by now."""
        holder = self.holder()
        if holder is None or self._request(holder) in self._asked:
            return
        request = self._request(holder)
        self._asked[request] = holder
        if earlier := _read(request):
            self._asked_before[request] = earlier
        if holder == _read(self._path("taker.json")):
            self._takers.add(request)
        replace_durably(request, msgspec.json.encode(taker))

    def _taken_from(self, *, reached: bool) -> Takeover | None:
        """The newest holder that noticed its request, or that still has the lock."""
        taken = None if reached else self.holder()
        passed_by = self.passed_by() if reached else None
        for request, holder in self._asked.items():
            if holder == passed_by:
                # It has to find the request when it wakes up.
                continue
            seen = request.with_suffix(".seen")
            noticed = os.path.exists(seen)
            if reached:
                with suppress(OSError):
                    request.unlink(missing_ok=True)
                    seen.unlink(missing_ok=True)
            if noticed or not reached:
                taken = holder
        if taken is None:
            return None if reached else Takeover(run_id="unknown", pid=0, host="unknown", reached=False)
        return Takeover(run_id=taken.run_id, pid=taken.pid, host=taken.host, reached=reached)

    def _try_for_a_moment(self) -> bool:
        """`_try_free`, until there is a note of who has it: that comes a moment after the lock."""
        for _ in range(_LOOKS):
            if self._try_free():
                return True
            if self.holder() is not None:
                return False
            time.sleep(_LOOK)
        return self._try_free()

    def _try_free(self) -> bool:
        """Lock the environment, unless somebody has it who could not lock it either."""
        if self._try("lock"):
            # A killed run left its note, and would be named until there is a new one.
            self._forget("holder.json")
            if self._try("taken"):
                self._forget("taker.json")
                # Only whoever takes over from this run may need it.
                self._locks.pop("taken").release()
                return True
            self._unlock()
        return False

    def _try_place(self) -> bool:
        """Take the place of a taker that answered: the holder that it passed by was waited for then."""
        return any(os.path.exists(each.with_suffix(".seen")) for each in self._takers) and self._try("taken")

    def _try(self, suffix: str) -> bool:
        from filelock import FileLock, Timeout

        lock = FileLock(self._path(suffix), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._locks[suffix] = lock
        return True

    def _forget(self, note: str) -> None:
        with suppress(OSError):
            self._path(note).unlink()

    def _unlock(self) -> None:
        while self._locks:
            # Where the file system refuses, the lock ends with this process; its next task finds it held.
            with suppress(OSError):
                self._locks.popitem()[1].release()

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
