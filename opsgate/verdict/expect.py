"""From the facts of one response to healthy, or to what is wrong with it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from opsgate.verdict.document import MISSING, NOT_JSON, is_unhealthy, look_up, parse
from opsgate.verdict.targets import Expectation, Kind, RevisionRule

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT_LIMIT: Final = 64 * 1024
"""`body` and `body_regex` look at this many bytes of the body."""
_REVISION_LIMIT: Final = 200
_ABBREVIATED: Final = 7
_DAY: Final = 86_400.0


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One response that arrived whole."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    """Decoded, 1 MiB at most."""
    elapsed_ms: float = 0.0
    tls_not_after: float | None = None
    """The certificate's end of life, in seconds since the epoch; null without TLS."""

    def header(self, name: str) -> str | None:
        """The header's value, the values of a repeated one joined by a comma; None without it."""
        wanted = name.lower()
        found = [_readable(value.strip()) for key, value in self.headers if key.lower() == wanted]
        return ", ".join(found) if found else None


def _readable(value: str) -> str:
    # Header bytes arrive as Latin-1; what servers write there is mostly UTF-8.
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What the response amounts to: healthy where `kind` is null, else what went wrong."""

    kind: Kind | None = None
    detail: str = ""
    revision: str | None = None


class SearchTimeout(Exception):
    """A search for `body_regex` took too long and was given up."""


def search(pattern: str, text: str) -> bool:
    """Whether the pattern is found, however long that takes; `probe.pattern` has a limit."""
    return re.search(pattern, text) is not None


def beginning(text: str, limit: int) -> str:
    """The first `limit` characters, for who has no secrets to hide."""
    return text[:limit]


def examine(
    expect: Expectation,
    response: Response,
    *,
    rule: RevisionRule,
    now: float,
    lenient: bool = False,
    find: Callable[[str, str], bool] = search,
    shown: Callable[[str, int], str] = beginning,
) -> Finding:
    """Hold one response against what is expected of it.

    `now` is in seconds since the epoch. `lenient` is recovery's: status, health document and
    revision decide, and another expectation that fails is a warning. The revision is judged last,
    so that `revision` means that all else held. `find` searches a pattern in a text and may raise
    `SearchTimeout`. `shown` gives the beginning of a text, its secrets masked before it is cut.
    """
    cite = partial(quote, shown=shown)
    document = parse(response.body, needed=bool(expect.json) or (expect.revision or "").startswith("json:"))
    revision = _revision(expect.revision, response, document)
    failed = _status(expect, response) or _health_document(document, cite)
    if failed is not None:
        return _finding(failed, revision)
    note = ""
    failed = next(_other_failures(expect, response, document, now, find, cite), None)
    if failed is not None:
        if not lenient:
            return _finding(failed, revision)
        note = f"warning: {failed[1]}"
    kind, about_revision = _judge_revision(expect, rule, revision, cite)
    detail = about_revision if kind is not None else "; ".join(filter(None, (note, about_revision)))
    return Finding(kind=kind, detail=detail, revision=revision)


def revisions_match(a: str, b: str) -> bool:
    """Equal, or both hexadecimal, of 7 characters or more, and one begins with the other."""
    if a == b:
        return True
    short, long = sorted((a.lower(), b.lower()), key=len)
    return (
        len(short) >= _ABBREVIATED and re.fullmatch("[0-9a-f]+", long) is not None and long.startswith(short)
    )


def quote(text: str, limit: int = 60, *, shown: Callable[[str, int], str] = beginning) -> str:
    """The text in quotes, on one line, without control characters, and no longer than the limit."""
    whole = json.dumps(shown(text, limit + 1)[: limit + 1], ensure_ascii=False)
    harmless = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in whole[1:-1])
    if len(harmless) > limit:
        return f'"{harmless[:limit]}…"'
    return f'"{harmless}"'


_Failure = tuple[Kind, str]
_Cite = Callable[[str], str]


def _finding(failed: _Failure, revision: str | None) -> Finding:
    return Finding(kind=failed[0], detail=failed[1], revision=revision)


def _status(expect: Expectation, response: Response) -> _Failure | None:
    if any(low <= response.status <= high for low, high in expect.status):
        return None
    return "status", f"status {response.status}"


def _health_document(document: object, cite: _Cite) -> _Failure | None:
    if not isinstance(document, dict):
        return None
    for name in ("status", "outcome"):
        value = document.get(name)
        if is_unhealthy(name, value):
            return "health_document", f"the health document says {name} {cite(str(value))}"
    return None


def _other_failures(
    expect: Expectation,
    response: Response,
    document: object,
    now: float,
    find: Callable[[str, str], bool],
    cite: _Cite,
) -> Iterator[_Failure]:
    yield from _header_failures(expect, response, cite)
    if expect.body is not None or expect.body_regex is not None:
        yield from _text_failures(expect, _text(response), find, cite)
    yield from _json_failures(expect, document, cite)
    if expect.max_latency is not None and (allowed := expect.max_latency * 1000) < response.elapsed_ms:
        yield "latency", f"took {response.elapsed_ms:.0f} ms, at most {allowed:.0f} ms allowed"
    if expect.tls_days is not None:
        yield from _certificate_failures(expect.tls_days, response.tls_not_after, now)


def _header_failures(expect: Expectation, response: Response, cite: _Cite) -> Iterator[_Failure]:
    for name, wanted in expect.headers:
        seen = response.header(name)
        if seen is None:
            yield "header", f"no header {name}"
        elif seen != wanted.strip():
            yield "header", f"header {name} is {cite(seen)}, not {cite(wanted)}"


def _text_failures(
    expect: Expectation, text: str, find: Callable[[str, str], bool], cite: _Cite
) -> Iterator[_Failure]:
    if expect.body is not None and expect.body not in text:
        yield "body", f"body does not contain {cite(expect.body)} ({_opening(text, cite)})"
    if expect.body_regex is not None:
        try:
            if not find(expect.body_regex, text):
                yield "body", f"body does not match {cite(expect.body_regex)} ({_opening(text, cite)})"
        except SearchTimeout:
            yield "timeout", f"time limit reached while searching for {cite(expect.body_regex)}"


def _opening(text: str, cite: _Cite) -> str:
    return f"starts with {cite(text)}" if text else "it is empty"


def _json_failures(expect: Expectation, document: object, cite: _Cite) -> Iterator[_Failure]:
    for path, wanted in expect.json:
        if document is NOT_JSON:
            yield "json", "body is not JSON"
            return
        seen = look_up(document, path)
        if seen is MISSING:
            yield "json", f"json {cite(path)} is missing"
        elif not _same(seen, wanted):
            yield "json", f"json {cite(path)} is {_show(seen, cite)}, not {_show(wanted, cite)}"


def _certificate_failures(days: float, not_after: float | None, now: float) -> Iterator[_Failure]:
    if not_after is None:
        yield "certificate", "no certificate was seen"
    elif (left := (not_after - now) / _DAY) < days:
        yield "certificate", f"certificate ends in {left:.1f} days, at least {days:g} wanted"


def _judge_revision(
    expect: Expectation, rule: RevisionRule, seen: str | None, cite: _Cite
) -> tuple[Kind | None, str]:
    if expect.revision is None:
        return None, ""
    if seen is None:
        unreadable = f"no revision at {cite(expect.revision)}"
        return ("revision" if rule.expected else None), unreadable
    if rule.expected and not revisions_match(seen, rule.expected):
        return "revision", f"runs revision {cite(seen)}, not {cite(rule.expected)}"
    if rule.forbidden and revisions_match(seen, rule.forbidden):
        return "revision", f"still runs revision {cite(seen)}"
    return None, ""


def _revision(where: str | None, response: Response, document: object) -> str | None:
    """What the runtime says it runs; None where it cannot be read."""
    if where is None:
        return None
    source, _, name = where.partition(":")
    value: object = response.header(name) if source == "header" else look_up(document, name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    return text if 0 < len(text) <= _REVISION_LIMIT else None


def _text(response: Response) -> str:
    start = response.body[:TEXT_LIMIT]
    content_type = response.header("content-type") or ""
    named = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9._:-]+)", content_type, re.IGNORECASE)
    try:
        text = start.decode(named[1] if named else "utf-8", "replace")
    except (LookupError, ValueError):
        text = start.decode("utf-8", "replace")
    return text.removeprefix("\ufeff")


def _same(seen: object, wanted: object) -> bool:
    """Strict equality: `true` is not 1, while 1 is 1.0; all the way down."""
    if isinstance(seen, bool) or isinstance(wanted, bool):
        return seen is wanted
    if isinstance(seen, dict) and isinstance(wanted, dict):
        return seen.keys() == wanted.keys() and all(_same(seen[key], wanted[key]) for key in seen)
    if isinstance(seen, list | tuple) and isinstance(wanted, list | tuple):
        return len(seen) == len(wanted) and all(map(_same, seen, wanted))
    return seen == wanted


def _show(value: object, cite: _Cite) -> str:
    if isinstance(value, str):
        return cite(value)
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    return cite(json.dumps(value)).strip('"')
