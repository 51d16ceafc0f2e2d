from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks import simulation
from benchmarks.curves import chart
from opsgate.verdict.targets import Policy


def test_the_flat_copy_says_what_the_gate_says() -> None:
    assert simulation.disagreements(range(7, 2000, 23)) == 0


@pytest.mark.parametrize(("rate", "broken", "most"), simulation.GOALS)
def test_the_defaults_meet_the_goals(rate: float, broken: bool, most: float) -> None:
    passed = simulation.expected(Policy(), rate)
    assert (passed if broken else 1 - passed) < most


def test_what_is_simulated_is_what_is_worked_out() -> None:
    found = simulation.play(simulation.Cell("opsgate", "random", (0.02,), 4000))
    assert found.passed == pytest.approx(simulation.expected(Policy(), 0.02), abs=0.04)


def test_a_picture_is_well_formed_and_keeps_to_its_frame() -> None:
    curves = {"a <b>": [(0.1, 0.0), (50.0, 100.0)], "c": [(1.0, 500.0)]}
    picture = ET.fromstring(chart("t & u", "x", (0.1, 1, 50), curves, log=True))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert [line.get("points") for line in lines] == ["66,340 560,44", "249,44"]
