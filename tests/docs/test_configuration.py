"""What people are told to write: configuration, workflows, scripts, the receiver of a webhook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from opsgate.settings import Flags, load
from opsgate.stages.incident.notify import signature
from tests.docs.pages import ROOT, Block, of

TOOLS: Final = Path(sys.executable).parent


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_every_configuration_loads(block: Block, tmp_path: Path) -> None:
    (tmp_path / "opsgate.toml").write_text(block.text, encoding="utf-8")
    for name in re.findall(r'ca_file = "([^"]+)"', block.text):
        (tmp_path / name).touch()
    environments = tomllib.loads(block.text).get("environments", {"default": {}})
    for name in environments:
        settings = load(Flags(env=name), {}, tmp_path)
        expected = [warning for warning in settings.warnings if "RUNTIME_WEBHOOK_SECRET" not in warning]
        assert expected == []


def test_the_action_takes_what_the_page_gives_it() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = [
        step
        for block in of("yaml")
        for step in (yaml.safe_load(block.text).get("steps") or [])
        if step.get("uses", "").startswith("OWNER/opsgate@")
    ]
    assert steps
    for step in steps:
        assert set(step["with"]) <= set(action["inputs"])
    outputs = {
        name for block in of("yaml") for name in re.findall(r"steps\.gate\.outputs\.(\w+)", block.text)
    }
    assert outputs <= set(action["outputs"])


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in of("yaml") if "\njobs:" in block.text], ids=str)
def test_a_whole_workflow_is_sound(block: Block, tmp_path: Path) -> None:
    workflow = tmp_path / ".github/workflows/page.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(block.text, encoding="utf-8")
    for tool in (["actionlint", "-shellcheck="], ["zizmor", "--offline", "--quiet"]):
        done = subprocess.run(
            [TOOLS / tool[0], *tool[1:], workflow], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_every_script_is_one(block: Block) -> None:
    done = subprocess.run(["/bin/sh", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_receiver_of_a_webhook_knows_a_genuine_one() -> None:
    (block,) = of("python")
    space: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec", dont_inherit=True), space)
    header = signature("a key", b"{}")
    assert space["is_genuine"](b"{}", header, "a key")
    assert not space["is_genuine"](b"{} ", header, "a key")
    assert not space["is_genuine"](b"{}", header, "another")


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_every_json_is_json(block: Block) -> None:
    json.loads(block.text)
