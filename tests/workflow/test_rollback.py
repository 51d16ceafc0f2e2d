"""The roll-back workflow of docs/how-to/github.md, with the step that it says to copy from the rollout's."""

from __future__ import annotations

import re

import pytest

from tests.workflow.ours import PATH, ROOT
from tests.workflow.rig import Checkout, Run
from tests.workflow.test_rollout import ARTIFACTS, RELEASES, verified

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

PAGE = (ROOT / "docs/how-to/github.md").read_text(encoding="utf-8")
NAME = "rollout-evidence-production"


def workflow() -> str:
    """As a reader has it in the end, for the environment of these tests and with opsgate there already."""
    (block,) = re.findall(r"```yaml\n(name: Roll back\n.*?)```", PAGE, re.DOTALL)
    (step,) = re.findall(
        r"      - name: Bring it back from the newest artifact\n(?:        .*\n)+", PATH.read_text("utf-8")
    )
    assert f"`NAME: {NAME}`" in PAGE
    step, named = re.subn(r"NAME: .*", f"NAME: {NAME}", step)
    before, copied = re.subn(r"(?=      - id: history\n)", lambda _: step, block)
    text, installed = re.subn(
        "python3 -m pip install opsgate", 'echo "$STANDIN_BIN" >>"$GITHUB_PATH"', before
    )
    assert (named, copied, installed) == (1, 1, 1)
    return text.replace("production", "test")


def rolled_back(checkout: Checkout, number: str) -> Run:
    return checkout.run(number, job="rollback", inputs=["reason=it is slow"])


def lines(run: Run) -> list[str]:
    return (run.uploaded / "ledger.jsonl").read_text(encoding="utf-8").splitlines()


def test_the_history_goes_on_from_the_newest_artifact_and_then_from_the_cache(checkout: Checkout) -> None:
    checkout.configure(RELEASES.replace('"redeploy"', '"true"').replace(', revision = "json:version"', ""))
    good = checkout.run("501")
    assert good.code == 0, good
    released = lines(good)
    checkout.forget(good)
    checkout.workflow.write_text(workflow(), encoding="utf-8")

    first = rolled_back(checkout, "502")
    assert (first.code, first.job) == (0, "succeeded"), first
    assert first.calls == [
        "restore rollout/test/",
        f"gh {ARTIFACTS}?name=rollout-evidence-test&per_page=100",
        f"gh {ARTIFACTS}/1/zip",
        "save rollout/test/502-1",
        "upload rollback-evidence-test",
    ]
    assert verified(first)
    brought_back = lines(first)
    assert brought_back[:-1] == released

    second = rolled_back(checkout, "503")
    assert (second.code, second.calls[1:]) == (
        0,
        ["save rollout/test/503-1", "upload rollback-evidence-test"],
    )
    assert lines(second)[:-1] == brought_back


def test_a_history_that_did_not_come_back_is_not_replaced(checkout: Checkout) -> None:
    checkout.configure(RELEASES)
    checkout.workflow.write_text(workflow(), encoding="utf-8")
    run = rolled_back(checkout, "504")
    assert (run.code, run.job) == (1, "failed"), run
    assert len(lines(run)) == 1
    assert not any(call.startswith("save") for call in run.calls)
