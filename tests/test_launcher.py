"""./inv, run for real on a small project of its own, in a directory with spaces in its name."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKED = ("hatchling", "invoke", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers")
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "sample"
version = "1"
[tool.hatch.build]
dev-mode-dirs = ["."]
[tool.hatch.build.targets.wheel]
packages = ["sample"]
"""
TASKS = """
import sys
from invoke import Exit, task
@task
def say(c, text="hello", code=0):
    print(text)
    raise Exit(code=code)
@task
def read(c):
    print(sys.stdin.read())
"""

pytestmark = [pytest.mark.slow, pytest.mark.index, pytest.mark.xdist_group("launcher")]


def lock_entry(name: str) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    entry = re.search(rf"^{re.escape(name)}==.*?(?=^[a-z])", lock, re.MULTILINE | re.DOTALL)
    assert entry, name
    return entry[0]


def make_project(directory: Path) -> Path:
    (directory / "sample").mkdir(parents=True)
    (directory / "sample/__init__.py").touch()
    shutil.copy(ROOT / "inv", directory)
    (directory / "pyproject.toml").write_text(PYPROJECT)
    (directory / "tasks.py").write_text(TASKS)
    (directory / "requirements.lock").write_text("".join(map(lock_entry, LOCKED)))
    return directory


def make_wheel(directory: Path, name: str, version: str, requires: str = "") -> str:
    """An empty package in `directory`; its line of a lock."""
    info = f"{name}-{version}.dist-info"
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: more\n"
        wheel.writestr(f"{info}/METADATA", head + requires)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def script(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def environment(*first_in_path: Path, **changes: str) -> dict[str, str]:
    path = os.pathsep.join([*map(str, first_in_path), "/usr/local/bin", "/usr/bin", "/bin"])
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, "PATH": path, "PYTHON": sys.executable, **changes}


def inv(
    project: Path, *arguments: str, env: dict[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [str(project / "inv"), *arguments]
    return subprocess.run(
        command, cwd="/", env=env or environment(), input=typed, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first call had to get past a shim that answers for nothing."""
    base = tmp_path_factory.mktemp("launcher")
    project = make_project(base / "a project")
    script(base / "bin/python3", "echo 'no version is set' >&2; exit 127")
    script(base / "bin/python3.13", f'exec "{sys.executable}" "$@"')
    first = inv(project, "say", "--code", "7", env=environment(base / "bin", PYTHON=""))
    assert (first.returncode, first.stdout) == (7, "hello\n"), first.stderr
    assert "making .venv" in first.stderr
    return project


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The built project under another name, without a working .venv of its own yet."""
    return Path(shutil.copytree(built, tmp_path / "another project", symlinks=True))


def test_hands_over_arguments_input_and_exit_code(built: Path, tmp_path: Path) -> None:
    said = inv(built, "say", "--text", "two  words *", "--code", "75")
    assert (said.returncode, said.stdout, said.stderr) == (75, "two  words *\n", "")
    assert inv(built, "read", typed="from a pipe").stdout == "from a pipe\n"
    link = tmp_path / "inv"
    link.symlink_to(built / "inv")
    assert inv(tmp_path, "say").stdout == "hello\n"


def test_a_second_call_adds_less_than_50_ms(built: Path) -> None:
    def used(command: list[str]) -> float:
        """The processor's seconds, which unlike the clock's say nothing about who else is running."""
        process = subprocess.Popen(
            command, cwd=built, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_utime + usage.ru_stime

    launcher = [str(built / "inv"), "--version"]
    direct = [str(built / ".venv/bin/python"), "-m", "invoke", "--version"]
    # In turns: the processor may be slower for a while.
    pairs = [(used(launcher), used(direct)) for _ in range(5)]
    assert min(launched for launched, _ in pairs) - min(itself for _, itself in pairs) < 0.05


def test_a_changed_lock_is_installed_by_uv_where_it_is_there(built: Path, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    script(tmp_path / "bin/uv", f'cat; echo noise; printf "%s\\n" "$*" >>"{log}"')
    lock = built / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    # Input and output are the task's, also of a call that installs first.
    assert inv(built, "read", env=environment(tmp_path / "bin"), typed="kept").stdout == "kept\n"
    calls = log.read_text().splitlines()
    assert calls[0].startswith("pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r ")
    assert "--no-deps" in calls[1]
    assert inv(built, "say", env=environment(tmp_path / "bin")).stderr == ""
    assert len(log.read_text().splitlines()) == 2


def test_a_release_since_the_lock_changes_nothing(copy: Path, tmp_path: Path) -> None:
    """Where one package needs another with an extra, pip would rather have the newest, which has no hash."""
    lines = [
        make_wheel(tmp_path, "sample_needed", "1"),
        make_wheel(tmp_path, "sample_needing", "1", "Requires-Dist: sample_needed[more]>=1\n"),
    ]
    make_wheel(tmp_path, "sample_needed", "2")
    lock = copy / "requirements.lock"
    lock.write_text(lock.read_text() + "".join(lines))
    places = f"{tmp_path} {os.environ.get('PIP_FIND_LINKS', '')}"
    said = inv(copy, "say", env=environment(PIP_FIND_LINKS=places))
    assert (said.returncode, said.stdout) == (0, "hello\n"), said.stderr
    assert list(copy.glob(".venv/lib/*/site-packages/sample_needed-1.dist-info"))


def test_pip_steps_in_where_uv_fails_and_takes_only_what_the_lock_names(built: Path, tmp_path: Path) -> None:
    script(tmp_path / "bin/uv", "exit 2")
    lock = built / "requirements.lock"
    before = lock.read_text()
    lock.write_text(re.sub("sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock_entry("iniconfig")) + before)
    refused = inv(built, "say", env=environment(tmp_path / "bin"))
    assert refused.returncode == 2
    assert "trying pip" in refused.stderr
    assert "installing from requirements.lock failed" in refused.stderr
    subprocess.run([built / ".venv/bin/python", "-m", "invoke", "--version"], check=True, capture_output=True)
    lock.write_text(lock_entry("iniconfig") + before)
    assert inv(built, "say", env=environment(tmp_path / "bin")).returncode == 0
    subprocess.run([built / ".venv/bin/python", "-c", "import iniconfig, sample"], cwd="/", check=True)


def test_a_moved_checkout_gets_a_venv_of_its_own(copy: Path) -> None:
    assert "making .venv" in inv(copy, "say").stderr
    shown = subprocess.run(
        [copy / ".venv/bin/python", "-c", "import sample; print(sample.__file__)"],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == str(copy / "sample/__init__.py")


def test_two_at_once_after_one_was_killed_half_way(copy: Path) -> None:
    (copy / ".venv/inv.lock").unlink()
    killed = subprocess.Popen(
        [copy / "inv", "say"], env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
    )
    until(lambda: (copy / ".venv/inv.preparing").exists() and (copy / ".venv/bin/python").exists())
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (copy / ".venv/inv.preparing").exists()
    both = [
        subprocess.Popen(
            [copy / "inv", "say"], env=environment(HOME=""), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    answers = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert [out for out, _ in answers] == ["hello\n"] * 2
    assert sum("making .venv" in err for _, err in answers) == 1
    # What the killed one was running may take a moment to die, and hold up the first as well.
    assert sum("waiting for it" in err for _, err in answers) >= 1


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("chosen", ["", "/bin/false"])
def test_says_what_is_missing_where_no_python_is_recent_enough(tmp_path: Path, chosen: str) -> None:
    project = make_project(tmp_path / "a project")
    script(tmp_path / "bin/python3", "exit 127")
    missing = inv(project, "say", env={"PATH": str(tmp_path / "bin"), "PYTHON": chosen})
    assert missing.returncode == 2
    assert "Python 3.11 or newer" in missing.stderr
    assert ("apt-get install python3" in missing.stderr) is not chosen.startswith("/")
    assert not (project / ".venv").exists()
