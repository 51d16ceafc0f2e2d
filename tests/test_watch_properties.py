from __future__ import annotations

import math
import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from opsgate.verdict.judge import Failed, Passed, Waiting, decide, fold
from opsgate.verdict.targets import Attempt, Policy
from tests.virtual import DOWN, UP, Answer, Gate, Play, always

policies = st.builds(
    Policy,
    deadline=st.sampled_from([0.5, 3.0, 10.0]),
    soak=st.sampled_from([0.0, 0.05, 0.25, 1.0, 2.9]),
    interval=st.sampled_from([0.05, 0.25, 1.0, 20.0]),
    attempt_timeout=st.sampled_from([0.1, 1.0, 30.0]),
    successes=st.integers(1, 5),
    flaps=st.integers(0, 3),
).filter(lambda policy: policy.soak < policy.deadline)

answers = st.builds(
    Answer,
    ok=st.booleans(),
    takes=st.sampled_from([0.0, 1.0, 30.0, 400.0, math.inf]),
    kind=st.sampled_from(["status", "revision", "dns"]),
    silent=st.booleans(),
    retry_after=st.sampled_from([None, None, 3.0]),
)


@st.composite
def plays(draw: st.DrawFn) -> Play:
    """Behaviour that changes a few times, and sometimes fails at random."""
    phases = draw(st.lists(st.tuples(st.floats(0, 10), answers), max_size=4))
    ordered = sorted(phases, key=lambda phase: phase[0])
    rate = draw(st.sampled_from([0.0, 0.0, 0.05, 0.3]))
    seed = draw(st.integers(0, 2**32))

    def play(at: float) -> Answer:
        if random.Random(f"{seed}/{at}").random() < rate:
            return DOWN
        return next((answer for since, answer in reversed(ordered) if since * 1000 <= at), UP)

    return play


gates = st.builds(
    Gate,
    st.lists(plays(), min_size=1, max_size=3),
    policies,
    optional=st.lists(plays(), max_size=1),
    control=st.lists(plays(), max_size=2),
    late_ms=st.sampled_from([0.0, 0.0, 15.0]),
)


class TestAnyGate:
    """The crew itself asserts that no attempt starts after the deadline or beside another."""

    @given(gates)
    def test_it_is_never_late(self, gate: Gate) -> None:
        assert not isinstance(gate.verdict, Waiting)
        assert gate.crew.clock <= gate.policy.deadline * 1000 + 115

    @given(gates)
    def test_its_record_leads_to_the_same_verdict(self, gate: Gate) -> None:
        runs = [fold(attempts, gate.policy) for attempts in gate.required]
        control = [fold(lane.attempts, gate.policy) for lane in gate.watch.control]
        assert decide(runs, gate.policy, control=control) == gate.verdict

    @given(gates)
    def test_a_pass_means_that_all_were_healthy_at_the_same_time(self, gate: Gate) -> None:
        holds = any(_healthy_together(gate, instant) for instant in _starts(gate))
        assert (gate.verdict == Passed()) == holds

    @given(gates)
    def test_a_failed_one_names_an_unhealthy_target(self, gate: Gate) -> None:
        unhealthy = [
            lane
            for lane in gate.watch.lanes
            if lane.target.required and not lane.tally.is_healthy(gate.policy)
        ]
        assert bool(unhealthy) == isinstance(gate.verdict, Failed)

    @given(gates)
    def test_the_observer_is_blamed_only_after_every_control_url_was_asked(self, gate: Gate) -> None:
        if gate.verdict == Failed("observer_offline"):
            asked = [lane.attempts for lane in gate.watch.control]
            assert asked
            assert all(asked)
            assert all(attempt.status_code is None for attempts in asked for attempt in attempts)


def _starts(gate: Gate) -> Iterator[float]:
    return (attempt.at_ms for attempts in gate.required for attempt in attempts)


def _healthy_together(gate: Gate, end: float) -> bool:
    """Word by word: up to `end`, all healthy without a break for the soak and the successes."""
    policy = gate.policy
    for attempts in gate.required:
        run: list[Attempt] = []
        for attempt in attempts:
            run = [*run, attempt] if attempt.ok else []
        if len(run) < policy.successes or run[-1].end_ms >= policy.deadline * 1000:
            return False
        if run[0].at_ms > end - policy.soak * 1000 or run[-1].at_ms < end:
            return False
    return True


@settings(max_examples=10)
@given(st.integers(1, 400))
def test_many_targets_pass_together(count: int) -> None:
    gate = Gate([always(UP)] * count, Policy(deadline=10, soak=1))
    assert (gate.verdict, gate.seconds) == (Passed(), 1.005)
