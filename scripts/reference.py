"""Writes the generated parts of docs/ from the code: `python -m scripts.reference`.

A page holds them between `<!-- generated: NAME -->` and `<!-- end -->`; what stands around is left alone.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import yaml
from invoke import Collection, Task
from msgspec import UnsetType

import opsgate.tasks
from opsgate.evidence import record
from opsgate.evidence.schema import json_schema
from opsgate.evidence.views import FORMATS
from opsgate.hooks.hook import Facts
from opsgate.settings import Notify, Timeouts, file, format_duration, resolve, targets, variables
from opsgate.verdict.targets import Policy, Target
from scripts import reference_words as words

ROOT: Final = Path(__file__).resolve().parent.parent
REGION: Final = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
LISTED: Final = {
    "kind": "[kind](#what-went-wrong-with-an-attempt) or null",
    "status_reason": "[reason](#status-and-reason)",
}
"""Fields whose values have a table of their own."""
LONGEST_LIST: Final = 2
"""Items kept of each list of attempts in an example."""

Rows = Iterator[tuple[str, ...]]


def main() -> None:
    """Bring every page up to date."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        fresh = render(text)
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


def render(page: str) -> str:
    """The page with its generated parts as the code has them now."""
    return REGION.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n\n{match[3]}", page)


def table(head: tuple[str, ...], rows: Rows) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    # Inside code too, a bar would end the cell.
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(value: object) -> str:
    """Inline code; empty for a value that is not there."""
    return "" if value in (None, "", (), []) else f"`{value}`"


# --- tasks ----------------------------------------------------------------------------------------


def tasks() -> str:
    """Every task with its flags."""
    # Loaded afresh: Invoke takes a task's help away as it builds its first parser.
    loaded = runpy.run_path(opsgate.tasks.__file__)
    found = {name: task for name, task in loaded.items() if isinstance(task, Task)}
    contexts = Collection(*found.values()).to_contexts()
    sections = []
    for context in sorted(contexts, key=lambda context: str(context.name)):
        task = found[str(context.name)]
        flags = table(("flag", "meaning", "default"), _flags(context))
        sections.append(f"## {context.name}\n\n{task.__doc__}\n\n{flags}")
    return "\n\n".join(sections)


def _flags(context: Any) -> Rows:
    for argument in sorted(context.args.values(), key=lambda argument: str(argument.name)):
        flag = f"--{argument.name.replace('_', '-')}"
        if argument.kind is bool and argument.default is True:
            flag = f"--[no-]{flag.removeprefix('--')}"
        elif argument.kind is not bool:
            flag += f" {argument.name.rpartition('_')[2].upper()}"
        meaning, _, default = argument.help.removesuffix(")").rpartition(" (default: ")
        yield code(flag), meaning, default


# --- configuration --------------------------------------------------------------------------------


def keys_top() -> str:
    """Keys that stand at the top of the file only."""
    return _keys({key: rule for key, rule in file.TOP.items() if key not in file.SHARED})


def keys_environment() -> str:
    """Keys of an environment only."""
    return _keys({key: rule for key, rule in file.ENVIRONMENT.items() if key not in file.SHARED})


def keys_shared() -> str:
    """Keys that may stand at the top and in an environment."""
    return _keys(file.SHARED)


def keys_target() -> str:
    """Keys of a target's table."""
    default = Target(name="")
    rows = (
        (code(key), _type(rule), _target_default(default, key), words.TARGET[key])
        for key, rule in targets.RULES.items()
    )
    return table(("key", "value", "default", "meaning"), rows)


def _keys(shape: Mapping[str, Any]) -> str:
    rows = ((code(key), _type(rule), _default(key), words.KEYS[key]) for key, rule in _leaves(shape))
    return table(("key", "value", "default", "meaning"), rows)


def _leaves(shape: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, rule in shape.items():
        if isinstance(rule, dict):
            yield from _leaves(rule, f"{prefix}{key}.")
        else:
            yield prefix + key, rule


def _type(rule: Any) -> str:
    if isinstance(rule, list):
        return f"list of: {_type(rule[0])}"
    return words.TYPES[rule.__name__]


def _default(key: str) -> str:
    table_name, _, name = key.rpartition(".")
    if table_name == "gate":
        value = getattr(Policy(), name)
        return code(format_duration(value) if isinstance(value, float) else value)
    if table_name == "timeouts":
        return code(format_duration(getattr(Timeouts(), name)))
    if table_name == "notify":
        return _plain(getattr(Notify(), name))
    others = {
        "default_environment": "default",
        "evidence_dir": resolve.EVIDENCE_DIR,
        "max_rollbacks_per_day": resolve.MAX_ROLLBACKS_PER_DAY,
        "production": False,
    }
    if key == "publish.services":
        return "every service with a build section"
    return _plain(others.get(key))


def _target_default(target: Target, key: str) -> str:
    if key == "status":
        return code(", ".join(f"{low}-{high}" for low, high in target.expect.status))
    if key == "name":
        return "the masked URL, or the command"
    return _plain(getattr(target, key, None) if hasattr(target, key) else getattr(target.expect, key))


def _plain(value: object) -> str:
    return code(str(value).lower() if isinstance(value, bool) else value)


# --- variables and hooks --------------------------------------------------------------------------


def variables_runtime() -> str:
    """The `RUNTIME_*` variables."""
    return _variables("RUNTIME_")


def variables_opsgate() -> str:
    """The `OPSGATE_*` variables."""
    return _variables("OPSGATE_")


def variables_foreign() -> str:
    """Variables of others that opsgate heeds."""
    return table(("variable", "meaning"), iter(words.FOREIGN.items()))


def _variables(prefix: str) -> str:
    chosen = ((code(name), text) for name, text in words.VARIABLES.items() if name.startswith(prefix))
    return table(("variable", "meaning"), chosen)


def hooks() -> str:
    """The hooks, where each is configured, and its limit."""
    limits = Timeouts()
    rows = (
        (
            code(hook),
            words.HOOKS[hook],
            code("publish.command" if hook == "publish" else hook),
            code(variable),
            format_duration(getattr(limits, hook)) + (" each command" if hook == "rollback" else ""),
        )
        for hook, variable in variables.HOOKS.items()
    )
    return table(("hook", "what it does", "key", "variable", "limit"), rows)


def hook_variables() -> str:
    """The environment of a hook."""
    facts = Facts(run_id="", environment="", stage="", evidence=Path(), output=Path())
    rows = ((code(name), words.HOOK_VARIABLES[name]) for name in facts.variables())
    return table(("variable", "value"), rows)


# --- evidence -------------------------------------------------------------------------------------


def schema() -> str:
    """Every object of the record, with its fields."""
    sections = []
    for name, shape in json_schema()["$defs"].items():
        hints = get_type_hints(getattr(record, name))
        rows = (
            (
                code(field),
                LISTED.get(field) or _kind_of(value),
                "no" if UnsetType in get_args(hints[field]) else "yes",
                words.FIELDS[name][field],
            )
            for field, value in shape["properties"].items()
        )
        text = table(("field", "value", "always there", "meaning"), rows)
        sections.append(f"### {name}\n\n{shape['description']}\n\n{text}")
    return "\n\n".join(sections)


def _kind_of(shape: Mapping[str, Any]) -> str:
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in shape:
        return " or ".join(_kind_of(each) for each in shape["anyOf"])
    if "enum" in shape:
        return " ".join(code(each) for each in shape["enum"])
    if shape["type"] == "array":
        return f"list of {_kind_of(shape['items'])}"
    if shape.get("pattern", "").startswith(r"^\d{4}"):
        return "time"
    kind = str(shape["type"])
    return {"integer": "whole number", "string": "text"}.get(kind, kind)


def reasons() -> str:
    """Each `status_reason`."""
    named = json_schema()["$defs"]["Evidence"]["properties"]["status_reason"]["enum"]
    order = list(words.REASONS)
    rows = ((code(name), *words.REASONS[name]) for name in sorted(named, key=order.index))
    return table(("status_reason", "status", "meaning"), rows)


def kinds() -> str:
    """Each `kind` of a failed attempt."""
    named = json_schema()["$defs"]["Attempt"]["properties"]["kind"]["anyOf"][0]["enum"]
    order = list(words.KINDS)
    rows = ((code(name), words.KINDS[name]) for name in sorted(named, key=order.index))
    return table(("kind", "meaning"), rows)


def withheld() -> str:
    """Each reason why a rollback did not run."""
    named = json_schema()["$defs"]["Rollback"]["properties"]["withheld"]["anyOf"][0]["enum"]
    return table(("withheld", "meaning"), ((code(name), words.WITHHELD[name]) for name in named))


def formats() -> str:
    """What `--format` takes."""
    return table(("format", "for"), ((code(name), words.FORMATS[name]) for name in FORMATS))


def example_skipped() -> str:
    """A record in which nothing was validated."""
    return _example("skipped-no-urls")


def example_failed() -> str:
    """A record of a release that was rolled back."""
    return _example("failed-recovered")


def _example(name: str) -> str:
    document = json.loads((ROOT / "tests/data/records" / f"{name}.json").read_bytes())
    return f"```json\n{json.dumps(_shortened(document), indent=2, ensure_ascii=False)}\n```"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _shortened(item[:LONGEST_LIST] if key == "attempts" else item) for key, item in value.items()
        }
    return [_shortened(item) for item in value] if isinstance(value, list) else value


# --- the action -----------------------------------------------------------------------------------


def action_inputs() -> str:
    """Each input of `action.yml`."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    rows = (
        (code(name), f"{fields['description']}.", code(fields["default"]))
        for name, fields in action["inputs"].items()
    )
    return table(("input", "meaning", "default"), rows)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    part.__name__: part
    for part in (
        *(tasks, keys_top, keys_environment, keys_shared, keys_target),
        *(variables_runtime, variables_opsgate, variables_foreign, hooks, hook_variables),
        *(schema, reasons, kinds, withheld, formats, example_skipped, example_failed, action_inputs),
    )
}

if __name__ == "__main__":
    main()
