"""What the loop leaves out where hundreds of targets are probed, and that nothing depends on it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsgate.probe import watch
from opsgate.verdict.judge import Verdict, decide
from opsgate.verdict.targets import Policy
from tests.virtual import DOWN, HANGS, UP, Answer, Gate, Play, always

SECONDS = st.floats(0, 12)
POLICIES = st.builds(
    Policy,
    deadline=st.floats(3, 10),
    soak=st.floats(0, 2.5),
    interval=st.sampled_from([0.1, 0.25, 1.0]),
    attempt_timeout=st.sampled_from([0.5, 3.0]),
    successes=st.integers(1, 4),
    flaps=st.integers(0, 2),
)


@st.composite
def plays(draw: st.DrawFn) -> Play:
    """A runtime that changes its mind at a few moments."""
    turns = sorted(draw(st.lists(SECONDS, max_size=5)))
    answers: list[Answer] = [draw(st.sampled_from([UP, DOWN, HANGS])) for _ in range(len(turns) + 1)]
    return lambda at: answers[sum(at / 1000 >= turn for turn in turns)]


def outcome(scripts: Sequence[Play], policy: Policy) -> tuple[Verdict, float, list[int]]:
    gate = Gate(scripts, policy)
    return gate.verdict, gate.seconds, [len(attempts) for attempts in gate.required]


@given(scripts=st.lists(plays(), min_size=1, max_size=4), policy=POLICIES)
def test_the_verdict_and_its_moment_are_those_of_a_judge_who_is_always_asked(
    scripts: list[Play], policy: Policy
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        # The same jitter both times.
        patched.setattr(watch, "random", SimpleNamespace(Random=lambda: random.Random(1)))
        found = outcome(scripts, policy)
        patched.setattr(watch.Watch, "_may_settle", lambda _self, _run: True)
        assert outcome(scripts, policy) == found


@pytest.mark.parametrize("answer", [UP, DOWN, HANGS], ids=["healthy", "failing", "silent"])
def test_the_judge_is_asked_about_all_targets_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    asked = 0

    def counted(*args: object, **kwargs: object) -> Verdict:
        nonlocal asked
        asked += 1
        return decide(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(watch, "decide", counted)
    gate = Gate([always(answer)] * 100, Policy(deadline=10, soak=3, interval=0.5, attempt_timeout=1))
    assert sum(len(attempts) for attempts in gate.required) > 500
    assert asked < 10
