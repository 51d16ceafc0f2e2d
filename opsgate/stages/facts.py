"""What hooks are told of a run: how it stands, and what an earlier one brought out, in their own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsgate.hooks.hook import Earlier

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence, Rollout
    from opsgate.hooks.hook import HookName


def standing(record: Evidence, name: HookName) -> tuple[str, str]:
    """The status and its reason as this hook is told them; both empty when unknown."""
    if name not in {"rollback", "incident"}:
        return "", ""
    if name == "incident" or record.stages.rollback.trigger != "manual":
        return record.status, record.status_reason
    # Until a person's rollback has ended, the run's own only say that it has not.
    gate = record.stages.gate
    if gate.status_reason:
        return gate.status, gate.status_reason
    return ("failed", "deploy_failed") if record.stages.deploy.status == "failed" else ("", "")


def earlier(rollout: Rollout) -> Earlier:
    """A rollout in the words that hooks use: `name=reference@digest` for each image."""
    return Earlier(
        revision=rollout.revision or "",
        images=tuple(f"{image.name}={image.reference}@{image.digest}" for image in rollout.images),
        pins=rollout.pins or "",
        tag=rollout.tag or "",
    )
