"""Durations: what is taken, what is not, and the way back to text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsgate.settings import format_duration, parse_duration
from opsgate.settings.mistakes import Mistake

MOST_MS = 24 * 3_600_000
UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5), ("90s", 90), ("2m", 120), ("1h30m", 5400), ("90", 90), ("1.5", 1.5), ("1.5s", 1.5),
        ("1m500ms", 60.5), ("24h", 86400), ("1ms", 0.001), (90, 90), (1.5, 1.5), (" 5s ", 5), ("007s", 7),
    ],
)  # fmt: skip
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "s", "m5", "5 s", "1h 30m", "5x", "5S", "30m1h", "1s1s", "1ms1s", "-5s", "+5s", "--5s",
        "1e3", "1_000", "0x10", "٣s", "5s\x00", "nan", "inf", ".5s", "5.s", "5,5s", "0", "0s", "0.0",
        "0.5ms", "24h1ms", "9" * 5000, 0, 0.0, -1, -0.5, True, False, None, [], {}, float("nan"),
        float("inf"), -float("inf"), 10**400, 86401, b"5s",
    ],
)  # fmt: skip
def test_no_durations(value: object) -> None:
    with pytest.raises(Mistake):
        parse_duration(value)


@pytest.mark.parametrize("value", [0, 0.0, "0", "0s", "0ms", "0h0m"])
def test_zero_where_it_is_allowed(value: object) -> None:
    assert parse_duration(value, zero=True) == 0


@given(st.integers(1, MOST_MS))
def test_what_is_shown_can_be_typed(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds


@given(st.lists(st.integers(0, 999), min_size=4, max_size=4), st.integers(1, 15))
def test_units_add_up(numbers: list[int], chosen: int) -> None:
    parts = [(unit, n) for bit, (unit, n) in enumerate(zip(UNITS, numbers, strict=True)) if chosen >> bit & 1]
    total = sum(UNITS[unit] * n for unit, n in parts)
    text = "".join(f"{n}{unit}" for unit, n in parts)
    if 1 <= total <= MOST_MS:
        assert parse_duration(text) * 1000 == pytest.approx(total)
    else:
        with pytest.raises(Mistake):
            parse_duration(text)


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_anything_else_is_a_mistake_in_words(value: object) -> None:
    seconds, text = 1.0, ""
    try:
        seconds = parse_duration(value)
    except Mistake as exc:
        text = exc.text
    assert text.isprintable()
    assert len(text) < 300
    assert 0.001 <= seconds <= 86400
