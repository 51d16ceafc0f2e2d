"""Hooks that hang, flood, leave children behind or are killed, in real runs."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.rig import Runtime, Site, alive
from tests.faults.rig import BACK, DEPLOY, PROMISED, RUN, configure, struck
from tests.faults.table import FAULTS

DEAF = "trap '' TERM INT HUP; sleep 60 & echo > begun; while :; do sleep 1; done"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_hook_and_its_children_ignore_the_end(site: Site, signum: signal.Signals) -> None:
    configure(site, deploy=DEAF)
    begun = site.path / "begun"
    for number in range(3):
        with struck(site, "release", OPSGATE_RUN_ID=f"deaf-{number}") as run:
            run.until(begun.exists, "the hook did not begin")
            run.send(signum)
            result = run.end()
        assert result.code == 128 + signum
        FAULTS["deaf-hook"].check(result, site.record())
        if run.took < PROMISED:
            return
        begun.unlink()
    pytest.fail("three times late: that is no stall of the machine")


def test_a_command_that_is_a_target_ignores_the_end(site: Site) -> None:
    configure(site, urls=[{"name": "inside", "command": DEAF}])
    begun = site.path / "begun"
    with struck(site, "gate", "--attempt-timeout", "30s", "--deadline", "60s") as run:
        run.until(begun.exists, "the target was not asked")
        run.send(signal.SIGTERM)
        result = run.end()
    FAULTS["deaf-target"].check(result, site.record())


def test_a_child_in_a_session_of_its_own(site: Site) -> None:
    code = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
    escape = f"'{sys.executable}' -c '{code}'"
    configure(site, deploy=f"{escape} > child 2>&1 & while ! test -s child; do sleep 0.02; done; {DEPLOY}")
    result = site.run("release", "--json", OPSGATE_RUN_ID=RUN)
    child = int((site.path / "child").read_text())
    try:
        FAULTS["setsid-child"].check(result, result.document)
        (command,) = result.document["stages"]["deploy"]["commands"]
        assert child in command["survivors"]
        assert "output_held" not in command
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_holds_the_output(site: Site) -> None:
    configure(site, deploy=f"sleep 60 & echo $! > child; {DEPLOY}")
    result = site.run("release", "--json")
    child = int((site.path / "child").read_text())
    os.kill(child, signal.SIGKILL)
    FAULTS["held-pipe"].check(result, result.document)
    (command,) = result.document["stages"]["deploy"]["commands"]
    assert (command["survivors"], command["output_held"]) == ([child], True)
    assert result.document["stages"]["deploy"]["duration_ms"] < 10_000


def test_a_rollback_that_hangs_and_one_that_helps(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down", "v2")
    configure(site, rollback=["sleep 60", BACK], extra='[environments.prod.timeouts]\nrollback = "2s"\n')
    result = site.run("gate", "--json", "--revision", "v2", code=1)
    tried = result.document["stages"]["rollback"]["commands"]
    assert [command["timed_out"] for command in tried] == [True, False]
    assert tried[0]["explanation"].startswith("timed out after")
    FAULTS["hook-hangs"].check(result, result.document)
    assert runtime.read() == ("up", "v1")


def test_a_flood_without_end(site: Site, runtime: Runtime) -> None:
    configure(
        site, deploy="cat /dev/zero", extra='[environments.prod.timeouts]\ndeploy = "1s"\n', incident=None
    )
    with struck(site, "release") as run:
        run.until((site.evidence / RUN / "deploy.log").exists, "no log")
        peak = 0
        while run.process.poll() is None:
            peak = max(peak, resident(run.process.pid))
        result = run.end()
    FAULTS["hook-flood"].check(result, site.record())
    assert peak < 120 * 1024 * 1024
    assert (site.evidence / RUN / "deploy.log").stat().st_size <= 16 * 1024 * 1024
    assert len(site.record()["stages"]["deploy"]["commands"][0]["output_tail"]) <= 64 * 1024
    assert runtime.read() == ("up", "v1")


def resident(pid: int) -> int:
    """Bytes of memory that a process has, 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def test_the_kernel_kills_a_hook(site: Site, runtime: Runtime) -> None:
    configure(site, deploy="kill -KILL $$")
    result = site.run("release", code=1)
    FAULTS["hook-oom"].check(result, site.record())
    assert runtime.read() == ("up", "v1")


def test_a_defect_after_the_gate_has_failed(site: Site, runtime: Runtime) -> None:
    env = site.seam(
        "import opsgate.stages.deploy as deploy\n"
        "def broken(session):\n"
        "    raise ZeroDivisionError('made up')\n"
        "deploy.look_at_containers = broken\n"
    )
    runtime.becomes("down", "v2")
    result = site.run("gate", "--revision", "v2", code=70, **env)
    FAULTS["defect"].check(result, site.record())
    assert "ZeroDivisionError" in result.err
    assert "made up" in (site.evidence / site.record()["run_id"] / "defect.log").read_text()
    assert site.record()["stages"]["rollback"]["recovered"] is True
    assert runtime.read() == ("up", "v1")
    assert site.run("evidence", "--verify").code == 0


def test_a_registry_that_never_answers_is_left_at_a_signal(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as registry:
        registry.settimeout(20)
        reference = f"127.0.0.1:{registry.getsockname()[1]}/web:t"
        configure(site, publish=f'echo "image.web={reference}" > "$OPSGATE_OUTPUT"')
        with struck(site, "publish") as run:
            caller, _ = registry.accept()
            with caller:
                run.send(signal.SIGTERM)
                result = run.end()
    assert result.code == 143
    FAULTS["signal-before-deploy"].check(result, site.record())
