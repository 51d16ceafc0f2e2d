"""SIGKILL at every single thing that a command does to its evidence, and at any time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.rig import Result, Runtime, Site
from tests.faults import zygote
from tests.faults.rig import check_evidence, configure, orphans
from tests.faults.table import FAULTS, Fault

QUICK = {"soak": "0s", "successes": 1, "deadline": "200ms", "interval": "20ms"}
PUBLISH = 'echo "revision=$(cat version)" > "$OPSGATE_OUTPUT"'
DEPLOY = 'echo "$(cat health) $OPSGATE_REVISION" > state'
BACK = 'echo "up $OPSGATE_LAST_GOOD_REVISION" > state'
KILLED = -9
MANY = "max_rollbacks_per_day = 1000"


class Commands:
    """Commands of one site, started by a process that has loaded opsgate already."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.process = subprocess.Popen(
            [sys.executable, zygote.__file__],
            cwd=site.path,
            env=site.environ({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, at: int = 0, half: bool = False, **env: str) -> int:
        """Its exit code; negative when a signal ended it."""
        job = {
            "args": args, "env": env, "cwd": str(self.site.path), "at": at, "half": half,
            "evidence": str(self.site.evidence),
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    @property
    def said(self) -> str:
        return "".join((self.site.path / f"{name}.txt").read_text() for name in ("stdout", "stderr"))

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def commands(site: Site) -> Iterator[Commands]:
    commands = Commands(site)
    yield commands
    commands.close()
    assert not orphans(site)


def sweep(commands: Commands, task: str, fault: Fault, *, step: int = 1, half: bool = False) -> int:
    """Kill the command at its 1st, 2nd, 3rd … write until it comes through; how often it was killed."""
    site, at = commands.site, 1
    while (ended := commands.run(task, at=at, half=half, OPSGATE_RUN_ID=f"kill-{at}")) == KILLED:
        fault.check(Result(128 - ended, "", commands.said))
        line = check_evidence(site).get(f"kill-{at}")
        assert commands.run("evidence", "--verify") == 0, f"at {at}\n{commands.said}"
        if line is not None:
            # The line is what finishes a run: with it nothing is lost, whatever the files look like now.
            came_through(commands, f"next-{at}", commands.run("gate", OPSGATE_RUN_ID=f"next-{at}"))
            record = (site.evidence / f"kill-{at}" / "evidence.json").read_bytes()
            assert hashlib.sha256(record).hexdigest() == line["sha256"]
            assert not list(site.evidence.glob("*/evidence.json.final"))
        at += step
    came_through(commands, f"kill-{at}", ended)
    assert check_evidence(site)[f"kill-{at}"]["seq"] > 1
    assert commands.run("evidence", "--verify") == 0, commands.said
    return (at - 1) // step


def came_through(commands: Commands, run_id: str, code: int) -> None:
    """It ended with a verdict, and went back where that is due."""
    if code == 3:
        # In so short a time a busy machine may not see the recovery.
        record = json.loads((commands.site.evidence / run_id / "evidence.json").read_bytes())
        assert record["stages"]["rollback"]["succeeded"], commands.said
    else:
        assert code in {0, 1}, commands.said


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["before", "half"])
def test_a_gate_killed_at_every_write(site: Site, commands: Commands, half: bool) -> None:
    configure(site, urls=[site.url()], gate=QUICK, incident=None, rollback=None)
    assert sweep(commands, "gate", FAULTS["kill-at-every-write"], half=half) > 10


@pytest.mark.slow
def test_a_release_that_rolls_back_killed_at_its_writes(
    site: Site, runtime: Runtime, commands: Commands
) -> None:
    configure(
        site,
        gate=QUICK,
        publish=PUBLISH,
        deploy=DEPLOY,
        rollback=BACK,
        incident=None,
        top=MANY,
        rollback_check=None,
    )
    (site.path / "health").write_text("down")
    # Every seventh takes each kind of write in each stage; all of them would take most of a minute.
    assert sweep(commands, "release", FAULTS["kill-in-release"], step=7) > 15


def test_what_a_killed_release_did_counts(site: Site, runtime: Runtime, commands: Commands) -> None:
    """Killed after the deploy: the way back of the next one leads past it."""
    configure(site, gate=QUICK, publish=PUBLISH, deploy=DEPLOY, rollback=BACK, incident=None)
    (site.path / "health").write_text("down")
    at = 1
    while runtime.revision != "v2":
        at += 10
        assert commands.run("release", at=at, OPSGATE_RUN_ID=f"killed-{at}") == KILLED
    assert commands.run("rollback", "--deadline", "10s") == 0, commands.said
    assert runtime.read() == ("up", "v1")
    FAULTS["kill-after-deploy"].check(Result(128 - KILLED, commands.said, ""))
