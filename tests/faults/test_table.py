"""The document shows the table that the tests hold opsgate to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.table import BEGIN, END, FAULTS, rendered

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "reliability.md"


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_inflicted_by_a_test(name: str) -> None:
    tests = [path.read_text() for path in HERE.glob("test_*.py")]
    assert any(f'"{name}"' in text for text in tests)


def test_the_document_is_current() -> None:
    _, _, rest = DOCUMENT.read_text().partition(BEGIN)
    shown, _, _ = rest.partition(END)
    assert shown.strip() == rendered().strip(), "run: python -m tests.faults.table"
