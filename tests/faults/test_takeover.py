"""Two runs at once, and `rollback --force` against one that does not let go."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.rig import Result, Runtime, Site, answered
from tests.faults.rig import RUN, check_evidence, configure, held, on_stderr, struck, until
from tests.faults.table import FAULTS

DEAF = "trap '' TERM; echo > begun; while :; do sleep 1; done"
FIRST_LINE = re.compile(
    rf"verdict by \d\d:\d\d:\d\d UTC at the latest; run {RUN} \(release, process \d+ on .*\) holds prod "
    "and is asked to stop: that takes 15 s at most"
)


def interrupted(taker: subprocess.Popen[str]) -> Result:
    """What it says to a signal while it waits."""
    taker.send_signal(signal.SIGTERM)
    try:
        return answered(taker, 143)
    except subprocess.TimeoutExpired:
        taker.kill()
        raise


def lost(site: Site) -> Any:
    return json.loads((site.evidence / RUN / "evidence.json").read_bytes())


def test_eight_gates_at_once(site: Site) -> None:
    configure(site, gate={"soak": "800ms", "deadline": "5s"}, incident=None)
    gates = [site.start("gate", OPSGATE_RUN_ID=f"gate-{number}") for number in range(8)]
    results = [
        Result(gate.returncode, out, err) for gate in gates for out, err in [gate.communicate(timeout=60)]
    ]
    ran = [result for result in results if result.code == 0]
    for result in results:
        if result.code != 0:
            FAULTS["two-at-once"].check(result)
    assert ran
    assert len(check_evidence(site)) == 1 + len(ran)
    assert site.run("evidence", "--verify").code == 0


def test_several_environments_at_once(site: Site) -> None:
    names = [f"env{number}" for number in range(4)]
    keys = f'urls = ["{site.runtime.url}"]\ngate = {{ soak = "100ms", successes = 1, deadline = "5s" }}\n'
    configure(site, extra="".join(f"[environments.{name}]\n{keys}" for name in names))
    gates = [site.start("gate", "--env", name, "--json", OPSGATE_RUN_ID=name) for name in names]
    for gate in gates:
        result = answered(gate, 0)
        FAULTS["two-environments"].check(result, result.document)
    assert set(check_evidence(site)) == {"first", *names}
    assert site.run("evidence", "--verify").code == 0


def test_a_person_takes_over_from_a_deaf_hook(site: Site, runtime: Runtime) -> None:
    configure(site, deploy=f'echo "down v2" > state; {DEAF}')
    with struck(site, "release") as run:
        run.until((site.path / "begun").exists, "the hook did not begin")
        taker = site.run("rollback", "--force", "--json", OPSGATE_RUN_ID="taker")
        result = run.end()
    FAULTS["forced-deaf-hook"].check(result, lost(site))
    assert taker.document["stages"]["rollback"]["took_over"]["reached"] is True
    assert taker.document["stages"]["rollback"]["recovered"] is True
    assert not (site.path / "told").exists()
    assert "taker" in "\n".join(lost(site)["next_steps"])
    assert runtime.read() == ("up", "v1")
    assert site.run("evidence", "--verify").code == 0


def test_a_person_takes_over_from_a_running_rollback(site: Site, runtime: Runtime) -> None:
    """Its hook is ended first, though a signal would not have ended it."""
    (site.path / "health").write_text("down")
    with held(site, "rollback", "release") as run:
        (site.path / "hold").write_text("")
        taker = site.run("rollback", "--force", "--json", OPSGATE_RUN_ID="taker")
        result = run.end()
    FAULTS["forced-rollback"].check(result, lost(site))
    assert lost(site)["stages"]["gate"]["status_reason"] == "probe_failures"
    assert lost(site)["stages"]["rollback"]["status"] == "interrupted"
    assert taker.document["stages"]["rollback"]["recovered"] is True
    assert (site.path / "went-back").read_text() == "back\n"
    assert runtime.read() == ("up", "v1")
    assert site.run("evidence", "--verify").code == 0


@pytest.mark.slow
def test_a_person_takes_over_from_a_stopped_holder(site: Site, runtime: Runtime) -> None:
    configure(site, deploy='echo "down v2" > state; echo > begun; exec sleep 60')
    with struck(site, "release") as run:
        run.until((site.path / "begun").exists, "the hook did not begin")
        os.kill(run.process.pid, signal.SIGSTOP)
        taker = site.run("rollback", "--force", "--json", OPSGATE_RUN_ID="taker")
        holder = f"run {RUN} (release, process {run.process.pid} on "
        assert f"environment prod is held by {holder}" in site.run("gate", code=75).err
        assert f"held by {holder}" in site.run("doctor", code=2).out
        os.kill(run.process.pid, signal.SIGCONT)
        result = run.end()
    assert "it did not answer within 15 s, its hook may still be running" in taker.err
    assert taker.document["stages"]["rollback"]["took_over"]["reached"] is False
    assert taker.document["stages"]["rollback"]["recovered"] is True
    FAULTS["forced-stopped-holder"].check(result, lost(site))
    assert lost(site)["stages"]["gate"] == {"status": "skipped"}
    assert runtime.read() == ("up", "v1")
    assert site.run("evidence", "--verify").code == 0


def test_waiting_for_a_holder_ends_with_a_signal(site: Site, runtime: Runtime) -> None:
    with held(site, "deploy", "release") as holder:
        os.kill(holder.process.pid, signal.SIGSTOP)
        taker = site.start("rollback", "--force", OPSGATE_RUN_ID="taker")
        assert taker.stderr is not None
        assert FIRST_LINE.search(taker.stderr.readline())
        result = interrupted(taker)
        FAULTS["force-interrupted"].check(result)
        assert "Nothing was touched" in result.err
        assert not (site.evidence / "taker").exists()
        os.kill(holder.process.pid, signal.SIGCONT)
        holder.go()
        assert holder.end().code == 0
    assert runtime.read() == ("up", "v2")


def test_a_signal_once_the_holder_has_noticed(site: Site) -> None:
    configure(site, deploy=DEAF)
    with struck(site, "release") as holder:
        holder.until((site.path / "begun").exists, "the hook did not begin")
        taker = site.start("rollback", "--force", OPSGATE_RUN_ID="taker")
        requests = site.evidence / ".locks"
        until(lambda: any(requests.glob("*.seen")), "the holder did not notice")
        os.kill(holder.process.pid, signal.SIGSTOP)
        result = interrupted(taker)
        os.kill(holder.process.pid, signal.SIGCONT)
        FAULTS["force-interrupted-late"].check(result)
        assert f"run {RUN} (release, process {holder.process.pid} on " in result.err
        assert "opsgate rollback --env prod" in result.err
        assert holder.end().code == 75
    assert not (site.evidence / "taker").exists()


def test_a_holder_is_named_where_nothing_can_be_written(site: Site) -> None:
    configure(site, rollback="true")
    with held(site, "deploy", "release") as holder:
        result = unwriting(site, "rollback", code=75)
        assert f"is held by run {RUN} (release, process {holder.process.pid} on " in result.err
        forced = unwriting(site, "rollback", "--force", "--no-verify", code=74)
        FAULTS["forced-without-evidence"].check(forced, on_stderr(forced))
        took_over = on_stderr(forced)["stages"]["rollback"]["took_over"]
        assert (took_over["run_id"], took_over["reached"]) == (RUN, False)
        holder.go()
        assert holder.end().code == 0


def unwriting(site: Site, *args: str, code: int) -> Result:
    """A command that cannot put a byte into a file."""
    command = ["/bin/sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", sys.executable, "-m", "opsgate", *args]
    done = subprocess.run(
        command, cwd=site.path, env=site.environ({}), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done
    return Result(done.returncode, done.stdout, done.stderr)
