"""Text made harmless and short, times and durations in words: what every view shares."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from opsgate.verdict.targets import Attempt

# Printable to Python, yet nothing to see: joiners and fillers.
_BLANK: Final = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
KIND_WORDS: Final = {
    "dns": "name not resolved",
    "refused": "connection refused",
    "reset": "connection reset",
    "timeout": "no answer in time",
    "tls": "TLS failed",
    "protocol": "not proper HTTP",
    "status": "wrong status",
    "redirect": "redirect not followed",
    "too_large": "answer too large",
    "truncated": "answer cut short",
    "health_document": "says it is unhealthy",
    "body": "wrong body",
    "json": "wrong JSON",
    "header": "wrong header",
    "latency": "too slow",
    "certificate": "certificate runs out",
    "revision": "wrong revision",
    "exit": "command failed",
}
"""What a failed attempt of a `kind` says when it has no detail of its own."""


def plain(text: str, limit: int = 200) -> str:
    """`text` as one harmless line of at most `limit` characters; what does not show itself is escaped.

    Controls, line separators, zero-width and bidirectional marks can make a line read as something else.
    """
    # Escapes only lengthen, so nothing past the limit can be needed: 10 MB cost no more than 200 bytes.
    shown = text[: limit + 1]
    if not shown.isprintable() or any(blank in shown for blank in _BLANK):
        shown = "".join(
            char if char.isprintable() and char not in _BLANK else _escaped(char) for char in shown
        )
    # A workflow runner acts on `##[…]` anywhere in a line and on `::…` at its start.
    shown = re.sub(r"^(\s*:):|##\[", lambda match: f"{match[1]} :" if match[1] else "## [", shown)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def plain_lines(text: str, limit: int = 64 * 1024) -> str:
    """As `plain`, for several lines: line feeds and tabs stay, and of a longer text the end is kept."""
    tail = text[-limit:].replace("\r\n", "\n")
    return "\n".join(plain(line.replace("\t", "    "), limit) for line in tail.split("\n"))


def failure(attempt: Attempt) -> str:
    """What went wrong with a failed attempt, kind first: `refused: connection refused`, `status 503`."""
    kind, detail = attempt.kind or "failed", attempt.detail[:300]
    if not detail:
        detail = f"status {attempt.status_code}" if kind == "status" else KIND_WORDS.get(kind, kind)
    return plain(detail if detail.lower().startswith(kind) else f"{kind}: {detail}")


def moment(time: str | UnsetType | None, ms: float = 0.0) -> datetime | None:
    """The instant `ms` after an RFC 3339 time of the record; None where that is not known."""
    if time is None or time is UNSET:
        return None
    return datetime.fromisoformat(time) + timedelta(milliseconds=ms)


def clock(when: datetime) -> str:
    """`14:01:06 UTC`."""
    return f"{when:%H:%M:%S} UTC"


def span(seconds: float) -> str:
    """A duration for people: `350 ms`, `4.2 s`, `15 s`, `1 min 4 s`, `2 h 5 min`, `3 days 4 h`."""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    if seconds < 10 and round(seconds, 1) % 1:  # noqa: PLR2004 - one more digit than whole seconds
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:  # noqa: PLR2004 - one day is better told in hours
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def count(number: int, noun: str) -> str:
    """`1 target`, `3 targets`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:  # noqa: PLR2004 - what \x can write
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - what \u can write
