"""Parts of a record in words, for several views: what each stage did, what went wrong, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from opsgate.evidence.views.facts import (
    down_before,
    down_since,
    failures,
    hook_commands,
    last_failure,
    old,
    unproven,
    up_again,
)
from opsgate.evidence.views.headline import NOT_VALIDATED
from opsgate.evidence.views.words import clock, count, failure, plain, span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opsgate.evidence.record import Command, Container, Evidence, Gate, Stage, Takeover, TargetResult
    from opsgate.evidence.views.facts import Failure

NAMED: Final = 3
STEPS: Final = 512 * 1024
"""Characters of all steps: a command for a person, with its lists of images, must not be cut short."""
BEFORE: Final = {True: "already down before the rollout", False: "healthy before the rollout", None: ""}
"""`Failure.down_before` in words."""


def stage_rows(record: Evidence) -> list[tuple[str, Stage, str]]:
    """Each stage with its name and what it did; no words for one that did not run."""
    stages = record.stages
    return [
        ("preflight", stages.preflight, preflight_words(record)),
        ("publish", stages.publish, published_words(record) if stages.publish.started_at else ""),
        ("deploy", stages.deploy, plain(stages.deploy.detail or "")),
        ("gate", stages.gate, gate_words(stages.gate) if stages.gate.started_at else ""),
        ("rollback", stages.rollback, rollback_words(record)),
    ]


def took(stage: Stage) -> str:
    """How long the stage took; empty where that is not known."""
    return "" if stage.duration_ms is UNSET else span(stage.duration_ms / 1000)


def preflight_words(record: Evidence) -> str:
    """How many required targets answered before anything was touched."""
    targets = record.stages.preflight.required
    down = [target.name for target in targets if not target.healthy]
    if not targets:
        return ""
    if not down:
        return f"{count(len(targets), 'target')} healthy before the rollout"
    return plain(f"{len(down)} of {count(len(targets), 'target')} down before the rollout: {', '.join(down)}")


def published_words(record: Evidence) -> str:
    """What was published, or why not."""
    publish = record.stages.publish
    if publish.detail:
        return plain(publish.detail)
    return count(len(record.images), "image") + (f", tag {plain(publish.tag, 80)}" if publish.tag else "")


def gate_words(gate: Gate) -> str:
    """How many required targets were healthy, after how many attempts."""
    targets = gate.required
    if not targets:
        return f"{NOT_VALIDATED}: no target is required" if gate.targets else f"{NOT_VALIDATED}: no URL"
    healthy = sum(target.healthy for target in targets)
    attempts = count(sum(len(target.attempts) for target in targets), "attempt")
    reason = f", {gate.status_reason}" if gate.status == "failed" and gate.status_reason else ""
    return f"{healthy} of {count(len(targets), 'target')} healthy, {attempts}{reason}"


def rollback_words(record: Evidence) -> str:
    """What the rollback did, and whether the runtime came back."""
    rollback = record.stages.rollback
    if rollback.withheld:
        return f"not run: {rollback.withheld}"
    if not rollback.attempted:
        return ""
    outcome = "succeeded" if rollback.succeeded else "FAILED"
    if rollback.succeeded is None or rollback.succeeded is UNSET:
        outcome = "cut off"
    words = f"{rollback.trigger or 'auto'}, to {old(record)}: {outcome}"
    back, since = up_again(record), down_since(record)
    if rollback.recovered and back:
        words += f", recovered at {clock(back)}"
        words += f", {span((back - since).total_seconds())} after the first failed request" if since else ""
    elif rollback.recovered is False:
        words += ", NOT recovered"
    elif rollback.recovered is None:
        words += ", recovery not known"
    return words + (f" (reason: {plain(rollback.reason, 80)})" if rollback.reason else "")


def step_lines(record: Evidence) -> list[str]:
    """What to do next, a line each."""
    lines: list[str] = []
    left = STEPS
    for step in record.next_steps:
        for line in step[: STEPS + 1].splitlines():
            if left <= 0:
                return lines
            lines.append(plain(line, left))
            left -= len(lines[-1]) + 1
    return lines


def fitted_steps(record: Evidence, room: int) -> list[str]:
    """At most `room` of these lines. Left out is the middle, the images: the commands stand at the end."""
    return fitted(step_lines(record), room, end=(room - 1) // 2)


def fitted(lines: Sequence[str], room: int, *, end: int = 0) -> list[str]:
    """At most `room` lines, 1 at least; in place of those before the last `end` is said how many they are."""
    if len(lines) <= room:
        return list(lines)
    first, last = room - 1 - end, len(lines) - end
    return [*lines[:first], f"… and {last - first} more, see the record", *lines[last:]]


def why_lines(record: Evidence) -> list[str]:
    """A line for each thing that went wrong, in the order in which they came."""
    stages, hooks = record.stages, hook_commands(record)
    lines = [_hook(name, command) for name, command in hooks if name != "rollback" and not command.succeeded]
    lines += [_why(one) for one in failures(record)]
    if late := unproven(record):
        lines.append(unproven_words(late, plain))
    lines += [
        f"container {container_words(one)}{_last_line(one.log_tail)}"
        for one in stages.deploy.containers or []
    ]
    lines += [_hook(name, command) for name, command in hooks if name == "rollback" and not command.succeeded]
    if stages.rollback.recovery and stages.rollback.recovered is False:
        lines += [f"after the rollback: {_why(one)}" for one in failures(record, stages.rollback.recovery)]
    return lines + [f"warning: {text}" for text in warnings(record)]


def warnings(record: Evidence) -> list[str]:
    """What decided nothing and somebody should know: what hooks left behind, whose place this run took."""
    lines = [
        _left_behind(name, one) for name, one in hook_commands(record) if one.survivors or one.output_held
    ]
    if record.stages.rollback.took_over:
        lines.append(_took_over(record.stages.rollback.took_over))
    return lines + [plain(text, 500) for text in record.stages.preflight.warnings or []]


def unproven_words(names: list[str], shown: Callable[[str, int], str]) -> str:
    """One line for the targets of `facts.unproven`, of which there is one at least."""
    listed = ", ".join(shown(name, 120) for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{count(len(names), 'target')} without a failed attempt, not proven healthy yet: {listed}{more}"


def why(target: TargetResult) -> str:
    """Why this target is not healthy."""
    last = last_failure(target)
    if last is not None:
        return failure(last)
    return "not healthy for long enough" if target.attempts else "not probed"


def why_and_before(record: Evidence, target: TargetResult) -> str:
    """The same, and whether it was down already before the rollout."""
    return f"{why(target)}; it was {BEFORE[True]}" if down_before(record, target) else why(target)


def _hook(name: str, command: Command) -> str:
    result = plain(command.ending)
    return f"{name} hook ({plain(command.command, 100)}): {result}{_last_line(command.output_tail)}"


def container_words(one: Container) -> str:
    """How a container that did not stay up was found: `backend: exited, exit code 3, 1 restart`."""
    code = "" if one.exit_code is None else f", exit code {one.exit_code}"
    return plain(f"{one.service}: {one.state}{code}, {count(one.restarts, 'restart')}")


def _left_behind(name: str, command: Command) -> str:
    pids = ", ".join(map(str, command.survivors[:10]))
    words = f"{name} hook left processes behind{pids and ': '}{pids}"
    if command.output_held:
        words += "; what still writes to its output is killed by that: start it with >FILE 2>&1 </dev/null"
    return words


def _took_over(one: Takeover) -> str:
    words = f"took over from run {plain(one.run_id)} (process {one.pid} on {plain(one.host)})"
    return words if one.reached else f"{words}, which was not reached: its hook may still be running"


def _why(one: Failure) -> str:
    name = plain(one.name, 120)
    url = f" ({plain(one.url, 120)})" if one.url and plain(one.url, 120) != name else ""
    since = f", first at {clock(one.since)}" if one.since else ""
    first = "" if failure(one.first) == failure(one.last) else f" (at first: {failure(one.first)})"
    how = "on and off, " if one.intermittent else ""
    failed = f"{how}{one.failed} of {count(one.attempts, 'attempt')} failed"
    already = "" if one.down_before is None else f"; it was {BEFORE[one.down_before]}"
    return f"{name}{url}: {failure(one.last)}{first}{since}, {failed}{already}"


def _last_line(output: str) -> str:
    lines = output[-2000:].strip().splitlines()
    return f": {plain(lines[-1], 160)}" if lines else ""
