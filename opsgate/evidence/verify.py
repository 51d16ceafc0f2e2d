"""Whether the evidence is what was written: hashes, chain, and every verdict computed again.

What this cannot see by itself is a ledger whose last lines were cut off: for that a hash of the ledger's
head is kept elsewhere, and given as `head`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import latest, prune
from opsgate.evidence.files import DAMAGED
from opsgate.evidence.ledger import GENESIS, LEDGER, Draft, line_hash
from opsgate.evidence.lines import draft
from opsgate.evidence.record import SCHEMA, decode
from opsgate.evidence.schema import left_out
from opsgate.evidence.store import RECORD
from opsgate.evidence.verdicts import disagreements

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from opsgate.evidence.ledger import Entry, Line
    from opsgate.evidence.record import Evidence
    from opsgate.evidence.store import Store

_NAMED: Final = 5
"""Missing fields that are named; of more it says how many."""
Cause = Literal["edited", "missing", "re-ordered", "written by another version", "cut off"]


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is off."""

    run_id: str | None
    file: str
    """Relative to the evidence directory, with the line where it has lines."""
    cause: Cause
    detail: str
    """What was found, in words."""

    def __str__(self) -> str:
        run = f"run {self.run_id}: " if self.run_id else ""
        return f"{run}{self.file}: {self.detail} ({self.cause})"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found."""

    runs: int
    """Runs that the ledger names."""
    lines: int
    mismatches: tuple[Mismatch, ...]
    """In the order of the ledger, so that the first one comes first."""
    unfinished: tuple[str, ...]
    """Runs whose record has no end: under way, or killed. Their older lines were not compared."""
    head: str | None
    """The ledger's last hash: keep it elsewhere, and give it to the next verification."""

    @property
    def ok(self) -> bool:
        """Nothing is off."""
        return not self.mismatches


def verify(store: Store, head: str | None = None) -> Report:
    """Check every run in ledger order. Raises `EvidenceError` when the directory cannot be read."""
    entries = list(store.ledger.entries())
    lines = [entry.line for entry in entries if entry.line is not None]
    newest = {line.run_id: line for line in lines}
    dropped = prune.vouched(store, lines)
    starts = _starts(lines)
    places = {line.hash: line.seq for line in lines}
    found: list[Mismatch] = []
    unfinished: list[str] = []
    for entry, wrong in chain(entries):
        found += wrong
        line = entry.line
        if line is not None:
            if line.task == "prune":
                found += _checkpoint(store, line)
            elif newest[line.run_id] is line and not (
                (line.run_id, line.sha256) in dropped and not store.exists(line.run_id)
            ):
                found += _run(store, line, starts[line.run_id], unfinished)
    for run_id in store.run_ids():
        if run_id not in newest:
            found += _without_line(store, run_id, unfinished)
    if detail := latest.off(store):
        found.append(Mismatch(run_id=None, file=latest.LATEST, cause="edited", detail=detail))
    if head is not None and head.strip().lower() not in places:
        found.append(_cut_off(head, len(lines)))
    return Report(
        runs=sum(line.task != "prune" for line in newest.values()),
        lines=len(entries),
        mismatches=tuple(found),
        unfinished=tuple(unfinished),
        head=lines[-1].hash if lines else None,
    )


class _Start:
    """Where in the ledger a run began."""

    __slots__ = ("_ended", "_line", "_places")

    def __init__(self, line: Line, places: dict[str, int], ended: str | None) -> None:
        """`line` is the run's first; `ended` when the first run of its environment before it had ended."""
        self._line, self._places, self._ended = line, places, ended

    def allows(self, evidence: Evidence) -> bool:
        """Runs of other environments may have ended in between, so any earlier line may be `previous`.

        None is one that follows a run of its own environment; but a rollback begins all the same where
        the ledger cannot be read.
        """
        previous = evidence.previous
        if previous is None:
            is_first = self._ended is None or self._ended >= evidence.started_at
            return is_first or evidence.trigger == "rollback"
        return self._places.get(previous, self._line.seq) < self._line.seq


def _starts(lines: Sequence[Line]) -> dict[str, _Start]:
    """Where each run began."""
    places = {line.hash: line.seq for line in lines}
    starts: dict[str, _Start] = {}
    ended: dict[str, str] = {}
    for line in lines:
        if line.run_id not in starts:
            starts[line.run_id] = _Start(line, places, ended.get(line.environment))
        ended.setdefault(line.environment, line.finished_at)
    return starts


def chain(entries: Sequence[Entry]) -> Iterator[tuple[Entry, list[Mismatch]]]:
    """Each line of the ledger, and what is off about itself and its place."""
    places = {entry.line.hash: entry.line.seq for entry in entries if entry.line}
    before: Line | None = None
    for entry in entries:
        yield entry, list(_link(entry, before, places))
        before = entry.line or before


def _link(entry: Entry, before: Line | None, places: dict[str, int]) -> Iterator[Mismatch]:
    """The line itself, and that it follows the one before."""
    file = f"{LEDGER} line {entry.number}"
    line = entry.line
    if line is None:
        yield Mismatch(run_id=None, file=file, cause="edited", detail="is no line of a ledger")
        return
    if not _is_as_written(entry.raw, line):
        yield Mismatch(
            run_id=line.run_id, file=file, cause="edited", detail="its hash is not that of its content"
        )
    expected, seq = (before.hash, before.seq + 1) if before else (GENESIS, 1)
    if line.prev == expected and line.seq == seq:
        return
    cause: Cause = "missing"
    detail = f"follows a line that is not there: it is number {line.seq}, {seq} was expected"
    if line.seq < seq or places.get(line.prev, 0) > line.seq:
        cause, detail = "re-ordered", f"is out of order: it is number {line.seq}, {seq} was expected"
    elif line.seq == seq:
        cause, detail = "edited", "does not continue the line before: `prev` is not its hash"
    yield Mismatch(run_id=line.run_id, file=file, cause=cause, detail=detail)


def _is_as_written(raw: bytes, line: Line) -> bool:
    try:
        fields = msgspec.json.decode(raw)
        return line_hash(fields) == line.hash and msgspec.json.encode(fields) == raw
    except (*DAMAGED, OverflowError):
        # A member that no line has is passed over in reading it, whatever it holds.
        return False


def _run(store: Store, line: Line, start: _Start, unfinished: list[str]) -> Iterator[Mismatch]:
    """The record of a run against its newest line, and against itself."""
    try:
        file = f"{store.run_directory(line.run_id).name}/{RECORD}"
        data = store.read_bytes(line.run_id)
    except ConfigurationError:
        yield Mismatch(run_id=line.run_id, file=LEDGER, cause="edited", detail="is no run id")
        return
    except FileNotFoundError:
        yield Mismatch(run_id=line.run_id, file=file, cause="missing", detail="the record is not there")
        return
    except EvidenceError as error:
        yield Mismatch(run_id=line.run_id, file=file, cause="missing", detail=error.message)
        return
    evidence = yield from _schema(line.run_id, file, data)
    if evidence is not None and evidence.finished_at is None:
        unfinished.append(line.run_id)
        yield from _unfinished(evidence, file)
        return
    if hashlib.sha256(data).hexdigest() != line.sha256 and not _moved_on(store, line, data):
        yield Mismatch(
            run_id=line.run_id,
            file=file,
            cause="edited",
            detail=f"its sha256 is not the one in line {line.seq} of the ledger",
        )
    if evidence is not None:
        try:
            yield from _content(evidence, line, start, file)
        except (ArithmeticError, ValueError) as error:
            yield _edited(evidence, file, f"holds what no run can have written: {error}")


def _checkpoint(store: Store, line: Line) -> Iterator[Mismatch]:
    """The file of a checkpoint; without it, what it names as dropped is missing."""
    try:
        prune.read(store, line)
    except prune.CheckpointError as error:
        file = f"{line.run_id}/{prune.CHECKPOINT}"
        yield Mismatch(run_id=line.run_id, file=file, cause=error.cause, detail=error.detail)


def _schema(run_id: str, file: str, data: bytes) -> Generator[Mismatch, None, Evidence | None]:
    """Says what is wrong with the record; returns it where it keeps to its schema."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        schema = msgspec.json.decode(fields["schema"]) if "schema" in fields else SCHEMA
        if schema != SCHEMA:
            yield Mismatch(
                run_id=run_id, file=file, cause="written by another version", detail=f"schema is {schema!r}"
            )
            return None
        evidence = decode(data)
        missing = left_out(evidence, data)
    except DAMAGED as error:
        yield Mismatch(run_id=run_id, file=file, cause="edited", detail=f"is not a record: {error}")
        return None
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        detail = f"fields are missing: {', '.join(missing[:_NAMED])}{more}"
        yield Mismatch(run_id=run_id, file=file, cause="edited", detail=detail)
        return None
    if evidence.run_id != run_id:
        yield Mismatch(run_id=run_id, file=file, cause="edited", detail=f"is that of run {evidence.run_id}")
    return evidence


def _content(evidence: Evidence, line: Line, start: _Start, file: str) -> Iterator[Mismatch]:
    """What the record says against what its line says, where it begins, and what its attempts say."""
    told = draft(evidence, evidence.trigger, line.sha256)
    for name in Draft.__struct_fields__:
        here, there = getattr(told, name), getattr(line, name)
        # Whose record this is has been looked at before.
        if here != there and name != "run_id":
            yield _edited(evidence, file, f"{name} is {here!r}, the ledger has {there!r}")
    if not start.allows(evidence):
        yield _edited(evidence, file, "`previous` is not the hash of a line before the run")
    for detail in disagreements(evidence):
        yield _edited(evidence, file, detail)


def _unfinished(evidence: Evidence, file: str) -> Iterator[Mismatch]:
    if evidence.status != "failed":
        yield _edited(evidence, file, f"has no end, but says {evidence.status}")


def _without_line(store: Store, run_id: str, unfinished: list[str]) -> Iterator[Mismatch]:
    """A record that no line names: under way, killed, or its line is gone."""
    file = f"{run_id}/{RECORD}"
    try:
        data = store.read_bytes(run_id)
    except FileNotFoundError:
        return
    except EvidenceError as error:
        yield Mismatch(run_id=run_id, file=file, cause="missing", detail=error.message)
        return
    evidence = yield from _schema(run_id, file, data)
    if evidence is None:
        return
    if evidence.finished_at is None:
        unfinished.append(run_id)
        yield from _unfinished(evidence, file)
    elif not any(line.run_id == run_id for line in store.newest_runs()):
        detail = "the run is finished, but no line of the ledger names it"
        yield Mismatch(run_id=run_id, file=file, cause="cut off", detail=detail)


def _moved_on(store: Store, line: Line, data: bytes) -> bool:
    """The run was continued and has finished again since the ledger was read."""
    for newer in store.newest_runs():
        if newer.seq <= line.seq:
            return False
        if newer.run_id == line.run_id:
            return newer.sha256 == hashlib.sha256(data).hexdigest()
    return False


def _edited(evidence: Evidence, file: str, detail: str) -> Mismatch:
    return Mismatch(run_id=evidence.run_id, file=file, cause="edited", detail=detail)


def _cut_off(head: str, count: int) -> Mismatch:
    # Something else, perhaps a secret, may have been given by mistake.
    named = (
        f"the hash {head}" if re.fullmatch(r"\s*[0-9A-Fa-f]{64}\s*", head) else "what was given as its head"
    )
    return Mismatch(
        run_id=None,
        file=LEDGER,
        cause="cut off",
        detail=f"none of its {count} lines has {named}: lines after it, or it itself, are gone",
    )
