"""The wheel: what it carries, and that it runs from an empty environment."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import opsgate

ROOT = Path(__file__).resolve().parent.parent
TASKS = {"release", "publish", "deploy", "gate", "rollback", "evidence", "doctor", "init"}

pytestmark = [pytest.mark.slow, pytest.mark.index, pytest.mark.xdist_group("package")]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    run(*build, cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_carries_everything_that_the_package_reads(wheel: Path) -> None:
    assert wheel.name == f"opsgate-{opsgate.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
        info = next(name for name in carried if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(info).decode()
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "opsgate").rglob("*") if path.is_file()}
    expected = {path for path in tracked if "__pycache__" not in path}
    assert expected <= carried
    assert {"opsgate/py.typed", "opsgate/evidence/evidence.schema.json"} <= carried
    assert {name.split("/")[0] for name in carried} == {"opsgate", info.split("/")[0]}
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_installs_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "an environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin/python"
    pip = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "-r", ROOT / "requirements-run.lock", cwd=tmp_path)
    run(*pip, "--no-index", wheel, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    assert listed(run(environment / "bin/opsgate", "--list", cwd=tmp_path)) == TASKS


def test_the_checkout_adds_the_tasks_of_the_project() -> None:
    shown = run(sys.executable, "-m", "invoke", "--list", cwd=ROOT)
    assert listed(shown) == TASKS | {"bench", "docs", "lint", "test"}


def listed(shown: str) -> set[str]:
    """The first column of `--list`; a description that goes on stands further to the right."""
    return set(re.findall(r"^  (\S+)", shown, re.MULTILINE))
