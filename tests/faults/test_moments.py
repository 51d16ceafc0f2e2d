"""A signal while a record is written, after the last look and before what was looked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.rig import Runtime, Site
from tests.faults.rig import RUN, configure

STRIKE = """
import sys
if "opsgate" in sys.orig_argv:
    import os, signal
    from opsgate.stages.session import Session

    save, struck = Session.save, []

    def saved(session):
        save(session)
        stage = session.record.stages.STAGE
        if not struck and WHEN:
            struck.append(stage)
            os.kill(os.getpid(), signal.SIGTERM)

    Session.save = saved
"""


def strike(site: Site, stage: str, when: str) -> Any:
    """Run a release of v2 that gets SIGTERM once its record has been written in that moment."""
    env = site.seam(STRIKE.replace("STAGE", stage).replace("WHEN", when))
    site.run("release", "--deadline", "1s", code=143, OPSGATE_RUN_ID=RUN, **env)
    document = json.loads((site.evidence / RUN / "evidence.json").read_bytes())
    assert document["status_reason"] == "interrupted"
    assert site.run("evidence", "--verify").code == 0
    return document


def test_before_the_deploy_hook(site: Site, runtime: Runtime) -> None:
    configure(site, deploy="touch deployed")
    document = strike(site, "deploy", 'stage.status == "interrupted"')
    assert document["stages"]["deploy"] == document["stages"]["gate"] == {"status": "skipped"}
    assert site.ledger()[-1]["deployed"] is False
    assert not (site.path / "deployed").exists()
    assert runtime.read() == ("up", "v1")
    assert "Not done because of the interrupt: deploy, gate." in document["next_steps"]


@pytest.mark.parametrize("when", ['stage.status == "interrupted"', "stage.attempted is True"])
def test_before_the_rollback(site: Site, when: str) -> None:
    (site.path / "health").write_text("down")
    document = strike(site, "rollback", when)
    assert document["stages"]["gate"]["status"] == "failed"
    assert document["stages"]["rollback"] == {"status": "skipped"}
    assert not (site.path / "went-back").exists()
    assert site.ledger()[-1]["rollback"] is None
    assert any(step.startswith("Go back now: opsgate rollback") for step in document["next_steps"])
