"""Who may import whom, and how long a module and a function may be: docs say it, this holds it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "opsgate"

# room: what it may import of ours, itself and the version apart
MAY_IMPORT = {
    "errors": "",
    "hosts": "",
    "redact": "errors",
    "verdict": "errors redact",
    "settings": "errors hosts redact verdict",
    "probe": "errors hosts redact verdict",
    "hooks": "errors redact settings",
    "evidence": "errors redact verdict",
    "leave": "",
    "stages": "errors hosts leave redact verdict settings probe hooks evidence",
    "console": "errors redact verdict evidence.record evidence.views",
    "github": "errors redact evidence.record evidence.views",
    "flags": "",
    "door": "errors leave redact verdict settings probe hooks evidence stages console github",
    "tasks": "door errors flags redact verdict settings probe hooks evidence stages",
    "program": "errors console leave redact tasks",
    "__main__": "program",
}
PURE = ("errors", "hosts", "redact", "verdict")
WORLD = {"invoke", "os", "requests", "socket", "subprocess", "threading", "time", "urllib3"}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
every_module = pytest.mark.parametrize("module", MODULES)


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def room(module: str) -> str:
    return module.removesuffix(".py").split("/")[0]


def imports(module: str) -> set[str]:
    """Every dotted name that the module imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@every_module
def test_imports_only_what_lies_below(module: str) -> None:
    if module == "__init__.py":
        assert not imports(module) - {"__future__.annotations"}
        return
    assert room(module) in MAY_IMPORT, f"{module} stands in no room of the design"
    allowed = ["opsgate", "__version__", room(module), *MAY_IMPORT[room(module)].split()]
    ours = {name.removeprefix("opsgate.") for name in imports(module) if within(name, "opsgate")}
    assert {name for name in ours if not any(within(name, each) for each in allowed)} == set()


def test_what_is_imported_is_declared() -> None:
    """A package that only comes along with another one may stay away one day."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=!~;\[ ]", each)[0] for each in project["dependencies"]}
    used = {name.split(".")[0] for module in MODULES for name in imports(module)}
    foreign = used - sys.stdlib_module_names - {"opsgate"}
    assert {{"yaml": "pyyaml"}.get(name, name) for name in foreign} == declared


@every_module
def test_what_decides_touches_nothing(module: str) -> None:
    if room(module) in PURE:
        assert {name.split(".")[0] for name in imports(module)} & WORLD == set()


@every_module
def test_modules_and_functions_stay_short(module: str) -> None:
    length = (PACKAGE / module).read_text(encoding="utf-8").count("\n")
    assert length < 350
    functions = [n for n in ast.walk(tree(module)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {each.name: (each.end_lineno or each.lineno) - each.lineno + 1 for each in functions}
    assert {name: lines for name, lines in lengths.items() if lines >= 50} == {}


@every_module
def test_nothing_is_left_for_later(module: str) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", (PACKAGE / module).read_text(encoding="utf-8"))


@every_module
def test_a_file_is_looked_for_without_raising(module: str) -> None:
    # Until Python 3.14 pathlib's raise where a directory may not be searched or a mount is stale. Where a
    # decision hangs on it, `stat` tells a file that cannot be seen from one that is not there.
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and not node.args]
    names = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute)]
    assert {"exists", "is_file", "is_dir"}.isdisjoint(names)
