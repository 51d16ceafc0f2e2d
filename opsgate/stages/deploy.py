"""Deploy: the user's hook with the pins of the run. Its exit code says little; the gate says the rest."""

from __future__ import annotations

import os

import msgspec

from opsgate.errors import ConfigurationError, Interrupted, OpsgateError, TakenOver
from opsgate.evidence.record import Deploy
from opsgate.hooks.hook import Outputs
from opsgate.settings import Settings
from opsgate.stages.docker import compose
from opsgate.stages.oci.reference import InvalidReference
from opsgate.stages.publish import published_images, take_revision
from opsgate.stages.session import Session

CONTAINERS_LIMIT = 10.0
"""Seconds for all questions about containers together."""


def require(settings: Settings) -> None:
    """Raise `ConfigurationError` where nothing says how to deploy."""
    if not settings.hooks.deploys:
        raise ConfigurationError(
            f"environment {settings.environment} has no deploy hook",
            "set deploy in opsgate.toml, or RUNTIME_DEPLOY_COMMAND",
        )
    if settings.hooks.deploy_compose:
        compose.require_files(settings)


def command(session: Session) -> str:
    """The deploy hook; for `deploy = "compose"` opsgate's own `up -d` with the pins."""
    settings = session.settings
    if settings.hooks.deploy_compose:
        return compose.up(settings, compose.program(session))
    return settings.hooks.deploy or ""


def run(session: Session) -> bool:
    """Deploy; whether the hook succeeded. Until the gate has passed, the run is not validated.

    Raises `ConfigurationError` before anything is started, when compose has no files or no pins.
    """
    record, settings = session.record, session.settings
    _require_pins(session)
    limit, before = settings.timeouts.deploy, msgspec.structs.replace(record.stages.deploy)
    with session.stage("deploy", record.stages.deploy) as stage, session.within(limit):
        try:
            done, outputs = session.run_hook("deploy", command(session), limit=limit)
        except (Interrupted, TakenOver):
            if "deploy" not in session.begun:
                # What has not begun is not in the record.
                record.stages.deploy = before
            raise
        stage.commands = [done]
        # A hook that failed or was cut off may have brought it out: a rollback must lead away from it.
        take_revision(session, outputs)
        session.halt.check()
        failure = ""
        try:
            if done.succeeded:
                _take_images(session, stage, outputs)
            elif settings.hooks.deploy_compose:
                failure = compose.failure(done, "docker compose up").one_line
            else:
                failure = f"the deploy hook failed: {done.explanation}"
        except InvalidReference as error:
            failure = error.one_line
        stage.status = "failed" if failure else "passed"
        if failure:
            stage.detail = failure
    if failure:
        record.status, record.status_reason = "failed", "deploy_failed"
        return False
    record.status, record.status_reason = "skipped", "not_gated"
    return True


def _take_images(session: Session, stage: Deploy, outputs: Outputs) -> None:
    """The images are those that the hook left, while the registry can say what they are.

    What it cannot say is no reason to roll back: the release is out, and the gate looks at it.
    """
    record = session.record
    try:
        record.images = published_images(session, outputs) or record.images
    except (Interrupted, TakenOver, InvalidReference):
        raise
    except OpsgateError as error:
        stage.detail = f"the digests of what was deployed are not known: {error.one_line}"
        session.reporter.warn(stage.detail)


def look_at_containers(session: Session) -> None:
    """After a failure of what compose deployed: which containers did not stay up, and their last words.

    Looked at before a rollback replaces them, and not for long: it waits. What cannot be found out is a
    warning.
    """
    stage = session.record.stages.deploy
    if not (session.settings.hooks.deploy_compose and stage.started_at):
        return
    try:
        with session.within(CONTAINERS_LIMIT):
            stage.containers = compose.fallen(session, since=stage.started_at)
    except (Interrupted, TakenOver):
        raise
    except OpsgateError as error:
        session.reporter.warn(f"the containers cannot be looked at: {error.message}")
        return
    session.save()
    from opsgate.evidence.views.phrases import container_words

    for container in stage.containers:
        words = compose.said(container.log_tail)
        session.reporter.note(f"container {container_words(container)}{f': {words}' if words else ''}")


def _require_pins(session: Session) -> None:
    if not session.settings.hooks.deploy_compose:
        return
    compose.require_files(session.settings)
    if not os.path.exists(session.pins):
        raise ConfigurationError(
            f'run {session.record.run_id} has no pins, and deploy = "compose" starts images by digest only',
            "publish in the same run: `opsgate release`, or `opsgate publish` with the same OPSGATE_RUN_ID",
        )
