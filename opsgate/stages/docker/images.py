"""The built-in publish: compose builds and pushes, the registry says what it holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from opsgate.errors import ConfigurationError
from opsgate.evidence.record import Image, Publish, Rollout
from opsgate.stages.docker import compose, immutable, pins
from opsgate.stages.halt import go_on
from opsgate.stages.oci.credentials import Credentials, CredentialsError
from opsgate.stages.oci.reference import InvalidReference, Reference
from opsgate.stages.oci.registry import Manifest, Registry, RegistryError
from opsgate.stages.session import Session
from opsgate.stages.wire import Unreachable

REGISTRY_GLANCE: Final = 10.0
"""Seconds for a question whose answer only warns, or saves time."""


class Registries:
    """The registries of a run, one client each: a login is asked for once."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        check: Callable[[], None] = go_on,
        until: float = float("inf"),
        hasty: bool = False,
    ) -> None:
        """The rest is as for `Registry`."""
        self._credentials = Credentials(environ)
        self._check, self._until, self._hasty = check, until, hasty
        self._known: dict[str, Registry] = {}

    def of(self, reference: Reference) -> Registry:
        """The client of the registry that `reference` names."""
        if reference.registry not in self._known:
            self._known[reference.registry] = Registry(
                reference.registry,
                self._credentials,
                check=self._check,
                until=self._until,
                hasty=self._hasty,
            )
        return self._known[reference.registry]


def registries_of(session: Session, *, hasty: bool = False) -> Registries:
    """Those of a run: asked until the stage has to be over, or the run has to stop."""
    return Registries(session.environ, check=session.halt.check, until=session.until, hasty=hasty)


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """What the compose files ask for: the images to publish, and who uses them."""

    builds: dict[str, str]
    """Service → reference of the image that it builds, each reference once."""
    uses: dict[str, str]
    """Service → reference, for every service that uses a published image."""


def publish(session: Session, stage: Publish) -> None:
    """Build, push, resolve, pin; the images are the record's then.

    Raises `ConfigurationError` before anything is built, and any other `OpsgateError` when building,
    pushing or resolving failed.
    """
    compose.require_files(session.settings)
    tag = immutable.require_tag(session)
    command = compose.base(session.settings, compose.require_program(session))
    project = read(session, command)
    if session.settings.production:
        immutable.check_names(project.builds, tag)
    registries = registries_of(session)
    before = {text: _already(registries, text) for text in project.builds.values()}
    names = " ".join(shlex.quote(name) for name in project.builds)
    session.reporter.note(f"building {', '.join(project.builds.values())}")
    # Side by side, the classic builder makes a layer that two images share twice, each with its own time:
    # another build of the same files then finds either, and is another image.
    build = f"COMPOSE_PARALLEL_LIMIT=${{COMPOSE_PARALLEL_LIMIT:-1}} {command} build {names}"
    _run(session, stage, build, "docker compose build")
    local = compose.local_images(session, project.builds.values())
    due = [name for name, text in project.builds.items() if _is_due(text, tag, before[text], local.get(text))]
    for text in (text for name, text in project.builds.items() if name not in due):
        session.reporter.note(f"{text} is there already, with this content: not pushed again")
    if due:
        push = f"{command} push {' '.join(map(shlex.quote, due))}"
        _run(session, stage, push, "docker compose push")
    session.record.images = [
        resolved(session, registries, name, text, local.get(text)) for name, text in project.builds.items()
    ]
    by_reference = {image.reference: image for image in session.record.images}
    pins.write(session, {name: by_reference[text] for name, text in project.uses.items()})


def read(session: Session, command: str) -> Project:
    """Read the compose files. Raises `ConfigurationError` for services that cannot be published."""
    services = {service.name: service for service in compose.services(session, command)}
    wanted = session.settings.publish.services
    for name in wanted:
        if name not in services:
            raise ConfigurationError(
                f"publish.services: the compose files have no service {name}",
                f"they have {', '.join(services) or 'none'}",
            )
    chosen = [services[name] for name in wanted] or list(services.values())
    builds: dict[str, str] = {}
    for service in (service for service in chosen if service.builds):
        if service.image is None:
            raise ConfigurationError(
                f"service {service.name} is built and has no image name",
                f"write image: REGISTRY/{service.name}:${{OPSGATE_TAG}} beside its build section",
            )
        _checked(service.name, service.image)
        if service.image not in builds.values():
            builds[service.name] = service.image
    for service in chosen if wanted else ():
        if service.image not in builds.values():
            raise ConfigurationError(
                f"publish.services: {service.name} has no build section, and uses no image that is built",
                "leave it out: a service that uses a published image is pinned without being listed",
            )
    if not builds:
        raise ConfigurationError(
            f"no service of {', '.join(session.settings.publish.compose_files)} has a build section",
            "there is nothing to publish: leave [publish] out, or name other compose_files",
        )
    uses = {service.name: service.image for service in services.values() if service.image in builds.values()}
    return Project(builds=builds, uses={name: image for name, image in uses.items() if image})


def resolved(
    session: Session, registries: Registries, name: str, text: str, local: compose.Local | None = None
) -> Image:
    """What the registry serves for a pushed reference, and proof that it serves it by digest as well.

    `local` is the engine's id of what was pushed. Raises `RegistryError`, also when somebody else has
    moved the tag meanwhile.
    """
    reference = Reference.parse(text)
    registry = registries.of(reference)
    manifest = registry.manifest(reference)
    if local and _same(manifest, local) is False:
        raise RegistryError(
            f"{reference} is not what was pushed a moment ago: the registry serves {manifest.digest}",
            "somebody else moved the tag; find out who pushes there, then publish again",
        )
    if not registry.exists(reference.repository, manifest.digest):
        raise RegistryError(
            f"{reference.name} does not serve {manifest.digest}, which its tag {reference.pointer} names",
            "the registry lost it, or a proxy between here and there answers for it",
        )
    session.reporter.note(f"published {reference} as {manifest.digest}")
    return Image(name=name, reference=text, digest=manifest.digest)


def lost(session: Session, rollout: Rollout) -> Iterable[str]:
    """Warnings for each image of `rollout` that can no longer be pulled, or of which nobody can say."""
    registries = registries_of(session, hasty=True)
    silent: dict[str, str] = {}
    for image in rollout.images:
        registry, why = "", ""
        try:
            reference = Reference.parse(image.pinned)
            registry = reference.registry
            # A name without a registry may never have been pushed: a hook names its images as it likes.
            if reference.explicit and registry not in silent:
                client = registries.of(reference)
                if not client.exists(reference.repository, image.digest, limit=REGISTRY_GLANCE):
                    why = "the registry does not serve it any more"
        except Unreachable as error:
            silent[registry] = error.message
        except (RegistryError, CredentialsError, InvalidReference) as error:
            why = error.message
        why = why or silent.get(registry, "")
        if why:
            yield f"no way back for {image.name}: last good {image.pinned} cannot be pulled: {why}"


def _checked(service: str, text: str) -> None:
    try:
        Reference.parse(text)
    except InvalidReference as error:
        raise ConfigurationError(f"service {service}: {error.message}", error.hint) from error


def _run(session: Session, stage: Publish, command: str, what: str) -> None:
    """One step of the stage, in the record whatever comes of it."""
    done, _ = session.run_hook("publish", command, limit=session.settings.timeouts.publish)
    stage.commands = [*(stage.commands or []), done]
    session.save()
    session.halt.check()
    if not done.succeeded:
        raise compose.failure(done, what)
    session.reporter.note(f"{what}: done in {done.duration_ms / 1000:.1f} s")


def _already(registries: Registries, text: str) -> Manifest | None:
    """What the registry holds under this tag before the push; one that is down is known before the build."""
    reference = Reference.parse(text)
    try:
        return registries.of(reference).manifest(reference, limit=REGISTRY_GLANCE)
    except RegistryError:
        # Many registries answer "denied" for what is not there yet. The push has the last word.
        return None


def _is_due(text: str, tag: str, before: Manifest | None, local: compose.Local | None) -> bool:
    """Whether an image has to be pushed. Raises `RegistryError` for an immutable tag that is taken."""
    if before is None:
        return True
    if local is not None and _same(before, local):
        return False
    if tag in text.rpartition(":")[2]:
        raise RegistryError(
            f"{text} is there already with other content, {before.digest}: a tag never moves",
            "publish in a new run: it gets a tag of its own",
        )
    return True


def _same(manifest: Manifest, local: compose.Local) -> bool | None:
    """Whether the registry holds what the engine has; None where it cannot be told."""
    if manifest.digest == local.id:
        return True
    config = json.loads(manifest.content).get("config")
    if local.by_manifest or config is None:
        # Of an image for several platforms the engine may push a part, under another digest.
        return None
    return isinstance(config, dict) and config.get("digest") == local.id
