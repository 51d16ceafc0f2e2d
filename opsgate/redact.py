"""Secrets, and the scrubbing that every sink uses.

A `Redactor` knows the secrets of one run. What leaves opsgate, to a terminal, a log or a
record, goes through `scrub` or `scrub_value` first. Two kinds of rules mask as `***`:

- known values, as they stand, URL-encoded, JSON- or shell-escaped, or inside base64;
- shapes that betray a secret nobody told us of: URL userinfo, `?token=…`, `Bearer …`, header
  lines, `"password": "…"`, `PASSWORD=…`, `--password …`, and the file's own `[redact]` patterns.
"""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opsgate.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK: Final = "***"
SHORT: Final = 6
"""Shorter values are masked only where they are a whole value."""
LINE: Final = 8
"""Shorter lines of a secret of several lines are not masked by themselves."""
_CONTEXT: Final = 4096
"""Characters around a cut in a long line in which names and values are kept together."""
_WIDEST: Final = 12
"""Characters that one character becomes at most: JSON writes two escapes for one outside the BMP."""
_WRAP: Final = 76
"""Where `base64` and MIME wrap their lines."""

_NAME_WORDS: Final = frozenset(
    [
        "token", "tokens", "key", "keys", "secret", "secrets", "password", "passwords", "passwd", "pwd",
        "pass", "passphrase", "passcode", "signature", "sig", "credential", "credentials", "creds", "auth",
        "oauth", "authorization", "apikey", "apikeys", "apitoken", "authtoken", "accesstoken", "accesskey",
        "secretkey", "privatekey", "private", "jwt", "pat", "pgpassword", "sshpass",
    ]  # fmt: skip
)
_STEMS: Final = (
    "token", "key", "secret", "pass", "pwd", "sig", "cred", "auth", "private", "jwt", "pat", "cookie",
)  # fmt: skip
# The working directory and a socket's path: every process has them, and neither opens anything.
_PLAIN_NAMES: Final = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK"})
# A record must stay readable when somebody sets AUTH_MODE=manual: opsgate's own words are no secrets.
_OWN_WORDS: Final = frozenset(
    [
        "passed", "failed", "skipped", "interrupted", "auto", "manual", "true", "false", "release", "publish",
        "deploy", "gate", "rollback", "evidence", "doctor", "preflight", "dns", "refused", "reset", "timeout",
        "tls", "protocol", "status", "redirect", "too_large", "truncated", "health_document", "body", "json",
        "header", "latency", "certificate", "revision", "exit",
    ]  # fmt: skip
)
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


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


@lru_cache(maxsize=4096)
def looks_secret(name: str) -> bool:
    """Whether a variable, parameter or header of this name holds a secret: `DB_PASSWORD`, not `KEYBOARD`."""
    if name in _PLAIN_NAMES:
        return False
    return any(word.lower() in _NAME_WORDS for word in _WORD.findall(name))


class Redactor:
    """Masks the secrets of one run; never changes after it was made.

    `secrets` are values to hide, `patterns` regular expressions whose matches are hidden as well.
    A pattern that does not compile is a `ConfigurationError` naming `redact.patterns[i]`.
    """

    __slots__ = ("_known", "_patterns", "_secrets", "_short", "_sources")

    def __init__(self, secrets: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        self._sources = tuple(patterns)
        self._patterns = tuple(_compiled(index, source) for index, source in enumerate(self._sources))
        values = {value for secret in secrets if (value := secret.strip()) and value not in _OWN_WORDS}
        self._short = frozenset(value for value in values if len(value) < SHORT)
        lines = {line for value in values for line in _lines(value)}
        self._secrets = tuple(sorted((values | lines) - self._short, key=lambda value: (-len(value), value)))
        self._known = tuple(form for value in self._secrets for form in _forms(value))

    @classmethod
    def gather(
        cls, environ: Mapping[str, str], extra: Iterable[str | Secret] = (), patterns: Iterable[str] = ()
    ) -> Redactor:
        """The redactor for an environment: values of secret-looking names, what `found_in` sees in the others, `extra`."""
        secrets = [value for name, value in environ.items() if looks_secret(name)]
        for value in environ.values():
            secrets.extend(found_in(value))
        secrets.extend(item.reveal() if isinstance(item, Secret) else item for item in extra)
        return cls(secrets, patterns)

    def plus(self, *secrets: str | Secret) -> Redactor:
        """A redactor that hides these as well."""
        more = [item.reveal() if isinstance(item, Secret) else item for item in secrets]
        return Redactor((*self._secrets, *self._short, *more), self._sources)

    def __repr__(self) -> str:
        return f"<Redactor: {len(self._secrets) + len(self._short)} secrets, {len(self._patterns)} patterns>"

    def scrub(self, text: str) -> str:
        """The text with every secret in it replaced by `***`."""
        return _masked(text, self._spans(text))

    @property
    def reach(self) -> int:
        """Most characters that one secret takes up in text, in whatever form."""
        return max([_CONTEXT, *(_WIDEST * len(value) for value in self._secrets)])

    def part(self, text: str) -> tuple[str, str]:
        """The masked beginning of an unfinished line, and the raw rest, which may hold half a secret."""
        spans = self._spans(text)
        cut = max(0, len(text) - self.reach)
        for start, end in sorted(spans):
            # A rest that began with the value would have lost the name that betrays it.
            if start < cut + _CONTEXT and end > cut:
                cut = end
        return _masked(text[:cut], spans), text[cut:]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans = list(_betrayed(text))
        for needle, source in self._known:
            if needle in text:
                spans.extend(match.span() for match in re.finditer(source, text))
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
                if isinstance(item, str) and item and isinstance(key, str) and looks_secret(key)
                else self.scrub_value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.scrub_value(item) for item in value]
        return value

    def masks(self) -> tuple[str, ...]:
        """What to send as `::add-mask::`, one line each: every secret that is hidden anywhere in text, and its
        URL-encoded and base64 forms. Short values are left out: the runner would mask them everywhere."""
        single = [value for value in self._secrets if "\n" not in value and "\r" not in value]
        encoded = [form for value in self._secrets for form in (_percent(value), _base64(value))]
        return tuple(dict.fromkeys([*single, *encoded]))


def mask_url(url: str) -> str:
    """A URL fit for display: userinfo and the values of secret-looking parameters masked."""
    return _masked(url, list(_betrayed(url)))


def found_in(text: str) -> tuple[str, ...]:
    """Secrets that a URL, a command or a JSON text carries, each to be hidden wherever it occurs.

    Of userinfo the password, the `user:password` pair, and, over http, a user without a password.
    """
    found: list[str] = []
    for start, end in _betrayed(text):
        value = text[start:end]
        if text[end : end + 1] == "@" and text[:start].endswith("//"):
            user, colon, password = value.partition(":")
            if colon:
                found += [password, _unquoted(password), f"{_unquoted(user)}:{_unquoted(password)}"]
            elif re.search(r"https?:\\?/\\?/$", text[:start], re.IGNORECASE):
                found.append(_unquoted(user))
        else:
            found += [value, _unquoted(value), _unescaped(value)]
    return tuple(dict.fromkeys(value for value in found if len(value.strip()) >= SHORT))


# --- shapes ---------------------------------------------------------------------------------------

_USERINFO: Final = re.compile(r':\\?/\\?/([^\s/?#"<>]+)@')
_BEARER: Final = re.compile(r"(?i)\bbearer\s+(?!(?:tokens?|auth\w*|realm=|error=|scope=)\b)([\w.~+/%-]{6,}=*)")
_BASIC: Final = re.compile(r"(?i)\bbasic\s+([a-z0-9+/_-]{4,}={0,2})")
# Each names group 1 and hides group 2.
_NAMED: Final = (
    re.compile(r"[?&;#]([\w.%\[\]-]+)=([^\s&#\"<>]+)"),
    re.compile(r"""["']([\w.-]+)\\?["']\s*:\s*\\?["]((?:[^"\\\n]|\\(?!")[^\n]|\\"(?=[^,}\n]*"))+)"""),
    re.compile(r"""["']([\w.-]+)["']\s*:\s*[']([^'\n]+)"""),
    re.compile(r"\b([A-Z][A-Z0-9_]*)=(?:[\"'](?!\$)([^\"'\n]+)|(?![\"'$])([^\s;|&]+))"),
    re.compile(r"(?<![\w-])--([a-z][\w-]*)[= ](?:[\"'](?!\$)([^\"'\n]+)|(?![\"'$-])([^\s;|&]+))"),
)
_HEADER: Final = re.compile(
    r"""(?mx) (?: ^[ \t<>*|]* | (["']) | (?<=\s)(?=[\w]*-|(?i:authorization|cookie)\b) )
    ([A-Za-z][\w-]*) [ \t]*:[ \t]* (?!["'$ \t]) ( (?(1) (?:(?!\1)[^\n])+ | [^\n"]+ ) )"""
)


def _betrayed(text: str) -> Iterator[tuple[int, int]]:
    """Spans that must be secrets, by the look of what stands around them."""
    if "@" in text and "//" in text:
        yield from (match.span(1) for match in _USERINFO.finditer(text))
    # Plain `in` is far faster than any pattern: most output pays for nothing below.
    lowered = text.lower()
    if "bearer" in lowered:
        yield from (match.span(1) for match in _BEARER.finditer(text))
    if "basic" in lowered:
        yield from (match.span(1) for match in _BASIC.finditer(text) if _is_pair(match[1]))
    if not any(stem in lowered for stem in _STEMS):
        return
    if "=" in text or ":" in text or "--" in text:
        for pattern in _NAMED:
            for match in pattern.finditer(text):
                if looks_secret(match[1]):
                    yield match.span(match.lastindex or 2)
    if ":" in text:
        for match in _HEADER.finditer(text):
            if looks_secret(match[2]) or match[2].lower() in {"cookie", "set-cookie"}:
                yield match.span(3)


def _is_pair(encoded: str) -> bool:
    """Whether this is the `user:password` of Basic authorization, not a word that follows "basic"."""
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_")
    except ValueError:
        return False


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with the union of the spans replaced: overlapping secrets leave no rest."""
    pieces: list[str] = []
    done = 0
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if start >= len(text):
            break
        if start > done or not pieces:
            pieces += (text[done:start], MASK)
        done = max(done, end)
    return "".join(pieces) + text[done:]


# --- forms of a known value -----------------------------------------------------------------------


def _lines(value: str) -> Iterator[str]:
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= LINE)


def _forms(value: str) -> Iterator[tuple[str, str]]:
    """Pairs of a literal that any occurrence contains, and the pattern of the occurrence."""
    yield max(_PLAIN.findall(value), key=len, default=""), "".join(map(_any_way, value))
    data = value.encode("utf-8", "surrogateescape")
    for shift in range(3):
        core = _core(data, shift)
        for alphabet in dict.fromkeys((core, core.translate(str.maketrans("+/", "-_")))):
            # One more character carries the last bits of the secret, one before it the first.
            before = "[A-Za-z0-9+/_-]?" if shift else ""
            yield alphabet, f"{before}{re.escape(alphabet)}[A-Za-z0-9+/_-]?={{0,2}}"
    wrapped = _base64(value)
    if len(wrapped) > _WRAP:
        for at in range(0, len(wrapped) - LINE, _WRAP):
            piece = wrapped[at : at + _WRAP].rstrip("=")
            yield piece, re.escape(piece) + "={0,2}"


def _any_way(char: str) -> str:
    """A pattern for one character, however a URL, JSON or a shell would write it."""
    if _PLAIN.fullmatch(char):
        return re.escape(char)
    octets = char.encode("utf-8", "surrogateescape")
    ways = [re.escape(char), "".join(f"%(?i:{octet:02x})" for octet in octets)]
    if char == " ":
        ways.append(r"\+")
    elif char == "\n":
        ways.append("\r\n")
    elif char == "'":
        ways += [re.escape("'\\''"), re.escape("'\"'\"'")]
    ways += [re.escape(way) for way in dict.fromkeys((json.dumps(char)[1:-1], "\\" + char)) if way != char]
    return f"(?:{'|'.join(sorted(ways, key=len, reverse=True))})"


def _core(data: bytes, shift: int) -> str:
    """The characters of base64 that depend on `data` alone when `shift` bytes, modulo 3, stand before it."""
    encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
    first = -(-shift * 8 // 6)
    return encoded[first : (shift + len(data)) * 8 // 6]


def _base64(value: str) -> str:
    return base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()


def _percent(value: str) -> str:
    from urllib.parse import quote

    return quote(value.encode("utf-8", "surrogateescape"), safe="")


def _unquoted(value: str) -> str:
    from urllib.parse import unquote

    return unquote(value)


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
