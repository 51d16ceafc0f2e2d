"""A target of the file: a URL, or a table with expectations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from opsgate.redact import mask_url
from opsgate.settings import rules
from opsgate.settings.durations import parse_duration
from opsgate.settings.mistakes import Mistake, key_text, kind_of, shown, unknown
from opsgate.settings.urls import HTTP, check_url
from opsgate.verdict.targets import Expectation, Target

LONGEST_NAME: Final = 200
"""Characters of a target's name."""
_RANGE = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# The transport sets these; a second one would make the request ambiguous.
_OWN_HEADERS: Final = ("connection", "content-length", "transfer-encoding")
_STATUS_HINT: Final = 'Write 200, "200-299", or a list of these.'
_BODY_KEYS: Final = ("body", "body_regex", "json")


def parse_target(value: object) -> Target:
    """The target that one item of `urls` describes. Raises `Mistake` with the path below the item."""
    if isinstance(value, str):
        return url_target(check_url(value))
    if not isinstance(value, dict):
        raise Mistake(f"must be a URL or a table, not {kind_of(value)}")
    fields = _fields(value)
    if ("url" in fields) == ("command" in fields):
        raise Mistake("needs exactly one of url and command")
    command = fields.get("command")
    shape = "command" if command is not None else fields["url"].partition(":")[0].lower()
    _check_fit(fields, shape)
    expect = {key: fields[key] for key in Expectation.__struct_fields__ if key in fields}
    rest = {key: fields[key] for key in fields if key not in expect}
    default = mask_url(fields["url"] if command is None else " ".join(command.split()))
    return Target(**{"name": default, **rest}, expect=Expectation(**expect))


def url_target(url: str, *, required: bool = True) -> Target:
    """The target of a URL without expectations of its own."""
    return Target(name=mask_url(url), url=url, required=required)


def parse_control(value: object) -> Target:
    """A control URL: it never decides."""
    return url_target(check_url(value, HTTP), required=False)


def _fields(table: Mapping[str, object]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in table.items():
        rule = RULES.get(key)
        if rule is None:
            raise Mistake(unknown("key", key, RULES), path=f".{key_text(key)}")
        try:
            fields[key] = rule(value)
        except Mistake as exc:
            raise Mistake(exc.text, exc.hint, f".{key}{exc.path}") from None
    return fields


def _check_fit(fields: Mapping[str, Any], shape: str) -> None:
    """Expectations that this kind of target cannot meet are mistakes, not wishes."""
    common = {"url", "command", "name", "required"}
    for key in fields:
        if shape in {"tcp", "command"} and key not in common:
            what = "a command" if shape == "command" else "a tcp:// URL"
            raise Mistake(
                f"cannot be expected of {what}", "It belongs to http:// and https:// URLs.", f".{key}"
            )
        if shape == "http" and key in {"tls_days", "ca_file"}:
            raise Mistake("needs an https:// URL", path=f".{key}")
        reads_body = key in _BODY_KEYS or (key == "revision" and fields[key].startswith("json:"))
        if reads_body and fields.get("method") == "HEAD":
            raise Mistake("looks at the body, and method HEAD has none", 'Use method = "GET".', f".{key}")


def _name(value: object) -> str:
    text = rules.line(value)
    if len(text) > LONGEST_NAME:
        raise Mistake(f"is longer than {LONGEST_NAME} characters")
    return text


def _status(value: object) -> tuple[tuple[int, int], ...]:
    if isinstance(value, list):
        ranges = tuple(_status_range(item, f"[{index}]") for index, item in enumerate(value))
    else:
        ranges = (_status_range(value, ""),)
    if not ranges:
        raise Mistake("is empty", _STATUS_HINT)
    return ranges


def _status_range(value: object, path: str) -> tuple[int, int]:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    match = _RANGE.fullmatch(text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if low > high:
        raise Mistake(f"{shown(value)} is not a status or a range of them", _STATUS_HINT, path)
    return low, high


def _json(value: object) -> tuple[tuple[str, Any], ...]:
    if not isinstance(value, dict):
        raise Mistake(f"must be a table of dotted path = value, not {kind_of(value)}")
    for key, item in value.items():
        if not all(key.split(".")):
            raise Mistake("is not a dotted path", 'Write it as "checks.0.up".', f".{shown(key)}")
        if not _is_json(item):
            raise Mistake("is not a JSON value", "Write a date as a string.", f".{shown(key)}")
    return tuple(value.items())


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_json(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | bool | int)


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise Mistake(f"must be a table of name = value, not {kind_of(value)}")
    seen: set[str] = set()
    for key, item in value.items():
        path = f".{key_text(key)}"
        if not _HEADER_NAME.fullmatch(key):
            raise Mistake("is not a header name", path=path)
        if key.lower() in seen:
            raise Mistake("is given twice", "Header names are not case-sensitive.", path)
        seen.add(key.lower())
        if not isinstance(item, str):
            raise Mistake(f"must be a string, not {kind_of(item)}", path=path)
        if not item.isprintable() or not _is_latin(item):
            raise Mistake("holds a character that a header cannot carry", path=path)
    return tuple(value.items())


def _is_latin(text: str) -> bool:
    return all(ord(char) < 256 for char in text)  # noqa: PLR2004 - ISO 8859-1, as HTTP has it


def _request_headers(value: object) -> tuple[tuple[str, str], ...]:
    headers = _headers(value)
    for key, _ in headers:
        if key.lower() in _OWN_HEADERS:
            raise Mistake("is set by opsgate itself", path=f".{key}")
    return headers


def _revision(value: object) -> str:
    text = rules.line(value).strip()
    source, _, place = text.partition(":")
    if source == "json" and place and all(place.split(".")):
        return text
    if source == "header" and _HEADER_NAME.fullmatch(place):
        return text
    raise Mistake(f"{shown(text)} does not say where to look", "Write json:PATH or header:NAME.")


def _tls_days(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mistake(f"must be a number of days, not {kind_of(value)}")
    if not 0 < value <= 3650:  # noqa: PLR2004 - ten years: no certificate lives as long
        raise Mistake(f"{shown(value)} is not a number of days, above 0 and at most 3650")
    return float(value)


def _method(value: object) -> str:
    if value not in ("GET", "HEAD"):
        raise Mistake(f"{shown(value)} is neither GET nor HEAD")
    return str(value)


RULES: Final[dict[str, Callable[[object], Any]]] = {
    "url": check_url,
    "command": rules.command,
    "name": _name,
    "required": rules.boolean,
    "method": _method,
    "request_headers": _request_headers,
    "ca_file": rules.line,
    "status": _status,
    "body": rules.string,
    "body_regex": rules.pattern,
    "json": _json,
    "headers": _headers,
    "revision": _revision,
    "max_latency": parse_duration,
    "tls_days": _tls_days,
}
"""What the table of a target may hold."""
