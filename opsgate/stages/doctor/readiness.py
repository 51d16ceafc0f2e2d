"""What doctor looks at beyond this machine: the way back, images and registries, what the runtime answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError, OpsgateError
from opsgate.evidence import rollouts
from opsgate.evidence.record import Image, Rollout, TargetResult
from opsgate.evidence.store import Store
from opsgate.evidence.views.words import count, failure, span
from opsgate.settings import Settings
from opsgate.stages import preflight, probing, publish
from opsgate.stages.docker import compose, images, immutable
from opsgate.stages.docker.images import REGISTRY_GLANCE, Registries
from opsgate.stages.doctor.diagnosis import Check, Status, problem
from opsgate.stages.oci.reference import Reference
from opsgate.stages.outcome import command_line
from opsgate.stages.rollback import DAY
from opsgate.stages.session import Session

AT_ONCE: Final = 8
"""Registries and images that are asked about at the same time."""


class Way(msgspec.Struct, frozen=True):
    """The last good release, or why nobody knows it."""

    rollout: Rollout | None
    unknown: str = ""


def last_good(settings: Settings, store: Store) -> Way:
    """Where a rollback of the next release would lead."""
    try:
        return Way(rollouts.last_good(store, settings.environment, revision=None, images=()))
    except EvidenceError as error:
        return Way(None, error.message)


def way_back(settings: Settings, store: Store, way: Way, *, now: float) -> Iterator[Check]:
    """Whether a failed gate would be rolled back, and to what; `now` in epoch seconds."""
    yield _rollback(settings, way)
    if way.rollout is not None:
        good = way.rollout
        told = f"{good.revision or 'revision unknown'}, run {good.run_id}, finished {good.finished_at}"
        yield Check(name="last good", status="ok", detail=told)
    elif way.unknown:
        yield Check(name="last good", status="warning", detail=f"unknown: {way.unknown}")
    else:
        yield Check(name="last good", status="skipped", detail="no run of this environment has passed yet")
    if settings.hooks.rolls_back:
        yield _circuit(settings, store, now)


def _rollback(settings: Settings, way: Way) -> Check:
    hooks, name = settings.hooks, "rollback"
    if not hooks.rolls_back:
        return Check(
            name=name,
            status="warning",
            detail="none is configured: a release that fails its gate stays",
            hint="set rollback in opsgate.toml, or RUNTIME_ROLLBACK_COMMAND",
        )
    if not settings.rollback:
        origin = settings.origins.get("rollback_allowed", "")
        return Check(name=name, status="warning", detail=f"configured, and not allowed to run ({origin})")
    if not hooks.redeploy:
        chain = len(hooks.rollback)
        return Check(name=name, status="ok", detail="one command" if chain == 1 else f"a chain of {chain}")
    if way.rollout is None:
        return Check(
            name=name,
            status="warning",
            detail="redeploy, and no last good: a first release cannot be rolled back by redeploy",
            hint="it does not hold the first release up; stay with it until its gate has passed",
        )
    if hooks.deploy_compose and way.rollout.pins is None:
        return Check(
            name=name,
            status="warning",
            detail=f"redeploy, and run {way.rollout.run_id} left no pins to start its images by",
            hint="restore its pins.yaml from the uploaded evidence, or go back by hand",
        )
    return Check(name=name, status="ok", detail=f"redeploy of {way.rollout.revision or way.rollout.run_id}")


def _circuit(settings: Settings, store: Store, now: float) -> Check:
    name, most = "rollback cap", settings.max_rollbacks_per_day
    try:
        recent = rollouts.automatic_rollbacks(store, settings.environment, since=now - DAY)
    except EvidenceError as error:
        return Check(name=name, status="warning", detail=f"unknown: {error.message}")
    told = f"{recent} of {most} automatic rollbacks in 24 hours"
    if recent < most:
        return Check(name=name, status="ok", detail=told)
    always = f"{command_line('rollback', settings)} --reason 'WHY'"
    hint = f"the next one is withheld (circuit_open); a person can always: {always}"
    return Check(name=name, status="warning", detail=told, hint=hint)


def rollback_check(session: Session) -> Check:
    """Run the configured check of the way back."""
    name = "rollback check"
    if session.settings.hooks.rollback_check:
        limit = span(session.settings.timeouts.rollback_check)
        session.reporter.note(f"running the rollback check, up to {limit}")
    done = preflight.check_rollback(session)
    session.halt.check()
    if done is None:
        hint = "set rollback_check to a harmless command, for example ssh HOST true"
        needed = session.settings.hooks.rolls_back
        return Check(name=name, status="skipped", detail="none is configured", hint=hint if needed else "")
    if done.succeeded:
        return Check(name=name, status="ok", detail=f"it works now ({span(done.duration_ms / 1000)})")
    words = compose.said(done.output_tail)
    return Check(
        name=name,
        status="problem",
        detail=f"failed: {done.explanation}{f': {words}' if words else ''}",
        hint=f"mend the way back; until then nothing is published or deployed: {done.command}",
    )


def work_tree(session: Session) -> Iterator[Check]:
    """What a release would be named after, and whether the checkout holds just that."""
    settings = session.settings
    session.judge_revision()
    session.record.stages.publish.tag = immutable.tag(session) or msgspec.UNSET
    revision = session.record.revision
    judged = any(target.expect.revision for target in settings.targets)
    hint = "set OPSGATE_REVISION, or release from a checkout" if judged and not revision else ""
    status: Status = "ok" if revision else "warning" if judged else "skipped"
    yield Check(name="revision", status=status, detail=revision or "no commit, and none is given", hint=hint)
    if not publish.configured(settings):
        return
    session.reporter.note(f"asking git about the work tree, up to {span(immutable.GIT_LIMIT)}")
    try:
        immutable.check_work_tree(session)
    except OpsgateError as error:
        session.halt.check()
        refused = settings.production
        yield Check(
            name="work tree",
            status="problem" if refused else "warning",
            detail=error.message,
            hint=error.hint if refused else "",
        )
    else:
        yield Check(name="work tree", status="ok", detail="nothing that a commit does not hold")


def shipping(session: Session) -> tuple[list[Check], tuple[str, ...]]:
    """Whether the built-in publish and deploy could run; and the references that would be published."""
    settings = session.settings
    builds = publish.configured(settings) and settings.hooks.publish is None
    if not builds and not settings.hooks.deploy_compose:
        return [], ()
    session.reporter.note(f"asking docker compose, up to {span(compose.LOOK_LIMIT)} a question")
    try:
        compose.require_files(settings)
        program = compose.require_program(session)
        command = compose.base(settings, program)
        references: tuple[str, ...] = ()
        if builds:
            tag = immutable.require_tag(session)
            references = tuple(images.read(session, command).builds.values())
            if settings.production:
                immutable.check_names({text: text for text in references}, tag)
        asked = session.ask(f"{command} ps --quiet", limit=compose.LOOK_LIMIT)
        session.halt.check()
        if not asked.succeeded:
            words = compose.said(asked.output_tail) or asked.explanation
            raise compose.EngineError(f"the engine cannot be used: {words}", "start it, or set DOCKER_HOST")
    except OpsgateError as error:
        session.halt.check()
        return [problem("compose", error)], ()
    told = f"{program}, the engine answers; builds {', '.join(references) or 'nothing'}"
    return [Check(name="compose", status="ok", detail=told)], references


def runtime(session: Session) -> Iterator[Check]:
    """What each target and each control URL answers now. One that is down never holds a release up."""
    settings = session.settings
    if not probing.any_required(settings.targets):
        yield Check(
            name="targets",
            status="problem" if settings.fail_on_skipped else "warning",
            detail="NOT VALIDATED: no required URL is configured, a gate would say skipped",
            hint="set urls in opsgate.toml, or RUNTIME_HEALTH_URLS",
        )
    targets = (*settings.targets, *settings.control)
    if targets:
        limit = span(settings.policy.attempt_timeout)
        session.reporter.note(f"asking {count(len(targets), 'target')} once, up to {limit}")
    try:
        results = probing.baseline(session, targets)
    except ConfigurationError as error:
        yield problem("targets", error)
        return
    for result in results[: len(settings.targets)]:
        yield _target(result)
    for result in results[len(settings.targets) :]:
        answers = result.attempts[0].status_code is not None
        told = "answers" if answers else failure(result.attempts[0])
        hint = "" if answers else "when the runtime is silent too, a rollback is withheld (observer_offline)"
        status: Status = "ok" if answers else "warning"
        yield Check(name=f"control {result.name}", status=status, detail=told, hint=hint)


def _target(result: TargetResult) -> Check:
    attempt = result.attempts[0]
    optional = "" if result.required else " (not required)"
    if not result.healthy:
        told = f"down: {failure(attempt)}{optional}"
        return Check(name=f"target {result.name}", status="warning", detail=told)
    facts = [f"healthy in {span(attempt.elapsed_ms / 1000)}"]
    facts += [f"status {attempt.status_code}"] if attempt.status_code else []
    facts += [f"revision {attempt.revision}"] if attempt.revision else []
    facts += [f"certificate until {attempt.tls_not_after}"] if attempt.tls_not_after else []
    return Check(name=f"target {result.name}", status="ok", detail=", ".join(facts) + optional)


def registries(
    settings: Settings,
    references: Iterable[str],
    good: Rollout | None,
    environ: Mapping[str, str],
    *,
    tell: Callable[[str], None],
) -> Iterator[Check]:
    """Whether each registry lets us in, and still serves the images of the last good release."""
    clients = Registries(environ)
    hosts = {parsed.registry: parsed for parsed in map(Reference.parse, references)}
    kept = good.images if good and settings.hooks.rolls_back else ()
    if hosts or kept:
        tell(f"asking registries, up to {span(REGISTRY_GLANCE)} a question")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pings = pool.map(lambda reference: _ping(clients, reference), hosts.values())
        pulls = pool.map(lambda image: _pullable(clients, image, redeploy=settings.hooks.redeploy), kept)
        yield from (*pings, *pulls)


def _ping(clients: Registries, reference: Reference) -> Check:
    name = f"registry {reference.registry}"
    try:
        clients.of(reference).ping(limit=REGISTRY_GLANCE)
    except OpsgateError as error:
        return problem(name, error)
    return Check(name=name, status="ok", detail="answers, and takes our login where it wants one")


def _pullable(clients: Registries, image: Image, *, redeploy: bool) -> Check:
    name = f"last good image {image.name}"
    try:
        reference = Reference.parse(image.pinned)
        if not reference.explicit:
            return Check(name=name, status="skipped", detail=f"{image.pinned} names no registry to ask")
        if clients.of(reference).exists(reference.repository, image.digest, limit=REGISTRY_GLANCE):
            return Check(name=name, status="ok", detail=f"{image.pinned} can be pulled")
    except OpsgateError as error:
        # Whoever pulls it may be elsewhere, and logged in: nobody knows from here.
        return Check(name=name, status="warning", detail=error.message, hint=error.hint)
    return Check(
        name=name,
        status="problem" if redeploy else "warning",
        detail=f"{image.pinned} cannot be pulled: the registry does not serve it any more",
        hint="push that image again, or say how to go back without it: the way back ends here",
    )
