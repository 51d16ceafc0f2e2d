"""What can be wrong with one value, and how a value is shown in a message."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from opsgate.redact import whole

_WIDTH = 240
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Mistake(ValueError):
    """One wrong value: what is wrong, what to write instead, and where below the key (`[1].status`)."""

    def __init__(self, text: str, hint: str = "", path: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.path = path


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake and the place where it stands: `opsgate.toml: gate.soak`, `--soak`, `OPSGATE_SOAK`."""

    where: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def shown(value: object) -> str:
    """`value` for a message: one line, control characters escaped, a long text by its length only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return kind_of(value)
    # repr() of an integer of more than 4300 digits raises.
    text = "a very large number" if isinstance(value, int) and abs(value) >= 10**20 else ascii(value)
    if isinstance(value, str):
        text = value if value.isprintable() else text[1:-1]
        return f'"{whole(text, _WIDTH)}"'
    return text


def kind_of(value: object) -> str:
    """The TOML type of `value` in words."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def key_text(name: str) -> str:
    """`name` as a part of a dotted TOML key, quoted where TOML needs it."""
    return name if _BARE.fullmatch(name) else shown(name)


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """`unknown key; did you mean "soak"?`, or the valid names where none is near."""
    near = nearest(name, valid)
    if near:
        return f'unknown {what}; did you mean "{near}"?'
    return f"unknown {what}; valid here: {', '.join(sorted(valid)) or 'none'}"


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The valid name that looks most like `name`, or None."""
    import difflib

    lowered = {candidate.lower(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.lower()[:100], lowered, n=1, cutoff=cutoff)
    return lowered[close[0]] if close else None
