"""What a run's record means: its exit code, and what a person should do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from opsgate.errors import ExitCode
from opsgate.evidence.record import Evidence, Rollout
from opsgate.settings import Settings
from opsgate.stages import probing
from opsgate.stages.docker import compose

_OF_THE_RUN: Final = frozenset(
    f"OPSGATE_{name}" for name in ("RUN_ID", "EVIDENCE", "STATUS", "STATUS_REASON", "FAILED_URLS")
)
"""What a hook is told of the run that starts it: by hand there is none, and they are empty."""


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
    told: Mapping[str, str],
    cut_short_by: str = "",
) -> list[str]:
    """What a person should do now, most urgent first; empty when nothing is left to do.

    `planned` names the stages of the task, preflight and rollback apart; `told` are the variables of a
    rollback hook; `cut_short_by` says, in words, what kept the run from its end.
    """
    if record.status == "skipped":
        return [_not_validated(record, settings)]
    if record.status != "failed":
        return []
    rollback, steps = record.stages.rollback, []
    if record.deployed and not rollback.attempted and cut_short_by:
        was = "was deployed" if record.stages.deploy.completed else "was being deployed"
        steps.append(
            f"{_release(record)} {was} and is not proven. Look at it: {command_line('gate', settings)}"
        )
    if cut_short_by and (undone := _not_done(record, settings, planned)):
        steps.append(f"Not done because of {cut_short_by}: {undone}.")
    if record.status_reason == "observer_offline":
        steps.append(
            "Neither the targets nor the control URLs answer this machine: check its own network, then "
            f"look again: {command_line('gate', settings)}"
        )
    if not settings.hooks.rolls_back:
        if record.deployed or record.trigger == "gate":
            steps.append("No rollback is configured: go back by hand, or set `rollback` in opsgate.toml.")
        return steps
    if rollback.attempted and rollback.succeeded and rollback.recovered:
        return steps
    if record.deployed or record.trigger in {"gate", "rollback"}:
        steps += _way_back(record, settings, last_good, told)
    return steps


def _not_validated(record: Evidence, settings: Settings) -> str:
    """What was not looked at, and how to look."""
    gate = command_line("gate", settings)
    if record.status_reason == "not_gated":
        following = gate if record.deployed else command_line("deploy", settings)
        return f"NOT VALIDATED yet. Go on: OPSGATE_RUN_ID={record.run_id} {following}"
    if record.status_reason == "recovery_unverified":
        return f"NOT VALIDATED: nobody has looked at the runtime after the rollback. Look at it: {gate}"
    return f"NOT VALIDATED: no required URL is configured. Set RUNTIME_HEALTH_URLS or urls, then: {gate}"


def _way_back(
    record: Evidence, settings: Settings, last_good: Rollout | None, told: Mapping[str, str]
) -> list[str]:
    """The last good release and the exact commands that lead to it, opsgate's own first."""
    rollback, steps = record.stages.rollback, []
    if rollback.succeeded and rollback.recovered is None:
        steps.append(f"Nobody has looked whether it recovered. Look at it: {command_line('gate', settings)}")
    elif rollback.status == "interrupted" or not (rollback.attempted or rollback.withheld == "no_last_good"):
        steps.append(f"Go back now: {command_line('rollback', settings)} --reason 'WHY'")
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
    prefix = " ".join(_assigned(name, "" if name in _OF_THE_RUN else value) for name, value in told.items())
    steps += [
        f"By hand: cd {shlex.quote(str(settings.directory))} && {prefix} sh -c {shlex.quote(command)}"
        for command in commands
    ]
    return steps


def _deploying(record: Evidence, settings: Settings) -> str:
    """The deploy command, with compose as it was found on this machine where it has been run."""
    if settings.hooks.deploy is not None:
        return settings.hooks.deploy
    ran = record.stages.deploy.commands or record.stages.rollback.commands
    return ran[0].command if ran else compose.up(settings, None)


def _assigned(name: str, value: str) -> str:
    """A variable for a shell. Empty ones too: a script may refuse what is unset."""
    if "\n" not in value:
        return f"{name}={shlex.quote(value) if value else ''}"
    # One a line for the hook, on one line for the person who pastes it.
    lines = " ".join(map(shlex.quote, value.split("\n")))
    return f"{name}=\"$(printf '%s\\n' {lines})\""


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


def command_line(task: str, settings: Settings) -> str:
    """A command for another shell: with what this one was given by flags, or by a variable for evidence."""
    words = ["opsgate", task, "--env", settings.environment]
    if settings.origins.get("evidence_dir") in {"flag --evidence-dir", "OPSGATE_EVIDENCE_DIR"}:
        place = settings.evidence_dir
        with suppress(ValueError):
            # As it can be given in another checkout as well.
            place = place.relative_to(settings.directory)
        words += ["--evidence-dir", str(place)]
    if task in {"gate", "deploy"} and settings.origins.get("urls") == "flag --url":
        urls = [target.url for target in settings.targets if target.url]
        # With some of them only, a gate would pass on less than this one looked at.
        if settings.redactor.scrub_value(urls) == urls:
            words += [word for url in dict.fromkeys(urls) for word in ("--url", url)]
    return shlex.join(words)
