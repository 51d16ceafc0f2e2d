"""Runs the workflow's own steps on this machine with act; third-party actions are small stand-ins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from opsgate.evidence.record import Evidence, decode
from tests.needs import unavailable
from tests.ports import free_ports
from tests.workflow.ours import PATH, ROOT

ACTIONS: Final = Path(__file__).parent / "actions"
TOOLS: Final = Path(sys.executable).parent
STEPS: Final = {
    "publish": "Publish the images",
    "deploy": "Deploy",
    "gate": "Gate",
}
MARK: Final = "\N{PILCROW SIGN}"
_SHIPPED: Final = ("opsgate", "examples", "tasks.py", "devtasks.py", "requirements-run.lock", ".gitignore")


class Run(msgspec.Struct, frozen=True):
    """What a run of the workflow came to."""

    code: int
    marked: str
    """The log, with a mark at the start of each line that act, and not a summary, wrote."""
    home: Path
    run_id: str

    @property
    def job(self) -> str:
        """`succeeded` or `failed`, as act says it in the end."""
        return "".join(re.findall(r"^🏁  Job (\w+)$", self.log, re.MULTILINE))

    def summary(self, step: str) -> str:
        """What a step added to the job summary."""
        # A line of it that is not the first comes without act's prefix, for which a mark stands here.
        return self._part(step).partition("Summary - ")[2].partition(f"\n{MARK}")[0].replace(MARK, "")

    @property
    def calls(self) -> list[str]:
        """What the stand-ins were asked for."""
        return (self.home / "calls").read_text(encoding="utf-8").splitlines()

    @property
    def uploaded(self) -> Path:
        """The evidence artifact."""
        (found,) = (self.home / "artifacts").iterdir()
        return found

    @property
    def record(self) -> Evidence:
        (path,) = self.uploaded.glob(f"gh-{self.run_id}-*/evidence.json")
        return decode(path.read_bytes())

    def outputs(self, step: str) -> dict[str, str]:
        """The outputs of one of the workflow's steps; empty when it did not run."""
        return dict(re.findall(r"::set-output:: (\w+)=(.*)", self._part(step)))

    def ran(self, step: str) -> bool:
        return f"Run Main {STEPS[step]}\n" in self.log

    @property
    def log(self) -> str:
        return self.marked.replace(MARK, "")

    def _part(self, step: str) -> str:
        return self.marked.partition(f"Run Main {STEPS[step]}\n")[2].partition("⭐ Run ")[0]

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.log}"


class Checkout:
    """A repository with this project's workflow and sample, and the runner's memory beside it."""

    def __init__(self, path: Path) -> None:
        if shutil.which("node") is None:
            unavailable("node is not installed (apt-get install nodejs), and act needs it for hashFiles()")
        self.repository, self.home = path / "repository", path / "runner"
        self.runtime, self.path = path / "runtime", path
        self.port = free_ports(3)
        self.repository.mkdir()
        for name in _SHIPPED:
            source, target = ROOT / name, self.repository / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "registry", "busybox")
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
        self.workflow = self.repository / ".github/workflows" / PATH.name
        self.workflow.parent.mkdir(parents=True)
        shutil.copy(PATH, self.workflow)
        self.actions = {
            f"{action}@{commit}": ACTIONS / action.partition("/")[2]
            for action, commit in re.findall(r"uses: ([\w-]+/[\w-]+)\S*@(\w{40})", PATH.read_text())
            if action != "actions/checkout"
        }
        """Which directory stands in for which action."""

    def configure(self, text: str, *, branch: str = "main") -> None:
        """Commit this `opsgate.toml`, on a branch of that name."""
        (self.repository / "opsgate.toml").write_text(text.replace("PORT", str(self.port)), encoding="utf-8")
        author = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        for command in (["init", "-q", "-b", branch, "."], ["add", "-A"], [*author, "commit", "-qm", "x"]):
            subprocess.run(["git", *command], cwd=self.repository, check=True, capture_output=True)

    def run(self, run_id: str, **options: Any) -> Run:
        """Run the workflow to its end."""
        with self.running(run_id, **options) as act:
            return act.ended()

    @contextmanager
    def running(self, run_id: str, **options: Any) -> Iterator[Act]:
        """The workflow while it runs."""
        (self.home / "calls").unlink(missing_ok=True)
        shutil.rmtree(self.home / "artifacts", ignore_errors=True)
        self.home.mkdir(exist_ok=True)
        act = Act(self, run_id, **options)
        try:
            yield act
        finally:
            act.close()

    def forget(self, run: Run, *others: dict[str, object]) -> None:
        """Let the cache lose everything; GitHub has the artifact of `run`, number 1, and these others."""
        shutil.rmtree(self.home / "cache")
        github = self.home / "github"
        github.mkdir()
        shutil.make_archive(str(github / "1"), "zip", run.uploaded)
        own = {"head_repository_id": 5, "repository_id": 5, "head_branch": "main"}
        first = {"id": 1, "created_at": "2026-01-01T00:00:00Z", "expired": False, "workflow_run": own}
        artifacts = [first] + [
            {
                **first,
                **other,
                "workflow_run": {**own, **cast("dict[str, object]", other.get("workflow_run", {}))},
            }
            for other in others
        ]
        (github / "artifacts.json").write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")

    def close(self) -> None:
        """End the sample runtime."""
        subprocess.run(
            [sys.executable, self.repository / "examples/mission-control/control.py", "stop"],
            env={"MISSION_CONTROL_HOME": str(self.runtime)},
            check=True,
            capture_output=True,
            timeout=30,
        )


class Act:
    """One run of act; its log is read as it grows, so that a test can wait for a line."""

    def __init__(
        self,
        checkout: Checkout,
        run_id: str,
        *,
        inputs: Iterable[str] = (),
        env: Iterable[str] = (),
        secrets: Iterable[str] = (),
        offline: bool = True,
        job: str = "rollout",
        variables: Iterable[str] = ("MISSION_CONTROL_REGISTRY=registry.example",),
    ) -> None:
        self._run_id, self._home = run_id, checkout.home
        self._lines: list[str] = []
        self._grown = threading.Condition()
        command = [f"{TOOLS}/act", "workflow_dispatch", "-W", str(checkout.workflow), "-j", job]
        command += ["-P", "ubuntu-24.04=-self-hosted", "--action-offline-mode", "--use-new-action-cache"]
        command += ["--pull=false", "--no-cache-server"]
        for kind in ("env-file", "secret-file", "var-file", "input-file"):
            command += [f"--{kind}", "/dev/null"]
        for action, directory in checkout.actions.items():
            command += ["--local-repository", f"{action}={directory}"]
        given = [
            f"GITHUB_RUN_ID={run_id}",
            f"STANDIN_HOME={checkout.home}",
            f"STANDIN_BIN={TOOLS}",
            # What the workflow installs is there already: nothing is fetched.
            *(["PIP_NO_INDEX=1"] if offline else []),
        ]
        given += [f"MISSION_CONTROL_HOME={checkout.runtime}", f"MISSION_CONTROL_PORT={checkout.port}", *env]
        for flag, values in (
            ("--env", given),
            ("--input", inputs),
            ("-s", ["GITHUB_TOKEN=ghs_0123456789abcdef", *secrets]),
            ("--var", ["OPSGATE_ENV=test", *variables]),
        ):
            for value in values:
                command += [flag, value]
        self.process = subprocess.Popen(
            command,
            cwd=checkout.repository,
            env={
                "PATH": os.pathsep.join([str(ACTIONS.parent / "bin"), os.environ["PATH"]]),
                "HOME": str(checkout.path),
                "XDG_CACHE_HOME": str(checkout.path / "cache"),
                "XDG_CONFIG_HOME": str(checkout.path / "config"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._grown:
                self._lines.append(re.sub(r"^\[[^\]]*\] ?", MARK, line))
                self._grown.notify_all()

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until a line of the log holds the text."""
        with self._grown:
            assert self._grown.wait_for(lambda: any(text in line for line in self._lines), seconds), (
                self._lines
            )

    def ended(self) -> Run:
        code = self.process.wait(90)
        self._reader.join()
        return Run(code, "".join(self._lines), self._home, self._run_id)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
