"""The door: Invoke tasks and flags -> settings -> stage -> exit code. The only module that raises Exit."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from invoke import Context, Exit, task

from opsgate.errors import OpsgateError
from opsgate.flags import COMMON, EVIDENCE, GATE, POLICY
from opsgate.settings import EVIDENCE_NEEDS, ROLLBACK_NEEDS, Flags, Settings, load

if TYPE_CHECKING:
    from opsgate.evidence.record import Trigger
    from opsgate.stages.session import Session


def _flags(given: dict[str, Any]) -> Flags:
    """The flags that settings understand; one left out is None."""
    names = [name for name in Flags.__struct_fields__ if given.get(name) is not None]
    values = {name: given[name] for name in names}
    values["url"] = tuple(values.get("url", ()))
    if values.get("rollback"):
        del values["rollback"]
    return Flags(**values)


def _settings(given: dict[str, Any], *, needs: frozenset[str] | None = None) -> Settings:
    return load(_flags(given), os.environ, Path.cwd(), needs=needs)


def _answering(body: Callable[[], int]) -> NoReturn:
    """Turn what a task comes to into an exit code; an expected error into its words."""
    try:
        code = body()
    except OpsgateError as error:
        raise Exit(f"opsgate: {error}", code=error.exit_code) from None
    raise Exit(code=code)


def _run(
    trigger: Trigger,
    settings: Settings,
    body: Callable[[Session], None],
    *,
    as_json: bool,
    stages: tuple[str, ...] = (),
    needs_evidence: bool = True,
    force: bool = False,
) -> int:
    """Execute one run, and print its result."""
    from opsgate import github
    from opsgate.console import reporter
    from opsgate.evidence.views import text
    from opsgate.stages.run import Task, execute

    github.begin(settings.redactor, os.environ, sys.stderr)
    outcome = execute(
        Task(trigger, body, stages=stages, needs_evidence=needs_evidence, force=force),
        settings,
        reporter=github.grouped(reporter(sys.stderr, os.environ, summary=as_json), os.environ, sys.stderr),
        environ=os.environ,
        ci=github.facts(os.environ),
    )
    if outcome.evidence_lost:
        print(outcome.document, end="", file=sys.stderr)
    github.finish(outcome.record, os.environ, sys.stderr, evidence=outcome.path)
    _print(outcome.document if as_json else text.render(outcome.record))
    return outcome.exit_code


def _print(text: str) -> None:
    """The result on stdout; a reader that has gone away is its own business."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@task(
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
    rollback: bool = True,
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
        settings = _settings(given)
        if dry_run:
            _print(plan.render(settings, skip=skipped, as_json=json))
            return 0
        return _run(
            "release",
            settings,
            lambda session: stage.release(session, skip=skipped),
            as_json=json,
            stages=stage.planned(settings, skipped),
        )

    _answering(body)


@task(auto_shortflags=False, help=COMMON)
def publish(
    _context: Context, env: str | None = None, evidence_dir: str | None = None, json: bool = False
) -> None:
    """Build and push the images, resolve their digests, write the pins."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import publish as stage
        from opsgate.stages.release import publish_alone

        settings = _settings(given)
        stage.require(settings)
        return _run("publish", settings, publish_alone, as_json=json, stages=("publish",))

    _answering(body)


@task(auto_shortflags=False, iterable=["url"], help=GATE)
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
    rollback: bool = True,
    fail_on_skipped: bool = False,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """Run the deploy hook with the pins of the run; a failed one is rolled back."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages import deploy as stage
        from opsgate.stages.release import deploy_alone

        settings = _settings(given)
        stage.require(settings)
        return _run("deploy", settings, deploy_alone, as_json=json, stages=("deploy",))

    _answering(body)


@task(auto_shortflags=False, iterable=["url"], help=GATE)
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
    rollback: bool = True,
    fail_on_skipped: bool = False,
    evidence_dir: str | None = None,
    json: bool = False,
) -> None:
    """Probe the required targets: passed, failed or skipped; roll back when failed."""
    given = dict(locals())

    def body() -> int:
        from opsgate.stages.release import gate_then_roll_back

        return _run("gate", _settings(given), gate_then_roll_back, as_json=json, stages=("gate",))

    _answering(body)


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

        settings = _settings(given, needs=ROLLBACK_NEEDS)
        stage.require(settings)
        route = stage.route(settings, to)
        if dry_run:
            _print(plan.render_rollback(settings, route, as_json=json))
            return 0
        return _run(
            "rollback",
            settings,
            lambda session: stage.manual(session, to=to, reason=reason, verify=verify),
            as_json=json,
            needs_evidence=False,
            force=force,
        )

    _answering(body)


@task(auto_shortflags=False, help={**COMMON, **POLICY, **EVIDENCE})
def evidence(
    _context: Context,
    run: str | None = None,
    history: bool = False,
    verify: bool = False,
    replay: bool = False,
    format: str = "text",  # noqa: A002 - the flag's name
    output: str | None = None,
    since: str | None = None,
    status: str | None = None,
    head: str | None = None,
    prune: bool = False,
    keep: str = "100",
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

        settings = _settings(given, needs=EVIDENCE_NEEDS)
        environment = env or os.environ.get("OPSGATE_ENV") or None
        if verify:
            answer = stage.verified(settings, head=head, as_json=json)
        elif replay:
            answer = stage.replayed(settings, given, run=run, environment=environment, as_json=json)
        elif prune:
            answer = stage.pruned(settings, keep=keep, now=time.time())
        elif history:
            answer = stage.history(
                settings,
                environment=environment,
                since=since,
                status=status,
                form="json" if json else format,
                now=time.time(),
            )
        else:
            answer = stage.show(settings, run=run, environment=environment, form="json" if json else format)
        if output is None:
            _print(answer.text)
        else:
            Path(output).write_text(answer.text, encoding="utf-8")
            print(f"written: {output}", file=sys.stderr)
        return answer.exit_code

    _answering(body)


@task(auto_shortflags=False, help={"dry-run": "show what would be written (default: no)"})
def init(_context: Context, dry_run: bool = False) -> None:
    """Write a commented opsgate.toml and the workflow here; never overwrites."""

    def body() -> int:
        from opsgate.stages.init import run

        _print("\n".join(run(Path.cwd(), dry_run=dry_run)) + "\n")
        return 0

    _answering(body)
