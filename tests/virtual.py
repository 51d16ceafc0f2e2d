"""A crew under a virtual clock: hours of probing in milliseconds, and no thread."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

import msgspec

from opsgate.probe.retry import Reply
from opsgate.probe.watch import Watch
from opsgate.verdict.judge import Verdict
from opsgate.verdict.targets import Attempt, Kind, Policy, Target


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime does with one attempt. Times in ms."""

    ok: bool = True
    takes: float = 5.0
    kind: Kind | None = None
    """What a failed one ends in; a status unless told."""
    silent: bool = False
    """Not a byte comes back."""
    retry_after: float | None = None


UP = Answer()
DOWN = Answer(ok=False)
HANGS = Answer(takes=math.inf, silent=True)

Play = Callable[[float], Answer]
"""From the start of an attempt, in ms, to the answer."""


def always(answer: Answer) -> Play:
    return lambda _at: answer


def up_between(*spans: tuple[float, float]) -> Play:
    """Up in `[start, end)` of each span, in seconds; down otherwise."""
    return lambda at: UP if any(start <= at / 1000 < end for start, end in spans) else DOWN


class VirtualCrew:
    """Plays one script a target. `late_ms` is how long a finished attempt takes to be handed over.

    Asserts what holds for every gate: no attempt starts after the deadline, and a target never has two.
    """

    def __init__(self, plays: Sequence[Play], late_ms: float = 0.0) -> None:
        self.plays, self.late_ms = plays, late_ms
        self.clock = 0.0
        self.starts: list[list[float]] = [[] for _ in plays]
        self._flying: list[tuple[float, int, Reply]] = []

    def now_ms(self) -> float:
        return self.clock

    def start(self, index: int, target: Target, limit_s: float, until_ms: float) -> None:
        assert self.clock < until_ms
        assert all(flying != index for _, flying, _ in self._flying)
        self.starts[index].append(self.clock)
        at = math.ceil(self.clock)
        answer = self.plays[index](at)
        limit = min(limit_s * 1000, until_ms - self.clock)
        cut = answer.takes > limit
        attempt = Attempt(
            at_ms=at,
            elapsed_ms=min(answer.takes, limit),
            ok=answer.ok and not cut,
            kind="timeout" if cut else None if answer.ok else answer.kind or "status",
            bytes=0 if answer.silent else 200,
            status_code=None if cut or answer.silent else 200 if answer.ok else 503,
        )
        handed_over = self.clock + attempt.elapsed_ms + self.late_ms
        heapq.heappush(self._flying, (handed_over, index, Reply(attempt, answer.retry_after)))

    def next_reply(self, timeout_s: float) -> tuple[int, Reply] | None:
        # Rounded, so that adding up waits ends at the very instant that was waited for; never stuck.
        until = round(self.clock + max(0.0, timeout_s) * 1000, 6)
        if timeout_s > 0 and until <= self.clock:
            until = round(self.clock + 1e-6, 6)
        if self._flying and self._flying[0][0] <= until:
            self.clock, index, reply = heapq.heappop(self._flying)
            return index, reply
        self.clock = until
        return None


class Gate:
    """One gate under the virtual clock, from its scripts to its verdict."""

    def __init__(
        self,
        plays: Sequence[Play],
        policy: Policy,
        *,
        optional: Sequence[Play] = (),
        control: Sequence[Play] = (),
        late_ms: float = 0.0,
    ) -> None:
        self.policy = policy
        self.crew = VirtualCrew([*plays, *optional, *control], late_ms)
        targets = [
            Target(name=f"t{index}", url=f"http://t{index}.example/", required=index < len(plays))
            for index in range(len(plays) + len(optional))
        ]
        watched = [Target(name=f"c{index}", url=f"http://c{index}.example/") for index in range(len(control))]
        self.watch = Watch(targets, policy, self.crew, control=watched)
        self.verdict: Verdict = self.watch.run()
        self.seconds = self.crew.clock / 1000

    @property
    def required(self) -> list[list[Attempt]]:
        return [list(lane.attempts) for lane in self.watch.lanes if lane.target.required]
