"""The documentation keeps to the program: what it generates, shows and tells people to type."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from invoke import Collection
from invoke.parser import Parser

import opsgate.tasks
import tasks as checkout
from opsgate.evidence.record import json_schema
from opsgate.evidence.views import FORMATS
from opsgate.settings import Flags, file, load, variables
from opsgate.settings.targets import RULES
from opsgate.stages.incident.notify import signature
from scripts import reference
from scripts import reference_words as words
from tests.test_architecture import MAY_IMPORT
from tests.workflow.rig import free_ports

ROOT: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = Path(sys.executable).parent
PAGES: Final = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
    )
)
FENCE: Final = re.compile(
    r"(?:^<!-- run: exit (?P<exit>\d+)(?:, says: (?P<says>[^\n]+))? -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
PROGRAMS: Final = {
    "opsgate": Collection.from_module(opsgate.tasks),
    "./inv": checkout.namespace,
    "invoke": checkout.namespace,
}
GATE_SCRIPT: Final = "scripts/ci/rollout_health_gate.py"


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    exit_code: int | None
    """What it ends with, where it is to be run."""
    says: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("language")) + 1
        code = int(match["exit"]) if match["exit"] else None
        yield Block(page, line, match["language"], body, code, match["says"] or "")


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def console_lines(block: Block) -> list[str]:
    return [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]


def commands(block: Block) -> Iterator[list[str]]:
    """Each command that begins with a program of ours, in words."""
    lines = console_lines(block) if block.language == "console" else block.text.splitlines()
    for line in lines:
        text = re.sub(r"^\s*(- )?((run|script): )?", "", line)
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.wordchars += "$:@%,"
        lexer.whitespace_split = True
        try:
            words_of_line = list(lexer)
        except ValueError:
            continue
        for part in split(words_of_line):
            while part and (part[0] == "exec" or re.match(r"[A-Z_]+=", part[0])):
                part.pop(0)
            if part and (part[0] in PROGRAMS or GATE_SCRIPT in part):
                yield part


def split(tokens: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for token in tokens:
        if re.fullmatch(r"[|&;()<>]+", token):
            yield part
            part = []
        else:
            part.append(token)
    yield part


# --- what is generated ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_generated_parts_are_what_the_code_says_now(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert reference.render(text) == text, "run: python -m scripts.reference"


def test_every_part_stands_in_some_page() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert {name for _, name, _ in reference.REGION.findall(text)} == set(reference.PARTS)


def test_nothing_is_described_that_does_not_exist() -> None:
    schema = json_schema()["$defs"]
    shapes = (file.TOP, file.ENVIRONMENT)
    keys = {key for shape in shapes for key, _ in reference._leaves(shape)}
    assert set(words.KEYS) == keys
    assert set(words.TARGET) == set(RULES)
    assert set(words.VARIABLES) == variables._READ | set(variables._RUNTIME)
    assert set(words.HOOKS) == set(variables.HOOKS)
    assert set(words.HOOK_VARIABLES) <= variables._GIVEN_TO_HOOKS | variables._READ
    described = {name: set(fields) for name, fields in words.FIELDS.items()}
    assert described == {name: set(shape["properties"]) for name, shape in schema.items()}
    assert set(words.REASONS) == set(schema["Evidence"]["properties"]["status_reason"]["enum"])
    assert set(words.KINDS) == set(schema["Attempt"]["properties"]["kind"]["anyOf"][0]["enum"])
    assert set(words.FORMATS) == set(FORMATS)


def test_the_readme_names_every_task() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Tasks")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(PROGRAMS["opsgate"].task_names)


def test_the_design_names_every_room_and_what_it_may_import() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", text, re.MULTILINE)
    assert {room: " ".join(re.findall(r"`([^`]+)`", cell)) for room, cell in rows} == MAY_IMPORT


# --- what people are told to type -----------------------------------------------------------------


@pytest.mark.parametrize("block", of("console", "sh", "yaml"), ids=str)
def test_every_command_line_parses(block: Block) -> None:
    for command in commands(block):
        if GATE_SCRIPT in command:
            flags = {word for word in command if word.startswith("--")}
            assert flags <= gate_script_flags()
        else:
            parse(command)


def test_commands_are_found() -> None:
    found = [command for block in of("console", "sh", "yaml") for command in commands(block)]
    assert ["./inv", "release"] in found
    assert ["opsgate", "release", "--fail-on-skipped"] in found
    assert ["opsgate", "gate", "--env", "production", "--revision", "$(git rev-parse HEAD)"] in found
    assert any(GATE_SCRIPT in command for command in found)


def parse(command: list[str]) -> None:
    """Raises `ParseError` for what the program would not take."""
    program, *arguments = command
    # The core flags of the program itself.
    if arguments[0] in {"--list", "--version"}:
        return
    if arguments[0] == "--help":
        assert arguments[1] in {"TASK", *PROGRAMS[program].task_names}
        return
    if arguments[0] == "TASK":
        return
    parsed = Parser(contexts=PROGRAMS[program].to_contexts()).parse_argv(arguments)
    assert len(parsed) == 1, f"{command} names {len(parsed)} tasks"


def gate_script_flags() -> set[str]:
    shown = subprocess.run(
        [sys.executable, ROOT / GATE_SCRIPT, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"--[a-z-]+", shown.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.exit_code is not None}))
def test_a_page_that_can_be_run_runs(page: str, tmp_path: Path) -> None:
    site = Checkout(tmp_path / "a checkout")
    try:
        for block in blocks_of(page):
            if block.exit_code is not None:
                (line,) = console_lines(block)
                done = site.run(line)
                assert done.returncode == block.exit_code, f"{block}: {line}\n{done.stdout}{done.stderr}"
                assert block.says in done.stdout, block
    finally:
        stopped = site.run("python3 examples/mission-control/control.py stop")
    assert stopped.stdout == "nothing was running\n", "the page ends with a clean machine"


class Checkout:
    """A copy of what a reader of the tutorial works with, on ports of its own and with less patience."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = free_ports(3)
        path.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", ".mypy_cache")
        shutil.copytree(ROOT / "examples/mission-control", path / "examples/mission-control", ignore=ignored)
        for name in ("tasks.py", "devtasks.py"):
            shutil.copy(ROOT / name, path)
        text = (ROOT / "opsgate.toml").read_text(encoding="utf-8")
        for offset in range(3):
            text = text.replace(f"127.0.0.1:{8000 + offset}/", f"127.0.0.1:{self.port + offset}/")
        # The sample crashes after three seconds: a soak of four is the shortest that sees it.
        text = text.replace('deadline = "30s"\nsoak = "5s"', 'deadline = "12s"\nsoak = "4s"', 1)
        (path / "opsgate.toml").write_text(text, encoding="utf-8")
        launcher = path / "inv"
        launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m invoke "$@"\n')
        launcher.chmod(0o755)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "MISSION_CONTROL_PORT": str(self.port),
        }
        return subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.path,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


# --- what people are told to write ----------------------------------------------------------------


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_every_configuration_loads(block: Block, tmp_path: Path) -> None:
    (tmp_path / "opsgate.toml").write_text(block.text, encoding="utf-8")
    for name in re.findall(r'ca_file = "([^"]+)"', block.text):
        (tmp_path / name).touch()
    environments = tomllib.loads(block.text).get("environments", {"default": {}})
    for name in environments:
        settings = load(Flags(env=name), {}, tmp_path)
        expected = [warning for warning in settings.warnings if "RUNTIME_WEBHOOK_SECRET" not in warning]
        assert expected == []


def yaml_of(text: str) -> Any:
    return importlib.import_module("yaml").safe_load(text)


def test_the_action_takes_what_the_page_gives_it() -> None:
    action = yaml_of((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = [
        step
        for block in of("yaml")
        for step in (yaml_of(block.text).get("steps") or [])
        if step.get("uses", "").startswith("OWNER/opsgate@")
    ]
    assert steps
    for step in steps:
        assert set(step["with"]) <= set(action["inputs"])
    outputs = {
        name for block in of("yaml") for name in re.findall(r"steps\.gate\.outputs\.(\w+)", block.text)
    }
    assert outputs <= set(action["outputs"])


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in of("yaml") if "\njobs:" in block.text], ids=str)
def test_a_whole_workflow_is_sound(block: Block, tmp_path: Path) -> None:
    workflow = tmp_path / ".github/workflows/page.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(block.text, encoding="utf-8")
    for tool in (["actionlint", "-shellcheck="], ["zizmor", "--offline", "--quiet"]):
        done = subprocess.run(
            [TOOLS / tool[0], *tool[1:], workflow], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_every_script_is_one(block: Block) -> None:
    done = subprocess.run(["/bin/sh", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_receiver_of_a_webhook_knows_a_genuine_one() -> None:
    (block,) = of("python")
    space: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec", dont_inherit=True), space)
    header = signature("a key", b"{}")
    assert space["is_genuine"](b"{}", header, "a key")
    assert not space["is_genuine"](b"{} ", header, "a key")
    assert not space["is_genuine"](b"{}", header, "another")


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_every_json_is_json(block: Block) -> None:
    json.loads(block.text)


# --- the site -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page: str) -> None:
    """Also on the forge, where the pages are read as they are."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s#]+)", text):
        if not re.match(r"[a-z]+:", link):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fetched = (
        r'<(?:script|img|iframe)[^>]*\ssrc="https?:|'
        r'<link[^>]*rel="(?:stylesheet|preload|preconnect|icon)"[^>]*https?:'
    )
    for page in tmp_path.rglob("*.html"):
        found = re.findall(fetched, page.read_text(encoding="utf-8"))
        assert found == [], page
