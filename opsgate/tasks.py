"""The tasks and their flags. What all of them share is in `opsgate.door`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from invoke import Context, task

from opsgate import door
from opsgate.errors import ConfigurationError
from opsgate.flags import COMMON, EVIDENCE, GATE, POLICY, GateTask
from opsgate.settings import EVIDENCE_NEEDS, ROLLBACK_NEEDS, variables


@task(
    klass=GateTask,
    auto_shortflags=False,
    iterable=["url", "skip"],
    help={
        **GATE,
        "skip": "leave out 'publish' or 'deploy', repeatable (default: nothing)",
        "gate-only": "the same as --skip publish --skip deploy (default: no)",
        "dry-run": "print the whole plan and run nothing (default: no)",
    },
)
def release(
    _context: Context,
    url: list[str],
    skip: list[str],
    env: str | None = None,
    deadline: str | None = None,
    soak: str | None = None,
    interval: str | None = None,
    attempt_timeout: str | None = None,
    successes: str | None = None,
    flaps: str | None = None,
    revision: str | None = None,
    rollback: bool | None = True,
    fail_on_skipped: bool = False,
    gate_only: bool = False,
    dry_run: bool = False,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """Publish, deploy, gate; roll back and prove it when the gate fails."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import plan
        from opsgate.stages import release as stage

        skipped = stage.skipped(skip, gate_only=gate_only)
        settings = door.load_settings(given)
        if dry_run:
            door.show(plan.render(settings, skip=skipped, as_json=json))
            return 0
        ship, planned = partial(stage.release, skip=skipped), stage.planned(settings, skipped)
        return door.run("release", settings, ship, as_json=json, stages=planned)

    door.answering(body, given)


@task(auto_shortflags=False, help=COMMON)
def publish(
    _context: Context, env: str | None = None, evidence_dir: str | None = None, json: bool = False
) -> None:
    """Build and push the images, resolve their digests, write the pins."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import publish as stage
        from opsgate.stages.release import publish_alone

        settings = door.load_settings(given)
        stage.require(settings)
        return door.run("publish", settings, publish_alone, as_json=json, stages=("publish",))

    door.answering(body, given)


@task(klass=GateTask, auto_shortflags=False, iterable=["url"], help=GATE)
def deploy(
    _context: Context,
    url: list[str],
    env: str | None = None,
    deadline: str | None = None,
    soak: str | None = None,
    interval: str | None = None,
    attempt_timeout: str | None = None,
    successes: str | None = None,
    flaps: str | None = None,
    revision: str | None = None,
    rollback: bool | None = True,
    fail_on_skipped: bool = False,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """Run the deploy hook with the pins of the run; a failed one is rolled back."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import deploy as stage
        from opsgate.stages.release import deploy_alone

        settings = door.load_settings(given)
        stage.require(settings)
        return door.run("deploy", settings, deploy_alone, as_json=json, stages=("deploy",))

    door.answering(body, given)


@task(klass=GateTask, auto_shortflags=False, iterable=["url"], help=GATE)
def gate(
    _context: Context,
    url: list[str],
    env: str | None = None,
    deadline: str | None = None,
    soak: str | None = None,
    interval: str | None = None,
    attempt_timeout: str | None = None,
    successes: str | None = None,
    flaps: str | None = None,
    revision: str | None = None,
    rollback: bool | None = True,
    fail_on_skipped: bool = False,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """Probe the required targets: passed, failed or skipped; roll back when failed."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages.release import gate_then_roll_back

        return door.run(
            "gate", door.load_settings(given), gate_then_roll_back, as_json=json, stages=("gate",)
        )

    door.answering(body, given)


@task(
    auto_shortflags=False,
    help={
        **COMMON,
        **POLICY,
        "reason": "why, for the record (default: none)",
        "to": "revision to go back to; a run with it must have passed (default: the last good one)",
        "verify": "probe the runtime afterwards (default: yes)",
        "force": "take the environment over from a run that holds it (default: no)",
        "dry-run": "print what would be run (default: no)",
    },
)
def rollback(
    _context: Context,
    env: str | None = None,
    reason: str | None = None,
    to: str | None = None,
    verify: bool = True,
    force: bool = False,
    dry_run: bool = False,
    deadline: str | None = None,
    soak: str | None = None,
    interval: str | None = None,
    attempt_timeout: str | None = None,
    successes: str | None = None,
    flaps: str | None = None,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """For incidents: roll back now, whatever the gate says, and check recovery."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import plan
        from opsgate.stages import rollback as stage

        settings = door.load_settings(given, needs=ROLLBACK_NEEDS)
        stage.require(settings)
        route = stage.route(settings, to)
        if dry_run:
            door.show(plan.render_rollback(settings, route, verify=verify, as_json=json))
            return 0
        return door.run(
            "rollback",
            settings,
            lambda session: stage.manual(session, to=to, reason=reason, verify=verify),
            as_json=json,
            needs_evidence=False,
            force=force,
        )

    door.answering(body, given)


@task(auto_shortflags=False, help=EVIDENCE)
def evidence(
    _context: Context,
    run: str | None = None,
    history: bool = False,
    verify: bool = False,
    replay: bool = False,
    format: str | None = None,  # noqa: A002 - the flag's name
    output: str | None = None,
    since: str | None = None,
    status: str | None = None,
    head: str | None = None,
    prune: bool = False,
    keep: str | None = None,
    env: str | None = None,
    deadline: str | None = None,
    soak: str | None = None,
    interval: str | None = None,
    attempt_timeout: str | None = None,
    successes: str | None = None,
    flaps: str | None = None,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """Show, list, verify, decide again or render what was recorded."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import evidence as stage

        # Without the flags of the policy: they are for the recorded runs, not for what is configured today.
        asked = {"env": env, "evidence_dir": evidence_dir}
        settings = door.load_settings(asked, needs=EVIDENCE_NEEDS)
        for warning in settings.warnings:
            door.lines().warn(settings.redactor.scrub(warning))
        answer = stage.answer(settings, given)
        door.deliver(answer.text, output)
        return answer.exit_code

    door.answering(body, given)


@task(
    auto_shortflags=False,
    help={**COMMON, "json": "print one JSON document (default: one line for each check)"},
)
def doctor(
    _context: Context, env: str | None = None, evidence_dir: str | None = None, json: bool = False
) -> None:
    """Say whether a release could begin now, and what the runtime answers. Changes nothing."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages.doctor import diagnosis
        from opsgate.stages.doctor import doctor as stage

        try:
            settings = door.load_settings(given)
        except ConfigurationError as error:
            if json:
                environment = env or variables.value(os.environ, "OPSGATE_ENV") or "default"
                door.show(diagnosis.misconfigured(error, environment, door.redactor(given)).as_json)
            raise
        found = stage.run(settings, environ=os.environ, reporter=door.lines())
        door.show(found.as_json if json else found.as_text)
        return found.exit_code

    door.answering(body, given)


@task(auto_shortflags=False, help={"dry-run": "show what would be written (default: no)"})
def init(_context: Context, dry_run: bool = False) -> None:
    """Write a commented opsgate.toml and the workflow here; never overwrites."""

    def body() -> int:
        from opsgate.stages.init.init import run

        door.show("\n".join(run(Path.cwd(), dry_run=dry_run)) + "\n")
        return 0

    door.answering(body)
