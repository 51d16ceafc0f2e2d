"""When the next attempt is due."""

from __future__ import annotations

import random
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import Retry

from opsgate.probe.retry import History, Pace, Reply, retry_after_seconds
from opsgate.verdict.targets import Attempt, Policy

POLICY = Policy(deadline=60.0, soak=5.0, interval=0.25)
LATEST = 55_000.0


def pace(policy: Policy = POLICY, latest_ms: float = LATEST, seed: int = 1) -> Pace:
    return Pace.begin(policy, latest_ms=latest_ms, rng=random.Random(seed))


def reply(at: int, *, ok: bool = False, took: float = 5.0, retry_after: float | None = None) -> Reply:
    return Reply(Attempt(at_ms=at, elapsed_ms=took, ok=ok), retry_after)


def test_it_is_urllib3s_retry_and_new_keeps_its_own_state() -> None:
    before = pace().after(reply(0))
    copied = before.new(read=3)
    assert isinstance(copied, Retry)
    assert copied.read == 3
    assert copied.next_at_ms == before.next_at_ms
    assert copied.failures == 1
    assert list(copied.history) == list(before.history)
    assert copied.rng is before.rng


def test_the_first_attempt_is_due_at_once() -> None:
    assert pace().next_at_ms == 0.0


def test_after_a_failure_100_ms_from_start_to_start() -> None:
    assert pace().after(reply(0)).next_at_ms == 100.0


def test_doubling_up_to_the_interval() -> None:
    wide = pace(Policy(interval=10.0))
    waits, at = [], 0
    for _ in range(10):
        wide = wide.after(reply(at))
        waits.append(wide.next_at_ms - at)
        at = round(wide.next_at_ms)
    assert waits[0] == 100.0
    for n in range(1, 7):
        assert 100 * 2**n * 0.99 <= waits[n] <= 100 * 2**n * 1.41
    assert all(6_000 <= wait <= 10_000 for wait in waits[-2:])


def test_an_interval_below_the_first_wait_bounds_it() -> None:
    assert pace(Policy(interval=0.05)).after(reply(0)).next_at_ms == 50.0


def test_healthy_targets_every_interval_start_to_start() -> None:
    assert pace().after(reply(1000, ok=True, took=80)).next_at_ms == 1250.0


def test_never_before_the_last_one_has_ended() -> None:
    assert pace().after(reply(0, took=4000)).next_at_ms == 4000.0
    assert pace().after(reply(0, ok=True, took=4000)).next_at_ms == 4000.0


def test_success_starts_the_backoff_again() -> None:
    now = pace()
    for at in range(0, 5000, 500):
        now = now.after(reply(at))
    assert now.after(reply(5000, ok=True)).after(reply(5250)).next_at_ms == 5350.0


def test_retry_after_delays_from_the_end_of_the_answer() -> None:
    assert pace().after(reply(0, took=50, retry_after=2.0)).next_at_ms == 2050.0


def test_retry_after_by_5_seconds_at_most() -> None:
    assert pace().after(reply(0, took=50, retry_after=86_400.0)).next_at_ms == 5050.0


def test_retry_after_of_nothing_leaves_the_backoff() -> None:
    assert pace().after(reply(0, retry_after=0.0)).next_at_ms == 100.0


def test_a_wait_leaves_the_last_chance() -> None:
    assert pace().after(reply(52_000, took=80.0, retry_after=60.0)).next_at_ms == LATEST - 80
    assert pace().after(reply(54_850, took=10.0)).next_at_ms == 54_950.0
    assert pace().after(reply(54_000, took=700.0, retry_after=60.0)).next_at_ms == 54_700.0


def test_a_healthy_target_needs_no_last_chance() -> None:
    assert pace(Policy(interval=10.0)).after(reply(54_000, ok=True)).next_at_ms == 64_000.0
    assert pace().after(reply(54_900, ok=True)).next_at_ms == 55_150.0


def test_the_last_chance_is_not_two_attempts_at_once() -> None:
    last = pace().after(reply(52_000, took=2.0, retry_after=60.0))
    assert last.next_at_ms == LATEST - 2
    assert last.after(reply(54_998, took=1.5, retry_after=60.0)).next_at_ms > LATEST
    assert pace().after(reply(54_920, took=10.0, retry_after=60.0)).next_at_ms == 55_020.0


def test_no_wait_goes_past_the_deadline() -> None:
    assert pace().after(reply(58_000, retry_after=60.0)).next_at_ms == 60_000.0
    assert pace().after(reply(58_000, retry_after=60.0)).is_exhausted()
    assert not pace().after(reply(50_000)).is_exhausted()


def test_jitter_comes_from_the_random_given() -> None:
    def waits(seed: int) -> list[float]:
        now, found = pace(Policy(interval=10.0), seed=seed), []
        for _ in range(5):
            now = now.after(reply(0))
            found.append(now.next_at_ms)
        return found

    assert waits(1) == waits(1)
    assert waits(1) != waits(2)


def test_targets_that_fail_together_are_not_asked_in_step_for_ever() -> None:
    now, waits = pace(), []
    for _ in range(40):
        now = now.after(reply(0))
        waits.append(now.next_at_ms)
    assert waits[0] == 100
    assert 200 <= waits[1] <= 250
    assert all(150 <= wait <= 250 for wait in waits[2:])
    assert max(waits[2:]) - min(waits[2:]) > 60


def test_the_value_before_is_left_as_it_was() -> None:
    start = pace()
    first = start.after(reply(0))
    one, other = first.after(reply(100)), first.after(reply(100, ok=True))
    assert (start.next_at_ms, start.failures, len(start.history)) == (0.0, 0, 0)
    assert [attempt.ok for attempt in one.history] == [False, False]
    assert [attempt.ok for attempt in other.history] == [False, True]
    assert len(first.history) == 1


def test_history_is_a_sequence() -> None:
    made = [Attempt(at_ms=n, elapsed_ms=1.0, ok=True) for n in range(4)]
    history = History()
    for attempt in made:
        history = history.plus(attempt)
    assert list(history) == made
    assert (history[-1], history[1:3]) == (made[3], made[1:3])
    with pytest.raises(IndexError):
        history[4]
    with pytest.raises(IndexError):
        History()[-1]


def test_a_day_of_attempts_is_cheap() -> None:
    now = pace(Policy(deadline=86_400.0))
    began = time.process_time()
    for at in range(0, 20_000 * 250, 250):
        now = now.after(reply(at, ok=True))
    assert len(now.history) == 20_000
    assert time.process_time() - began < 3


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.floats(0, 6000),
            st.none() | st.floats(0, 1e6),
        ),
        max_size=40,
    ),
    st.floats(0.01, 5),
)
def test_whatever_happens(outcomes: list[tuple[bool, float, float | None]], interval: float) -> None:
    now = pace(Policy(deadline=60.0, interval=interval))
    for ok, took, retry_after in outcomes:
        due = now.next_at_ms
        if due >= 60_000:
            return
        made = reply(round(due), ok=ok, took=took, retry_after=retry_after)
        now = now.after(made)
        assert now.next_at_ms >= made.attempt.end_ms
        assert now.next_at_ms <= max(60_000.0, made.attempt.end_ms)
        assert now.next_at_ms <= made.attempt.end_ms + max(5000.0, interval * 1000)
        assert now.next_at_ms >= made.attempt.at_ms + min(100.0, interval * 1000) - 1e-6
        if not ok and made.attempt.end_ms < LATEST and made.attempt.at_ms < LATEST - 50:
            assert now.next_at_ms < LATEST + 50


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("  7 ", 7.0),
        ("0", 0.0),
        ("1" * 4999, 1e9),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60.0),
        ("Fri Jan 15 08:01:00 2027", 60.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Fri, 99 Foo 2027 99:99:99 GMT", None),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", None),
    ],
)
def test_retry_after_header(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text(max_size=60))
def test_no_retry_after_header_breaks_it(value: str) -> None:
    found = retry_after_seconds(value, NOW)
    assert found is None or found >= 0
