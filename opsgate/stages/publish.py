"""Publish: images under immutable tags, each resolved to its digest; the pins of the run."""

from __future__ import annotations

import json
from opsgate.errors import ConfigurationError, EvidenceError, OpsgateError
from opsgate.evidence.files import explained, replace_durably
from opsgate.evidence.record import Image, Publish
from opsgate.hooks.hook import NamedImage, Outputs
from opsgate.settings import Settings
from opsgate.stages.session import Session


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
    """Publish; whether it succeeded. What failed is in the stage, and is the run's verdict."""
    record = session.record
    with session.stage("publish", record.stages.publish) as stage:
        try:
            _by_hook(session, stage, session.settings.hooks.publish or "")
        except EvidenceError:
            raise
        except OpsgateError as error:
            stage.status, stage.detail = "failed", str(error)
    if stage.status == "failed":
        record.status, record.status_reason = "failed", "publish_failed"
        return False
    record.status, record.status_reason = "skipped", "not_gated"
    return True


def _by_hook(session: Session, stage: Publish, command: str) -> None:
    done, outputs = session.run_hook("publish", command, limit=session.settings.timeouts.publish)
    stage.commands = [done]
    session.halt.check()
    if done.explanation:
        stage.status, stage.detail = "failed", f"the publish hook failed: {done.explanation}"
        return
    take_revision(session, outputs)
    session.record.images = published_images(session, outputs)
    if session.record.images:
        write_pins(session, {image.name: image for image in session.record.images})
    stage.status = "passed"


def take_revision(session: Session, outputs: Outputs) -> None:
    """A revision that a hook left is the run's, unless a flag or a variable named one."""
    if outputs.revision and not session.settings.revision:
        session.record.revision = outputs.revision


def write_pins(session: Session, services: dict[str, Image]) -> None:
    """Write the compose override that pins each service to its image's digest."""
    lines = ["services:"]
    for service, image in services.items():
        lines += [f"  {json.dumps(service)}:", f"    image: {json.dumps(image.pinned)}"]
    with explained("writing the pins", session.pins):
        replace_durably(session.pins, ("\n".join(lines) + "\n").encode())


def published_images(session: Session, outputs: Outputs) -> list[Image]:
    """What a hook says it brought out; a digest that it left out is asked of the registry."""
    return [_resolved(session, image) for image in outputs.images]


def _resolved(session: Session, image: NamedImage) -> Image:
    if image.digest:
        return Image(name=image.name, reference=image.reference, digest=image.digest)
    from opsgate.stages.credentials import Credentials
    from opsgate.stages.reference import Reference
    from opsgate.stages.registry import Registry

    reference = Reference.parse(image.reference)
    digest = Registry(reference.registry, Credentials(session.environ)).digest(reference)
    return Image(name=image.name, reference=image.reference, digest=digest)
