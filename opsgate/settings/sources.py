"""Flags, variables and the file's tables as one stack of sources, asked key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from opsgate.errors import ConfigurationError
from opsgate.settings import file as configfile
from opsgate.settings import rules, variables
from opsgate.settings.mistakes import Mistake, Problem, unknown
from opsgate.settings.values import Flags


class Sources:
    """The sources of one command, and what was found wrong in them so far.

    With `needs`, only mistakes in flags, in the choice of the environment and in these keys are
    errors; any other is a warning, and the next source counts.
    """

    def __init__(
        self, flags: Flags, environ: Mapping[str, str], cwd: Path, needs: frozenset[str] | None
    ) -> None:
        self.flags = flags
        self.environ = environ
        self.needs = needs
        self.warnings = variables.unknown_variables(environ)
        self.errors: list[Problem] = []
        self.origins: dict[str, str] = {}
        self.file = configfile.find(cwd, self.variable("OPSGATE_CONFIG"))
        self.directory = self.file.path.parent if self.file else cwd
        if self.file:
            for problem in (self.file.broken,) if self.file.broken else self.file.problems:
                self.report(problem)
        self.environment = self._select()
        self.sections: tuple[configfile.Section, ...] = ()
        if self.file:
            own = self.file.environments.get(self.environment)
            self.sections = (own, self.file.top) if own else (self.file.top,)

    def variable(self, name: str) -> str | None:
        """The environment variable; None when unset or empty."""
        return variables.value(self.environ, name)

    def report(self, problem: Problem, *, fatal: bool = False) -> None:
        """Keep an error, or a warning where the command can do without."""
        if self.needs is not None and not fatal:
            self.warnings.append(str(problem))
        elif problem not in self.errors:
            self.errors.append(problem)

    def stop_on_errors(self) -> None:
        """Raise everything that was found wrong as one `ConfigurationError`."""
        if self.errors:
            hints = dict.fromkeys(problem.hint for problem in self.errors if problem.hint)
            raise ConfigurationError("\n".join(map(str, self.errors)), "\n  ".join(hints))

    def judge(self, key: str, where: str, rule: Callable[[Any], Any], value: object) -> Any:
        """What the rule makes of the value; None, and a report, where it takes none of it."""
        try:
            return rule(value)
        except Mistake as exc:
            fatal = where.startswith("-") or self.is_needed(key)
            self.report(Problem(where=where + exc.path, text=exc.text, hint=exc.hint), fatal=fatal)
            return None

    def is_needed(self, key: str) -> bool:
        """Whether the command cannot do without this key."""
        return self.needs is None or key in self.needs

    def pick(
        self,
        key: str,
        default: Any,
        rule: Callable[[Any], Any],
        *,
        variable: str,
        flag: str | None = None,
    ) -> Any:
        """The value of `key` from the first source that has one, its origin noted.

        The rule is for the flag and the variable; the file's values have met theirs. None after a
        mistake that is an error.
        """
        name = f"--{key.rpartition('.')[2].replace('_', '-')}"
        if flag is not None:
            self.origins[key] = f"flag {name}"
            return self.judge(key, name, rule, flag)
        if (text := self.variable(variable)) is not None:
            value = self.judge(key, variable, rule, text)
            if value is not None or self.is_needed(key):
                self.origins[key] = variable
                return value
        return self.listed(key, default)

    def listed(self, key: str, default: Any) -> Any:
        """The file's value of `key`, else the default."""
        for section in self.sections:
            if key in section.values:
                self.origins[key] = self.origin(section, key)
                return section.values[key]
            if key in section.bad and self.is_needed(key):
                self.report(section.bad[key], fatal=True)
        if self.file and self.file.broken and self.is_needed(key):
            self.report(self.file.broken, fatal=True)
        self.origins[key] = "default"
        return default

    def origin(self, section: configfile.Section, key: str) -> str:
        """The table that the key stands in."""
        return self.file.origin(section, key) if self.file else ""

    def where(self, key: str) -> str:
        """The key's place for a message: its flag, its variable, or its path in the file."""
        origin = self.origins.get(key, "default")
        section = next((section for section in self.sections if key in section.values), None)
        if self.file and section and origin == self.origin(section, key):
            return self.file.where(section, key)
        return key if origin == "default" else origin.removeprefix("flag ")

    def _select(self) -> str:
        """The environment's name: it must be one that the file defines, if it defines any."""
        where, given = self._named()
        try:
            name = rules.name(given)
            if self.file:
                _check_defined(name, self.file)
        except Mistake as exc:
            self.report(Problem(where=where, text=exc.text, hint=exc.hint), fatal=True)
            return "default"
        return name

    def _named(self) -> tuple[str, str]:
        """The place that names the environment, and the name."""
        text, key, origin = self.variable("OPSGATE_ENV"), "default_environment", "environment"
        if self.flags.env is not None:
            self.origins[origin] = "flag --env"
            return "--env", self.flags.env
        if text is not None:
            self.origins[origin] = "OPSGATE_ENV"
            return "OPSGATE_ENV", text
        if self.file and key in self.file.top.values:
            self.origins[origin] = self.file.origin(self.file.top, key)
            return self.file.where(self.file.top, key), self.file.top.values[key]
        self.origins[origin] = "default"
        if self.file and self.file.environments and "default" not in self.file.environments:
            names = ", ".join(sorted(self.file.environments))
            self.warnings.append(f"{self.file.label}: no environment is selected; it defines {names}")
        return "environment", "default"


def _check_defined(name: str, file: configfile.ConfigFile) -> None:
    defined = file.environments
    if defined and name != "default" and name not in defined:
        raise Mistake(
            f'"{name}" is an {unknown("environment", name, defined)}',
            f"{file.label} defines each as a table [{file.top.path}environments.NAME].",
        )
