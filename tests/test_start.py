"""How the process starts and ends, apart from what it does in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opsgate import program


def opsgate(*args: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-m", "opsgate", *args],
        cwd=cwd,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_imported_late_is_compiled_once(tmp_path: Path) -> None:
    ended = opsgate("gate", cwd=tmp_path, PYTHONPYCACHEPREFIX=str(tmp_path / "cache"))
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "cache").rglob("opsgate/stages/gate.*.pyc"))


def test_no_byte_code_is_written_where_the_environment_says_so(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    opsgate("gate", cwd=tmp_path, PYTHONPYCACHEPREFIX=str(cache), PYTHONDONTWRITEBYTECODE="1")
    assert not cache.exists()


def test_what_is_registered_for_the_end_still_runs(tmp_path: Path) -> None:
    script = "import atexit\natexit.register(print, 'the end')\nfrom opsgate.program import main\nmain()\n"
    ended = subprocess.run(
        [sys.executable, "-c", script, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "the end"


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (75, 75), ("words", 1)])
def test_the_exit_code_is_what_the_task_says(
    monkeypatch: pytest.MonkeyPatch, code: object, expected: int
) -> None:
    def tasks() -> None:
        sys.exit(code)  # type: ignore[arg-type]

    monkeypatch.setattr(program, "leave_on_signals", lambda: None)
    monkeypatch.setattr("gc.disable", lambda: None)
    monkeypatch.setattr(program, "_run", tasks)
    assert program.run() == expected
