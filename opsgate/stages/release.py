"""The order of a release, and of the tasks that are parts of it. Nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from opsgate.errors import ConfigurationError
from opsgate.settings import Settings
from opsgate.stages import deploy, gate, preflight, publish, rollback
from opsgate.stages.session import Session

SKIPPABLE = frozenset({"publish", "deploy"})


def release(session: Session, *, skip: frozenset[str] = frozenset()) -> None:
    """preflight → publish → deploy → gate → (rollback → recovery check).

    `skip` holds `publish`, `deploy` or both; what is not configured is skipped as well.
    """
    stages = planned(session.settings, skip)
    if stages != ("gate",):
        session.judge_revision()
    preflight.run(session, baseline=True)
    if "publish" in stages and not publish.run(session):
        return
    if "deploy" in stages:
        deploy_then_roll_back(session)
        if session.record.status == "failed":
            return
    gate_then_roll_back(session)


def planned(settings: Settings, skip: frozenset[str]) -> tuple[str, ...]:
    """The stages of a release between preflight and rollback, in their order."""
    wanted = {
        "publish": publish.configured(settings) and "publish" not in skip,
        "deploy": settings.hooks.deploys and "deploy" not in skip,
        "gate": True,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def skipped(skip: Sequence[str], *, gate_only: bool) -> frozenset[str]:
    """The stages that `--skip` and `--gate-only` leave out. A `ConfigurationError` for any other."""
    for name in skip:
        if name not in SKIPPABLE:
            raise ConfigurationError(f"--skip {name}: only publish and deploy can be skipped")
    return SKIPPABLE if gate_only else frozenset(skip)


def publish_alone(session: Session) -> None:
    """preflight → publish."""
    session.judge_revision()
    preflight.run(session, baseline=False)
    publish.run(session)


def deploy_alone(session: Session) -> None:
    """preflight → deploy → (rollback → recovery check)."""
    session.judge_revision()
    preflight.run(session, baseline=True)
    deploy_then_roll_back(session)


def deploy_then_roll_back(session: Session) -> None:
    """deploy → (rollback → recovery check)."""
    if not deploy.run(session):
        deploy.look_at_containers(session)
        rollback.automatic(session)


def gate_then_roll_back(session: Session) -> None:
    """gate → (rollback → recovery check)."""
    gate.run(session)
    if session.record.status == "failed":
        deploy.look_at_containers(session)
        rollback.automatic(session)
