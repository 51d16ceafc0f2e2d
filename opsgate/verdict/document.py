"""The JSON of a health document, read so that nothing in it can hide a `DOWN`. Pure."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Final

UNHEALTHY_WORDS: Final = frozenset(
    {"down", "fail", "failed", "error", "unhealthy", "out_of_service", "critical"}
)
NOT_JSON: Final = object()
MISSING: Final = object()
_DEEP: Final = 100
# One without an end reaches to that of the text: looked for again from each of its quotes, it would take for
# ever.
_STRING: Final = r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_BETWEEN: Final = re.compile(rf'(?:{_STRING}|[^"\[\]{{}}]++)++', re.DOTALL)
"""What stands between two brackets, strings too."""
_TOKEN: Final = re.compile(rf"[\[{{\]}}]|{_STRING}", re.DOTALL)
_INTEGER_DIGITS: Final = 200
_INDEX_DIGITS: Final = 6  # no list of a body of 1 MiB is longer


def parse(body: bytes, *, needed: bool) -> object:
    """The body as JSON, or `NOT_JSON`. Lenient: a `NaN` must not hide a `DOWN`.

    Where nobody asks for more, only an object is parsed: nothing else is a health document.
    """
    text = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff \t\r\n")
    if not needed and not text.startswith("{"):
        return NOT_JSON
    if _is_deep(text):
        text = _shallow(text)
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=_object, strict=False)
    except ValueError:
        return NOT_JSON


def _is_deep(text: str) -> bool:
    """Whether something has to be left out.

    Not for the parser to find out at the end of the stack: what Python happens to tidy away there breaks.
    """
    if text.count("[") + text.count("{") < _DEEP:
        return False
    steps = (1 if bracket in "[{" else -1 for bracket in _BETWEEN.sub("", text))
    return any(depth >= _DEEP for depth in accumulate(steps))


def _shallow(text: str) -> str:
    """JSON with null in place of what is nested too deep for the parser, so that the rest can be read."""
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth == _DEEP:
                kept.append(text[start : token.start()])
        elif token[0] in ("]", "}"):
            if depth == _DEEP:
                kept.append("null")
                start = token.end()
            depth -= 1
    return "".join(kept) + (text[start:] if depth < _DEEP else "")


def _integer(digits: str) -> int | float:
    # Python refuses to turn very long digit strings into integers; the document is JSON all the same.
    return int(digits) if len(digits) <= _INTEGER_DIGITS else float(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of a repeated `status` the unhealthy one counts, else the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        members.update((name, value) for name, value in pairs if is_unhealthy(name, value))
    return members


def look_up(document: object, path: str) -> object:
    """The value at a dotted path. A key that holds dots is found too: the longest one that fits wins."""
    if document is NOT_JSON:
        return MISSING
    if not path:
        return document
    if isinstance(document, list):
        return _look_up_index(document, path)
    if not isinstance(document, dict):
        return MISSING
    parts = path.split(".")
    for size in range(len(parts), 0, -1):
        found = look_up(document.get(".".join(parts[:size]), NOT_JSON), ".".join(parts[size:]))
        if found is not MISSING:
            return found
    return MISSING


def _look_up_index(items: list[Any], path: str) -> object:
    head, _, rest = path.partition(".")
    usable = head.isascii() and head.isdigit() and len(head) <= _INDEX_DIGITS
    return look_up(items[int(head)], rest) if usable and int(head) < len(items) else MISSING


def is_unhealthy(name: str, value: object) -> bool:
    """Whether a top-level member of this name and value says that the runtime is down."""
    return (
        name in ("status", "outcome") and isinstance(value, str) and value.strip().lower() in UNHEALTHY_WORDS
    )
