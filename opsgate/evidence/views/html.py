"""The report: one self-contained page that loads nothing, runs nothing, and reads in a minute."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from opsgate.evidence.views.facts import (
    down_since,
    failures,
    hook_commands,
    seen_revision,
    unproven,
    up_again,
)
from opsgate.evidence.views.headline import NOT_VALIDATED, headline, running
from opsgate.evidence.views.page import page
from opsgate.evidence.views.phrases import (
    BEFORE,
    container_words,
    gate_words,
    rollback_words,
    stage_rows,
    step_lines,
    took,
    unproven_words,
    warnings,
)
from opsgate.evidence.views.strips import strip
from opsgate.evidence.views.words import clock, count, failure, moment, plain, plain_lines, span

if TYPE_CHECKING:
    from opsgate.evidence.record import Command, Evidence, Gate, Stage, TargetResult
    from opsgate.evidence.views.facts import Failure

PICTURES: Final = 60
"""Targets drawn; those that failed come first, the others are counted."""
COMMAND: Final = 8000
"""Characters of a hook's command."""
WORDS: Final = {"passed": "passed", "failed": "failed", "skipped": "skipped", "interrupted": "cut off"}


def render(record: Evidence) -> str:
    """The record as one HTML document."""
    return page("report.html.jinja", "report.css", **_context(record))


def _context(record: Evidence) -> dict[str, Any]:
    stages = record.stages
    gates = [("Gate", stages.gate)]
    if stages.rollback.recovery:
        gates.append(("Recovery check after the rollback", stages.rollback.recovery))
    return {
        "headline": headline(record),
        "tone": "unfinished" if record.finished_at is None else record.status,
        "verdict": "not finished" if record.finished_at is None else record.status,
        "not_validated": NOT_VALIDATED if record.status == "skipped" else "",
        "date": record.started_at[:10],
        "title": plain(f"{record.environment}: {record.status}, {record.run_id}", 120),
        "answers": _answers(record),
        "next_steps": step_lines(record),
        "failures": [_failure(one) for one in failures(record)[:PICTURES]],
        "unproven": unproven_words(late, plain) if (late := unproven(record)) else "",
        "timeline": _timeline(record),
        "gates": [_gate(title, gate) for title, gate in gates if gate.targets],
        "warnings": warnings(record),
        "hooks": [_hook(name, command) for name, command in hook_commands(record)],
        "containers": [
            {"title": container_words(one), "output": plain_lines(one.log_tail)}
            for one in stages.deploy.containers or []
        ],
        "images": [
            {
                "name": plain(image.name),
                "reference": plain(image.reference, 400),
                "digest": plain(image.digest),
            }
            for image in record.images
        ],
        "run": _run(record),
        "run_url": _link(record.ci.run_url),
        "verification": _verification(record),
    }


def _answers(record: Evidence) -> list[tuple[str, str, str, str]]:
    """The four things asked in the night: question, answer, more, and what news it is."""
    down, back = down_since(record), up_again(record)
    if down and back:
        how = "on and off, " if any(one.intermittent for one in failures(record)) else ""
        lasted = f"{how}{span((back - down).total_seconds())} in all"
        outage = f"from {clock(down)} to {clock(back)}", lasted, "bad"
    elif down:
        outage = f"since {clock(down)}", "nothing in this record shows it healthy again", "bad"
    elif record.status == "passed":
        outage = "not seen down", "", "good"
    else:
        outage = "not known", "", "plain"
    return [
        ("What runs now", *_running(record)),
        ("Down", *outage),
        ("Rollback", *_rollback(record)),
        _first(record),
    ]


def _first(record: Evidence) -> tuple[str, str, str, str]:
    """The first request that failed, or the hook whose failure came before any request."""
    failed = failures(record)
    if failed:
        one = failed[0]
        when = f"at {clock(one.since)}" if one.since else ""
        return "First failed request", f"{plain(one.name, 120)}: {failure(one.first)}", when, "bad"
    for name, command in hook_commands(record):
        if name != "rollback" and not command.succeeded:
            why = plain(command.ending, 120)
            return "First failure", f"{name} hook: {why}", plain(command.command, 120), "bad"
    return "First failed request", "none", "", "good" if record.status == "passed" else "plain"


def _running(record: Evidence) -> tuple[str, str, str]:
    gate, rollback = record.stages.gate, record.stages.rollback
    probed = rollback.recovery or (None if rollback.attempted else gate)
    seen = seen_revision(probed.required) if probed else None
    said = f"the runtime itself reports {seen}" if seen else "no target reports a revision"
    tone = "good" if record.status == "passed" or rollback.recovered else "bad"
    return running(record), said if probed and probed.targets else "", tone


def _rollback(record: Evidence) -> tuple[str, str, str]:
    rollback = record.stages.rollback
    words = rollback_words(record)
    if rollback.attempted:
        if rollback.succeeded is None or rollback.succeeded is UNSET:
            answer = "was cut off"
        elif not rollback.succeeded:
            answer = "did NOT work"
        elif rollback.recovered is False:
            answer = "ran, but the runtime did NOT recover"
        else:
            answer = "worked" if rollback.recovered else "ran, recovery not known"
        return answer, words, "good" if rollback.recovered else "bad"
    if rollback.withheld:
        return "was withheld", words, "bad"
    return ("not needed", "", "good") if record.status == "passed" else ("none ran", "", "plain")


def _failure(one: Failure) -> dict[str, str]:
    return {
        "name": plain(one.name, 120),
        "url": plain(one.url or "", 300),
        "first": failure(one.first),
        "last": failure(one.last),
        "since": clock(one.since) if one.since else "",
        "count": f"{one.failed} of {count(one.attempts, 'attempt')} failed",
        "before": BEFORE[one.down_before],
    }


def _timeline(record: Evidence) -> list[dict[str, str]]:
    """A row for each stage: its words, and where its bar begins and ends, in percent of the run."""
    rows = stage_rows(record)
    if recovery := record.stages.rollback.recovery:
        rows.append(("recovery", recovery, gate_words(recovery)))
    begun = moment(record.started_at)
    ends = [end for _, stage, _ in rows if (end := moment(stage.started_at, stage.duration_ms or 0))]
    total = max(((end - begun).total_seconds() for end in ends), default=1) if begun else 1
    return [_row(name, stage, text, begun, max(total, 0.001)) for name, stage, text in rows]


def _row(name: str, stage: Stage, text: str, begun: datetime | None, total: float) -> dict[str, str]:
    started = moment(stage.started_at)
    row = {
        "name": name,
        "status": stage.status,
        "word": WORDS[stage.status],
        "text": text,
        "x": "",
        "width": "",
    }
    row["started"] = clock(started) if started else ""
    row["took"] = took(stage)
    if started and begun:
        offset = (started - begun).total_seconds() / total
        row["x"] = f"{min(max(offset, 0), 0.99) * 100:.2f}%"
        share = max((stage.duration_ms or 0) / 1000 / total, 0.006)
        row["width"] = f"{min(share, 1 - min(offset, 0.99)) * 100:.2f}%"
    elif not text:
        row["word"] = "not run"
    return row


def _gate(title: str, gate: Gate) -> dict[str, Any]:
    targets = sorted(gate.targets or [], key=lambda one: (not one.required, one.healthy))
    policy = gate.policy
    began = moment(gate.started_at)
    rules = (
        f"every required target healthy at the same time for {span(policy.soak)} and at least "
        f"{count(policy.successes, 'attempt')}, within {span(policy.deadline)}; "
        f"{span(policy.attempt_timeout)} for an attempt, "
        f"{span(policy.interval)} between them; health may be lost {count(policy.flaps, 'time')}"
        if policy
        else ""
    )
    return {
        "title": title,
        "status": WORDS[gate.status],
        "tone": gate.status,
        "summary": gate_words(gate),
        "began": clock(began) if began else "",
        "rules": rules,
        "targets": [_target(gate, one) for one in targets[:PICTURES]],
        "more": max(len(targets) - PICTURES, 0),
        "control": [_target(gate, one) for one in (gate.control or [])[:PICTURES]],
    }


def _target(gate: Gate, target: TargetResult) -> dict[str, Any]:
    picture = strip(gate, target)
    state = "healthy" if target.healthy else "failed" if target.attempts else "not probed"
    said = "; ".join(segment.text for segment in picture.segments)
    name = plain(target.name, 120)
    url = plain(target.url or "", 300)
    return {
        "name": name,
        "url": "" if url == name else url,
        "required": target.required,
        "state": state,
        "tone": "passed" if target.healthy else "failed" if target.required else "skipped",
        "flaps": f"lost health {count(target.flaps, 'time')}" if target.flaps else "",
        "strip": picture,
        "label": plain(f"{name}, {state}: {said}", 800),
    }


def _hook(name: str, command: Command) -> dict[str, Any]:
    failed = not command.succeeded
    result = plain(command.ending)
    return {
        "name": name,
        "command": plain(command.command, COMMAND),
        "result": f"{result}, {span(command.duration_ms / 1000)}",
        "failed": failed,
        "output": plain_lines(command.output_tail).strip("\n"),
    }


def _run(record: Evidence) -> list[tuple[str, str]]:
    started, finished = moment(record.started_at), moment(record.finished_at)
    pairs = [
        ("run", record.run_id),
        ("task", record.trigger),
        ("environment", record.environment),
        ("revision", record.revision or "not known"),
        ("status", f"{record.status} ({record.status_reason})"),
        ("exit code", "" if record.exit_code is None else str(record.exit_code)),
        ("started", f"{started:%Y-%m-%d %H:%M:%S} UTC" if started else ""),
        ("finished", f"{finished:%Y-%m-%d %H:%M:%S} UTC" if finished else "not finished"),
        ("took", "" if record.duration_ms is None else span(record.duration_ms / 1000)),
        ("repository", record.ci.repository or ""),
        ("workflow", record.ci.workflow or ""),
        ("commit", record.ci.commit or ""),
        ("started by", record.ci.actor or ""),
    ]
    return [(name, plain(value)) for name, value in pairs if value]


def _link(url: str | None) -> str:
    return url if url and url.startswith("https://") and plain(url, 500) == url else ""


def _verification(record: Evidence) -> list[tuple[str, str]]:
    return [
        ("schema", record.schema),
        ("written by", plain(f"opsgate {record.opsgate_version}")),
        ("ledger before this run", record.previous or "none: this run is the first"),
    ]
