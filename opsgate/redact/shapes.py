"""What gives a secret away although nobody named it: the words and marks that stand around it."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Span = tuple[int, int]
"""Start and end of what is to be hidden."""

_NAME_WORDS: Final = frozenset(
    [
        "token", "tokens", "key", "keys", "secret", "secrets", "password", "passwords", "passwd", "pwd",
        "pass", "passphrase", "passcode", "signature", "sig", "credential", "credentials", "creds", "auth",
        "oauth", "authorization", "apikey", "apikeys", "apitoken", "authtoken", "accesstoken", "accesskey",
        "secretkey", "privatekey", "private", "jwt", "pat", "pgpassword", "sshpass",
    ]
)  # fmt: skip
_STEMS: Final = (
    "token", "key", "secret", "pass", "pwd", "sig", "cred", "auth", "private", "jwt", "pat", "cookie",
)  # fmt: skip
# The working directory and a socket's path: every process has them, and neither opens anything.
_PLAIN_NAMES: Final = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK"})
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_USERINFO: Final = re.compile(r':\\?/\\?/([^\s/?#"<>]+)@')
_BEARER: Final = re.compile(
    r"(?i)\bbearer\s+"
    # "bearer token-based login" and "bearer authentication-failed." are words.
    r"(?!(?:tokens?|auth|authentication|authorization)[.~+/%-]*(?-i:[a-z]{0,12})\.?(?![\w.~+/%-]))"
    r"""(?!\w+=["'])([\w.~+/%-]{6,}=*)"""
)
_BASIC: Final = re.compile(r"(?i)\bbasic\s+([a-z0-9+/_-]{4,}={0,2})")
_CURL: Final = re.compile(r"""\bcurl\b[^\n|;]{0,400}?\s(?:-u|--user)[ =]?["']?([^\s"':$]+:[^\s"'$]+)""")
_PARAMETER: Final = re.compile(r"[?&;#]([\w.%\[\]-]+)=")
# `;` may begin another parameter, and may as well stand in a value.
_PARAMETER_VALUE: Final = re.compile(r"[^\s&#\"<>]+")
# Group 1 is the name, the last group that matched the value. A value that a shell fills in stays readable.
_MEMBERS: Final = (
    re.compile(r'"([\w.-]+)"\s*:\s*"((?:[^"\\\n]|\\.)+)'),
    re.compile(r'\\"([\w.-]+)\\"\s*:\s*\\"([^"\\\n]+)'),
    re.compile(r"'([\w.-]+)'\s*:\s*'([^'\n]+)"),
)
_VALUE: Final = r"""(?:["'](?![$`])([^"'\n]+)|(?!["'$`])([^\s;|&"']+))"""
_ASSIGNMENT: Final = re.compile(rf"\b([A-Za-z_]\w*)={_VALUE}")
_FLAG: Final = re.compile(rf"(?<![\w-])--([a-z][\w-]*)(?:=|[ ](?!-)){_VALUE}")
_FLAG_OF_A_PLACE: Final = re.compile(r"[-_](?:stdin|file|path|dir|fd|name|id|type|url|store|ring)$")
_HEADER: Final = re.compile(
    r"""(?m)(?:^[ \t<>*|]*|(["'])|(?<=\s)(?=\w*-|(?i:authorization|cookie)\b))([A-Za-z][\w-]*)[ \t]*:[ \t]*"""
)
# Too common in what programs print: "key: frontend", "PASS: test_login".
_EVERYDAY: Final = frozenset({"key", "keys", "pass"})
_COOKIES: Final = frozenset({"cookie", "set-cookie"})
_SAID_ANYWHERE: Final = frozenset({"password", "passwd", "pwd", "passphrase", "secret", "token"})


@lru_cache(maxsize=4096)
def looks_secret(name: str) -> bool:
    """Whether a variable, parameter or header of this name holds a secret: `DB_PASSWORD`, not `KEYBOARD`."""
    if name in _PLAIN_NAMES:
        return False
    return any(word.lower() in _NAME_WORDS for word in _WORD.findall(name))


@lru_cache(maxsize=4096)
def labels_secret(name: str) -> bool:
    """As `looks_secret`, for the name of a header or a member of a JSON object."""
    return name.lower() in _COOKIES or (looks_secret(name) and name.lower() not in _EVERYDAY)


def betrayed(text: str) -> list[Span]:
    """Spans that must be secrets, by the look of what stands around them; in no order, overlapping."""
    # Plain `in` is far faster than any pattern: most output pays for nothing but these.
    lowered = text.lower()
    found: list[Span] = []
    if "@" in text and "/" in text:
        found += [match.span(1) for match in _USERINFO.finditer(text)]
    if "bearer" in lowered:
        found += [match.span(1) for match in _BEARER.finditer(text)]
    if "basic" in lowered:
        found += [match.span(1) for match in _BASIC.finditer(text) if _is_pair(match[1])]
    if "curl" in text:
        found += [match.span(1) for match in _CURL.finditer(text)]
    if any(stem in lowered for stem in _STEMS):
        found += _named(text)
    return found


def _named(text: str) -> list[Span]:
    """Spans of values whose name stands before them and looks secret."""
    found: list[Span] = []
    if "=" in text:
        found += _parameters(text)
        found += _values(_ASSIGNMENT, text, _assigns_secret)
    if "--" in text:
        found += _values(_FLAG, text, _takes_secret)
    if ":" in text:
        for pattern in _MEMBERS:
            found += _values(pattern, text, labels_secret)
        found += _headers(text)
    return found


def _parameters(text: str) -> list[Span]:
    found: list[Span] = []
    done = 0
    for match in _PARAMETER.finditer(text):
        start = match.end()
        if not looks_secret(match[1]):
            continue
        # Inside another value: it ends where that one does, and need not be looked through again.
        if start >= done and (value := _PARAMETER_VALUE.match(text, start)):
            done = value.end()
        if start < done:
            found.append((start, done))
    return found


def _values(pattern: re.Pattern[str], text: str, secret: Callable[[str], bool]) -> list[Span]:
    return [match.span(match.lastindex or 0) for match in pattern.finditer(text) if secret(match[1])]


@lru_cache(maxsize=4096)
def _assigns_secret(name: str) -> bool:
    """`KEY=x` as in an environment, but of small letters, as in `key=3`, only what is secret everywhere."""
    if not looks_secret(name):
        return False
    return name.isupper() or any(word.lower() in _SAID_ANYWHERE for word in _WORD.findall(name))


@lru_cache(maxsize=4096)
def _takes_secret(flag: str) -> bool:
    return looks_secret(flag) and not _FLAG_OF_A_PLACE.search(flag)


def _headers(text: str) -> list[Span]:
    found: list[Span] = []
    done = 0
    for match in _HEADER.finditer(text):
        start = match.end()
        if start < done or not labels_secret(match[2]):
            continue
        ends = [at for mark in ("\n", match[1] or '"') if (at := text.find(mark, start)) >= 0]
        done = min(ends, default=len(text))
        if text[start : start + 1] not in {"$", "'", '"', "{", "["}:
            found.append((start, done))
    return found


def _is_pair(encoded: str) -> bool:
    """Whether this is the `user:password` of Basic authorization, not a word that follows "basic"."""
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_")
    except ValueError:
        return False
