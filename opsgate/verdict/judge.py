"""Attempts and a policy in, a verdict out.

Each target's attempts fold into a `Tally`, and `decide` looks at the tallies of all required targets.
A *run* is a streak of healthy attempts without a failure between:

- **Passed**: there is an instant T, the latest start of the current unbroken runs plus the soak, such
  that every target has answered healthily at or after T, at least `successes` times in a row, and
  the last of these answers came before the deadline.
- **Failed**: a target lost health more than `flaps` times (`unstable`), no unbroken run can be
  finished before the deadline any more, or the deadline is over.
- **Waiting**: anything else, with T when it is known: each target is due another attempt then.

The verdict depends only on each target's own sequence of attempts, never on how those of different
targets interleave, so a record gives the same verdict as the gate that wrote it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opsgate.verdict.targets import Attempt, Kind, Policy

FailedReason = Literal["probe_failures", "unstable", "wrong_revision", "observer_offline"]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One target's attempts so far, folded to what the verdict needs. Times in ms."""

    start_ms: float | None = None
    """Start of the first healthy attempt since the last failure; None when the last one failed."""
    last_ms: float = 0.0
    """Start of the latest healthy attempt."""
    end_ms: float = 0.0
    """When the latest attempt was answered."""
    streak: int = 0
    """Healthy attempts since the last failure."""
    flaps: int = 0
    """How often health was lost after `successes` in a row."""
    attempts: int = 0
    first_healthy_ms: float | None = None
    failure: Kind | None = None
    """What the latest failed attempt ended in."""
    blind: bool = True
    """No attempt so far has heard anything from the host."""
    responded: bool = False
    """Some attempt got an HTTP response, whatever it said."""

    def after(self, attempt: Attempt, policy: Policy) -> Tally:
        """The tally with one more attempt."""
        seen = {
            "end_ms": attempt.end_ms,
            "attempts": self.attempts + 1,
            "blind": self.blind and _is_blind(attempt),
            "responded": self.responded or attempt.status_code is not None,
        }
        if not attempt.ok:
            lost = self.streak >= policy.successes
            return msgspec.structs.replace(
                self, start_ms=None, streak=0, flaps=self.flaps + lost, failure=attempt.kind, **seen
            )
        at = attempt.at_ms
        return msgspec.structs.replace(
            self,
            start_ms=at if self.start_ms is None else self.start_ms,
            last_ms=at,
            streak=self.streak + 1,
            first_healthy_ms=at if self.first_healthy_ms is None else self.first_healthy_ms,
            **seen,
        )

    def is_unstable(self, policy: Policy) -> bool:
        """Health was lost too often for this policy."""
        return self.flaps > policy.flaps

    def is_late(self, policy: Policy) -> bool:
        """No unbroken run of this target can be finished before the deadline any more."""
        deadline = policy.deadline * 1000
        if self.start_ms is None:
            return bool(self.attempts) and self.end_ms >= latest_start_ms(policy)
        if self.has_soaked(policy):
            return self.end_ms >= deadline
        soak_end = self.start_ms + policy.soak * 1000
        due = self.last_ms + policy.interval * 1000
        following = max(self.end_ms, min(due, soak_end) if self.last_ms < soak_end else due)
        missing = policy.successes - self.streak - 1
        return following + _least_ms(soak_end - following, missing, policy) >= deadline

    def is_healthy(self, policy: Policy) -> bool:
        """The last attempt succeeded, and the target itself did nothing to fail the gate."""
        return self.start_ms is not None and not self.is_unstable(policy) and not self.is_late(policy)

    def has_soaked(self, policy: Policy) -> bool:
        """This target alone has met the policy."""
        return (
            self.start_ms is not None
            and self.streak >= policy.successes
            and self.last_ms >= self.start_ms + policy.soak * 1000
        )


class Waiting(msgspec.Struct, frozen=True):
    """No verdict yet. Every target is due an attempt at `probe_at_ms`, when that is known."""

    probe_at_ms: float | None = None


class Passed(msgspec.Struct, frozen=True):
    """Every required target is healthy, at the same time and for long enough."""


class Failed(msgspec.Struct, frozen=True):
    """The runtime cannot be called healthy."""

    reason: FailedReason


Verdict = Waiting | Passed | Failed


def fold(attempts: Iterable[Attempt], policy: Policy) -> Tally:
    """The tally of a target's attempts, in order."""
    tally = Tally()
    for attempt in attempts:
        tally = tally.after(attempt, policy)
    return tally


def latest_start_ms(policy: Policy) -> float:
    """The instant before which a run must begin to be finished in time."""
    return policy.deadline * 1000 - _least_ms(policy.soak * 1000, policy.successes - 1, policy)


def may_settle(tally: Tally, policy: Policy, soak_end_ms: float | None) -> bool:
    """Whether a target's newest attempt can have changed the verdict or the common end of the soak.

    `soak_end_ms` is that end as it was before. Asking this first keeps a gate of many targets from
    looking at all of them after each attempt.
    """
    if tally.streak == 1 or tally.is_unstable(policy) or tally.is_late(policy):
        return True
    # A failure that fails nothing can still take the common end away; a success can reach it.
    return soak_end_ms is not None and (tally.streak == 0 or tally.last_ms >= soak_end_ms)


def decide(
    tallies: Sequence[Tally], policy: Policy, *, now_ms: float = math.inf, control: Sequence[Tally] = ()
) -> Verdict:
    """The verdict over the required targets' `tallies` at `now_ms`.

    `control` are those of the control URLs. With the default `now_ms` no more attempts will
    come, and the answer is `Passed` or `Failed`.
    """
    deadline = policy.deadline * 1000
    if any(tally.is_unstable(policy) for tally in tallies):
        return Failed("unstable")
    soak_end = _common_soak_end(tallies, policy)
    if soak_end is not None and _all_soaked(tallies, policy, soak_end):
        return Passed()
    if now_ms < deadline and not any(tally.is_late(policy) for tally in tallies):
        return Waiting(soak_end)
    if control and all(tally.blind for tally in tallies) and not any(tally.responded for tally in control):
        if all(tally.attempts for tally in control):
            return Failed("observer_offline")
        if now_ms < deadline:
            return Waiting()
    return Failed(_reason(tallies, policy))


def _common_soak_end(tallies: Sequence[Tally], policy: Policy) -> float | None:
    """When the soak of the target that became healthy last is over."""
    latest = 0.0
    for tally in tallies:
        if tally.start_ms is None:
            return None
        latest = max(latest, tally.start_ms)
    return latest + policy.soak * 1000


def _all_soaked(tallies: Sequence[Tally], policy: Policy, soak_end: float) -> bool:
    return all(
        tally.last_ms >= soak_end
        and tally.streak >= policy.successes
        and tally.end_ms < policy.deadline * 1000
        for tally in tallies
    )


def _reason(tallies: Sequence[Tally], policy: Policy) -> FailedReason:
    kinds = {tally.failure for tally in tallies if not tally.is_healthy(policy)}
    return "wrong_revision" if kinds == {"revision"} else "probe_failures"


def _least_ms(soak_left_ms: float, missing: int, policy: Policy) -> float:
    """From one healthy attempt to the start of the one that finishes the run, at the least.

    The attempt at the exact end of the soak comes on top of those that are `interval` apart.
    """
    interval = policy.interval * 1000
    if soak_left_ms <= 0:
        return max(0, missing) * interval
    until_soak_end = math.ceil(soak_left_ms / interval)
    return soak_left_ms + max(0, missing - until_soak_end) * interval


def _is_blind(attempt: Attempt) -> bool:
    """Nothing came back from the host; a refused connection did, and so did a certificate."""
    if attempt.kind == "refused":
        return attempt.remote_ip is None
    return attempt.kind == "dns" or (
        attempt.kind == "timeout" and attempt.bytes == 0 and attempt.tls_not_after is None
    )
