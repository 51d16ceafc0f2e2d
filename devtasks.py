"""The project's own tasks: lint, test, bench, docs. Not part of the package."""

from __future__ import annotations

import itertools
import os.path
import shlex
import subprocess
import sys
from pathlib import Path

from invoke import Context, Exit, task

ROOT = Path(__file__).parent
TOOLS = Path(sys.executable).parent

Command = list[str]


@task(auto_shortflags=False)
def lint(_context: Context) -> None:
    """Project: check style, types, shell scripts and workflows."""
    _run_all(_lint_commands())


@task(
    auto_shortflags=False,
    help={
        "coverage": "measure branch coverage as well (default: no)",
        "only-tests": "leave lint out (default: no)",
    },
)
def test(_context: Context, coverage: bool = False, only_tests: bool = False) -> None:
    """Project: lint, then every test, in random order and in parallel."""
    # A group of tests that shares one engine or registry stays on one worker.
    pytest = [*_python("pytest"), "-n", "auto", "--dist", "loadgroup"]
    if coverage:
        pytest += ["--cov", "--cov-report", "term-missing:skip-covered"]
    _run_all([*([] if only_tests else _lint_commands()), pytest])


@task(
    auto_shortflags=False,
    help={
        "simulation": "how often each policy is fooled, instead (default: no)",
        "faults": "random kills of real releases, instead (default: no)",
        "history": "listing, verifying and replaying 10 000 runs, instead (default: no)",
    },
)
def bench(_context: Context, simulation: bool = False, faults: bool = False, history: bool = False) -> None:
    """Project: measure start, lag, cost of an attempt and many targets."""
    wanted = {"simulation": simulation, "faults": faults, "history": history}
    chosen = [name for name, is_wanted in wanted.items() if is_wanted]
    _run_all([[sys.executable, f"benchmarks/{name}.py"] for name in chosen or ["speed"]])


@task(auto_shortflags=False)
def docs(_context: Context) -> None:
    """Project: generate the reference, build docs/ into site/; a dead link is an error."""
    # Not --quiet: what is not logged is not counted, and strict would let every dead link pass.
    _run_all([_python("scripts.reference"), [*_python("mkdocs"), "build", "--strict"]])


def _lint_commands() -> list[Command]:
    shellcheck = _tool("shellcheck")
    commands = [
        [*_python("ruff"), "check", "."],
        [*_python("ruff"), "format", "--check", "."],
        *([*_python("mypy"), *group] for group in _typed_groups()),
        [shellcheck, "inv", ".ci/run", *_present("examples/*/docker/prepare")],
    ]
    workflows = _present(".github/workflows/*.yml")
    actions = _present("action.yml")
    if workflows:
        schema = [_tool("check-jsonschema"), "--builtin-schema"]
        commands += [
            [_tool("actionlint"), f"-shellcheck={shellcheck}", *workflows],
            [*schema, "vendor.github-workflows", *workflows],
            [*schema, "custom.github-workflows-require-timeout", *workflows],
        ]
    if actions:
        commands.append([_tool("check-jsonschema"), "--builtin-schema", "vendor.github-actions", *actions])
    if workflows or actions:
        audit = [_tool("zizmor"), "--offline", "--persona=auditor", "--quiet"]
        commands.append([*audit, *workflows, *actions])
    return commands


def _typed_groups() -> list[list[str]]:
    """What mypy is given, run by run: a program's modules import each other by their bare names."""
    packages = [name for name in ("opsgate", "tests", "scripts", "benchmarks") if _present(f"{name}/**/*.py")]
    programs = _present("examples/**/*.py")
    groups = [list(group) for _, group in itertools.groupby(programs, key=os.path.dirname)]
    return [[*packages, "tasks.py", "devtasks.py"], *groups]


def _present(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def _tool(name: str) -> str:
    return str(TOOLS / name)


def _python(module: str) -> Command:
    return [sys.executable, "-m", module]


def _run_all(commands: list[Command]) -> None:
    """Run every command, also after one has failed: a person wants the whole list at once."""
    failed = []
    for command in commands:
        shown = shlex.join([Path(command[0]).name, *command[1:]])
        print(f"$ {shown}", flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(shown)
    if failed:
        raise Exit("failed: " + "; ".join(failed), code=1)
