"""What a run's record means: its exit code, and what a person should do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from opsgate.errors import ExitCode
from opsgate.evidence.record import Evidence, Rollout
from opsgate.settings import Settings
from opsgate.stages import probing
from opsgate.stages.docker import compose
from opsgate.stages.facts import earlier


def exit_code(record: Evidence, *, fail_on_skipped: bool) -> ExitCode:
    """The contract's exit code of a run that was neither interrupted nor hit by a defect."""
    if record.status == "passed":
        return ExitCode.PASSED
    if record.status == "skipped":
        is_failure = fail_on_skipped and record.status_reason == "no_urls_configured"
        return ExitCode.FAILED if is_failure else ExitCode.PASSED
    rollback = record.stages.rollback
    if record.trigger == "rollback":
        return ExitCode.PERSON_NEEDED
    if rollback.attempted:
        is_well = rollback.succeeded and rollback.recovered
        return ExitCode.FAILED if is_well else ExitCode.PERSON_NEEDED
    is_needed = rollback.withheld in {"observer_offline", "no_last_good", "circuit_open"}
    return ExitCode.PERSON_NEEDED if is_needed else ExitCode.FAILED


def next_steps(
    record: Evidence,
    settings: Settings,
    *,
    planned: Sequence[str],
    last_good: Rollout | None,
    cut_short_by: str = "",
) -> list[str]:
    """What a person should do now, most urgent first; empty when nothing is left to do.

    `planned` names the stages of the task, preflight and rollback apart; `cut_short_by` says, in words,
    what kept the run from its end.
    """
    if record.status == "skipped":
        return [_not_validated(record)]
    if record.status != "failed":
        return []
    rollback, steps = record.stages.rollback, []
    if record.deployed and not rollback.attempted and cut_short_by:
        was = "was deployed" if record.stages.deploy.completed else "was being deployed"
        steps.append(f"{_release(record)} {was} and is not proven. Look at it: {_opsgate('gate', record)}")
    if cut_short_by and (undone := _not_done(record, settings, planned)):
        steps.append(f"Not done because of {cut_short_by}: {undone}.")
    if record.status_reason == "observer_offline":
        steps.append(
            "Neither the targets nor the control URLs answer this machine: check its own network, then "
            f"look again: {_opsgate('gate', record)}"
        )
    if not settings.hooks.rolls_back:
        if record.deployed or record.trigger == "gate":
            steps.append("No rollback is configured: go back by hand, or set `rollback` in opsgate.toml.")
        return steps
    if rollback.attempted and rollback.succeeded and rollback.recovered:
        return steps
    if record.deployed or record.trigger in {"gate", "rollback"}:
        steps += _way_back(record, settings, last_good)
    return steps


def _not_validated(record: Evidence) -> str:
    """What was not looked at, and how to look."""
    gate = _opsgate("gate", record)
    if record.status_reason == "not_gated":
        following = gate if record.deployed else _opsgate("deploy", record)
        return f"NOT VALIDATED yet. Go on: OPSGATE_RUN_ID={record.run_id} {following}"
    if record.status_reason == "recovery_unverified":
        return f"NOT VALIDATED: nobody has looked at the runtime after the rollback. Look at it: {gate}"
    return f"NOT VALIDATED: no required URL is configured. Set RUNTIME_HEALTH_URLS or urls, then: {gate}"


def _way_back(record: Evidence, settings: Settings, last_good: Rollout | None) -> list[str]:
    """The last good release and the exact commands that lead to it, opsgate's own first."""
    rollback, steps = record.stages.rollback, []
    if rollback.succeeded and rollback.recovered is None:
        steps.append(f"Nobody has looked whether it recovered. Look at it: {_opsgate('gate', record)}")
    elif rollback.status == "interrupted" or not (rollback.attempted or rollback.withheld == "no_last_good"):
        steps.append(f"Go back now: {_opsgate('rollback', record)} --reason 'WHY'")
    if last_good is None:
        steps.append("No earlier run is known to be good: choose a release by hand.")
    else:
        steps.append(
            f"Last good: {last_good.revision or 'revision unknown'}, run {last_good.run_id}"
            + (f", finished {last_good.finished_at}" if last_good.finished_at else "")
        )
        steps += [f"Last good image {image.name}: {image.pinned}" for image in last_good.images]
    hooks = settings.hooks
    commands = (_deploying(record, settings),) if hooks.redeploy and last_good else hooks.rollback
    told = _told(record, last_good, redeploy=hooks.redeploy)
    steps += [
        f"By hand: cd {shlex.quote(str(settings.directory))} && {told}sh -c {shlex.quote(command)}"
        for command in commands
    ]
    return steps


def _deploying(record: Evidence, settings: Settings) -> str:
    """The deploy command, with compose as it was found on this machine where it has been run."""
    if settings.hooks.deploy is not None:
        return settings.hooks.deploy
    ran = record.stages.deploy.commands or record.stages.rollback.commands
    return ran[0].command if ran else compose.up(settings, None)


def _told(record: Evidence, last_good: Rollout | None, *, redeploy: bool) -> str:
    """The variables that the commands need, as a shell prefix."""
    if last_good is None:
        return ""
    known = earlier(last_good)
    prefix = "OPSGATE" if redeploy else "OPSGATE_LAST_GOOD"
    names = {f"{prefix}_REVISION": known.revision, f"{prefix}_PINS": known.pins}
    if redeploy:
        names |= {"OPSGATE_ENV": record.environment, "OPSGATE_STAGE": "rollback", "OPSGATE_TAG": known.tag}
    words = [f"{name}={shlex.quote(value)}" for name, value in names.items() if value]
    if known.images:
        # One a line for the hook, on one line for the person who pastes it.
        lines = " ".join(shlex.quote(line) for line in known.images)
        words.append(f"{prefix}_IMAGES=\"$(printf '%s\\n' {lines})\"")
    return "".join(f"{word} " for word in words)


def _not_done(record: Evidence, settings: Settings, planned: Sequence[str]) -> str:
    """The stages that an interrupt has cut off, or that would have followed."""
    stages, rollback = record.stages, record.stages.rollback
    ways_back = ["the rollback", "the recovery check"]
    if rollback.attempted:
        missing = [] if rollback.status in {"passed", "failed"} else ways_back[:1]
        if rollback.recovered is None and probing.any_required(settings.targets):
            missing += ways_back[1:]
    elif record.trigger == "rollback":
        missing = ways_back
    elif "failed" in {stages.deploy.status, stages.gate.status}:
        missing = ways_back if settings.hooks.rolls_back and settings.rollback else []
    else:
        missing = [name for name in planned if not getattr(stages, name).completed]
    return ", ".join(missing)


def _release(record: Evidence) -> str:
    return f"Release {record.revision}" if record.revision else "The new release"


def _opsgate(task: str, record: Evidence) -> str:
    return f"opsgate {task} --env {shlex.quote(record.environment)}"
