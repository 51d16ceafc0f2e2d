"""Markdown for a job summary, a chat or an issue. What others wrote stands in code, where nothing acts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opsgate.evidence.views.facts import down_since, failures, hook_commands, unproven, up_again
from opsgate.evidence.views.headline import NOT_VALIDATED, headline
from opsgate.evidence.views.phrases import BEFORE, fitted_steps, stage_rows, took, unproven_words, warnings
from opsgate.evidence.views.words import clock, count, failure, moment, plain, plain_lines, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsgate.evidence.record import Evidence
    from opsgate.evidence.views.facts import Failure

SHOWN: Final = 30
"""Failed targets, warnings, images, steps listed one by one."""
OUTPUT: Final = 6000
"""Characters of a command's output that are worth showing here."""
_MARKS: Final = {
    "passed": "✅ passed",
    "failed": "❌ failed",
    "skipped": "⚪ skipped",
    "interrupted": "✂️ cut off",
}


def render(record: Evidence) -> str:
    """The record as GitHub-flavoured Markdown, well under the megabyte that a job summary may have."""
    blocks = [
        f"## {_text(headline(record))}",
        _summary(record),
        *_next_steps(record),
        *_why(record),
        *_warnings(record),
        _stages(record),
        *_images(record),
        *_output(record),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _summary(record: Evidence) -> str:
    validated = f", **{NOT_VALIDATED}**" if record.status == "skipped" else ""
    code = "" if record.exit_code is None else f", exit code {record.exit_code}"
    started = moment(record.started_at)
    when = f", started {started:%Y-%m-%d} {clock(started)}" if started else ""
    lasted = "" if record.duration_ms is None else f", took {span(record.duration_ms / 1000)}"
    line = f"`{record.trigger}` {_code(record.run_id)} on {_code(record.environment)}: **{record.status}**"
    lines = [f"{line} (`{record.status_reason}`{validated}){code}{when}{lasted}."]
    down, back = down_since(record), up_again(record)
    if down and back:
        lines.append(f"Down from {clock(down)} to {clock(back)}: {span((back - down).total_seconds())}.")
    elif down:
        lines.append(f"Failing since {clock(down)}.")
    if record.ci.run_url and record.ci.run_url.startswith("https://"):
        lines.append(f"Run: {_code(record.ci.run_url, 500)}")
    return "  \n".join(lines)


def _next_steps(record: Evidence) -> list[str]:
    if not record.next_steps:
        return []
    return ["### What to do next", _fenced("\n".join(fitted_steps(record, SHOWN)))]


def _why(record: Evidence) -> list[str]:
    failed = failures(record)
    recovery = record.stages.rollback.recovery
    still = failures(record, recovery) if recovery and record.stages.rollback.recovered is False else []
    late = unproven(record)
    if not (failed or still or late):
        return []
    lines = [*_listed(failed), *([f"- {unproven_words(late, _code)}"] if late else [])]
    return ["### Why", *lines, *(["After the rollback:", *_listed(still)] if still else [])]


def _listed(failed: list[Failure]) -> list[str]:
    lines = [_failure(one) for one in failed[:SHOWN]]
    if len(failed) > SHOWN:
        lines.append(f"- and {count(len(failed) - SHOWN, 'more target')}, see the record")
    return ["\n".join(lines)] if lines else []


def _failure(one: Failure) -> str:
    before = f", {BEFORE[one.down_before]}" if one.down_before is not None else ""
    since = f", first at {clock(one.since)}" if one.since else ""
    url = f" {_code(one.url)}" if one.url and one.url != one.name else ""
    first = "" if failure(one.first) == failure(one.last) else f", at first {_code(failure(one.first))}"
    return (
        f"- **{_code(one.name)}**{url}: {_code(failure(one.last))}{first}{since}, "
        f"{one.failed} of {count(one.attempts, 'attempt')} failed{before}"
    )


def _warnings(record: Evidence) -> list[str]:
    lines = [f"- {_text(one)}" for one in warnings(record)[:SHOWN]]
    return ["### Warnings", "\n".join(lines)] if lines else []


def _stages(record: Evidence) -> str:
    rows = ["| stage | status | took | |", "|---|---|---|---|"]
    for name, stage, text in stage_rows(record):
        rows.append(f"| {name} | {_MARKS[stage.status]} | {took(stage)} | {_text(text)} |")
    return "\n".join(rows)


def _images(record: Evidence) -> list[str]:
    lines = [f"- {_code(image.name)} {_code(image.pinned, 500)}" for image in record.images[:SHOWN]]
    return ["### Images", "\n".join(lines)] if lines else []


def _output(record: Evidence) -> Iterator[str]:
    """The output of the commands that failed; the others are in the record."""
    for name, command in hook_commands(record)[-SHOWN:]:
        if not command.succeeded and command.output_tail.strip():
            why = command.ending
            yield f"<details><summary>Output of the {name} hook: {_html(plain(why))}</summary>"
            yield _fenced(plain_lines(command.output_tail, OUTPUT).strip("\n"))
            yield "</details>"


def _text(text: str) -> str:
    """Words in which nothing acts: no markup, link, mention or reference."""
    escaped = re.sub(r"(?i)([\\`*_{}\[\]<>()#+!|&~$]|:(?=//)|(?<=www)\.)", r"\\\1", text)
    # A forge looks for mentions after Markdown is done: only a tag between keeps them apart.
    return escaped.replace("@", "<span>@</span>")


def _html(text: str) -> str:
    entities = re.sub(r"[^\w ,.-]", lambda match: f"&#{ord(match[0])};", text)
    return entities.replace("_", "&#95;")


def _code(text: str, limit: int = 200) -> str:
    """A code span that the text cannot end."""
    shown = plain(text, limit) or " "
    ticks = "`" * (_longest_run(shown) + 1)
    pad = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _fenced(text: str) -> str:
    """A code block that the text cannot end."""
    ticks = "`" * max(_longest_run(text) + 1, 3)
    return f"{ticks}text\n{text}\n{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
