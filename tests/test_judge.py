from __future__ import annotations

import itertools
import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsgate.verdict.judge import (
    Failed,
    Passed,
    Tally,
    Verdict,
    Waiting,
    decide,
    fold,
    latest_start_ms,
    may_settle,
)
from opsgate.verdict.targets import Attempt, Kind, Policy

SMALL = Policy(deadline=10, soak=2, interval=0.5, successes=3, flaps=1)

policies = st.builds(
    Policy,
    deadline=st.sampled_from([1.0, 5.0, 10.0]),
    soak=st.sampled_from([0.0, 0.1, 0.5, 2.0, 4.9]),
    interval=st.sampled_from([0.1, 0.5, 3.0, 30.0]),
    successes=st.integers(1, 6),
    flaps=st.integers(0, 3),
).filter(lambda policy: policy.soak < policy.deadline)
kinds: st.SearchStrategy[Kind] = st.sampled_from(["refused", "status", "revision", "timeout", "dns"])


@st.composite
def lanes(draw: st.DrawFn, max_size: int = 40) -> list[Attempt]:
    """One target's attempts: in order, never two at once, mostly healthy."""
    attempts: list[Attempt] = []
    now = draw(st.integers(0, 500))
    steps = st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 100, 500, 2000]), st.integers(0, 300), kinds)
    for luck, wait, elapsed, kind in draw(st.lists(steps, max_size=max_size)):
        attempts.append(attempt(now, ok=luck > 0, elapsed_ms=elapsed, kind=kind))
        now += elapsed + wait
    return attempts


def attempt(at: float, *, ok: bool = True, elapsed_ms: float = 1, kind: Kind = "status") -> Attempt:
    return Attempt(at_ms=math.ceil(at), elapsed_ms=elapsed_ms, ok=ok, kind=None if ok else kind)


def said(attempts: list[list[Attempt]], policy: Policy, now_ms: float = math.inf) -> Verdict:
    return decide([fold(lane, policy) for lane in attempts], policy, now_ms=now_ms)


def first_verdict(attempts: list[list[Attempt]], policy: Policy) -> tuple[Verdict, float]:
    """What a gate that sees the answers as they come says, and when."""
    ends = sorted({each.end_ms for lane in attempts for each in lane})
    for now in ends:
        seen = [[each for each in lane if each.end_ms <= now] for lane in attempts]
        verdict = said(seen, policy, now)
        if not isinstance(verdict, Waiting):
            return verdict, now
    return Waiting(), math.inf


def healthy_for(seconds: float, start: float = 0, step: float = 0.5) -> list[Attempt]:
    count = math.floor(seconds / step) + 1
    return [attempt((start + n * step) * 1000) for n in range(count)]


several = st.lists(lanes(), min_size=1, max_size=3)


class TestProperties:
    @given(several, policies)
    def test_cutting_later_attempts_off_changes_no_verdict(
        self, attempts: list[list[Attempt]], policy: Policy
    ) -> None:
        verdict, at = first_verdict(attempts, policy)
        seen = [[each for each in lane if each.end_ms <= at] for lane in attempts]
        if not isinstance(verdict, Waiting):
            assert said(seen, policy) == verdict

    @given(several, policies)
    def test_waiting_longer_changes_no_verdict(self, attempts: list[list[Attempt]], policy: Policy) -> None:
        end = max((each.end_ms for lane in attempts for each in lane), default=0.0)
        early, later = said(attempts, policy, end), said(attempts, policy)
        assert not isinstance(later, Waiting)
        assert early == later or isinstance(early, Waiting)

    @given(several, policies, st.data())
    def test_one_more_failure_never_turns_failed_into_passed(
        self, attempts: list[list[Attempt]], policy: Policy, data: st.DataObject
    ) -> None:
        worse = [list(lane) for lane in attempts]
        lane = data.draw(st.sampled_from(worse))
        at = lane[-1].end_ms if lane else 0.0
        lane.append(attempt(at, ok=False))
        assert isinstance(said(worse, policy), Failed)

    @given(several, policies, st.data())
    def test_a_failure_within_the_run_never_turns_failed_into_passed(
        self, attempts: list[list[Attempt]], policy: Policy, data: st.DataObject
    ) -> None:
        """Within the newest run: an older run that a failure keeps short of `successes` is no flap."""
        worse = [list(lane) for lane in attempts]
        lane = data.draw(st.sampled_from(worse))
        failures = [index for index, each in enumerate(lane) if not each.ok]
        place = data.draw(st.integers(failures[-1] + 1 if failures else 0, len(lane)))
        lane[place:place] = [attempt(lane[place - 1].end_ms if place else 0.0, ok=False, elapsed_ms=0)]
        if isinstance(said(attempts, policy), Failed):
            assert isinstance(said(worse, policy), Failed)

    @given(several, policies, st.randoms(use_true_random=False))
    def test_the_order_of_targets_does_not_matter(
        self, attempts: list[list[Attempt]], policy: Policy, rng: random.Random
    ) -> None:
        shuffled = rng.sample(attempts, len(attempts))
        ends = [each.end_ms for lane in attempts for each in lane]
        for now in (0.0, max(ends, default=0.0), math.inf):
            assert said(shuffled, policy, now) == said(attempts, policy, now)

    @given(several, policies)
    def test_at_the_deadline_there_is_a_verdict(self, attempts: list[list[Attempt]], policy: Policy) -> None:
        verdict = said(attempts, policy, policy.deadline * 1000)
        assert isinstance(verdict, Passed | Failed)

    @given(several, policies)
    def test_a_pass_is_what_the_contract_calls_one(
        self, attempts: list[list[Attempt]], policy: Policy
    ) -> None:
        assert (said(attempts, policy) == Passed()) == _contract_passes(attempts, policy)

    @given(lanes(), policies)
    def test_unstable_is_more_losses_of_health_than_allowed(
        self, attempts: list[Attempt], policy: Policy
    ) -> None:
        runs = [len(list(group)) for ok, group in itertools.groupby(attempts, lambda each: each.ok) if ok]
        if attempts and attempts[-1].ok:
            runs.pop()
        losses = sum(length >= policy.successes for length in runs)
        assert (said([attempts], policy) == Failed("unstable")) == (losses > policy.flaps)

    @given(lanes(12), policies)
    def test_one_target_waits_exactly_as_long_as_it_can_still_pass(
        self, attempts: list[Attempt], policy: Policy
    ) -> None:
        """The best that can follow: answers at once, all healthy, at the target's own pace."""
        attempts = [each for each in attempts if each.end_ms < policy.deadline * 1000]
        if not attempts:
            return
        verdict, at = first_verdict([attempts], policy)
        if verdict in (Failed("probe_failures"), Failed("wrong_revision")):
            seen = [each for each in attempts if each.end_ms <= at]
            assert not _can_still_pass(seen, policy)
        if isinstance(verdict, Waiting):
            assert _can_still_pass(attempts, policy)

    @given(several, policies)
    def test_a_verdict_needs_no_look_where_may_settle_says_so(
        self, attempts: list[list[Attempt]], policy: Policy
    ) -> None:
        answers = [(each.end_ms, index, each) for index, lane in enumerate(attempts) for each in lane]
        answers.sort(key=lambda answer: answer[:2])
        tallies, soak_end = [Tally() for _ in attempts], None
        for now, index, each in answers:
            tallies[index] = tallies[index].after(each, policy)
            verdict = decide(tallies, policy, now_ms=min(now, policy.deadline * 1000 - 1))
            if not may_settle(tallies[index], policy, soak_end):
                assert verdict == Waiting(soak_end)
            if not isinstance(verdict, Waiting):
                return
            soak_end = verdict.probe_at_ms


def _contract_passes(attempts: list[list[Attempt]], policy: Policy) -> bool:
    """The contract's sentence, from the raw attempts."""
    runs = []
    for lane in attempts:
        broken = [index for index, each in enumerate(lane) if not each.ok]
        lengths = [b - a - 1 for a, b in itertools.pairwise([-1, *broken])]
        if sum(length >= policy.successes for length in lengths) > policy.flaps:
            return False
        run = lane[broken[-1] + 1 :] if broken else lane
        if len(run) < policy.successes or run[-1].end_ms >= policy.deadline * 1000:
            return False
        runs.append(run)
    together = min(run[-1].at_ms for run in runs) - max(run[0].at_ms for run in runs)
    return together >= policy.soak * 1000


def _can_still_pass(attempts: list[Attempt], policy: Policy) -> bool:
    tally = fold(attempts, policy)
    deadline, interval = policy.deadline * 1000, policy.interval * 1000
    if tally.start_ms is None:
        tally = tally.after(attempt(tally.end_ms, elapsed_ms=0), policy)
    while tally.last_ms < deadline:
        if decide([tally], policy, now_ms=tally.end_ms) == Passed():
            return True
        assert tally.start_ms is not None
        soak_end = tally.start_ms + policy.soak * 1000
        due = tally.last_ms + interval
        if tally.last_ms < soak_end < due:
            due = soak_end
        tally = tally.after(attempt(max(due, tally.end_ms), elapsed_ms=0), policy)
    return False


class TestPassed:
    def test_the_soak_runs_from_the_start_of_the_first_to_the_start_of_the_last(self) -> None:
        assert said([healthy_for(2)], SMALL) == Passed()
        assert said([healthy_for(1.5)], SMALL, 1600) == Waiting(2000)

    def test_successes_count_as_well_as_the_soak(self) -> None:
        assert said([[attempt(0), attempt(2000)]], SMALL, 2001) == Waiting(2000)
        assert said([[attempt(0), attempt(2000), attempt(2500)]], SMALL, 2501) == Passed()

    def test_without_soak_and_with_one_success_the_first_answer_passes(self) -> None:
        assert said([[attempt(0)]], Policy(soak=0, successes=1)) == Passed()

    def test_all_must_be_healthy_at_the_same_time(self) -> None:
        first = healthy_for(2)
        second = healthy_for(2, start=1.5)
        assert said([first, second], SMALL, 3501) == Waiting(3500)
        assert said([healthy_for(3.5), second], SMALL) == Passed()

    def test_a_target_that_restarts_makes_the_others_wait_for_it(self) -> None:
        steady = healthy_for(3)
        restarted = [*healthy_for(1), attempt(1500, ok=False), *healthy_for(1, start=2)]
        assert said([steady, restarted], SMALL, 3001) == Waiting(4000)

    def test_an_answer_before_the_deadline_counts_and_one_at_it_does_not(self) -> None:
        policy = Policy(deadline=5, soak=2, successes=2)
        before = [attempt(0), attempt(2500, elapsed_ms=2499)]
        after = [attempt(0), attempt(2500, elapsed_ms=2500)]
        assert said([before], policy) == Passed()
        assert said([after], policy) == Failed("probe_failures")
        assert not fold(after, policy).is_healthy(policy)


class TestFailed:
    def test_a_failure_starts_the_run_again(self) -> None:
        assert said([[*healthy_for(1.5), attempt(2000, ok=False)]], SMALL, 2001) == Waiting()
        tally = fold([*healthy_for(1.5), attempt(2000, ok=False), attempt(2100)], SMALL)
        assert (tally.start_ms, tally.streak, tally.flaps, tally.first_healthy_ms) == (2100, 1, 1, 0)

    def test_losing_health_before_the_successes_is_no_flap(self) -> None:
        lane = [attempt(n * 100, ok=n % 3 < 2) for n in range(30)]
        assert fold(lane, SMALL).flaps == 0

    def test_as_soon_as_a_run_can_no_longer_be_finished(self) -> None:
        assert latest_start_ms(SMALL) == 8000
        assert said([[attempt(7998, ok=False)]], SMALL, 7999) == Waiting()
        assert said([[attempt(7999, ok=False)]], SMALL, 8000) == Failed("probe_failures")

    def test_an_interval_longer_than_the_deadline_leaves_room_for_two_attempts(self) -> None:
        policy = Policy(deadline=10, soak=2, interval=60, successes=2)
        assert said([[attempt(0)]], policy, 1) == Waiting(2000)
        assert said([[attempt(0)]], msgspec.structs.replace(policy, successes=3), 1) == Failed(
            "probe_failures"
        )

    def test_answers_that_take_longer_than_the_interval_leave_room_for_fewer(self) -> None:
        policy = Policy(deadline=1, soak=0, interval=0.1, successes=4)
        assert said([[attempt(600, elapsed_ms=90)]], policy, 690) == Waiting(600)
        assert said([[attempt(600, elapsed_ms=200)]], policy, 800) == Failed("probe_failures")

    def test_nothing_probed_has_not_passed(self) -> None:
        assert said([[]], SMALL) == Failed("probe_failures")
        assert said([[]], SMALL, 0) == Waiting()

    @pytest.mark.parametrize(
        ("others", "reason"),
        [
            ([], "wrong_revision"),
            ([healthy_for(5)], "wrong_revision"),
            ([[attempt(9000, ok=False, kind="revision")]], "wrong_revision"),
            ([[attempt(9000, ok=False, kind="status")]], "probe_failures"),
        ],
    )
    def test_wrong_revision_is_the_reason_only_where_nothing_else_was_wrong(
        self, others: list[list[Attempt]], reason: str
    ) -> None:
        stale = [attempt(9000, ok=False, kind="revision")]
        verdict = said([stale, *others], SMALL)
        assert isinstance(verdict, Failed)
        assert verdict.reason == reason


class TestObserver:
    BLIND = Attempt(at_ms=9000, elapsed_ms=1, ok=False, kind="dns")
    DEAF = Attempt(at_ms=9000, elapsed_ms=1, ok=False, kind="timeout", remote_ip="192.0.2.1")
    UNREACHABLE = Attempt(at_ms=9000, elapsed_ms=1, ok=False, kind="refused")
    REFUSED = Attempt(at_ms=9000, elapsed_ms=1, ok=False, kind="refused", remote_ip="192.0.2.1")
    BEGUN = Attempt(at_ms=9000, elapsed_ms=1, ok=False, kind="timeout", remote_ip="192.0.2.1", bytes=1)
    ANSWERED = Attempt(at_ms=9000, elapsed_ms=1, ok=False, kind="status", status_code=503)

    def verdict(self, seen: list[Attempt], *control: list[Attempt], now: float = math.inf) -> Verdict:
        tallies = [fold([each], SMALL) for each in seen]
        return decide(tallies, SMALL, now_ms=now, control=[fold(lane, SMALL) for lane in control])

    @pytest.mark.parametrize("seen", [BLIND, DEAF, UNREACHABLE])
    def test_nothing_heard_from_anyone_is_the_observers_fault(self, seen: Attempt) -> None:
        assert self.verdict([seen], [self.BLIND], [self.DEAF]) == Failed("observer_offline")

    @pytest.mark.parametrize("seen", [REFUSED, BEGUN, ANSWERED])
    def test_a_host_that_was_heard_is_at_fault_itself(self, seen: Attempt) -> None:
        assert self.verdict([self.BLIND, seen], [self.BLIND]) == Failed("probe_failures")

    def test_one_answer_of_one_control_url_clears_the_observer(self) -> None:
        assert self.verdict([self.BLIND], [self.BLIND], [self.ANSWERED]) == Failed("probe_failures")

    def test_without_control_urls_nobody_else_can_be_blamed(self) -> None:
        assert self.verdict([self.BLIND]) == Failed("probe_failures")

    def test_control_urls_are_waited_for_within_the_deadline(self) -> None:
        assert self.verdict([self.BLIND], [self.BLIND], [], now=9002) == Waiting()
        assert self.verdict([self.BLIND], [self.BLIND], []) == Failed("probe_failures")

    def test_a_host_heard_once_stays_heard(self) -> None:
        tally = fold([attempt(0), self.BLIND], SMALL)
        assert decide([tally], SMALL, control=[fold([self.BLIND], SMALL)]) == Failed("probe_failures")
