"""One line: what runs now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from opsgate.errors import ExitCode
from opsgate.evidence.views.facts import (
    down_since,
    new,
    nobody_served,
    old,
    runtime,
    seen_revision,
    up_again,
)
from opsgate.evidence.views.words import clock, count, plain, span
from opsgate.verdict.expect import revisions_match

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence

NOT_VALIDATED: Final = "NOT VALIDATED"
PERSON: Final = "a person is needed now"
_LOST: Final = "the evidence of it could not be written"
_WITHHELD: Final = {
    None: "no rollback is configured",
    "no_rollback": "not rolled back, as --no-rollback says",
    "no_last_good": f"not rolled back, no earlier release is known to be good: {PERSON}",
    "circuit_open": f"not rolled back, too many automatic rollbacks in 24 hours: {PERSON}",
}
_MISTAKE: Final = "a mistake in the configuration stopped the run"
_CUT_SHORT: Final[dict[int | None, str]] = {
    ExitCode.HELD: "another run took over",
    ExitCode.FAILED: _MISTAKE,
    ExitCode.PERSON_NEEDED: f"{_MISTAKE}: {PERSON}",
}


def headline(record: Evidence) -> str:
    """What runs in the environment now, as far as the record knows, in one line without a full stop."""
    if record.finished_at is None or record.status_reason == "interrupted":
        return _cut_short(record)
    if record.status == "skipped":
        lost = f"; {_LOST}" if record.exit_code == ExitCode.EVIDENCE_LOST else ""
        return f"{_skipped(record)}{lost}"
    if record.status == "passed":
        return _recovered(record) if record.trigger == "rollback" else _passed(record)
    if record.stages.rollback.attempted:
        return _rolled_back(record)
    if record.trigger == "rollback":
        return f"{_unchanged(record)}: {_withheld(record)}"
    return _failed(record)


def running(record: Evidence) -> str:
    """The headline without what follows from it, or why."""
    return headline(record).partition(": ")[0]


def _cut_short(record: Evidence) -> str:
    """A run that did not come to a verdict, or whose verdict does not count."""
    if record.finished_at is None:
        return f"this run has not finished: {_unproven(record)}"
    if record.exit_code == ExitCode.NOT_READY:
        if record.deployed:
            return f"{_unproven(record)}: not ready, this task touched nothing"
        return f"{_unchanged(record)}: not ready, nothing was touched"
    if record.exit_code == ExitCode.EVIDENCE_LOST and record.stages.rollback.recovered:
        return f"{_recovered(record)}, but {_LOST}"
    if record.exit_code == ExitCode.EVIDENCE_LOST and record.stages.gate.status == "passed":
        return f"{_passed(record)}, but {_LOST}"
    return f"{_unproven(record)}: {_CUT_SHORT.get(record.exit_code, 'interrupted')}"


def _passed(record: Evidence) -> str:
    gate = record.stages.gate
    targets = count(len(gate.required), "target")
    soak = gate.policy.soak if gate.policy else 0
    healthy = f"healthy for {span(soak)} on {targets}" if soak else f"healthy on {targets}"
    if record.stages.deploy.status == "interrupted":
        seen = seen_revision(gate.required)
        runs = f"runs {seen}: {healthy}" if seen else f"is {healthy}"
        return f"{runtime(record)} {runs}, but the deploy of {new(record)} was cut off"
    revision = record.revision if record.deployed or gate.revision else seen_revision(gate.required)
    if revision or record.deployed:
        return f"{runtime(record)} runs {plain(revision or 'the new release', 64)}: {healthy}"
    return f"{runtime(record)} is {healthy}"


def _skipped(record: Evidence) -> str:
    name, stages = runtime(record), record.stages
    if record.status_reason == "recovery_unverified":
        why = "the runtime was not probed afterwards"
        return f"{NOT_VALIDATED}: {name} should run {old(record)} after the rollback, but {why}"
    if record.status_reason == "not_gated":
        if record.deployed:
            return f"{NOT_VALIDATED} yet: {new(record)} was deployed to {name}, no gate has looked at it"
        return f"{NOT_VALIDATED} yet: {new(record)} is published for {name}, not deployed"
    why = "no target is required" if stages.gate.targets else "no URL is configured, nothing was probed"
    if record.deployed:
        return f"{NOT_VALIDATED}: {new(record)} was deployed to {name}, but {why}"
    return f"{NOT_VALIDATED}: {why}"


def _recovered(record: Evidence) -> str:
    before, after = new(record), old(record)
    recovery = record.stages.rollback.recovery
    seen = seen_revision(recovery.required) if recovery else None
    if seen and not revisions_match(seen, after):
        return f"{runtime(record)} runs {seen}, not {after}: rolled back and recovered, but to another"
    left = f", not {before}" if record.revision and before != after else ""
    return f"{runtime(record)} runs {after}{left}: rolled back and recovered"


def _rolled_back(record: Evidence) -> str:
    name, rollback = runtime(record), record.stages.rollback
    if rollback.status == "interrupted" or rollback.succeeded is None:
        return f"{name} is in an unknown state: the rollback was cut off: {PERSON}"
    if not rollback.succeeded:
        if rollback.recovered:
            return f"{name} answers again, but the rollback failed: {PERSON}"
        return f"{name} {_state(record)}: the rollback failed: {PERSON}"
    if rollback.recovered:
        return _recovered(record)
    if rollback.recovered is None or rollback.recovered is UNSET:
        return f"{name} should run {old(record)}: rolled back, but recovery was not checked: {PERSON}"
    recovery = rollback.recovery or record.stages.gate
    state = "is down" if nobody_served(record, recovery) else "is not healthy"
    return f"{name} {state}{_since(record)}: rolled back to {old(record)}, but it did not recover: {PERSON}"


def _failed(record: Evidence) -> str:
    """A failed run without a rollback."""
    name, why = runtime(record), _withheld(record)
    match record.status_reason:
        case "publish_failed":
            line = f"{_unchanged(record)}: publish failed"
        case "observer_offline":
            why = "the control URLs do not answer either, not rolled back"
            line = f"nobody knows what {name} runs: {why}: {PERSON}"
        case "deploy_failed":
            line = f"{name} may run {new(record)} or the release before: deploy failed, {why}"
        case "internal_error":
            line = f"{_unproven(record)}: a defect in opsgate stopped the run: {PERSON}"
        case "wrong_revision":
            seen = seen_revision(record.stages.gate.required) or "another revision"
            line = f"{name} runs {seen}, not {new(record)}: {why}"
        case _:
            is_what = (
                f"{'down' if nobody_served(record, record.stages.gate) else 'not healthy'}{_since(record)}"
            )
            known = record.revision or record.deployed
            line = (
                f"{name} runs {new(record)}, which is {is_what}: {why}"
                if known
                else f"{name} is {is_what}: {why}"
            )
    return line


def _withheld(record: Evidence) -> str:
    """Why there was no rollback."""
    return _WITHHELD.get(record.stages.rollback.withheld or None, "not rolled back")


def _state(record: Evidence) -> str:
    """What the runtime is like while nothing has helped."""
    gate = record.stages.gate
    if record.status_reason == "wrong_revision":
        return f"does not run {new(record)}"
    if nobody_served(record, gate):
        return f"is down{_since(record)}"
    if gate.targets:
        return f"is not healthy{_since(record)}"
    return "is in an unknown state"


def _since(record: Evidence) -> str:
    since = down_since(record)
    return f" (since {clock(since)})" if since and up_again(record) is None else ""


def _unchanged(record: Evidence) -> str:
    seen = seen_revision(record.stages.preflight.required)
    return f"{runtime(record)} still runs {seen or 'what it ran before'}"


def _unproven(record: Evidence) -> str:
    """What runs when the run ended before anybody could know."""
    rollback = record.stages.rollback
    if rollback.succeeded and rollback.recovered:
        # An earlier one of this run, where a person's next has not begun.
        return _recovered(record)
    if rollback.attempted:
        return f"{runtime(record)} is in an unknown state, the rollback may not be complete: {PERSON}"
    if record.deployed:
        return f"{runtime(record)} may run {new(record)}, which is not proven"
    if record.trigger != "gate":
        return _unchanged(record)
    return f"nothing was decided about {runtime(record)}"
