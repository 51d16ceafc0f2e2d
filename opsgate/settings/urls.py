"""URLs to probe: checked, split, compared. No message shows the secret part of one."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from opsgate.hosts import PORTS, is_loopback
from opsgate.redact import mask_url
from opsgate.settings.mistakes import Mistake, shown

SCHEMES: Final = ("http", "https", "tcp")
HTTP: Final = ("http", "https")
_LONGEST: Final = 8192
_LONGEST_SHOWN: Final = 200
_LONGEST_HOST: Final = 253
_PORT_HINT: Final = "A port is a number from 1 to 65535."
_HOST_HINT: Final = "A host is a name, an IPv4 address, or an IPv6 address in brackets."
_SEPARATORS = re.compile(r"[\s,]+")
_BRACKETED = re.compile(r"\[[^\[\]]*\](?::[0-9]*)?")
_SECOND_URL = re.compile(r"[\s,]+(?=(?:https?|tcp)://)", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def split_list(text: str) -> tuple[str, ...]:
    """The URLs of a variable: separated by commas, spaces or newlines."""
    return tuple(part for part in _SEPARATORS.split(text) if part)


def split_flag(text: str) -> tuple[str, ...]:
    """The URLs of one `--url`. A comma is a separator only where another URL follows: it is legal in one."""
    return tuple(_SECOND_URL.split(text.strip()))


def check_url(value: object, schemes: tuple[str, ...] = SCHEMES) -> str:
    """`value` as it will be requested: without its fragment, the host in ASCII. Raises `Mistake`."""
    if not isinstance(value, str):
        raise Mistake(f"{shown(value)} is not a URL", "Write a URL as a string.")
    text = value.strip()
    seen = _seen(text)
    if len(text) > _LONGEST:
        raise Mistake(f"{seen} is longer than {_LONGEST} characters")
    if _SECOND_URL.search(text):
        raise Mistake(f"{seen} holds more than one URL", "Write each as a string of its own.")
    if any(char.isspace() or not char.isprintable() for char in text):
        raise Mistake(f"{seen} holds a space or a control character", "Write a space in a URL as %20.")
    parts = _parsed(text, seen)
    if parts.scheme not in schemes or not text.lower().startswith(f"{parts.scheme}://"):
        raise Mistake(f"{seen} is not a URL with {_words(schemes)}", f"Write it as {schemes[0]}://host/path.")
    host = _ascii_host(parts, seen)
    if parts.scheme == "tcp":
        _check_tcp(parts, seen)
    return _with_host(text.partition("#")[0], parts.hostname or "", host)


def check_webhook(value: object) -> str:
    """A URL that a record may be sent to: https, or this machine. Raises `Mistake`."""
    url = check_url(value, ("https", "http"))
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Mistake(f"{_seen(url)} would be sent evidence in the clear", "Write it as https://host/path.")
    return url


def normal(url: str) -> str:
    """A form that is the same for all spellings of one URL: case, default port, empty path."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme)
    user = parts.netloc.rpartition("@")[0]
    path = "" if parts.scheme == "tcp" else (parts.path or "/")
    return f"{parts.scheme}://{user}@{host}:{port}{path}?{parts.query}"


def _seen(text: str) -> str:
    """A URL that may be no URL, for a message: what could be userinfo or a query is left out."""
    head, question, _ = text.partition("?")
    scheme, slashes, rest = head.rpartition("://")
    before, at, place = rest.rpartition("@")
    rest = f"***@{place}" if at and before else rest
    if len(rest) > _LONGEST_SHOWN:
        rest = f"{rest.partition('/')[0]}/…"
    return shown(mask_url(f"{scheme}{slashes}{rest}{'?***' if question else ''}"))


def _parsed(text: str, seen: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        # The library's words may quote the URL, userinfo included.
        what = "port" if str(exc).startswith("Port") else "host"
        # Where a password with a comma was split, the "port" is the half of it.
        seen = _seen(text.rpartition(":")[0] + ":***") if what == "port" else seen
        raise Mistake(f"{seen} has an invalid {what}", _PORT_HINT if what == "port" else _HOST_HINT) from None
    if port == 0 or parts.netloc.endswith(":"):
        raise Mistake(f"{seen} has an invalid port", _PORT_HINT)
    return parts


def _ascii_host(parts: SplitResult, seen: str) -> str:
    host = parts.hostname or ""
    bare = parts.netloc.rpartition("@")[2]
    if not host or "\\" in parts.netloc:
        raise Mistake(f"{seen} names no host", f"Write it as {parts.scheme}://host/path.")
    if _BRACKETED.fullmatch(bare):
        return _checked_ipv6(host, seen)
    if not host.isascii():
        host = _idna(host, seen)
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise Mistake(f"{seen} has an invalid host", _HOST_HINT)
    return host


def _checked_ipv6(host: str, seen: str) -> str:
    try:
        ipaddress.IPv6Address(host.replace("%25", "%"))
    except ValueError:
        raise Mistake(f"{seen} has an invalid host", _HOST_HINT) from None
    return host


def _idna(host: str, seen: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise Mistake(f"{seen} has an invalid host", "Write the host in ASCII, as xn--….") from None


def _check_tcp(parts: SplitResult, seen: str) -> None:
    if parts.port is None:
        raise Mistake(f"{seen} names no port", "Write it as tcp://host:port.")
    if parts.path or parts.query or "@" in parts.netloc:
        raise Mistake(f"{seen} has more than a host and a port", "Write it as tcp://host:port.")


def _with_host(text: str, before: str, after: str) -> str:
    if after.isascii() and before.isascii():
        return text
    scheme, _, rest = text.partition("://")
    end = next((at for at, char in enumerate(rest) if char in "/?"), len(rest))
    user, at, netloc = rest[:end].rpartition("@")
    port = netloc.partition(":")[2]
    return f"{scheme}://{user}{at}{after}{':' + port if port else ''}{rest[end:]}"


def _words(schemes: tuple[str, ...]) -> str:
    *most, last = (f"{scheme}://" for scheme in schemes)
    return f"{', '.join(most)} or {last}"
