"""The pages of the documentation: their blocks, and the commands in them.

What a page tells people to type is run by `test_commands.py`. Comments directly above a block, which
no reader sees, say how (`NOTE`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
    )
)
LANGUAGES: Final = {"console", "json", "python", "sh", "text", "toml", "yaml"}
FENCE: Final = re.compile(
    r"(?P<notes>(?:^ *<!-- (?:run|file|before)\b[^\n]*\n)*)"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
NOTE: Final = re.compile(
    r"""<!--\ (?:
    # One for each command of the block that runs, in their order: where, what it ends with, and words of
    # its output. `as publish` is a hook. A block of sh is one script, a console line one command.
    run(?P<where>\ in\ a\ new\ repository|\ as\ publish)?:\ exit\ (?P<exit>\d+)(?:,\ says:\ (?P<says>.+))?
    # The block is a file of the place where the page's commands run, from here on.
    |file:\ (?P<file>\S+)
    # What the reader has done meanwhile; it has to end with 0.
    |before:\ (?P<before>.+)
    )\ -->""",
    re.VERBOSE,
)
CRON: Final = re.compile(r"^(?:[\d*/,-]+ ){5} *(.+)$", re.MULTILINE)


class Run(NamedTuple):
    """How one command is run, and what comes of it."""

    where: str
    exit_code: int
    says: str


class Command(NamedTuple):
    """Something for /bin/sh, and the variables that the page gives it."""

    text: str
    environ: dict[str, str]

    @property
    def bare(self) -> str:
        """Without the comment for people."""
        return re.sub(r"\s+# .*", "", self.text).strip()


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    runs: list[Run]
    files: list[str]
    """What it is called where the page's commands run; one name at most."""
    before: list[str]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[Command]:
        """Everything in it that is there to be run."""
        match self.language:
            case "console":
                return [Command(line, {}) for line in console_lines(self)]
            case "sh":
                return [Command(self.text, {})]
            case "yaml":
                return list(_steps(yaml.safe_load(self.text)))
            case "text":
                # A transcript, or lines of a crontab.
                lines = [*console_lines(self), *CRON.findall(self.text)]
                return [Command(line, {}) for line in lines]
            case _:
                return []


def blocks_of(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        notes = list(NOTE.finditer(match["notes"]))
        yield Block(
            page=page,
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            text=re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            runs=[
                Run((note["where"] or "").strip(), int(note["exit"]), note["says"] or "")
                for note in notes
                if note["exit"]
            ],
            files=[note["file"] for note in notes if note["file"]],
            before=[note["before"] for note in notes if note["before"]],
        )


def _steps(document: dict[str, Any]) -> Iterator[Command]:
    """The commands of a job, GitHub's or GitLab's; an expression of GitHub's is its own text."""
    jobs = document.get("jobs", {"": document} if "steps" in document else {})
    for step in (step for job in jobs.values() for step in job["steps"]):
        if "run" in step:
            yield Command(step["run"], {name: str(value) for name, value in step.get("env", {}).items()})
    for job in (job for job in document.values() if isinstance(job, dict) and "script" in job):
        for part in ("before_script", "script", "after_script"):
            for line in job.get(part, []):
                yield Command(line, {name: str(value) for name, value in job.get("variables", {}).items()})


def console_lines(block: Block) -> list[str]:
    return [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]
