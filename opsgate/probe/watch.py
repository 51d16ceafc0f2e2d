"""The loop of attempts: who is probed when, until the judge has a verdict.

All state lives in the thread that calls `watch`; a `Crew` makes the attempts and hands back replies.
The crew owns the clock, so a test or a simulation can bring its own.
"""

from __future__ import annotations

import heapq
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from opsgate.probe.retry import Pace, Reply
from opsgate.verdict.judge import Failed, Passed, Tally, Verdict, Waiting, decide, latest_start_ms, may_settle
from opsgate.verdict.targets import Attempt, Policy, Target

TURN = 0.1  # s; the longest the loop waits before it asks `check` again
LAST_CHANCE = 100.0  # ms that the last attempt of a run needs to be answered in time
LAST_REPLIES = 0.1  # s after the deadline in which attempts that it cut off still report

Probe = Callable[[Target, float, int], Reply]
"""`(target, limit in s, at_ms) -> Reply`; never takes longer than its limit, never raises."""


Inbox = queue.SimpleQueue[tuple[int, Target, float, float] | None]


class Crew(Protocol):
    """Makes attempts, all targets concurrently. Times in ms since the crew began."""

    def now_ms(self) -> float:
        """The crew's time."""

    def start(self, index: int, target: Target, limit_s: float, until_ms: float) -> None:
        """Begin one attempt that ends within `limit_s`, and by `until_ms`."""

    def next_reply(self, timeout_s: float) -> tuple[int, Reply] | None:
        """The next finished attempt, or None after `timeout_s`."""


class Threads:
    """A crew of daemon threads, as many as there are attempts at once: one that hangs holds up nobody."""

    def __init__(self, probe: Probe, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe, self._clock, self._began = probe, clock, clock()
        # Not a SimpleQueue: a signal at the end of its time limit can make its `get` wait for ever.
        self._replies: queue.Queue[tuple[int, Reply | BaseException]] = queue.Queue()
        self._idle: list[Inbox] = []
        self._inboxes: list[Inbox] = []

    def now_ms(self) -> float:
        """Time since the crew began."""
        return (self._clock() - self._began) * 1000

    def start(self, index: int, target: Target, limit_s: float, until_ms: float) -> None:
        """See `Crew.start`."""
        try:
            # The one that was at work last: what it needs is still at hand.
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            try:
                threading.Thread(target=self._work, args=(inbox,), daemon=True).start()
            except RuntimeError as error:
                self._replies.put((index, _failed(f"this machine: {error}", self.now_ms())))
                return
            self._inboxes.append(inbox)
        inbox.put((index, target, limit_s, until_ms))

    def next_reply(self, timeout_s: float) -> tuple[int, Reply] | None:
        """See `Crew.next_reply`."""
        try:
            index, reply = self._replies.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(reply, BaseException):
            raise reply
        return index, reply

    def close(self) -> None:
        """Let idle threads end; busy ones end with their attempt."""
        for inbox in self._inboxes:
            inbox.put(None)

    def _work(self, inbox: Inbox) -> None:
        while (job := inbox.get()) is not None:
            index, target, limit_s, until_ms = job
            now = self.now_ms()
            limit = max(0.001, min(limit_s, (until_ms - now) / 1000))
            reply: Reply | BaseException
            try:
                reply = self._probe(target, limit, math.ceil(now))
            except BaseException as defect:  # noqa: BLE001 - raised again in the thread that waits for it
                reply = defect
            self._idle.append(inbox)
            self._replies.put((index, reply))


class Lane:
    """One target's place in the loop: its tally, its attempts, and when it is due."""

    __slots__ = ("busy_since_ms", "due_ms", "pace", "tally", "target")

    def __init__(self, target: Target, pace: Pace) -> None:
        self.target, self.pace = target, pace
        self.tally = Tally()
        self.due_ms = 0.0
        self.busy_since_ms: float | None = None

    @property
    def attempts(self) -> Sequence[Attempt]:
        """All attempts so far, the oldest first."""
        history: Sequence[Attempt] = self.pace.history
        return history

    def take(self, reply: Reply, policy: Policy) -> None:
        """Note an attempt and when the next one is due."""
        self.tally = self.tally.after(reply.attempt, policy)
        self.pace = self.pace.after(reply)
        self.due_ms = self.pace.next_at_ms
        self.busy_since_ms = None
        if self.tally.start_ms is not None:
            soak_end = self.tally.start_ms + policy.soak * 1000
            if self.tally.last_ms < soak_end < self.due_ms:
                self.due_ms = max(soak_end, reply.attempt.end_ms)


class Watch:
    """One gate's probing; at least one of the targets is required.

    `lanes` and `control` hold what is known of each target, in the order given, at any time.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        policy: Policy,
        crew: Crew,
        *,
        control: Sequence[Target] = (),
        rng: random.Random | None = None,
        check: Callable[[], None] = lambda: None,
        on_attempt: Callable[[int, Attempt, Tally], None] = lambda _index, _attempt, _tally: None,
        on_turn: Callable[[float], None] = lambda _now_ms: None,
    ) -> None:
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        pace = Pace.begin(policy, latest_ms=latest_start_ms(policy) - LAST_CHANCE, rng=rng)
        self._policy, self._crew, self._check = policy, crew, check
        self._on_attempt, self._on_turn = on_attempt, on_turn
        self._deadline = policy.deadline * 1000
        self._latest_start = latest_start_ms(policy)
        self.lanes = tuple(Lane(target, pace) for target in targets)
        self.control = tuple(Lane(target, pace) for target in control)
        self._required = tuple(lane for lane in self.lanes if lane.target.required)
        self._active = self.lanes
        self._soak_end: float | None = None
        self._queue = [(0.0, index) for index in range(len(self.lanes))]

    def run(self) -> Verdict:
        """Probe until there is a verdict.

        `check` is asked many times a second and may raise; `on_turn` is told the time as often.
        """
        verdict: Verdict = Waiting()
        heard_ms = 0.0
        while isinstance(verdict, Waiting):
            self._check()
            now = self._crew.now_ms()
            if now >= self._deadline:
                return self._at_deadline()
            self._on_turn(now)
            self._begin_control(now)
            due = min(self._dispatch(now), self._deadline)
            arrived = self._crew.next_reply(min(TURN, (due - now) / 1000))
            if arrived:
                verdict, heard_ms = self._take(*arrived), arrived[1].attempt.end_ms
            elif self._control_under_way():
                verdict = self._judge(self._crew.now_ms())
        # An attempt's times are rounded up, and may be at the deadline a moment before it.
        if isinstance(verdict, Failed) and max(heard_ms, self._crew.now_ms()) >= self._deadline:
            # One target's last answer, at the deadline, must not keep those of the others out.
            return self._at_deadline()
        return verdict

    def _take(self, index: int, reply: Reply) -> Verdict:
        lane = self._note(index, reply)
        verdict: Verdict = Waiting()
        if index >= len(self.lanes):
            verdict = self._judge(reply.attempt.end_ms)
        elif lane.target.required and self._is_over(lane):
            verdict = self._judge(math.inf)
        elif lane.target.required and self._may_settle(lane.tally):
            verdict = self._judge(reply.attempt.end_ms)
        self._schedule(index, lane)
        return verdict

    def _note(self, index: int, reply: Reply) -> Lane:
        lane = self._active[index]
        lane.take(reply, self._policy)
        if index < len(self.lanes):
            self._on_attempt(index, reply.attempt, lane.tally)
        return lane

    def _may_settle(self, tally: Tally) -> bool:
        """Whether a required target's newest attempt can change anything that all of them decide.

        A healthy one fails nobody. It begins the common soak or ends it, and for either all must have come
        that far.
        """
        soak_end = self._soak_end
        if not may_settle(tally, self._policy, soak_end):
            return False
        if not tally.is_healthy(self._policy):
            return True
        if tally.streak == 1 or soak_end is None:
            return all(lane.tally.start_ms is not None for lane in self._required)
        return all(lane.tally.last_ms >= soak_end for lane in self._required)

    def _is_over(self, lane: Lane) -> bool:
        """The lane's next attempt is due too late to begin a run, and no control URL is still to be heard."""
        if lane.tally.start_ms is not None or lane.due_ms < self._latest_start:
            return False
        heard = any(not other.tally.blind for other in self._required)
        return heard or all(other.attempts for other in self.control)

    def _judge(self, now_ms: float) -> Verdict:
        verdict = decide(
            [lane.tally for lane in self._required],
            self._policy,
            now_ms=now_ms,
            control=[lane.tally for lane in self.control],
        )
        if isinstance(verdict, Waiting) and verdict.probe_at_ms != self._soak_end:
            self._soak_end = verdict.probe_at_ms
            for index, lane in enumerate(self.lanes):
                if lane.busy_since_ms is None:
                    self._schedule(index, lane)
        return verdict

    def _schedule(self, index: int, lane: Lane) -> None:
        """Queue a lane's next attempt, at the common end of the soak if that comes first."""
        soak_end = self._soak_end
        if soak_end is not None and lane.target.required and lane.tally.last_ms < soak_end:
            lane.due_ms = min(lane.due_ms, max(soak_end, lane.tally.end_ms))
        heapq.heappush(self._queue, (lane.due_ms, index))

    def _dispatch(self, now: float) -> float:
        """Start every attempt that is due; when the next one will be."""
        while self._queue:
            due, index = self._queue[0]
            lane = self._active[index]
            if due > now and due == lane.due_ms:
                return due
            heapq.heappop(self._queue)
            # A lane that was queued again for an earlier time leaves its old place behind.
            if due == lane.due_ms and lane.busy_since_ms is None:
                lane.busy_since_ms = now
                self._crew.start(index, lane.target, self._policy.attempt_timeout, self._deadline)
        return self._deadline

    def _begin_control(self, now: float) -> None:
        """Ask the control URLs once nothing has been heard from any required target.

        An attempt that hangs until the deadline must leave them their time, hence the quarter.
        """
        if not self.control or self._control_under_way():
            return
        tallies = [lane.tally for lane in self._required]
        if all(tally.blind for tally in tallies) and (
            all(tally.attempts for tally in tallies) or now >= self._deadline / 4
        ):
            self._active = self.lanes + self.control
            for index in range(len(self.lanes), len(self._active)):
                heapq.heappush(self._queue, (0.0, index))

    def _control_under_way(self) -> bool:
        return len(self._active) > len(self.lanes)

    def _at_deadline(self) -> Verdict:
        """Let the attempts that the deadline cut off report, then decide for good."""
        until = self._crew.now_ms() + LAST_REPLIES * 1000
        while any(lane.busy_since_ms is not None for lane in self._active):
            arrived = self._crew.next_reply((until - self._crew.now_ms()) / 1000)
            if arrived is None:
                break
            lane, attempt = self._note(*arrived), arrived[1].attempt
            # A failure decides nothing now that the time is over, and there may be hundreds of them.
            if attempt.ok and lane.target.required and self._may_settle(lane.tally):
                verdict = self._judge(attempt.end_ms)
                if isinstance(verdict, Passed):
                    # Reached in time: what another target did afterwards is not part of it.
                    return verdict
        for index, lane in enumerate(self._active):
            if lane.busy_since_ms is not None:
                self._note(index, _abandoned(lane.busy_since_ms, self._crew.now_ms()))
        return self._judge(math.inf)


def look(
    targets: Sequence[Target], limit_s: float, crew: Crew, *, check: Callable[[], None] = lambda: None
) -> list[Attempt]:
    """One attempt of each target, all at once: what the runtime answers now."""
    for index, target in enumerate(targets):
        crew.start(index, target, limit_s, limit_s * 1000)
    attempts = [_abandoned(0.0, limit_s * 1000).attempt for _ in targets]
    missing = set(range(len(targets)))
    until_ms = (limit_s + LAST_REPLIES) * 1000
    while missing and crew.now_ms() < until_ms:
        check()
        arrived = crew.next_reply(min(TURN, (until_ms - crew.now_ms()) / 1000))
        if arrived:
            attempts[arrived[0]] = arrived[1].attempt
            missing.discard(arrived[0])
    return attempts


def _abandoned(since_ms: float, now_ms: float) -> Reply:
    return _failed("no answer by the deadline", since_ms, now_ms - since_ms)


def _failed(detail: str, since_ms: float, elapsed_ms: float = 0.0) -> Reply:
    attempt = Attempt(
        at_ms=math.ceil(since_ms),
        elapsed_ms=round(elapsed_ms, 1),
        ok=False,
        kind="timeout",
        detail=detail,
    )
    return Reply(attempt, None)
