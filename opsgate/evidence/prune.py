"""Dropping old records while the chain stays verifiable.

The ledger keeps all its lines. A checkpoint, a line of its own, holds the hash of a file that names the
records that were dropped: `--verify` misses no record that a checkpoint vouches for.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import rollouts
from opsgate.evidence.files import DAMAGED, explained, sync_directory, write_durably
from opsgate.evidence.ledger import Draft
from opsgate.evidence.record import pretty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opsgate.evidence.ledger import Line
    from opsgate.evidence.store import Store

CHECKPOINT = "checkpoint.json"


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was dropped, as the ledger knows it."""

    run_id: str
    sha256: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a checkpoint's line vouches for."""

    schema: Literal["opsgate/checkpoint/v1"] = "opsgate/checkpoint/v1"
    run_id: str
    created_at: str
    dropped: tuple[Dropped, ...]


class CheckpointError(Exception):
    """A checkpoint that vouches for nothing: `cause` and `detail` as a `Mismatch` has them."""

    def __init__(self, cause: Literal["edited", "written by another version"], detail: str) -> None:
        super().__init__(detail)
        self.cause, self.detail = cause, detail


def prune(
    store: Store, *, keep: int, run_id: str, now: str, environment: str | None = None
) -> tuple[str, ...]:
    """Drop all but the newest `keep` runs (of one environment, if given); returns the dropped run ids.

    Kept as well: in each environment what was rolled out last, what a rollback would go back to, and
    what it would go back to once that was rolled back; runs without an end. `run_id` is the
    checkpoint's own, `now` RFC 3339.
    """
    lines = [
        line
        for line in store.newest_runs()
        if line.task != "prune" and environment in {None, line.environment}
    ]
    kept = {line.run_id for line in lines[:keep]} | _needed(store, {line.environment for line in lines})
    dropped = [
        Dropped(run_id=line.run_id, sha256=line.sha256)
        for line in reversed(lines)
        if line.run_id not in kept and _is_finished(store, line)
    ]
    if not dropped:
        return ()
    checkpoint = Checkpoint(run_id=run_id, created_at=now, dropped=tuple(dropped))
    data = pretty(checkpoint)
    directory = store.run_directory(run_id)
    with explained("pruning", store.directory):
        directory.mkdir()
        write_durably(directory / CHECKPOINT, data)
        sync_directory(directory)
        sync_directory(store.directory)
        store.ledger.append(_draft(run_id, now, hashlib.sha256(data).hexdigest()))
        for item in dropped:
            shutil.rmtree(store.run_directory(item.run_id))
    return tuple(item.run_id for item in dropped)


def vouched(store: Store, lines: Iterable[Line]) -> set[tuple[str, str]]:
    """Run id and sha256 of every record that an unedited checkpoint names as dropped."""
    found: set[tuple[str, str]] = set()
    for line in lines:
        if line.task == "prune":
            with suppress(CheckpointError):
                found |= {(item.run_id, item.sha256) for item in read(store, line).dropped}
    return found


def read(store: Store, line: Line) -> Checkpoint:
    """The checkpoint of a line. Raises `CheckpointError`."""
    try:
        data = (store.run_directory(line.run_id) / CHECKPOINT).read_bytes()
    except (OSError, ConfigurationError):
        data = b""
    if hashlib.sha256(data).hexdigest() != line.sha256:
        raise CheckpointError(
            "edited", "the checkpoint is not there, or not the one that the ledger vouches for"
        )
    try:
        return msgspec.json.decode(data, type=Checkpoint)
    except DAMAGED as error:
        raise CheckpointError(
            "written by another version", f"is no checkpoint that this version can read: {error}"
        ) from None


def _needed(store: Store, environments: set[str]) -> set[str]:
    needed: set[str] = set()
    for environment in environments:
        newest = rollouts.last_good(store, environment, revision=None, images=())
        leaving = rollouts.last_rolled_out(store, environment)
        for rollout in (newest, leaving):
            if rollout is not None:
                needed.add(rollout.run_id)
                images, revision = rollout.images, rollout.revision
                back = rollouts.last_good(store, environment, revision=revision, images=images)
                needed |= {back.run_id} if back else set()
    return needed


def _is_finished(store: Store, line: Line) -> bool:
    """Whether there is a record to drop. One that is off is an `EvidenceError`: a drop would hide it."""
    if not store.exists(line.run_id):
        return False
    if store.load(line.run_id).finished_at is None:
        return False
    if hashlib.sha256(store.read_bytes(line.run_id)).hexdigest() != line.sha256:
        raise EvidenceError(
            f"nothing was pruned: the record of run {line.run_id} is not the one in the ledger",
            "See `opsgate evidence --verify`.",
        )
    return True


def _draft(run_id: str, now: str, sha256: str) -> Draft:
    return Draft(
        run_id=run_id,
        environment="*",
        task="prune",
        revision=None,
        status="skipped",
        status_reason="not_gated",
        started_at=now,
        finished_at=now,
        deployed=False,
        rollback=None,
        failed_at=None,
        recovered_at=None,
        sha256=sha256,
    )
