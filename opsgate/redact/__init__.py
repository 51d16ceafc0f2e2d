"""Secrets, and the scrubbing that every sink uses.

A `Redactor` knows the secrets of one run. What leaves opsgate, to a terminal, a log or a
record, goes through `scrub` or `scrub_value` first. Two kinds of rules mask as `***`:

- known values, as they stand, URL-encoded, JSON- or shell-escaped, or inside base64, wrapped or not;
- shapes that betray a secret nobody told us of: URL userinfo, `?token=…`, `Bearer …`, header
  lines, `"password": "…"`, `PASSWORD=…`, `--password …`, and the file's own `[redact]` patterns.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from opsgate.errors import ConfigurationError
from opsgate.redact.forms import WIDEST, forms, in_base64, in_url, lines, pieces, wrapped
from opsgate.redact.shapes import Span, betrayed, labels_secret, looks_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MASK", "SHORT", "Redactor", "Secret", "found_in", "looks_secret", "mask_url"]

MASK: Final = "***"
SHORT: Final = 6
"""Shorter values are masked only where they are a whole value."""
_CONTEXT: Final = 4096
"""Characters around a cut in a long line in which names and values are kept together."""
_LOGIN: Final = re.compile(r"""\s(?:-u|--user)[ =]?["']?\Z""")
_SHELL: Final = re.compile(r"['`;|()]")
_SCHEME: Final = re.compile(
    r"(?i)(?:aws4-hmac-sha256|api-?key|basic|bearer|digest|dpop|geniekey|negotiate|ntlm|oauth|privatetoken|ssws|token)"
    r"\s+([\w.~+/%-]+=*)"
)
"""`token …`: what a header says in place of the credential alone (IANA's schemes, and those in wide use)."""
_OF_A_HEADER: Final = re.compile(r"""(?i)(?:authorization|\w-\w+)\\?["']?[ \t]*:[ \t]*\\?["']?\Z""")
# A record must stay readable when somebody sets AUTH_MODE=manual: opsgate's own words are no secrets.
_OWN_WORDS: Final = frozenset(
    [
        "passed", "failed", "skipped", "interrupted", "auto", "manual", "true", "false", "release", "publish",
        "deploy", "gate", "rollback", "evidence", "doctor", "preflight", "dns", "refused", "reset", "timeout",
        "tls", "protocol", "status", "redirect", "too_large", "truncated", "health_document", "body", "json",
        "header", "latency", "certificate", "revision", "exit",
    ]
)  # fmt: skip


class Secret:
    """A string that does not show itself: `repr`, `str` and formatting give `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


class Redactor:
    """Masks the secrets of one run; never changes after it was made.

    `secrets` are values to hide, `patterns` regular expressions whose matches are hidden as well.
    A pattern that does not compile is a `ConfigurationError` naming `redact.patterns[i]`.
    """

    __slots__ = ("_known", "_patterns", "_pieces", "_secrets", "_short", "_short_lines")

    def __init__(self, secrets: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(_compiled(index, source) for index, source in enumerate(patterns))
        values = {value for secret in secrets if (value := secret.strip()) and value not in _OWN_WORDS}
        self._short = frozenset(value for value in values if len(value) < SHORT)
        self._short_lines = _lines_of(self._short)
        parts = {line for value in values for line in lines(value)}
        self._secrets = tuple(sorted((values | parts) - self._short, key=lambda value: (-len(value), value)))
        self._known = tuple(form for value in self._secrets for form in forms(value))
        self._pieces = frozenset().union(*map(pieces, self._secrets))

    @classmethod
    def gather(
        cls, environ: Mapping[str, str], extra: Iterable[str | Secret] = (), patterns: Iterable[str] = ()
    ) -> Redactor:
        """Hides the values of secret-looking variables, what `found_in` sees in any, and `extra`."""
        secrets = [value for name, value in environ.items() if looks_secret(name)]
        for value in environ.values():
            secrets.extend(found_in(value))
        secrets.extend(item.reveal() if isinstance(item, Secret) else item for item in extra)
        return cls(secrets, patterns)

    def __repr__(self) -> str:
        return f"<Redactor: {len(self._secrets) + len(self._short)} secrets, {len(self._patterns)} patterns>"

    def scrub(self, text: str, *, skip: int = 0) -> str:
        """The text with every secret in it replaced by `***`, without its first `skip` characters.

        A text that may begin in the middle of a secret needs `skip=reach`.
        """
        return _masked(text, self._spans(text), skip)

    def scrub_lines(self, text: str, *, skip: int = 0) -> str:
        """As `scrub`, for output: a line that is a short secret and nothing else is a whole value."""
        spans = self._spans(text)
        if self._short_lines:
            spans.extend(match.span(1) for match in self._short_lines.finditer(text))
        return _masked(text, spans, skip)

    @property
    def reach(self) -> int:
        """Most characters that one secret takes up in text, in whatever form."""
        return max([_CONTEXT, *(WIDEST * len(value) for value in self._secrets)])

    def part(self, text: str, *, skip: int = 0) -> tuple[str, str]:
        """The masked beginning of an unfinished line, and the raw rest, which may hold half a secret.

        `skip` as in `scrub`.
        """
        spans = self._spans(text)
        cut = max(0, len(text) - self.reach)
        for start, end in sorted(spans):
            # A rest that began with the value would have lost the name that betrays it.
            if start < cut + _CONTEXT and end > cut:
                cut = end
        return _masked(text[:cut], spans, skip), text[cut:]

    def _spans(self, text: str) -> list[Span]:
        spans = betrayed(text)
        for needle, source in self._known:
            if needle in text:
                spans.extend(match.span() for match in re.finditer(source, text))
        if self._pieces:
            spans += wrapped(text, self._pieces)
        for pattern in self._patterns:
            spans.extend(match.span() for match in pattern.finditer(text))
        return spans

    def scrub_value(self, value: Any) -> Any:
        """A JSON document with every secret masked, in keys too; short secrets where they are a whole string.

        Strings under a secret-looking key are masked whatever they are.
        """
        if isinstance(value, str):
            return MASK if value.strip() in self._short else self.scrub(value)
        if isinstance(value, dict):
            return {
                self.scrub(key) if isinstance(key, str) else key: MASK
                if isinstance(item, str) and item and isinstance(key, str) and labels_secret(key)
                else self.scrub_value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.scrub_value(item) for item in value]
        return value

    def masks(self) -> tuple[str, ...]:
        """What to send as `::add-mask::`: each secret, line by line, URL-encoded and in base64.

        Values that are too short for text are left out: the runner would mask them everywhere.
        """
        single = [value for value in self._secrets if "\n" not in value and "\r" not in value]
        encoded = [form for value in self._secrets for form in (in_url(value), in_base64(value))]
        return tuple(dict.fromkeys([*single, *encoded]))


def mask_url(url: str) -> str:
    """A URL fit for display: userinfo and the values of secret-looking parameters masked."""
    return _masked(url, betrayed(url))


def found_in(text: str) -> tuple[str, ...]:
    """Secrets that a URL, a command or a JSON text carries, each to be hidden wherever it occurs.

    Of userinfo the password, the `user:password` pair, and, over http, a user without a password.
    """
    found: list[str] = []
    for start, end in betrayed(text):
        value = text[start:end]
        if text[end : end + 1] == "@" and text[:start].endswith("//"):
            user, colon, password = value.partition(":")
            if colon:
                found += [password, unquote(password), f"{unquote(user)}:{unquote(password)}"]
            elif re.search(r"https?:\\?/\\?/$", text[:start], re.IGNORECASE):
                found.append(unquote(user))
        else:
            # A sign of the shell may end a URL's parameter, as `\"` does a header, and is no part of it.
            bare = value.rstrip("\\")
            found += [value, bare, _SHELL.split(value, 1)[0], unquote(value), _unescaped(value)]
            if _LOGIN.search(text, max(0, start - len("  --user='")), start):
                found.append(value.partition(":")[2])
            scheme = _SCHEME.fullmatch(bare)
            # A word is none: the title of a commit may look like a header.
            if scheme and not scheme[1].isalpha() and _OF_A_HEADER.search(text, max(0, start - 64), start):
                found.append(scheme[1])
    return tuple(dict.fromkeys(value for value in found if len(value.strip()) >= SHORT))


def _masked(text: str, spans: list[Span], skip: int = 0) -> str:
    """The text from `skip` on with the union of the spans replaced: overlapping secrets leave no rest."""
    pieces: list[str] = []
    done = skip
    for start, end in sorted(span for span in spans if span[0] < span[1] and span[1] > skip):
        if start >= len(text):
            break
        if start > done or not pieces:
            pieces += (text[done:start], MASK)
        done = max(done, end)
    return "".join(pieces) + text[done:]


def _lines_of(values: Iterable[str]) -> re.Pattern[str] | None:
    """What finds one of the values alone on its line, however the line ends; None without any value."""
    one = "|".join(re.escape(value) for value in sorted(values))
    return re.compile(rf"(?:\A|(?<=[\r\n]))[ \t]*({one})(?=[ \t]*(?:[\r\n]|\Z))") if one else None


def _unescaped(value: str) -> str:
    try:
        return str(json.loads(f'"{value}"'))
    except ValueError:
        return value


def _compiled(index: int, source: str) -> re.Pattern[str]:
    try:
        return re.compile(source)
    except (re.error, RecursionError, OverflowError) as exc:
        raise ConfigurationError(
            f"redact.patterns[{index}]: {source!r} is not a regular expression: {exc}",
            "Patterns are Python regular expressions; escape characters such as ( [ * with a backslash.",
        ) from None


def whole(text: str, limit: int = 1000) -> str:
    """The text as part of a message, or only its length where it is longer than the limit.

    Never a part of it: messages are masked later, and half a secret would not be recognized then.
    """
    return text if len(text) <= limit else f"({len(text)} characters)"
