"""What a record comes to in the ledger. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from opsgate.evidence.ledger import Draft
from opsgate.evidence.record import Evidence, Stage, Trigger, timestamp

if TYPE_CHECKING:
    from opsgate.evidence.record import Time


def draft(record: Evidence, task: Trigger, sha256: str) -> Draft:
    """The ledger's line of a finished record; `sha256` is of the record file's bytes."""
    rollback = record.stages.rollback
    return Draft(
        run_id=record.run_id,
        environment=record.environment,
        task=task,
        revision=record.revision,
        status=record.status,
        status_reason=record.status_reason,
        started_at=record.started_at,
        finished_at=record.finished_at or record.started_at,
        deployed=record.deployed,
        rollback=rollback.trigger or None if rollback.attempted is True else None,
        failed_at=failed_at(record),
        recovered_at=recovered_at(record),
        sha256=sha256,
    )


def failed_at(record: Evidence) -> Time | None:
    """When the deploy or the gate was known to have failed; None when neither did."""
    for stage in (record.stages.deploy, record.stages.gate):
        if stage.status == "failed":
            return _end(stage)
    return None


def recovered_at(record: Evidence) -> Time | None:
    """When the probing after a rollback passed; None when it did not."""
    rollback = record.stages.rollback
    if rollback.recovered is not True:
        return None
    recovery = rollback.recovery
    end = None if isinstance(recovery, UnsetType) else _end(recovery)
    return end or _end(rollback)


def _end(stage: Stage) -> Time | None:
    if stage.started_at is UNSET or stage.duration_ms is UNSET:
        return None
    return timestamp(datetime.fromisoformat(stage.started_at).timestamp() + stage.duration_ms / 1000)
