"""Evidence that cannot be written: never `passed`, and a rollback that is needed still runs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.rig import Result, Runtime, Site
from tests.faults.rig import BACK, DEPLOY, HOLD, RUN, check_evidence, configure, held, on_stderr, struck
from tests.faults.table import FAULTS

STALE = """
import builtins, errno, functools, io, os

def stale(real, path, *args, **kwargs):
    if os.access("stale", os.F_OK) and "artifacts" in str(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
    return real(path, *args, **kwargs)

for name in ("stat", "lstat", "open", "scandir", "mkdir", "rename", "replace", "unlink", "rmdir"):
    setattr(os, name, functools.partial(stale, getattr(os, name)))
io.open = builtins.open = functools.partial(stale, io.open)
"""
NOT_V2 = 'test "$OPSGATE_REVISION" != v2'
SHIP = 'echo "${now:-up} $OPSGATE_REVISION" > state'


@pytest.fixture
def disk(site: Site) -> Iterator[Path]:
    """A small disk of its own for the evidence."""
    place = site.path / "artifacts"
    kept = site.path / "kept"
    place.rename(kept)
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "opsgate-faults", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    shutil.copytree(kept, place, dirs_exist_ok=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"x" * 512 * 1024)
    return filler


@pytest.mark.parametrize("task", ["release", "gate", "deploy", "publish"])
def test_unwritable_at_the_start(site: Site, task: str) -> None:
    shutil.rmtree(site.path / "artifacts")
    (site.path / "artifacts").write_text("in the way")
    result = site.run(task, code=2)
    FAULTS["unwritable-at-start"].check(result)
    assert site.runtime.requests == []
    assert site.runtime.read() == ("up", "v1")


@pytest.mark.parametrize("task", ["release", "gate", "deploy", "publish"])
def test_a_full_disk_at_the_start(site: Site, disk: Path, task: str) -> None:
    fill(disk)
    result = site.run(task, code=2)
    FAULTS["unwritable-at-start"].check(result)
    assert "No space left on device" in result.err
    assert site.runtime.requests == []


@pytest.mark.parametrize(
    ("fault", "health", "after"),
    [
        ("full-disk", "down", "true"),
        ("full-disk-passing", "up", "true"),
        ("full-disk-rollback-fails", "down", "false"),
    ],
)
def test_the_disk_fills_up(
    site: Site, runtime: Runtime, disk: Path, fault: str, health: str, after: str
) -> None:
    (site.path / "health").write_text(health)
    configure(site, rollback=f"{BACK}; {after}")
    (site.path / "health").write_text(health)
    before = (site.evidence / "ledger.jsonl").read_bytes()
    with held(site, "deploy", "release") as run:
        filler = fill(disk)
        run.go()
        result = run.end()
    FAULTS[fault].check(result, on_stderr(result))
    assert (site.path / "went-back").exists() == (health == "down")
    assert "passed" not in json.loads((site.evidence / RUN / "evidence.json").read_bytes())["status"]
    assert (site.evidence / "ledger.jsonl").read_bytes() == before
    filler.unlink()
    assert site.run("evidence", "--verify").code == 0
    site.run("release", "--revision", "v3", code={"down": 1, "up": 0}[health] if after == "true" else 3)
    check_evidence(site)


def test_the_evidence_vanishes(site: Site, runtime: Runtime) -> None:
    (site.path / "health").write_text("down")
    with held(site, "deploy", "release") as run:
        shutil.rmtree(site.path / "artifacts")
        run.go()
        result = run.end()
    FAULTS["vanished"].check(result, on_stderr(result))
    assert runtime.read()[0] == "up"
    assert on_stderr(result)["stages"]["rollback"]["recovered"] is True


def test_the_evidence_vanishes_and_redeploy_still_knows_the_way(site: Site, runtime: Runtime) -> None:
    configure(site, rollback="redeploy", deploy=f'{HOLD}test "$OPSGATE_REVISION" != v2 || now=down; {SHIP}')
    with held(site, "deploy", "release") as run:
        shutil.rmtree(site.path / "artifacts")
        run.go()
        result = run.end()
    FAULTS["vanished"].check(result, on_stderr(result))
    assert runtime.read() == ("up", "v1")


@pytest.fixture
def seam(site: Site) -> Iterator[dict[str, str]]:
    """What makes opsgate see a stale mount once the file `stale` is there."""
    yield site.seam(STALE)
    (site.path / "stale").unlink()
    assert site.run("evidence", "--verify").code == 0


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"deploy": f"{DEPLOY}; touch stale; false"}, id="before-the-rollback"),
        pytest.param({"deploy": f"{SHIP}; touch stale; {NOT_V2}", "rollback": "redeploy"}, id="redeploy"),
        pytest.param({"rollback": f"touch stale; sleep 0.2; {BACK}"}, id="in-the-rollback"),
    ],
)
def test_the_evidence_goes_stale(
    site: Site, runtime: Runtime, seam: dict[str, str], keys: dict[str, str]
) -> None:
    configure(site, incident=None, **keys)
    (site.path / "health").write_text("down")
    result = site.run("release", code=74, **seam)
    FAULTS["stale"].check(result, on_stderr(result))
    assert runtime.read()[0] == "up"
    assert on_stderr(result)["stages"]["rollback"]["recovered"] is True


def test_a_person_goes_back_on_a_stale_mount(site: Site, runtime: Runtime, seam: dict[str, str]) -> None:
    configure(site, rollback='echo "up v1" > state')
    runtime.becomes("down", "v2")
    (site.path / "stale").touch()
    result = site.run("rollback", "--reason", "the disk is gone", code=74, **seam)
    FAULTS["manual-without-evidence"].check(result, on_stderr(result))
    assert runtime.read() == ("up", "v1")


def test_only_a_log_is_lost(site: Site) -> None:
    (site.evidence / RUN / "deploy.log").mkdir(parents=True)
    configure(site, deploy=f"echo words; {DEPLOY}")
    result = site.run("release", "--json", code=74, OPSGATE_RUN_ID=RUN)
    FAULTS["log-lost"].check(result, result.document)
    assert site.ledger()[-1]["status"] == "failed"
    assert site.run("evidence", "--verify").code == 0


def test_the_pins_are_lost(site: Site, runtime: Runtime) -> None:
    digest = "sha256:" + "a" * 64
    configure(site, publish=f'echo "image.web=registry.example/web:t@{digest}" > "$OPSGATE_OUTPUT"')
    (site.evidence / RUN / "pins.yaml").mkdir(parents=True)
    result = site.run("release", "--json", code=74, OPSGATE_RUN_ID=RUN)
    FAULTS["pins-lost"].check(result, result.document)
    assert runtime.read() == ("up", "v1")
    assert site.run("evidence", "--verify").code == 0


@pytest.mark.parametrize(
    ("fault", "end"), [("manual-without-evidence", "true"), ("manual-fails-without-evidence", "false")]
)
def test_a_person_goes_back_without_evidence(site: Site, runtime: Runtime, fault: str, end: str) -> None:
    shutil.rmtree(site.path / "artifacts")
    (site.path / "artifacts").write_text("in the way")
    configure(site, rollback=f'echo "up v1" > state; {end}')
    runtime.becomes("down", "v2")
    result = site.run("rollback", "--reason", "the disk is gone", code=FAULTS[fault].exit_codes[0])
    FAULTS[fault].check(result, on_stderr(result))
    assert runtime.read() == ("up", "v1")


@pytest.mark.slow
def test_a_process_that_holds_the_ledger_for_ever(site: Site, runtime: Runtime) -> None:
    configure(site, incident=None)
    runtime.becomes("down", "v2")
    ledger = os.open(site.evidence / "ledger.jsonl", os.O_RDWR)
    try:
        with struck(site, "gate", "--revision", "v2", "--deadline", "3s") as run:
            run.until(lambda: len(runtime.requests) > 0, "the runtime was not asked")
            fcntl.flock(ledger, fcntl.LOCK_EX)
            result = run.end()
    finally:
        os.close(ledger)
    record = on_stderr(result)
    FAULTS["ledger-held"].check(result, record)
    assert record["stages"]["rollback"]["recovered"] is True
    assert record["duration_ms"] < 25_000


def test_the_clock_is_set_back(site: Site) -> None:
    env = site.seam(
        "import os, time\n"
        "real = time.time\n"
        "time.time = lambda: real() - (3600 if os.path.exists('set-back') else 0)\n"
    )
    configure(site, deploy=f"touch set-back; {DEPLOY}")
    result = site.run("release", "--json", code=0, **env)
    record = result.document
    FAULTS["clock-back"].check(result, record)
    assert record["started_at"] < record["finished_at"]
    assert 0 < record["duration_ms"] < 30_000
    assert record["stages"]["gate"]["duration_ms"] >= 100
    assert site.run("evidence", "--verify").code == 0
    (site.path / "set-back").unlink()
    assert site.run("rollback", "--dry-run").out.count("v1")


def test_the_newest_records_are_from_tomorrow(site: Site, runtime: Runtime) -> None:
    env = site.seam("import time\nreal = time.time\ntime.time = lambda: real() + 86400\n")
    site.run("release", "--revision", "v1", code=0, **env)
    (site.path / "health").write_text("down")
    result = site.run("release", "--revision", "v2", "--json", code=1)
    FAULTS["later-records"].check(Result(result.code, site.run("evidence").out, ""), result.document)
    assert runtime.read() == ("up", "v1")
    assert site.record()["run_id"] == result.document["run_id"]
    assert site.run("evidence", "--verify").code == 0


def test_there_is_no_room_for_a_temporary_file(site: Site, runtime: Runtime) -> None:
    env = site.seam(
        "import tempfile\n"
        "def full(*_, **__):\n"
        "    raise OSError(28, 'No space left on device')\n"
        "tempfile.mkdtemp = full\n"
    )
    runtime.becomes("down", "v2")
    result = site.run("gate", "--revision", "v2", code=1, **env)
    FAULTS["scratch-lost"].check(result, site.record())
    assert runtime.read() == ("up", "v1")
