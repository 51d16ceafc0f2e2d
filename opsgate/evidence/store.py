"""The evidence directory: one record a run, the newest one as `latest.*`, and the ledger.

A run finishes in an order that a crash cannot turn into a lie:

1. the final record is written beside the old one, which says `failed`/`interrupted`;
2. the ledger's line is appended, with the final record's hash: from here on the run is finished;
3. the final record takes the old one's place, and `latest.*` follow.

A crash after 2 is completed by the next command (`repair.complete`).
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import lines, record
from opsgate.evidence.files import (
    DAMAGED,
    explained,
    replace,
    replace_durably,
    sync_directory,
    write,
    write_durably,
)
from opsgate.evidence.ledger import GENESIS, LEDGER, Ledger, Line
from opsgate.evidence.views import env

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsgate.evidence.record import Evidence, Trigger
    from opsgate.redact import Redactor

RECORD: Final = "evidence.json"
FINAL: Final = "evidence.json.final"
"""A final record that waits for its line in the ledger."""
PINS: Final = "pins.yaml"
_OURS: Final = frozenset({LEDGER, "latest.json", "latest.env", ".locks", ".probe", ".gitkeep"})
"""What may lie beside the runs in a directory that is kept out of git."""
_RUN_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class Store:
    """The records under `directory`. What cannot be written or read is an `EvidenceError`."""

    def __init__(self, directory: Path, redactor: Redactor) -> None:
        self.directory = directory.absolute()
        self.ledger = Ledger(self.directory / LEDGER)
        self._redactor = redactor

    def prepare(self) -> None:
        """Create the directory, and prove that files in it can be written."""
        with explained("preparing the evidence directory", self.directory):
            if not os.path.exists(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / ".probe"
            write_durably(probe, b"opsgate can write here\n")
            probe.unlink(missing_ok=True)
            ignore = self.directory / ".gitignore"
            if not os.path.lexists(ignore) and self._is_own():
                # A release must not make the work tree dirty that the next one checks.
                write_durably(ignore, b"*\n")
            if os.path.exists(self.ledger.path):
                os.close(os.open(self.ledger.path, os.O_RDWR | os.O_CLOEXEC))

    def _is_own(self) -> bool:
        """Whether nothing lies there but evidence: made beforehand, or brought back without dotfiles."""
        ours = _OURS | {line.run_id for line in self.ledger.read()}
        with os.scandir(self.directory) as items:
            return all(item.name in ours or os.path.exists(Path(item, RECORD)) for item in items)

    def run_directory(self, run_id: str) -> Path:
        """Where a run's files are, absolute. A `ConfigurationError` when this cannot be a run id."""
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigurationError(
                f"{run_id!r} is not a run id",
                "A run id is 1 to 64 of A-Z a-z 0-9 . _ - and does not begin with a dot.",
            )
        return self.directory / run_id

    def record_path(self, run_id: str) -> Path:
        """Where a run's record is, or would be. Raises as `run_directory`."""
        return self.run_directory(run_id) / RECORD

    def pins_path(self, run_id: str) -> Path:
        """Where a run's compose override is, or would be. Raises as `run_directory`."""
        return self.run_directory(run_id) / PINS

    def exists(self, run_id: str) -> bool:
        """Whether the run has a record, readable or not. An `EvidenceError` when that cannot be seen."""
        path = self.record_path(run_id)
        with explained("looking for a record", path):
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def load(self, run_id: str) -> Evidence:
        """A run's record; `ConfigurationError` when there is none, `EvidenceError` when it is damaged."""
        return self.whole(run_id)[0]

    def whole(self, run_id: str) -> tuple[Evidence, bytes]:
        """A run's record, and the file that it was read from. Raises as `load`."""
        path = self.record_path(run_id)
        try:
            data = self.read_bytes(run_id)
            return decoded(data, path), data
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no record of run {run_id}: {path} does not exist",
                "`opsgate evidence --history` lists the runs.",
            ) from None

    def read_bytes(self, run_id: str) -> bytes:
        """A run's record file. Raises `FileNotFoundError`, and `EvidenceError` for what else goes wrong."""
        path = self.record_path(run_id)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(path) from None
        except OSError as error:
            raise EvidenceError(f"reading a record failed: {path}: {error.strerror}") from None

    def begin(self, evidence: Evidence, *, continuing: bool = False) -> None:
        """Write a run's first record; sets `previous`, unless an existing run is continued.

        A new run with the id of an existing one is a `ConfigurationError`.
        """
        directory = self.run_directory(evidence.run_id)
        if not continuing:
            self._make_room(evidence.run_id)
            evidence.previous = self._before(evidence.run_id)
        with explained("beginning the record", directory):
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self.directory)
        self.save(evidence)

    def save(self, evidence: Evidence) -> None:
        """Replace the run's record, `latest.json` and `latest.env` with what is known now."""
        path = self.record_path(evidence.run_id)
        shown = record.masked(evidence, self._redactor)
        data = record.pretty(shown)
        with explained("writing the record", path):
            replace_durably(path, data)
            with self.ledger.locked():
                # `repair.complete` makes them again where they were lost.
                for name, content in latest_files(data, shown).items():
                    replace(self.directory / name, content)

    def write(self, path: Path, text: str) -> None:
        """Write another file of a run, whole or not at all."""
        with explained("writing evidence", path):
            replace_durably(path, text.encode("utf-8", "replace"))

    def head(self) -> str | None:
        """The hash of the ledger's newest line."""
        line = self.ledger.head()
        return line.hash if line else None

    def finish(self, evidence: Evidence, task: Trigger) -> Line:
        """Write the final record and its line, in this module's order.

        Where it fails the run stays unfinished, and its old record stands.
        """
        directory = self.run_directory(evidence.run_id)
        shown = record.masked(evidence, self._redactor)
        data = record.pretty(shown)
        # The line holds what the file holds, secrets masked.
        draft = lines.draft(shown, task, hashlib.sha256(data).hexdigest())
        waiting = directory / FINAL
        latest = latest_files(data, shown)
        temporary = {name: self.directory / f".{name}.tmp" for name in latest}
        written = (waiting, *temporary.values())
        with explained("finishing the record", directory / RECORD), self.ledger.locked() as tail:
            try:
                for name, content in latest.items():
                    write(temporary[name], content)
                write_durably(waiting, data)
                sync_directory(directory)
                line = tail.append(draft)
            except OSError:
                _remove(*written)
                raise
            try:
                waiting.replace(directory / RECORD)
            except OSError:
                tail.cut()
                _remove(*written)
                raise
            # The run is finished; `repair.complete` makes up for what fails from here on.
            with suppress(OSError):
                for name, path in temporary.items():
                    path.replace(self.directory / name)
            with suppress(OSError):
                # Only now that all is renamed: the disk brings it home in one go.
                sync_directory(directory)
                sync_directory(self.directory)
        return line

    def latest(self, environment: str | None = None) -> Evidence | None:
        """The record of the newest run, of one environment if given; None when there is none.

        A finished run is the newest because the ledger says so, whatever `latest.json` has become.
        """
        run_id, last = self.latest_run_id(), None
        with suppress(EvidenceError):
            last = self.last_line()
        if run_id is not None and self.exists(run_id):
            evidence = self.load(run_id)
            is_newest = not evidence.finished_at or last is None or last.run_id == run_id
            if is_newest and environment in {None, evidence.environment}:
                return evidence
        begun = [item for item in self.unfinished() if environment in {None, item.environment}]
        newest = max(begun, key=lambda item: item.started_at, default=None)
        for line in self.newest_runs():
            if environment in {None, line.environment} and self.exists(line.run_id):
                if newest is not None and newest.started_at > line.started_at:
                    return newest
                return self.load(line.run_id)
        return newest

    def latest_run_id(self) -> str | None:
        """The run that `latest.json` is about; None when it cannot be read."""
        try:
            run_id = msgspec.json.decode((self.directory / "latest.json").read_bytes())["run_id"]
        except (OSError, *DAMAGED, KeyError, TypeError):
            return None
        return run_id if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) else None

    def last_line(self) -> Line | None:
        """The newest line that is a run's."""
        return next((line for line in self.ledger.newest_first() if line.task != "prune"), None)

    def newest_runs(self) -> Iterator[Line]:
        """The newest line of each run, newest first."""
        seen: set[str] = set()
        for line in self.ledger.newest_first():
            if line.run_id not in seen:
                seen.add(line.run_id)
                yield line

    def unfinished(self) -> Iterator[Evidence]:
        """Readable records of runs that no line of the ledger names."""
        known = {line.run_id for line in self.ledger.read()}
        for run_id in self.run_ids():
            if run_id not in known:
                with suppress(ConfigurationError, EvidenceError):
                    yield self.load(run_id)

    def run_ids(self) -> list[str]:
        """The runs that have a directory, sorted."""
        with explained("listing the runs", self.directory):
            try:
                with os.scandir(self.directory) as items:
                    return sorted(i.name for i in items if _RUN_ID.fullmatch(i.name) and os.path.isdir(i))
            except FileNotFoundError:
                return []

    def _make_room(self, run_id: str) -> None:
        """Refuse to overwrite a run; a record that nobody can read is put aside."""
        if not self.exists(run_id):
            return
        path = self.record_path(run_id)
        try:
            self.load(run_id)
        except EvidenceError:
            with explained("putting a damaged record aside", path):
                path.replace(path.with_name(f"{RECORD}.damaged"))
        else:
            raise ConfigurationError(
                f"run {run_id} exists already: {path}",
                "Choose another OPSGATE_RUN_ID, or leave it unset.",
            )

    def _before(self, run_id: str) -> str | None:
        """The ledger's last hash before the run, which may have lines while its record was lost."""
        if (first := self.ledger.first_of(run_id)) is not None:
            return None if first.prev == GENESIS else first.prev
        return self.head()


def decoded(data: bytes, path: Path) -> Evidence:
    """The record in a file's bytes, or an `EvidenceError` that names the file and what is wrong."""
    try:
        return record.decode(data)
    except DAMAGED as error:
        raise EvidenceError(
            f"the record {path} is damaged: {error}",
            "`opsgate evidence --verify` says what else is off; restore the file from a copy.",
        ) from None


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def latest_files(data: bytes, evidence: Evidence) -> dict[str, bytes]:
    """`latest.json` and `latest.env` of a record and its bytes."""
    return {"latest.json": data, "latest.env": env.render(evidence).encode()}
