"""Durations as people write them: `500ms`, `90s`, `2m`, `1h30m`, or a number of seconds."""

from __future__ import annotations

import math
import re

from opsgate.settings.mistakes import Mistake, shown

HINT = "Write a duration as 500ms, 90s, 2m, 1h30m, or a plain number of seconds."
_SECOND_MS = 1000
LEAST, MOST = 0.001, 24 * 3600.0

# Each unit at most once, the largest first. [0-9], because \d also matches other scripts' digits.
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_UNITS = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(value: object, *, zero: bool = False) -> float:
    """Seconds of `value`, a string or a number; from 1 ms to 24 h, or 0 where `zero` allows it.

    Raises `Mistake` for anything else.
    """
    seconds = _seconds(value)
    if seconds < 0:
        raise Mistake(f"{shown(value)} is negative", HINT)
    if seconds == 0 and zero:
        return 0.0
    if seconds < LEAST:
        raise Mistake(f"{shown(value)} is too short; the least is 1ms", HINT)
    if seconds > MOST:
        raise Mistake(f"{shown(value)} is too long; the most is 24h", HINT)
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Mistake(f"{shown(value)} is not a duration", HINT)
    if isinstance(value, int):
        # Beyond the most anyway; a larger integer may not fit a float.
        return float(min(max(value, -1), 10**9))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Mistake(f"{shown(value)} is not a duration", HINT)
        return value
    text = value.strip()
    sign = -1.0 if text.startswith("-") else 1.0
    text = text.removeprefix("-")
    if _PLAIN.fullmatch(text):
        return sign * float(text)
    match = _UNITS.fullmatch(text)
    if not text or match is None:
        raise Mistake(f"{shown(value)} is not a duration", HINT)
    parts = zip(match.groups(), (3600.0, 60.0, 1.0, 0.001), strict=True)
    return sign * math.fsum(float(number) * unit for number, unit in parts if number is not None)


def format_duration(seconds: float) -> str:
    """`seconds` as people write it: `0s`, `250ms`, `1.5s`, `1m30s`, `1h`. Rounded to the millisecond."""
    total = round(seconds * _SECOND_MS)
    if 0 < total < _SECOND_MS:
        return f"{total}ms"
    hours, rest = divmod(total, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    return text + (f"{rest / _SECOND_MS:g}s" if rest or not text else "")
