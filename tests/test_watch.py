from __future__ import annotations

import itertools
import threading

import pytest

from opsgate.probe.retry import Reply
from opsgate.probe.watch import Threads, Watch, look
from opsgate.verdict.judge import Failed, Passed, decide, fold
from opsgate.verdict.targets import Attempt, Policy, Target
from tests.virtual import DOWN, HANGS, UP, Answer, Gate, Play, VirtualCrew, always, up_between

FAST = Policy(deadline=10, soak=2, interval=0.25, attempt_timeout=1)
TARGET = Target(name="t", url="http://t.example/")


class TestDefaults:
    def test_a_healthy_release_costs_the_soak(self) -> None:
        gate = Gate([always(UP)], Policy())
        assert gate.verdict == Passed()
        assert 15.0 <= gate.seconds < 15.3
        assert len(gate.required[0]) == 61

    def test_a_crash_one_millisecond_before_the_end_of_the_soak_never_passes(self) -> None:
        gate = Gate([up_between((0, 14.999))], Policy())
        assert gate.verdict == Failed("probe_failures")

    @pytest.mark.parametrize("back", [1, 30, 90, 104.85])
    def test_a_late_start_passes_a_soak_after_it(self, back: float) -> None:
        gate = Gate([up_between((back, 1000))], Policy())
        assert gate.verdict == Passed()
        assert back + 15 <= gate.seconds < back + 15.4

    def test_a_start_too_late_for_the_soak_fails(self) -> None:
        assert Gate([up_between((105, 1000))], Policy()).verdict == Failed("probe_failures")

    def test_the_third_loss_of_health_is_unstable_at_once(self) -> None:
        gate = Gate([up_between((0, 1), (2, 3), (4, 5), (6, 1000))], Policy())
        assert gate.verdict == Failed("unstable")
        assert 5 <= gate.seconds < 5.3

    def test_two_losses_are_forgiven(self) -> None:
        gate = Gate([up_between((0, 1), (2, 3), (4, 1000))], Policy())
        assert gate.verdict == Passed()


class TestSchedule:
    def test_the_time_is_told_while_every_target_hangs(self) -> None:
        turns: list[float] = []
        policy = Policy(deadline=3, soak=1, attempt_timeout=60)
        Watch([TARGET], policy, VirtualCrew([always(HANGS)]), on_turn=turns.append).run()
        assert turns == pytest.approx(range(0, 3000, 100))

    @pytest.mark.parametrize("soak", [0.1, 1.13, 2, 7.77])
    @pytest.mark.parametrize("interval", [0.1, 0.25, 3])
    def test_an_attempt_starts_at_exactly_the_end_of_the_soak(self, soak: float, interval: float) -> None:
        policy = Policy(deadline=60, soak=soak, interval=interval, successes=1)
        gate = Gate([up_between((0.5, 1000))], policy)
        first = next(attempt.at_ms for attempt in gate.required[0] if attempt.ok)
        assert gate.verdict == Passed()
        assert gate.crew.starts[0][-1] == pytest.approx(first + soak * 1000)

    def test_a_target_that_starts_late_gives_all_a_common_end(self) -> None:
        policy = Policy(deadline=30, soak=5, interval=2)
        gate = Gate([always(UP), up_between((3.3, 1000))], policy)
        start = next(attempt.at_ms for attempt in gate.required[1] if attempt.ok)
        assert [starts[-1] for starts in gate.crew.starts] == [start + 5000] * 2

    def test_an_answer_that_takes_longer_than_the_soak_is_followed_at_once(self) -> None:
        policy = Policy(deadline=30, soak=1, interval=0.25, successes=1)
        gate = Gate([always(Answer(takes=3000))], policy)
        assert gate.crew.starts[0] == [0, 3000]
        assert (gate.verdict, gate.seconds) == (Passed(), 6.0)

    def test_without_a_soak_the_first_success_may_be_enough(self) -> None:
        gate = Gate([always(UP), up_between((2, 1000))], Policy(deadline=30, soak=0, successes=1))
        assert gate.verdict == Passed()
        assert gate.seconds < 2.3

    def test_without_a_soak_every_target_is_asked_again_once_the_last_is_up(self) -> None:
        plays = [up_between((0, 1.9)), up_between((2, 1000))]
        gate = Gate(plays, Policy(deadline=4, soak=0, successes=1, interval=1))
        assert gate.verdict == Failed("probe_failures")

    def test_healthy_targets_are_probed_every_interval(self) -> None:
        gate = Gate([always(UP)], Policy(deadline=30, soak=5, interval=0.5))
        assert gate.crew.starts[0] == [500.0 * n for n in range(11)]

    def test_waits_after_failures_double_up_to_the_interval(self) -> None:
        gate = Gate([always(DOWN)], Policy(deadline=30, soak=5, interval=1))
        starts = gate.crew.starts[0]
        waits = [later - sooner for sooner, later in itertools.pairwise(starts)]
        assert waits[0] == pytest.approx(100)
        assert 200 <= waits[1] <= 281
        assert 400 <= waits[2] <= 561
        assert max(waits) <= 1001

    @pytest.mark.parametrize(("asked", "least", "most"), [(2.0, 2000, 2000), (86400.0, 5000, 5000)])
    def test_retry_after_delays_by_five_seconds_at_most(self, asked: float, least: int, most: int) -> None:
        busy = Answer(ok=False, retry_after=asked)
        gate = Gate([always(busy)], Policy(deadline=40, soak=5))
        starts = gate.crew.starts[0]
        assert least <= starts[1] - starts[0] - busy.takes <= most

    def test_a_target_that_is_not_required_is_probed_and_never_decides(self) -> None:
        gate = Gate([always(UP)], FAST, optional=[always(DOWN), always(HANGS)])
        assert gate.verdict == Passed()
        assert gate.seconds == pytest.approx(2.005)
        assert all(lane.attempts for lane in gate.watch.lanes[:2])


class TestDeadline:
    @pytest.mark.parametrize("timeout", [0.3, 5, 500])
    @pytest.mark.parametrize("plays", [[HANGS], [UP, HANGS], [HANGS] * 20])
    def test_hanging_targets_do_not_move_it(self, plays: list[Answer], timeout: float) -> None:
        policy = Policy(deadline=10, soak=2, attempt_timeout=timeout)
        gate = Gate([always(play) for play in plays], policy)
        assert gate.verdict == Failed("probe_failures")
        assert gate.seconds <= 10.1

    def test_the_verdict_comes_as_soon_as_a_soak_no_longer_fits(self) -> None:
        gate = Gate([always(DOWN)], Policy())
        assert 104.5 < gate.seconds < 105.3

    @pytest.mark.parametrize("answer", [Answer(ok=False, retry_after=60), Answer(ok=False, takes=900)])
    def test_no_attempt_starts_that_could_not_lead_to_a_pass(self, answer: Answer) -> None:
        gate = Gate([always(answer)], Policy())
        assert gate.verdict == Failed("probe_failures")
        assert gate.crew.starts[0][-1] < 105_000
        assert gate.seconds < 106

    def test_a_run_that_cannot_get_its_successes_in_time_fails_early_and_is_unhealthy(self) -> None:
        policy = Policy(deadline=50, soak=10, interval=30)
        gate = Gate([up_between((15, 1000))], policy)
        assert gate.verdict == Failed("probe_failures")
        assert gate.seconds < 26
        assert not gate.watch.lanes[0].tally.is_healthy(policy)

    def test_a_pass_reached_in_time_stands_though_its_answer_is_read_late(self) -> None:
        """The second target hangs from the instant that the first one completes the pass."""
        policy = Policy(deadline=3, soak=2, successes=1, attempt_timeout=5, interval=0.5)

        def slow_at_last(at: float) -> Answer:
            return Answer(takes=990) if at >= 2000 else UP

        def hangs_at_last(at: float) -> Answer:
            return HANGS if at >= 2500 else UP

        gate = Gate([slow_at_last, hangs_at_last], policy, late_ms=20)
        assert gate.verdict == Passed()
        assert decide([fold(attempts, policy) for attempts in gate.required], policy) == Passed()

    def test_an_answer_after_the_deadline_does_not_count(self) -> None:
        policy = Policy(deadline=3, soak=2, successes=1, attempt_timeout=5)
        gate = Gate([lambda at: Answer(takes=1001) if at >= 2000 else UP], policy)
        assert gate.verdict == Failed("probe_failures")
        assert gate.required[0][-1].kind == "timeout"


class TestObserver:
    def test_control_urls_rest_while_anything_is_heard_from_the_host(self) -> None:
        gate = Gate([always(HANGS), always(DOWN)], FAST, control=[always(UP)])
        assert gate.crew.starts[2] == []
        assert gate.verdict == Failed("probe_failures")

    def test_nothing_heard_and_no_control_url_answers_is_the_observers_fault(self) -> None:
        gate = Gate([always(HANGS)], FAST, control=[always(HANGS), always(HANGS)])
        assert gate.verdict == Failed("observer_offline")
        assert all(lane.attempts for lane in gate.watch.control)
        assert gate.seconds <= 10.1

    @pytest.mark.parametrize("answer", [UP, DOWN])
    def test_any_response_of_any_control_url_is_an_answer(self, answer: Answer) -> None:
        gate = Gate([always(HANGS)], FAST, control=[always(HANGS), always(answer)])
        assert gate.verdict == Failed("probe_failures")

    def test_an_attempt_that_hangs_until_the_deadline_leaves_control_urls_their_time(self) -> None:
        policy = Policy(deadline=8, soak=2, attempt_timeout=60)
        gate = Gate([always(HANGS)], policy, control=[always(UP)])
        assert gate.verdict == Failed("probe_failures")

    @pytest.mark.parametrize("deadline", [0.02, 0.05, 0.2])
    def test_a_deadline_of_milliseconds_does_not_blame_the_observer_unasked(self, deadline: float) -> None:
        policy = Policy(deadline=deadline, soak=deadline / 4)
        gate = Gate([always(HANGS)], policy, control=[always(Answer(takes=1))])
        assert gate.verdict == Failed("probe_failures")

    def test_every_target_that_hangs_until_the_deadline_is_recorded(self) -> None:
        gate = Gate([always(HANGS)] * 3, Policy(deadline=4, soak=0.3, attempt_timeout=30))
        assert [[attempt.kind for attempt in each] for each in gate.required] == [["timeout"]] * 3

    def test_what_hangs_is_recorded_too_where_the_last_start_is_rounded_up_to_the_deadline(self) -> None:
        policy = Policy(deadline=1, soak=0.1, interval=0.0005, attempt_timeout=30)
        gate = Gate([always(Answer(takes=0.1)), always(HANGS)], policy)
        assert gate.required[0][-1].at_ms == 1000 > max(gate.crew.starts[0])
        assert [attempt.kind for attempt in gate.required[1]] == ["timeout"]

    @pytest.mark.parametrize("control", [always(HANGS), always(DOWN), always(UP)])
    def test_an_attempt_that_hangs_until_the_deadline_is_recorded(self, control: Play) -> None:
        policy = Policy(deadline=4, soak=0.3, attempt_timeout=30)
        gate = Gate([always(HANGS)], policy, control=[control], late_ms=5)
        assert [attempt.kind for attempt in gate.required[0]] == ["timeout"]

    def test_a_runtime_that_comes_back_passes_though_control_urls_are_silent(self) -> None:
        gate = Gate([lambda at: UP if at > 3000 else HANGS], FAST, control=[always(HANGS)])
        assert gate.verdict == Passed()


class TestThreads:
    def test_a_thread_that_hangs_holds_up_nobody(self) -> None:
        release = threading.Event()
        policy = Policy(deadline=2.0, soak=0.1, interval=0.05, attempt_timeout=30)

        def probe(target: Target, limit: float, at_ms: int) -> Reply:
            if target.name == "hangs":
                release.wait(20)
            return Reply(Attempt(at_ms=at_ms, elapsed_ms=0.0, ok=True))

        crew = Threads(probe)
        hanging = [Target(name="hangs", url="http://t.example/") for _ in range(10)]
        watch = Watch([TARGET, *hanging], policy, crew)
        verdict = watch.run()
        seconds = crew.now_ms() / 1000
        release.set()
        crew.close()
        assert verdict == Failed("probe_failures")
        assert 1.9 < seconds < 10
        assert [lane.attempts[-1].kind for lane in watch.lanes[1:]] == ["timeout"] * 10
        assert len(watch.lanes[0].attempts) > 3

    def test_a_probe_is_never_given_more_time_than_is_left(self) -> None:
        limits: list[tuple[float, float]] = []

        def probe(target: Target, limit: float, at_ms: int) -> Reply:
            limits.append((at_ms, limit))
            return Reply(Attempt(at_ms=at_ms, elapsed_ms=0.0, ok=False, kind="refused"))

        crew = Threads(probe)
        Watch([TARGET], Policy(deadline=0.4, soak=0.0, attempt_timeout=30, successes=1), crew).run()
        crew.close()
        assert limits
        # One that begins after the deadline gets a millisecond.
        assert all(limit <= 0.001 or at_ms / 1000 + limit <= 0.402 for at_ms, limit in limits)

    def test_a_machine_without_threads_fails_the_gate_and_not_the_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        crew = Threads(lambda _target, _limit, at_ms: Reply(Attempt(at_ms=at_ms, elapsed_ms=0.0, ok=True)))
        watch = Watch([TARGET, TARGET], Policy(deadline=0.4, soak=0.0, successes=1), crew)
        assert watch.run() == Failed("probe_failures")
        crew.close()
        assert {a.detail for a in watch.lanes[0].attempts} == {"this machine: can't start new thread"}

    def test_threads_end_when_the_crew_is_closed(self) -> None:
        workers: set[threading.Thread] = set()

        def probe(target: Target, limit: float, at_ms: int) -> Reply:
            workers.add(threading.current_thread())
            return Reply(Attempt(at_ms=at_ms, elapsed_ms=0.0, ok=True))

        crew = Threads(probe)
        Watch([TARGET, TARGET], Policy(deadline=5, soak=0.0, successes=1), crew).run()
        crew.close()
        for worker in workers:
            worker.join(5)
        assert len(workers) == 2
        assert not any(worker.is_alive() for worker in workers)


class TestCheck:
    def test_what_it_raises_comes_through_and_leaves_what_is_known(self) -> None:
        class Stopped(Exception):
            pass

        crew = VirtualCrew([always(UP), always(HANGS)])

        def check() -> None:
            if crew.clock >= 3000:
                raise Stopped

        watch = Watch([TARGET, TARGET], Policy(), crew, check=check)
        with pytest.raises(Stopped):
            watch.run()
        assert len(watch.lanes[0].attempts) == 12
        assert not watch.lanes[1].attempts

    def test_it_is_asked_many_times_a_second_while_nothing_happens(self) -> None:
        asked: list[float] = []
        crew = VirtualCrew([always(HANGS)])
        policy = Policy(deadline=10, soak=1, attempt_timeout=30)
        Watch([TARGET], policy, crew, check=lambda: asked.append(crew.clock)).run()
        assert max(b - a for a, b in itertools.pairwise(asked)) <= 101


class TestLook:
    def test_each_target_is_asked_once_and_a_silent_one_is_a_timeout(self) -> None:
        crew = VirtualCrew([always(UP), always(HANGS), always(DOWN)], late_ms=500)
        found = look([TARGET] * 3, 2.0, crew)
        assert [attempt.kind for attempt in found] == [None, "timeout", "status"]
        assert [len(starts) for starts in crew.starts] == [1, 1, 1]
