"""Whether a page shows what a command really says: its words, whatever the times, durations and names are."""

from __future__ import annotations

import re
from typing import Final

_LEFT_OUT: Final = re.compile(r"\[…\]|[0-9a-f]{12,}…|…-[0-9a-f]{6}\b|…")
_CHANGING: Final = (
    # Whether a service dies between two requests or in the middle of one is chance.
    (r" \(at first: [^)]*\)", ""),
    (r"process \d+ on [\w.-]+", "process N on HOST"),
    (r"\d{4}-?\d\d-?\d\d[T ]\d\d:?\d\d:?\d\d(?:\.\d+)?Z?(?:-[0-9a-f]{6})?", "TIME"),
    (r"\d\d:\d\d:\d\dZ?", "TIME"),
    (r"[0-9a-f]{12}-TIME", "TAG"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\b[0-9a-f]{12}\b", "REVISION"),
    (r"\b\d+(?:\.\d+)? (?:ms|s|min)\b", "DURATION"),
    (r"\d+", "N"),
    (r"\s+", " "),
)


def unlike(shown: str, said: str) -> list[str]:
    """The lines of a transcript that the output does not have; what it leaves out may be anything."""
    lines = [_words(line) for line in said.splitlines()]
    return [
        line
        for line in shown.splitlines()
        if not line.startswith("$ ") and not any(_stands_in(line, real) for real in lines)
    ]


def _stands_in(line: str, real: str) -> bool:
    return re.search(".*".join(re.escape(_words(part)) for part in _LEFT_OUT.split(line)), real) is not None


def _words(text: str) -> str:
    for pattern, name in _CHANGING:
        text = re.sub(pattern, name, text)
    return text.strip()
