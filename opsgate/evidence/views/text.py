"""One screen: what runs now, what happened, why, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from opsgate.evidence.views.facts import (
    down_since,
    failures,
    hook_commands,
    old,
    unproven,
    up_again,
)
from opsgate.evidence.views.headline import NOT_VALIDATED, headline
from opsgate.evidence.views.words import ALREADY_DOWN, clock, count, failure, moment, plain, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opsgate.evidence.record import Command, Container, Evidence, Gate, Stage, TakenOver
    from opsgate.evidence.views.facts import Failure

__all__ = ["headline", "render"]

LINES: Final = 24
NAMED: Final = 3
STEP: Final = 8000
"""A command for a person must not be cut short, unless it is absurd."""
_MARKS: Final = {"passed": "ok  ", "failed": "FAIL", "skipped": "--  ", "interrupted": "CUT "}


def render(record: Evidence) -> str:
    """The record on one screen of at most 24 lines, the first of which says what runs now."""
    steps = [f"  {line}" for line in step_lines(record)]
    top = [headline(record), f"  {_run_line(record)}", *(f"  {line}" for line in _happened(record))]
    why = [f"  {line}" for line in why_lines(record)]
    room = LINES - len(top) - bool(steps) - bool(why)
    steps = _fitted(steps, max(room - min(len(why), 3), 1))
    why = _fitted(why, max(room - len(steps), 1))
    lines = [*top, *(["why", *why] if why else []), *(["what to do next", *steps] if steps else [])]
    return "\n".join(lines) + "\n"


def _run_line(record: Evidence) -> str:
    started, finished = moment(record.started_at), moment(record.finished_at)
    when = f"{started:%Y-%m-%d} {clock(started)}" if started else ""
    took = f", took {span(record.duration_ms / 1000)}" if finished and record.duration_ms is not None else ""
    code = "" if record.exit_code is None else f", exit {record.exit_code}"
    words = f", {NOT_VALIDATED}" if record.status == "skipped" else ""
    verdict = f"{record.status} ({record.status_reason}{words}){code}"
    return f"{record.trigger} {record.run_id}: {verdict}; {when}{took}"


def _happened(record: Evidence) -> Iterator[str]:
    """A line for each stage that ran."""
    stages = record.stages
    for name, stage, text in (
        ("preflight", stages.preflight, preflight_words(record)),
        ("publish", stages.publish, published_words(record)),
        ("deploy", stages.deploy, plain(stages.deploy.detail or "")),
        ("gate", stages.gate, gate_words(stages.gate)),
        ("rollback", stages.rollback, rollback_words(record)),
    ):
        if stage.started_at is not UNSET or (stage is stages.rollback and stages.rollback.withheld):
            yield f"{_MARKS[stage.status]} {name:9} {_took(stage):>9}  {text}".rstrip()


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
    words = f"{rollback.trigger or 'auto'}, to {old(record)}: "
    words += {True: "succeeded", False: "FAILED"}.get(bool(rollback.succeeded), "")
    if rollback.succeeded is None or rollback.succeeded is UNSET:
        words = words.removesuffix("FAILED") + "cut off"
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
    return [plain(line, STEP) for step in record.next_steps for line in step[: 2 * STEP].splitlines()]


def why_lines(record: Evidence) -> list[str]:
    """A line for each thing that went wrong, in the order in which they came."""
    stages, hooks = record.stages, hook_commands(record)
    lines = [_hook(name, command) for name, command in hooks if name != "rollback" and not command.succeeded]
    lines += [_why(one) for one in failures(record)]
    if late := unproven(record):
        lines.append(unproven_words(late, plain))
    lines += [_container(one) for one in stages.deploy.containers or []]
    lines += [_hook(name, command) for name, command in hooks if name == "rollback" and not command.succeeded]
    if stages.rollback.recovery and stages.rollback.recovered is False:
        lines += [f"after the rollback: {_why(one)}" for one in failures(record, stages.rollback.recovery)]
    lines += [
        f"{name} hook left processes behind: {', '.join(map(str, command.survivors[:10]))}"
        for name, command in hooks
        if command.survivors
    ]
    if stages.rollback.took_over:
        lines.append(_took_over(stages.rollback.took_over))
    return lines + [f"warning: {plain(text)}" for text in stages.preflight.warnings or []]


def unproven_words(names: list[str], shown: Callable[[str, int], str]) -> str:
    """One line for the targets of `facts.unproven`, of which there is one at least."""
    listed = ", ".join(shown(name, 120) for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{count(len(names), 'target')} without a failed attempt, not proven healthy yet: {listed}{more}"


def _hook(name: str, command: Command) -> str:
    result = plain(command.explanation or f"exit {command.exit_code}")
    return f"{name} hook ({plain(command.command, 100)}): {result}{_last_line(command.output_tail)}"


def _container(one: Container) -> str:
    code = "" if one.exit_code is None else f", exit code {one.exit_code}"
    words = plain(f"container {one.service}: {one.state}{code}, {count(one.restarts, 'restart')}")
    return f"{words}{_last_line(one.log_tail)}"


def _took_over(one: TakenOver) -> str:
    words = f"took over from run {plain(one.run_id)} (process {one.pid} on {plain(one.host)})"
    return words if one.reached else f"{words}, which was not reached: its hook may still be running"


def _why(one: Failure) -> str:
    name = plain(one.name, 120)
    url = f" ({plain(one.url, 120)})" if one.url and plain(one.url, 120) != name else ""
    since = f", first at {clock(one.since)}" if one.since else ""
    first = "" if failure(one.first) == failure(one.last) else f" (at first: {failure(one.first)})"
    before = {True: f"; {ALREADY_DOWN}", False: "; it was healthy before the rollout"}
    how = "on and off, " if one.intermittent else ""
    failed = f"{how}{one.failed} of {count(one.attempts, 'attempt')} failed"
    already = "" if one.down_before is None else before[one.down_before]
    return f"{name}{url}: {failure(one.last)}{first}{since}, {failed}{already}"


def _last_line(output: str) -> str:
    lines = output[-2000:].split()
    return f": {plain(output[-2000:].strip().splitlines()[-1], 160)}" if lines else ""


def _took(stage: Stage) -> str:
    return "" if stage.duration_ms is UNSET else span(stage.duration_ms / 1000)


def _fitted(lines: Sequence[str], room: int) -> list[str]:
    """At most `room` lines; the last one says how many were left out."""
    if len(lines) <= room:
        return list(lines)
    kept = list(lines[: max(room - 1, 0)])
    return [*kept, f"  … and {len(lines) - len(kept)} more, see the record"]
