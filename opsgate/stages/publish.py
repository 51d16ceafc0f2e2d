"""Publish: images under immutable tags, each resolved to its digest; the pins of the run."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from opsgate.errors import (
    ConfigurationError,
    EvidenceError,
    ExitCode,
    Interrupted,
    NotReady,
    OpsgateError,
    TakenOver,
)
from opsgate.evidence import rollouts
from opsgate.evidence.record import Image, Publish
from opsgate.hooks.hook import Outputs
from opsgate.settings import Settings
from opsgate.stages.docker import immutable, pins
from opsgate.stages.oci.reference import Reference
from opsgate.stages.session import Session


class HookFailed(OpsgateError):
    """The publish hook did not end well."""

    exit_code = ExitCode.FAILED


def configured(settings: Settings) -> bool:
    """Whether there is anything to publish with."""
    return bool(settings.hooks.publish or settings.publish.compose_files)


def require(settings: Settings) -> None:
    """Raise `ConfigurationError` where nothing says how to publish."""
    if not configured(settings):
        raise ConfigurationError(
            f"environment {settings.environment} has nothing to publish",
            "name compose_files or a command under [publish] in opsgate.toml, or set RUNTIME_PUBLISH_COMMAND",
        )


def run(session: Session) -> bool:
    """Publish; whether it succeeded. What failed is in the stage, and is the run's verdict.

    Raises `ConfigurationError` or `NotReady` for what is refused before anything is built.
    """
    record = session.record
    limit = session.settings.timeouts.publish
    with session.stage("publish", record.stages.publish) as stage, session.within(limit):
        stage.tag, stage.commands = immutable.tag(session) or UNSET, []
        try:
            if session.settings.production:
                immutable.check_work_tree(session)
            _check_way_back(session)
            if session.settings.hooks.publish is not None:
                _by_hook(session, stage, session.settings.hooks.publish)
            else:
                from opsgate.stages.docker import images

                images.publish(session, stage)
            stage.status = "passed"
        except (EvidenceError, Interrupted, TakenOver):
            raise
        except OpsgateError as error:
            stage.status, stage.detail = "failed", error.one_line
            record.status, record.status_reason = "failed", "publish_failed"
            # Only what is refused before the first command is an exit code 2: nothing was touched.
            if isinstance(error, ConfigurationError | NotReady) and not stage.commands:
                raise
            return False
    record.status, record.status_reason = "skipped", "not_gated"
    return True


def _by_hook(session: Session, stage: Publish, command: str) -> None:
    done, outputs = session.run_hook("publish", command, limit=session.settings.timeouts.publish)
    stage.commands = [done]
    session.halt.check()
    if not done.succeeded:
        raise HookFailed(f"the publish hook failed: {done.explanation}")
    take_revision(session, outputs)
    if session.settings.production:
        immutable.check_names({image.name: image.reference for image in outputs.images})
    session.record.images = published_images(session, outputs)
    if session.record.images:
        pins.write(session, {image.name: image for image in session.record.images})


def _check_way_back(session: Session) -> None:
    """Say before anything is shipped that there is nothing to go back to, or that it is gone."""
    record = session.record
    try:
        last_good = rollouts.last_good(session.store, record.environment, revision=None, images=())
    except EvidenceError as error:
        session.reporter.warn(f"the last good release is unknown: {error.message}")
        return
    if last_good is None:
        session.reporter.note("first release here: there is no last good to go back to")
    elif last_good.images and session.settings.hooks.rolls_back:
        from opsgate.stages.docker import images

        found = list(images.lost(session, last_good))
        record.stages.preflight.warnings = [*(record.stages.preflight.warnings or []), *found]
        for warning in found:
            session.reporter.warn(warning)


def take_revision(session: Session, outputs: Outputs) -> None:
    """A revision that a hook left is the run's, unless a flag or a variable named one."""
    if outputs.revision and not session.settings.revision:
        session.record.revision = outputs.revision


def published_images(session: Session, outputs: Outputs) -> list[Image]:
    """What a hook says it brought out; a digest that it left out is asked of the registry.

    Raises `InvalidReference`, `CredentialsError`, `Unreachable` or `RegistryError`.
    """
    # A name that is none is known before anybody is asked.
    asked = {image.name: Reference.parse(image.reference) for image in outputs.images if image.digest is None}
    digests = _digests(session, asked) if asked else {}
    return [
        Image(name=image.name, reference=image.reference, digest=image.digest or digests[image.name])
        for image in outputs.images
    ]


def _digests(session: Session, asked: Mapping[str, Reference]) -> dict[str, str]:
    from opsgate.stages.docker import images

    registries = images.registries_of(session)
    return {name: registries.of(reference).digest(reference) for name, reference in asked.items()}
