"""The configuration file: where it is, what may stand in it, and what is wrong with it.

`SHARED`, `TOP` and `ENVIRONMENT` are its whole shape: a key's rule is a function, the table of
a section, or a list of one function for a list of such values.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from opsgate.settings import rules
from opsgate.settings.durations import parse_duration
from opsgate.settings.mistakes import Mistake, Problem, key_text, kind_of, nearest, shown, unknown
from opsgate.settings.targets import parse_control, parse_target
from opsgate.settings.urls import check_webhook

NAMES: Final = ("opsgate.toml", "pyproject.toml")
_LARGEST: Final = 1 << 20


def soak(value: object) -> float:
    """Seconds of a duration that may be 0."""
    return parse_duration(value, zero=True)


SHARED: Final[dict[str, Any]] = {
    "publish": {"compose_files": [rules.line], "services": [rules.line], "command": rules.command},
    "gate": {
        "deadline": parse_duration,
        "soak": soak,
        "interval": parse_duration,
        "attempt_timeout": parse_duration,
        "successes": rules.positive_count,
        "flaps": rules.count,
    },
    "timeouts": dict.fromkeys(
        ("publish", "deploy", "rollback", "rollback_check", "incident"), parse_duration
    ),
    "notify": {
        "webhook_url": check_webhook,
        "webhook_secret_env": rules.variable_name,
        "github_issues": rules.boolean,
    },
    "redact": {"patterns": [rules.redact_pattern]},
    "max_rollbacks_per_day": rules.count,
}
TOP: Final[dict[str, Any]] = {"default_environment": rules.name, "evidence_dir": rules.line, **SHARED}
ENVIRONMENT: Final[dict[str, Any]] = {
    "production": rules.boolean,
    "urls": [parse_target],
    "control_urls": [parse_control],
    "deploy": rules.command,
    "rollback": rules.rollback,
    "rollback_check": rules.command,
    "incident": rules.command,
    **SHARED,
}


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The top level or one environment, by dotted key (`gate.soak`)."""

    path: str = ""
    """The dotted path of the section in its file, with the last dot: `environments.local.`."""
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)
    bad: Mapping[str, Problem] = msgspec.field(default_factory=dict)
    """Keys that stand there with a value that opsgate does not take."""


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was read, its mistakes included."""

    path: Path
    label: str
    """How messages name the file."""
    top: Section
    environments: Mapping[str, Section]
    problems: tuple[Problem, ...] = ()
    broken: Problem | None = None
    """Set when nothing of the file could be used."""

    def where(self, section: Section, key: str) -> str:
        """The place of `key` for a message."""
        return f"{self.label}: {section.path}{key}"

    def origin(self, section: Section, key: str) -> str:
        """The table that `key` stands in, as doctor shows it: `opsgate.toml [environments.local.gate]`."""
        table = f"{section.path}{key}".rpartition(".")[0]
        return f"{self.label} [{table}]" if table else self.label


def find(cwd: Path, named: str | None) -> ConfigFile | None:
    """The file of `OPSGATE_CONFIG`, else the nearest one from `cwd` up to the repository root.

    Without a repository only `cwd` is looked at. A file that cannot be used comes back `broken`.
    """
    if named is not None:
        path = cwd / named
        if not os.path.exists(path) or os.path.isdir(path):
            what = "is a directory" if os.path.isdir(path) else "does not exist, or cannot be reached"
            text = f"{shown(named)} {what}"
            return _broken(path, named, Problem(where="OPSGATE_CONFIG", text=text))
        return read(path.parent.resolve() / path.name, named, named=True)
    root = repository_root(cwd)
    for directory in (each for each in (cwd, *cwd.parents) if each.is_relative_to(root)):
        for name in NAMES:
            found = _looked_at(directory / name, name if directory == cwd else str(directory / name))
            if found is not None:
                return found
    return None


def _looked_at(path: Path, label: str) -> ConfigFile | None:
    """What stands in the file, if there is one. One that cannot be seen is not taken for none."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return _broken(path, label, Problem(where=label, text=f"cannot be looked at: {error.strerror}"))
    return read(path, label) if is_file else None


def repository_root(directory: Path) -> Path:
    """Root of the git repository that `directory` is in; outside of one `directory` itself."""
    above = (directory, *directory.parents)
    return next((each for each in above if os.path.exists(each / ".git")), directory)


def read(path: Path, label: str, *, named: bool = False) -> ConfigFile | None:
    """What stands in the file; None for a `pyproject.toml` without `[tool.opsgate]`, unless `named`."""
    is_shared = path.name == "pyproject.toml"
    try:
        table = _parsed(path, only_with=b"opsgate" if is_shared and not named else b"")
    except Mistake as exc:
        return _broken(path, label, Problem(where=label, text=exc.text, hint=exc.hint))
    if is_shared:
        tool = table.get("tool")
        inner = tool.get("opsgate") if isinstance(tool, dict) else None
        if inner is None and not named:
            return None
        if not isinstance(inner, dict):
            return _broken(path, label, Problem(where=label, text="holds no [tool.opsgate] table"))
        table = inner
    return _Reader(label, "tool.opsgate." if is_shared else "").file(path, table)


def _broken(path: Path, label: str, problem: Problem) -> ConfigFile:
    return ConfigFile(path=path, label=label, top=Section(), environments={}, broken=problem)


def _parsed(path: Path, only_with: bytes) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as exc:
        raise Mistake(f"cannot be read: {exc.strerror}", "Check the path and its permissions.") from None
    if len(data) > _LARGEST:
        raise Mistake("is larger than 1 MiB")
    if only_with not in data:
        return {}
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise Mistake("is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as exc:
        raise Mistake(
            f"is not valid TOML: {exc}", "Text stands in quotes; an inline table { … } stands on one line."
        ) from None
    except (RecursionError, ValueError):
        raise Mistake("is not valid TOML: nested too deep, or a number too long") from None


class _Reader:
    """Walks the tables of one file along the shape, keeping each mistake with its place.

    `prefix` is the path of opsgate's own table, with the last dot.
    """

    def __init__(self, label: str, prefix: str) -> None:
        self.label, self.prefix = label, prefix
        self.problems: list[Problem] = []

    def file(self, path: Path, table: Mapping[str, Any]) -> ConfigFile:
        """All sections of the file."""
        prefix = self.prefix
        rest = {key: value for key, value in table.items() if key != "environments"}
        top = self.section(rest, TOP, prefix)
        environments: dict[str, Section] = {}
        try:
            given = _table(table.get("environments", {}), f"[{prefix}environments.NAME]")
        except Mistake as exc:
            self.problem(f"{prefix}environments", exc)
            given = {}
        for name, inner in given.items():
            place = f"{prefix}environments.{key_text(name)}"
            try:
                environments[rules.name(name)] = self.section(
                    _table(inner, f"[{place}]"), ENVIRONMENT, f"{place}."
                )
            except Mistake as exc:
                self.problem(place, exc)
        return ConfigFile(
            path=path, label=self.label, top=top, environments=environments, problems=tuple(self.problems)
        )

    def problem(self, path: str, mistake: Mistake) -> Problem:
        """Keep the mistake with its place."""
        where = f"{self.label}: {path}{mistake.path}"
        self.problems.append(Problem(where=where, text=mistake.text, hint=mistake.hint))
        return self.problems[-1]

    def section(self, table: Mapping[str, Any], shape: Mapping[str, Any], path: str) -> Section:
        """The top level or an environment."""
        values: dict[str, Any] = {}
        bad: dict[str, Problem] = {}
        for key, value, rule in self.leaves(table, shape, path):
            try:
                if isinstance(rule, list):
                    values[key] = self.items(_list(value), rule[0], path + key)
                else:
                    values[key] = rule(value)
            except Mistake as exc:
                bad[key] = self.problem(path + key, exc)
        return Section(path=path, values=values, bad=bad)

    def leaves(
        self, table: Mapping[str, Any], shape: Mapping[str, Any], path: str
    ) -> Iterator[tuple[str, object, Any]]:
        """Each dotted key of the section with its value and its rule."""
        for name, value in table.items():
            rule = shape.get(name)
            try:
                if rule is None:
                    self.problem(path + key_text(name), _misplaced(name, value, shape, self.prefix))
                elif isinstance(rule, dict):
                    inner = _table(value, f"[{path}{name}]")
                    for key, item, inner_rule in self.leaves(inner, rule, f"{path}{name}."):
                        yield f"{name}.{key}", item, inner_rule
                else:
                    yield name, value, rule
            except Mistake as exc:
                self.problem(path + name, exc)

    def items(self, values: list[Any], rule: Callable[[object], Any], path: str) -> tuple[Any, ...]:
        """The items that the rule takes."""
        taken = []
        for index, item in enumerate(values):
            try:
                taken.append(rule(item))
            except Mistake as exc:
                self.problem(f"{path}[{index}]", exc)
        return tuple(taken)


def _table(value: object, example: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Mistake(f"must be a table, not {kind_of(value)}", f"Write {example}.")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Mistake(f"must be a list, not {kind_of(value)}", "Write it in brackets: [ … ].")
    return value


def _misplaced(name: str, value: object, shape: Mapping[str, Any], prefix: str) -> Mistake:
    if shape is TOP and name in ENVIRONMENT:
        return Mistake("belongs to an environment", f"Write it under [{prefix}environments.NAME].")
    if shape is ENVIRONMENT and name in TOP:
        before = f"under [{prefix[:-1]}]" if prefix else "before the first [table]"
        return Mistake("belongs to the top of the file", f"Write it {before}.")
    valid = [*shape, "environments"] if shape is TOP else list(shape)
    like_one = shape is TOP and isinstance(value, dict) and not ENVIRONMENT.keys().isdisjoint(value)
    # A misspelt section holds an environment's keys as well.
    if like_one and not nearest(name, valid):
        named = f"[{prefix}environments.{key_text(name)}]"
        return Mistake("unknown table", f"If it is an environment, write {named}.")
    return Mistake(unknown("key", name, valid))
