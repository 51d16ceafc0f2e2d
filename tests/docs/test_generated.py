"""What is generated in the documentation, or stands in code as well, is what the code says."""

from __future__ import annotations

import re

import pytest
from invoke import Collection

import opsgate.tasks
from opsgate import flags
from opsgate.evidence.schema import json_schema
from opsgate.evidence.views import FORMATS
from opsgate.settings import file, variables
from opsgate.settings.targets import RULES
from scripts import reference
from scripts import reference_words as words
from tests.docs.pages import PAGES, ROOT
from tests.test_architecture import MAY_IMPORT


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_generated_parts_are_what_the_code_says_now(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert reference.render(text) == text, "run: python -m scripts.reference"


def test_every_part_stands_in_some_page() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert {name for _, name, _ in reference.REGION.findall(text)} == set(reference.PARTS)


def test_the_schema_requires_what_the_page_says_is_always_there() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    for name, shape in json_schema()["$defs"].items():
        _, section = page.split(f"\n### {name}\n")
        rows = re.findall(r"^\| `(\w+)` \| .*? \| (yes|no) \| ", section.partition("\n### ")[0], re.MULTILINE)
        assert {field for field, _ in rows} == shape["properties"].keys()
        assert {field for field, always in rows if always == "yes"} == set(shape["required"])


def test_nothing_is_described_that_does_not_exist() -> None:
    schema = json_schema()["$defs"]
    shapes = (file.TOP, file.ENVIRONMENT)
    keys = {key for shape in shapes for key, _ in reference._leaves(shape)}
    assert set(words.KEYS) == keys
    assert set(words.TARGET) == set(RULES)
    assert set(words.VARIABLES) == variables._READ | set(variables.RUNTIME)
    assert set(words.HOOKS) == set(variables.HOOKS)
    assert set(words.HOOK_VARIABLES) <= variables._GIVEN_TO_HOOKS | variables._READ
    described = {name: set(fields) for name, fields in words.FIELDS.items()}
    assert described == {name: set(shape["properties"]) for name, shape in schema.items()}
    assert set(words.REASONS) == set(schema["Evidence"]["properties"]["status_reason"]["enum"])
    assert set(words.KINDS) == set(schema["Attempt"]["properties"]["kind"]["anyOf"][0]["enum"])
    assert set(words.FORMATS) == set(FORMATS)


def test_what_decides_again_takes_the_policy_that_a_run_had() -> None:
    """`gate` has a default of its own for each flag of the policy; `evidence --replay` has none."""
    for task, defaults in (("gate", r"2m|15s|250ms|5s|3|2"), ("evidence", r"each run's own")):
        section = reference.tasks().partition(f"## {task}\n")[2].partition("\n## ")[0]
        found = re.findall(rf"^\| `--([a-z-]+) .*\| (?:{defaults}) \|$", section, re.MULTILINE)
        assert set(found) == set(flags.POLICY)


def test_the_readme_names_every_task() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Tasks")[2].partition("## ")[0]
    tasks = Collection.from_module(opsgate.tasks).task_names
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(tasks)


def test_the_design_names_every_room_and_what_it_may_import() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", text, re.MULTILINE)
    assert {room: " ".join(re.findall(r"`([^`]+)`", cell)) for room, cell in rows} == MAY_IMPORT
