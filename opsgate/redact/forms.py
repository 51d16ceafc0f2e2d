"""How a known secret may stand in a text: as it is, escaped, URL-encoded, or inside base64, wrapped too."""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

LINE: Final = 8
"""Shorter lines of a secret of several lines, or of its base64, are not masked by themselves."""
WIDEST: Final = 12
"""Characters that one character becomes at most: JSON writes two escapes for one outside the BMP."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9]+")
"""What no encoder of single characters touches."""
_BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-="
_LONG_LINE: Final = re.compile(rf"\S[^\n]{{{LINE - 2},}}(?<=\S)")


def lines(value: str) -> Iterator[str]:
    """The lines of a secret of several lines that are long enough to be masked by themselves."""
    split = [line.strip() for line in value.splitlines()]
    if len(split) > 1:
        yield from (line for line in split if len(line) >= LINE)


def forms(value: str) -> Iterator[tuple[str, str]]:
    """Pairs of a literal that any occurrence contains, and the pattern of the occurrence."""
    yield max(_PLAIN.findall(value), key=len, default=""), "".join(map(_any_way, value))
    # Some scripts encode letters and digits as well, in capitals or not.
    encoded = "%" + value.encode("utf-8", "surrogateescape").hex("%")
    for every in dict.fromkeys((encoded, encoded.upper())):
        yield every, every
    for before, core in _cores(value):
        # One more character carries the last bits of the secret, one before it the first.
        yield core, f"{before}{re.escape(core)}[A-Za-z0-9+/_-]?={{0,2}}"


def pieces(value: str) -> set[str]:
    """Every `LINE` characters in a row that the value's base64 holds."""
    return {core[at : at + LINE] for _, core in _cores(value) for at in range(len(core) - LINE + 1)}


def wrapped(text: str, known: AbstractSet[str]) -> list[tuple[int, int]]:
    """Spans of base64 that begins or ends a line with one of the `known` pieces.

    Each line is judged by itself: wherever the base64 was wrapped, and whatever became of the line before.
    """
    found: list[tuple[int, int]] = []
    for match in _LONG_LINE.finditer(text):
        line = match[0]
        if line[:LINE] in known:
            found.append((match.start(), match.end() - len(line.lstrip(_BASE64))))
        if line[-LINE:] in known:
            found.append((match.start() + len(line.rstrip(_BASE64)), match.end()))
    return found


@lru_cache(maxsize=4096)
def _any_way(char: str) -> str:
    """A pattern for one character, however a URL, JSON or a shell would write it."""
    if _PLAIN.fullmatch(char):
        return char
    octets = char.encode("utf-8", "surrogateescape")
    units = char.encode("utf-16-be", "surrogatepass").hex()
    ways = [
        re.escape(char),
        "".join(f"%(?i:{octet:02x})" for octet in octets),
        # JSON may write any character so; Go does `&`, `<` and `>`.
        "".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)),
    ]
    if char == " ":
        ways.append(r"\+")
    elif char == "\n":
        ways.append("\r\n")
    elif char == "'":
        ways += [re.escape("'\\''"), re.escape("'\"'\"'")]
    ways += [re.escape(way) for way in dict.fromkeys((json.dumps(char)[1:-1], "\\" + char)) if way != char]
    return f"(?:{'|'.join(sorted(ways, key=len, reverse=True))})"


def _cores(value: str) -> Iterator[tuple[str, str]]:
    """What may stand before it, and the base64 of the value alone, for each place in a longer text."""
    data = value.encode("utf-8", "surrogateescape")
    for shift in range(3):
        core = _core(data, shift)
        for alphabet in dict.fromkeys((core, core.translate(str.maketrans("+/", "-_")))):
            yield "[A-Za-z0-9+/_-]?" if shift else "", alphabet


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
