"""What a run's record means: its exit code, and what a person should do next."""

from __future__ import annotations

import shlex

from opsgate.evidence.record import Evidence, Rollout
from opsgate.settings import Settings
from opsgate.stages import compose
from opsgate.stages.session import earlier

PERSON_NEEDED = 3
STAGES = ("preflight", "publish", "deploy", "gate", "rollback")


def exit_code(record: Evidence, *, fail_on_skipped: bool) -> int:
    """The contract's exit code of a run that was neither interrupted nor hit by a defect."""
    if record.status == "passed":
        return 0
    if record.status == "skipped":
        return int(fail_on_skipped and record.status_reason == "no_urls_configured")
    rollback = record.stages.rollback
    if record.trigger == "rollback":
        return PERSON_NEEDED
    if rollback.attempted:
        return 1 if rollback.succeeded and rollback.recovered else PERSON_NEEDED
    return PERSON_NEEDED if rollback.withheld not in {None, "no_rollback"} and rollback.withheld else 1


def next_steps(record: Evidence, settings: Settings) -> list[str]:
    """What a person should do now, most urgent first; empty when nothing is left to do."""
    if record.status == "skipped":
        return [_not_validated(record)]
    if record.status != "failed":
        return []
    rollback, steps = record.stages.rollback, []
    interrupted = record.status_reason == "interrupted" or rollback.status == "interrupted"
    if record.deployed and not rollback.attempted and interrupted:
        steps.append(
            f"{_release(record)} was being deployed and is not proven. Look at it: {_opsgate('gate', record)}"
        )
    if interrupted and (undone := _not_done(record)):
        steps.append(f"Not done because of the interrupt: {undone}.")
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
        steps += _way_back(record, settings)
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


def _way_back(record: Evidence, settings: Settings) -> list[str]:
    """The last good release and the exact commands that lead to it, opsgate's own first."""
    last_good = record.stages.rollback.last_good or None
    steps = []
    if not record.stages.rollback.attempted and record.stages.rollback.withheld != "no_last_good":
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


def _not_done(record: Evidence) -> str:
    """The stages that had begun without end, or that would have followed."""
    if record.trigger == "rollback":
        return "" if record.stages.rollback.completed else "the rollback, the recovery check"
    wanted = {"release": STAGES[1:4], "publish": ("publish",), "deploy": ("deploy",), "gate": ("gate",)}
    missing = [name for name in wanted[record.trigger] if not getattr(record.stages, name).completed]
    if not missing and record.stages.rollback.recovered is None:
        missing = ["the recovery check"]
    return ", ".join(missing)


def _release(record: Evidence) -> str:
    return f"Release {record.revision}" if record.revision else "The new release"


def _opsgate(task: str, record: Evidence) -> str:
    return f"opsgate {task} --env {shlex.quote(record.environment)}"
