"""The rule for each kind of value in the file: takes what TOML gave, returns what opsgate uses.

Each raises `Mistake` for a value that it does not take.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, Final

from opsgate.settings.mistakes import Mistake, kind_of, shown

ALPHABET: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")
"""Run ids and environment names: they become the names of files."""
ALPHABET_HINT: Final = "Use 1 to 64 of A-Z a-z 0-9 . _ - without a leading dot."
REDEPLOY: Final = "redeploy"
COMPOSE: Final = "compose"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_TRUTH: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_LONGEST_PATTERN: Final = 1000


def string(value: object) -> str:
    """A string with something in it, without control characters other than tab and newline."""
    if not isinstance(value, str):
        raise Mistake(f"must be a string, not {kind_of(value)}")
    if not value.strip():
        raise Mistake("is empty", "Leave the key out instead.")
    if any(char < " " and char not in "\t\r\n" for char in value):
        raise Mistake("holds a control character")
    return value


def line(value: object) -> str:
    """A string of one line."""
    text = string(value)
    if not text.isprintable():
        raise Mistake("must be one line without control characters")
    return text


def command(value: object) -> str:
    """A command for /bin/sh."""
    if isinstance(value, list):
        raise Mistake("must be a string, not a list", "A command is one string, run by /bin/sh -c.")
    return string(value)


def rollback(value: object) -> str | tuple[str, ...]:
    """`redeploy`, or the commands of the chain in order; an empty chain is none."""
    if not isinstance(value, list):
        text = command(value)
        return REDEPLOY if text.strip() == REDEPLOY else (text,)
    chain = []
    for index, item in enumerate(value):
        try:
            chain.append(command(item))
        except Mistake as exc:
            raise Mistake(exc.text, exc.hint, f"[{index}]") from None
        if chain[-1].strip() == REDEPLOY:
            hint = f'Write rollback = "{REDEPLOY}", or commands only.'
            raise Mistake(f'"{REDEPLOY}" cannot be one of several commands', hint, f"[{index}]")
    return tuple(chain)


def variable_name(value: object) -> str:
    """The name of an environment variable."""
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise Mistake(
            f"{shown(value)} is not the name of an environment variable",
            "Name the variable that holds the value, such as RUNTIME_WEBHOOK_SECRET, not the value itself.",
        )
    return value


def boolean(value: object) -> bool:
    """A TOML boolean."""
    if not isinstance(value, bool):
        raise Mistake(f"must be true or false, not {kind_of(value)}")
    return value


def truth(value: object) -> bool:
    """A boolean in a variable."""
    if not isinstance(value, str) or (found := _TRUTH.get(value.lower())) is None:
        raise Mistake(f"{shown(value)} is neither true nor false", "Write true or false.")
    return found


def count(value: object) -> int:
    """A whole number of 0 or more."""
    return _whole(value, 0)


def positive_count(value: object) -> int:
    """A whole number of 1 or more."""
    return _whole(value, 1)


def of_text(rule: Callable[[object], Any]) -> Callable[[object], Any]:
    """The same rule for a flag or a variable: a whole number arrives there as text."""
    return (lambda value: rule(_number(value))) if rule in {count, positive_count} else rule


def _number(value: object) -> object:
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if _WHOLE.fullmatch(text) else value


def _whole(value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        hint = f"Write a whole number of {least} or more"
        quoted = isinstance(value, str) and isinstance(_number(value), int)
        raise Mistake(
            f"{shown(value)} is not a whole number", f"{hint}, without quotes." if quoted else f"{hint}."
        )
    if not least <= value <= 1_000_000:  # noqa: PLR2004 - more is a slip of the finger
        raise Mistake(f"{shown(value)} is not between {least} and 1000000")
    return value


_EVIDENCE_FILES: Final = frozenset({"latest.json", "latest.env", "ledger.jsonl"})


def name(value: object) -> str:
    """An environment's name."""
    if not isinstance(value, str) or not ALPHABET.fullmatch(value):
        raise Mistake(f"{shown(value)} cannot be an environment's name", ALPHABET_HINT)
    return value


def run_id(value: object) -> str:
    """A run's name."""
    if not isinstance(value, str) or not ALPHABET.fullmatch(value):
        raise Mistake(f"{shown(value)} cannot be a run id", ALPHABET_HINT)
    if value in _EVIDENCE_FILES:
        raise Mistake(f"{shown(value)} cannot be a run id", "The evidence directory has a file of this name.")
    return value


def revision(value: object) -> str:
    """A revision as a runtime may report it."""
    text = line(value).strip()
    if any(char.isspace() for char in text):
        raise Mistake(
            f"{shown(text)} holds a space", "A revision is one word, such as a commit or a version."
        )
    return text


def pattern(value: object) -> str:
    """A regular expression that says something."""
    text = string(value)
    if len(text) > _LONGEST_PATTERN:
        raise Mistake(f"is longer than {_LONGEST_PATTERN} characters")
    _compiled(text)
    return text


def redact_pattern(value: object) -> str:
    """A pattern whose matches are masked: never the empty string."""
    text = pattern(value)
    if _compiled(text).match(""):
        raise Mistake(f"{shown(text)} matches the empty string", "Use + in place of *.")
    return text


def _compiled(text: str) -> re.Pattern[str]:
    try:
        # A warning of the compiler, such as a possible nested set, would reach the person raw later on.
        with warnings.catch_warnings(action="error"):
            return re.compile(text)
    except (re.error, OverflowError, RecursionError, Warning) as exc:
        hint = "Escape characters such as ( [ * with a backslash."
        raise Mistake(f"{shown(text)} is not a regular expression: {exc}", hint) from None
