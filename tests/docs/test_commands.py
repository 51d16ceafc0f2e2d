"""Every command that the documentation tells people to type runs, and does what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from invoke import Collection
from invoke.parser import Parser

import opsgate.tasks
import tasks as checkout
from tests.docs.pages import BLOCKS, FENCE, LANGUAGES, NOTE, PAGES, ROOT, Block, blocks_of, console_lines, of
from tests.docs.transcripts import unlike
from tests.docs.world import BROKEN, GOOD, World

GATE_SCRIPT: Final = "scripts/ci/rollout_health_gate.py"
PROGRAMS: Final = {
    "opsgate": Collection.from_module(opsgate.tasks),
    "./inv": checkout.namespace,
    "invoke": checkout.namespace,
}
IN_THE_CHECKOUT: Final = {
    "CONTRIBUTING.md",
    "README.md",
    "docs/incidents.md",
    "docs/tutorial.md",
    "examples/mission-control/README.md",
}
"""Pages for who has cloned opsgate; the others are for who has a repository of their own."""


class Elsewhere(NamedTuple):
    """Why a command of the pages cannot run here, and the test that does the same."""

    why: str
    test: str


_FETCHED: Final = Elsewhere(
    "the package index has no opsgate yet: the test installs the wheel",
    "tests/test_package.py::test_installs_into_an_empty_environment",
)
_CLONED: Final = Elsewhere(
    "a placeholder: the test starts from the files of a fresh checkout",
    "tests/test_launcher.py::test_hands_over_arguments_input_and_exit_code",
)
_ENGINE: Final = Elsewhere(
    "it needs a Docker engine",
    "tests/docker/test_release.py::test_a_release_runs_what_was_pushed_and_a_broken_one_goes_back_to_it",
)
_RESOLVED: Final = Elsewhere(
    "uv asks the package index for everything: the test installs what it wrote, hashes compared",
    "tests/test_package.py::test_installs_into_an_empty_environment",
)
COMPILE: Final = "uv pip compile --universal --python-version 3.11 --generate-hashes"
ELSEWHERE: Final = {
    "git clone https://github.com/OWNER/opsgate": _CLONED,
    "cd opsgate": _CLONED,
    "git clone <this repository> && cd opsgate": _CLONED,
    "pip install opsgate": _FETCHED,
    "python3 -m pip install opsgate": _FETCHED,
    "python -m pip install --quiet opsgate": _FETCHED,
    f"{COMPILE} --group dev pyproject.toml -o requirements.lock": _RESOLVED,
    f"{COMPILE} --constraints requirements.lock pyproject.toml -o requirements-run.lock": _RESOLVED,
    "./inv test": Elsewhere(
        "it is what runs this test", "tests/docs/test_commands.py::test_commands_are_found"
    ),
    "MISSION_CONTROL_FAULT=hang opsgate release": Elsewhere(
        "a person interrupts it", "tests/e2e/test_interrupts.py::test_a_signal_during_the_gate"
    ),
    "./inv release --env docker": _ENGINE,
    "MISSION_CONTROL_FAULT=crash-late ./inv release --env docker": _ENGINE,
    "docker compose -p mission-control down && examples/mission-control/docker/prepare stop": _ENGINE,
}


# --- nothing is left out --------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_command_runs_or_says_where_it_does(block: Block) -> None:
    due = [command.text for command in block.commands if command.bare not in ELSEWHERE]
    if block.language == "console":
        assert all(line.startswith("$ ") for line in block.text.splitlines()), "output stands in a text block"
    if block.files:
        # A script has to be run by a command of its page.
        assert not block.runs
        assert block.language == "sh" or not block.commands
    else:
        assert len(block.runs) == len(due), (
            "write above the block how each of these is run (tests/docs/pages.py)"
        )


@pytest.mark.parametrize("page", PAGES)
def test_every_block_and_every_note_is_read(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = list(blocks_of(page))
    assert len(re.findall(r"^ *(```|~~~)", text, re.MULTILINE)) == 2 * len(blocks)
    assert {block.language for block in blocks} <= LANGUAGES
    notes = re.findall(r"<!-- *(?:run|file|before)\b.*", text)
    read = [note for fence in FENCE.finditer(text) for note in fence["notes"].strip().splitlines()]
    assert [note.strip() for note in read] == notes
    assert all(NOTE.fullmatch(note) for note in notes)


def test_the_table_of_what_runs_elsewhere_is_no_longer_than_it_has_to_be() -> None:
    told = {command.bare for block in BLOCKS for command in block.commands}
    assert set(ELSEWHERE) <= told
    for place in ELSEWHERE.values():
        path, _, name = place.test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


# --- what is run ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence of three releases, the last of which failed and was rolled back."""
    with World(tmp_path_factory.mktemp("shipped") / "world") as world:
        # What passes does so at once; what fails does so at the deadline, and has as long to recover.
        for revision, code, deadline in (*((good, 0, "30s") for good in GOOD), (BROKEN, 1, "4s")):
            (world.path / "REVISION").write_text(revision)
            policy = ["--soak", "100ms", "--interval", "100ms", "--deadline", deadline]
            done = subprocess.run(
                ["opsgate", "release", *policy],
                cwd=world.path,
                env=world.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == code, done.stderr
    return world.path / "artifacts"


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A repository whose third release has just failed."""
    with World(tmp_path / "world") as world:
        shutil.copytree(request.getfixturevalue("shipped"), world.path / "artifacts")
        (world.place / "running").write_text(GOOD[1])
        yield world


def pages(wanted: Callable[[str], bool]) -> list[str]:
    return sorted({block.page for block in BLOCKS if block.runs and wanted(block.page)})


@pytest.mark.parametrize("page", pages(lambda page: page not in IN_THE_CHECKOUT))
def test_a_page_runs_in_a_repository(page: str, world: World) -> None:
    for block in blocks_of(page):
        world.follow(block, set(ELSEWHERE))
    scripts = [name for block in blocks_of(page) for name in block.files if block.language == "sh"]
    assert {f"host {name}" for name in scripts} <= set(world.calls), "a script of the page was never run"


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(IN_THE_CHECKOUT.__contains__))
def test_a_page_runs_in_the_checkout(page: str, tmp_path: Path) -> None:
    # The faults of the tutorial are seen by the policy that it shows.
    with World(tmp_path / "world", checkout=True, patient=page == "docs/tutorial.md") as world:
        said = ""
        try:
            for block in blocks_of(page):
                said = world.follow(block, set(ELSEWHERE)) or said
                # A transcript has its command with it, or directly before.
                if block.language == "text" and (block.runs or not block.commands):
                    assert not unlike(block.text, said), f"{block}: {said}"
        finally:
            stopped = world.stop()
    if any("control.py stop" in command.text for block in blocks_of(page) for command in block.commands):
        assert stopped == "nothing was running\n", "the page ends with a clean machine"


def test_the_look_of_cron_tells_of_a_runtime_that_is_down(world: World) -> None:
    (look,) = (block for block in of("sh") if "logger" in block.text)
    (world.place / "down").touch()
    (command,) = look.commands
    done = world.run(command._replace(environ={"OPSGATE_DEADLINE": "1s"}))
    assert done.returncode == 0, done.stderr
    (told,) = world.calls
    assert told.startswith("logger -t opsgate the gate fails: production is down (since ")


# --- what the program would not take ---------------------------------------------------------------


@pytest.mark.parametrize("block", of("console", "sh", "text", "yaml"), ids=str)
def test_every_command_line_parses(block: Block) -> None:
    for command in words_of(block):
        if GATE_SCRIPT in command:
            flags = {word for word in command if word.startswith("--")}
            assert flags <= gate_script_flags()
        else:
            parse(command)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_within_the_text_parses(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for command in re.findall(r"`((?:opsgate|\./inv|invoke) [^`…]+)`", text):
        parse(shlex.split(command))


def test_commands_are_found() -> None:
    found = [command for block in of("console", "sh", "yaml") for command in words_of(block)]
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


def words_of(block: Block) -> Iterator[list[str]]:
    """Each command that begins with a program of ours, in words."""
    shown = block.language in {"console", "text"}
    lines = console_lines(block) if shown else block.text.splitlines()
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
