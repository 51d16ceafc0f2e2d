"""What a killed command left half done, found and finished by the next one."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence.files import DAMAGED, explained, replace_durably, sync_directory
from opsgate.evidence.record import decode
from opsgate.evidence.store import FINAL, RECORD, decoded, latest_files

if TYPE_CHECKING:
    from pathlib import Path

    from opsgate.evidence.store import Store

_OVERLAPPING: Final = 200
"""How many of the newest runs may have been cut short: those at work at the same time, and then some."""


def complete(store: Store) -> None:
    """Put every final record that the ledger vouches for in its place, and bring `latest.*` up to date.

    Writes nothing, and takes no lock, where there is nothing to do. Raises `EvidenceError`.
    """
    if not _waiting(store) and not _stale(store):
        return
    with explained("completing what a killed run left", store.directory), store.ledger.locked():
        # Whoever was finishing a run when we looked holds the lock no more: look again.
        waiting = _waiting(store)
        for run_id, counts in waiting.items():
            directory = store.run_directory(run_id)
            if counts:
                (directory / FINAL).replace(directory / RECORD)
                sync_directory(directory)
            else:
                (directory / FINAL).unlink()
        for name, content in _stale(store, was_cut_short=any(waiting.values())).items():
            replace_durably(store.directory / name, content)


def is_cut_short(store: Store, newest: bytes) -> bool:
    """Whether a run ended with this record, and was killed before `latest.json` became its copy."""
    return _content(store.directory / ".latest.json.tmp") == newest


def _waiting(store: Store) -> dict[str, bool]:
    """Runs whose final record waits, and whether the ledger says that it counts."""
    known = {line.run_id for line in store.ledger.read()}
    expected: dict[str, str | None] = {run_id: None for run_id in store.run_ids() if run_id not in known}
    for line, _ in zip(store.newest_runs(), range(_OVERLAPPING), strict=False):
        expected[line.run_id] = line.sha256
    found = {}
    for run_id, sha256 in expected.items():
        with suppress(OSError, ConfigurationError):
            data = (store.run_directory(run_id) / FINAL).read_bytes()
            found[run_id] = hashlib.sha256(data).hexdigest() == sha256
    return found


def _stale(store: Store, *, was_cut_short: bool = False) -> dict[str, bytes]:
    """What `latest.*` should hold, where a crash explains that they do not.

    A finished `latest.json` that differs from its record, or names an older one, was edited: that is for
    `--verify` to say.
    """
    if (data := _newest_record(store)) is None:
        return {}
    wanted = latest_files(data, decode(data))
    shown = {name: _content(store.directory / name) for name in wanted}
    is_whole = shown["latest.json"] is not None and not is_unfinished(shown["latest.json"])
    if is_whole and not was_cut_short and not is_cut_short(store, data):
        del wanted["latest.json"]
    return {name: content for name, content in wanted.items() if shown[name] != content}


def _newest_record(store: Store) -> bytes | None:
    """Of the run that `latest.json` is about while that has no end, else of the ledger's newest run."""
    begun = _record(store, store.latest_run_id())
    if begun is not None and is_unfinished(begun):
        return begun
    last = store.last_line()
    return _record(store, last.run_id if last else None) or begun


def _record(store: Store, run_id: str | None) -> bytes | None:
    with suppress(OSError, ConfigurationError, EvidenceError):
        if run_id is not None:
            data = store.read_bytes(run_id)
            decoded(data, store.directory)
            return data
    return None


def _content(path: Path) -> bytes | None:
    try:
        # Empty is what a power cut may leave of it.
        return path.read_bytes() or None
    except OSError:
        return None


def is_unfinished(data: bytes) -> bool:
    """Whether these are the bytes of a record without an end, the field itself being there."""
    try:
        return decode(data).finished_at is None and b'"finished_at": null' in data
    except DAMAGED:
        return False
