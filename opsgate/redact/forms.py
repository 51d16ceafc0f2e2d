"""How a known secret may stand in a text: as it is, escaped, URL-encoded, or inside base64."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE: Final = 8
"""Shorter lines of a secret of several lines are not masked by themselves."""
WIDEST: Final = 12
"""Characters that one character becomes at most: JSON writes two escapes for one outside the BMP."""
_WRAP: Final = 76
"""Where `base64` and MIME wrap their lines."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")


def lines(value: str) -> Iterator[str]:
    """The lines of a secret of several lines that are long enough to be masked by themselves."""
    split = [line.strip() for line in value.splitlines()]
    if len(split) > 1:
        yield from (line for line in split if len(line) >= LINE)


def forms(value: str) -> Iterator[tuple[str, str]]:
    """Pairs of a literal that any occurrence contains, and the pattern of the occurrence."""
    yield max(_PLAIN.findall(value), key=len, default=""), "".join(map(_any_way, value))
    data = value.encode("utf-8", "surrogateescape")
    for shift in range(3):
        core = _core(data, shift)
        for alphabet in dict.fromkeys((core, core.translate(str.maketrans("+/", "-_")))):
            # One more character carries the last bits of the secret, one before it the first.
            before = "[A-Za-z0-9+/_-]?" if shift else ""
            yield alphabet, f"{before}{re.escape(alphabet)}[A-Za-z0-9+/_-]?={{0,2}}"
    wrapped = in_base64(value)
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


def in_base64(value: str) -> str:
    """The value in base64, padded."""
    return base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()


def in_url(value: str) -> str:
    """The value URL-encoded, nothing left reserved."""
    return quote(value.encode("utf-8", "surrogateescape"), safe="")
