"""What every fault stands on: a shipped site, hooks that hold on a stage, a look at what is left behind."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e.rig import Result, Runtime, Site, check_record

RUN: Final = "struck"
"""The id of the run that the fault strikes."""
HOLD: Final = 'test "$(cat hold 2>/dev/null)" != "$OPSGATE_STAGE" || { echo > begun; read _ < go; }; '
"""A hook that begins like this stays in the stage that the file `hold` names, until `Struck.go`."""
PUBLISH: Final = HOLD + 'echo "revision=$(cat version)" > "$OPSGATE_OUTPUT"'
DEPLOY: Final = HOLD + 'echo "$(cat health) $OPSGATE_REVISION" > state'
BACK: Final = HOLD + 'echo "$(cat after) $OPSGATE_LAST_GOOD_REVISION" > state; echo back >> went-back'
CHECK: Final = HOLD + "true"
INCIDENT: Final = HOLD + 'echo "$OPSGATE_STATUS_REASON" > told'
SHORT: Final = {"deadline": "3s", "soak": "100ms", "interval": "50ms", "attempt_timeout": "500ms"}
"""What fails does so at the deadline, and has as long to recover: also on a machine that stalls."""
PROMPT: Final = 8.0
"""Seconds from a signal to the end: the `PROMISED` ones, and what a busy machine adds."""
PROMISED: Final = 5.0


def configure(site: Site, **keys: Any) -> None:
    """Every hook there is, each holding on demand."""
    gate = {**SHORT, **keys.pop("gate", {})}
    extra = f"[environments.prod.publish]\ncommand = {json.dumps(keys.pop('publish', PUBLISH))}\n"
    extra += keys.pop("extra", "")
    keys = {
        "urls": [site.url(revision="json:version")], "deploy": DEPLOY, "rollback": BACK,
        "rollback_check": CHECK, "incident": INCIDENT, **keys,
    }  # fmt: skip
    site.configure(gate=gate, extra=extra, **keys)
    for name, value in (("version", "v2"), ("health", "up"), ("after", "up")):
        (site.path / name).write_text(value)


def ship_first(site: Site) -> None:
    """v1 is shipped and passed: there is a way back."""
    configure(site)
    (site.path / "version").write_text("v1")
    site.run("release", OPSGATE_RUN_ID="first")
    (site.path / "version").write_text("v2")


def copy_shipped(template: Path, site: Site) -> None:
    """What `ship_first` leaves, without its half second."""
    shutil.copytree(template / "artifacts", site.path / "artifacts")
    configure(site)
    site.runtime.becomes("up", "v1")


class Struck:
    """A command that a fault strikes, and what is left when it has ended."""

    def __init__(self, site: Site, *args: str, **env: str) -> None:
        self.site = site
        self._err = site.path / "stderr"
        with self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "opsgate", *args],
                cwd=site.path,
                env=site.environ({"OPSGATE_RUN_ID": RUN, **env}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        self._struck_at: float | None = None
        self.took = 0.0
        """Seconds from the first signal to the end."""

    def send(self, signum: signal.Signals) -> None:
        """From now on it has `PROMPT` seconds, unless it is let go on."""
        self._struck_at = self._struck_at or time.monotonic()
        os.kill(self.process.pid, signum)

    def go(self) -> None:
        """Let the hook that is held go on."""
        self._struck_at = None
        (self.site.path / "hold").write_text("")
        (self.site.path / "go").write_text("\n")

    def says(self, text: str) -> None:
        """Wait until it has said so."""
        self.until(lambda: text in self._err.read_text(), f"it did not say {text!r}")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        until(lambda: condition() or self.process.poll() is not None, what)
        assert condition(), f"{what}\nexit {self.process.returncode}\n{self._err.read_text()}"

    def end(self) -> Result:
        """The command's answer, in time and without orphans."""
        out, _ = self.process.communicate(timeout=60)
        self.took = 0.0 if self._struck_at is None else time.monotonic() - self._struck_at
        result = Result(self.process.returncode, out, self._err.read_text())
        assert "Traceback" not in result.out + result.err, result
        assert self.took < PROMPT, f"{self.took:.1f} s after the signal\n{result}"
        left = orphans(self.site)
        assert not left, f"{left}\n{result}"
        self.site.check_records()
        return result


@contextmanager
def struck(site: Site, *args: str, **env: str) -> Iterator[Struck]:
    """The command as run `struck`, killed at the latest when the test is over."""
    run = Struck(site, *args, **env)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


@contextmanager
def held(site: Site, stage: str, *args: str, **env: str) -> Iterator[Struck]:
    """The command, once its hook of that stage has begun and stays in it."""
    (site.path / "hold").write_text(stage)
    for name in ("begun", "go"):
        os.mkfifo(site.path / name)
    # Both ends are open, so that nobody waits for ever for a hook that never comes.
    begun = os.open(site.path / "begun", os.O_RDWR | os.O_NONBLOCK)
    try:
        with struck(site, *args, **env) as run:
            run.until(lambda: bool(select.select([begun], [], [], 0)[0]), f"{stage} did not begin")
            yield run
    finally:
        os.close(begun)


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for something that gives no sign but itself."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited {seconds:.0f} s: {what}"
        time.sleep(0.005)


def on_stderr(result: Result) -> Any:
    """The record that could not be kept."""
    start = result.err.index("\n{") + 1
    return json.JSONDecoder().raw_decode(result.err[start:])[0]


def asked(runtime: Runtime, more_than: int = 0) -> None:
    """Wait until the runtime has been probed."""
    until(lambda: len(runtime.requests) > more_than, "the runtime was not asked")


def orphans(site: Site) -> list[str]:
    """Processes that this site's commands left alive; what was just killed has its time to die."""
    give_up = time.monotonic() + 3
    while (found := _living(site)) and time.monotonic() < give_up:
        time.sleep(0.02)
    return found


def _living(site: Site) -> list[str]:
    """What this site's commands have started, whatever session it is in."""
    mark = f"HOME={site.path}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if mark in environ and state != "Z":
            found.append(f"{entry.name} {command}")
    return found


def check_evidence(site: Site, checked: set[str] | None = None) -> dict[str, Any]:
    """The newest line of each run, once the chain holds and no record says passed that no line vouches for.

    `checked` remembers which records have been held against the schema.
    """
    checked = set() if checked is None else checked
    data = (site.evidence / "ledger.jsonl").read_bytes()
    lines = [json.loads(raw) for raw in data[: data.rfind(b"\n") + 1].splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(after["prev"] == before["hash"] for before, after in itertools.pairwise(lines))
    newest = {line["run_id"]: line for line in lines}
    for path in site.evidence.glob("*/evidence.json"):
        content = path.read_bytes()
        record, digest = json.loads(content), hashlib.sha256(content).hexdigest()
        if digest not in checked:
            check_record(record)
            checked.add(digest)
        line = newest.get(record["run_id"])
        if line is None or line["sha256"] != digest:
            assert record["status"] == "failed", record["run_id"]
    return newest
