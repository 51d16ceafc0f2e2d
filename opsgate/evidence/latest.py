"""Whether `latest.json` is a copy of the newest record."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence.files import DAMAGED
from opsgate.evidence.record import decode
from opsgate.evidence.repair import is_cut_short, is_unfinished
from opsgate.evidence.store import RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from opsgate.evidence.store import Store

LATEST: Final = "latest.json"


def off(store: Store) -> str | None:
    """What is off about it, in words; a file that is not there is made again."""
    path: Path = store.directory / LATEST
    with suppress(OSError):
        data = path.read_bytes()
        # Whatever ran meanwhile has put another in its place.
        if (detail := _off(store, data)) and path.read_bytes() == data:
            return detail
    return None


def _off(store: Store, data: bytes) -> str | None:
    """While a run is under way its record and the copy are replaced one after the other."""
    try:
        if is_unfinished(data):
            return None
        run_id = decode(data).run_id
        original = store.read_bytes(run_id)
        if is_unfinished(original):
            return None
        return _older(store, run_id) if original == data else f"is not a copy of {run_id}/{RECORD}"
    except (FileNotFoundError, ConfigurationError):
        return "is the copy of a record that is not there"
    except (*DAMAGED, EvidenceError) as error:
        return f"is not a record: {error}"


def _older(store: Store, run_id: str) -> str | None:
    """Says which run has ended since this one; one that the ledger does not know was not ended by it."""
    last = store.last_line()
    if last is None or last.run_id == run_id or store.ledger.first_of(run_id) is None:
        return None
    try:
        newest = store.read_bytes(last.run_id)
    except (FileNotFoundError, EvidenceError, ConfigurationError):
        return None
    if is_unfinished(newest) or is_cut_short(store, newest):
        return None
    return f"is a copy of {run_id}/{RECORD}, but the newest record is {last.run_id}/{RECORD}"
