"""Runtimes that behave badly, and the policies that judge them, under a virtual clock.

A runtime is a function from the start of an attempt, in ms, to healthy or not; each is begun anew for a
run. A policy takes a runtime and gives back whether it passed and after how many ms.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import random
from collections.abc import Callable

from opsgate.probe.retry import FIRST_WAIT_MS, JITTER, Pace, Reply
from opsgate.probe.watch import LAST_CHANCE, Watch
from opsgate.verdict.judge import Passed, latest_start_ms
from opsgate.verdict.targets import Attempt, Kind, Policy, Target

Runtime = Callable[[float], bool]
Outcome = tuple[bool, float]
Judge = Callable[[Runtime, random.Random], Outcome]

LATENCY = 5.0


def at_random(rng: random.Random, rate: float) -> Runtime:
    """Fails each request with the same probability."""
    draw = rng.random
    return lambda _at: draw() >= rate


def one_in(rng: random.Random, n: int) -> Runtime:
    """Fails every nth request: one replica of n behind a balancer that takes turns."""
    counter = itertools.count(rng.randrange(n))
    return lambda _at: next(counter) % n != 0


def crash_after(_rng: random.Random, seconds: float) -> Runtime:
    """Healthy at first, then down for good."""
    return lambda at: at < seconds * 1000


def recover_after(_rng: random.Random, seconds: float) -> Runtime:
    """Down at first, then healthy for good."""
    return lambda at: at >= seconds * 1000


def flap(rng: random.Random, up: float, down: float) -> Runtime:
    """Up and down in turns, in seconds, from anywhere in the cycle."""
    period = (up + down) * 1000
    phase = rng.random() * period
    return lambda at: (at + phase) % period < up * 1000


def rolling(rng: random.Random, replicas: int, seconds: float) -> Runtime:
    """Replicas restart one after another while a balancer goes on sending to all of them."""
    choose = rng.random
    return lambda at: int(choose() * replicas) != at // (seconds * 1000)


RUNTIMES: dict[str, Callable[..., Runtime]] = {
    "random": at_random,
    "one in": one_in,
    "crash": crash_after,
    "recover": recover_after,
    "flap": flap,
    "rolling": rolling,
}


def polled(every: float, deadline: float, successes: int = 1, hold: float = 0.0) -> Judge:
    """Asks `every` so many seconds; passes after `successes` in a row that span `hold` seconds."""

    def judge(up: Runtime, _rng: random.Random) -> Outcome:
        streak, start, at = 0, 0.0, 0.0
        while at < deadline * 1000:
            if up(at):
                start = at if streak == 0 else start
                streak += 1
                if streak >= successes and at - start >= hold * 1000:
                    return True, at + LATENCY
            else:
                streak = 0
            at += every * 1000
        return False, deadline * 1000

    return judge


def opsgate(policy: Policy, latency: float = LATENCY) -> Judge:
    """opsgate's gate for one target, written out flat: some thirty times as fast as the real one.

    `really` is the real one; `simulation` compares the two.
    """
    return functools.partial(_flat, policy, latest_start_ms(policy), latency)


def _flat(policy: Policy, latest: float, latency: float, up: Runtime, rng: random.Random) -> Outcome:
    deadline, soak, interval = policy.deadline * 1000, policy.soak * 1000, policy.interval * 1000
    successes, last_chance = policy.successes, latest - LAST_CHANCE
    streak = lost = failures = at = 0
    soak_end = draw = 0.0
    while at + latency < deadline:
        end = at + latency
        if up(at):
            if streak == 0:
                soak_end = at + soak
            streak, failures = streak + 1, 0
            if streak >= successes and at >= soak_end:
                return True, end
            due = at + interval
        else:
            lost += streak >= successes
            streak, failures = 0, failures + 1
            draw = rng.random() if failures > 1 else 0.0
            due = at + _backoff(failures, interval, draw)
        if end < last_chance < due:
            due = _last_chance(policy, last_chance, failures, at, latency, draw)
        if streak and at < soak_end < due:
            due = soak_end
        due = max(due, end)
        if not streak and (lost > policy.flaps or due >= latest):
            return False, end
        at = math.ceil(due)
    return False, deadline


def _backoff(failures: int, interval: float, draw: float) -> float:
    wait = min(FIRST_WAIT_MS * 2.0 ** min(failures - 1, 20), interval)
    if failures > 1:
        wait = interval - abs(interval - wait * (1 + draw * JITTER))
    return max(wait, min(FIRST_WAIT_MS, interval))


class _Drawn(random.Random):
    """Draws the one number given."""

    def __init__(self, number: float) -> None:
        super().__init__(0)
        self.number = number

    def random(self) -> float:
        return self.number


def _last_chance(
    policy: Policy, latest: float, failures: int, at: float, latency: float, draw: float
) -> float:
    """When the real pace puts an attempt that would come too late to begin a run; rare, so it may be slow."""
    pace = Pace.begin(policy, latest_ms=latest, rng=_Drawn(draw))
    pace.failures = max(0, failures - 1)
    attempt = Attempt(at_ms=math.ceil(at), elapsed_ms=latency, ok=failures == 0)
    return pace.after(Reply(attempt)).next_at_ms


class Crew:
    """Attempts at one runtime under a virtual clock, for the real loop."""

    def __init__(self, up: Runtime, latency: float) -> None:
        self.up, self.latency, self.clock = up, latency, 0.0
        self.flying: list[tuple[float, Reply]] = []

    def now_ms(self) -> float:
        """The virtual time."""
        return self.clock

    def start(self, index: int, target: Target, limit_s: float, until_ms: float) -> None:  # noqa: ARG002
        """The attempt ends `latency` later, or at `until_ms`, and then it has failed."""
        at = math.ceil(self.clock)
        elapsed = min(self.latency, until_ms - at)
        healthy = self.up(at) and elapsed == self.latency
        kind: Kind | None = None if healthy else "status"
        attempt = Attempt(at_ms=at, elapsed_ms=elapsed, ok=healthy, kind=kind, bytes=1)
        heapq.heappush(self.flying, (attempt.end_ms, Reply(attempt)))

    def next_reply(self, timeout_s: float) -> tuple[int, Reply] | None:
        """The clock jumps to whatever comes first, and never stands still for rounding."""
        until = round(self.clock + max(0.0, timeout_s) * 1000, 6)
        if timeout_s > 0 and until <= self.clock:
            until = round(self.clock + 1e-6, 6)
        if self.flying and self.flying[0][0] <= until:
            self.clock, reply = heapq.heappop(self.flying)
            return 0, reply
        self.clock = until
        return None


def really(policy: Policy, latency: float = LATENCY) -> Judge:
    """opsgate's own loop and judge."""
    target = Target(name="runtime", url="http://runtime.example/")

    def judge(up: Runtime, rng: random.Random) -> Outcome:
        crew = Crew(up, latency)
        verdict = Watch([target], policy, crew, rng=rng).run()
        return isinstance(verdict, Passed), crew.clock

    return judge
