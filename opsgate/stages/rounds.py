"""The gate as the older script knew it: rounds of one attempt at every URL, the first good one passes.

Probes, pace and judge are the gate's own; only the rounds are not.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from opsgate.probe.kinds import Prober
from opsgate.probe.retry import Pace, Reply
from opsgate.probe.watch import LAST_CHANCE, TURN, Threads, look
from opsgate.verdict.judge import Tally, Verdict, decide, latest_start_ms
from opsgate.verdict.targets import Attempt, Policy, Target

NEVER: Final = 1_000_000_000
"""Losses of health that are too many: the older script counted none."""
SHORTEST_SLEEP: Final = 0.25
"""Seconds between rounds at least, once the first ones have failed."""

Round = list[Attempt]


def policy(*, attempts: int, timeout: float, sleep: float) -> Policy:
    """What these flags mean, in seconds: no soak, one success, a deadline for all rounds."""
    return Policy(
        deadline=attempts * (timeout + sleep),
        soak=0.0,
        interval=max(sleep, SHORTEST_SLEEP),
        attempt_timeout=timeout,
        successes=1,
        flaps=NEVER,
    )


def probe(
    targets: Sequence[Target],
    policy: Policy,
    prober: Prober,
    take: Callable[[Round], None],
    check: Callable[[], None],
) -> Verdict:
    """Probe round by round until the judge has a verdict; `take` gets each finished round.

    `check` is asked many times a second and may raise.
    """
    began = time.monotonic()
    pace = Pace.begin(
        policy,
        latest_ms=latest_start_ms(policy) - LAST_CHANCE,
        rng=random.Random(),  # noqa: S311 - jitter, not a secret
    )
    tallies = [Tally() for _ in targets]
    while True:
        at_ms = math.ceil((time.monotonic() - began) * 1000)
        crew = Threads(prober)
        try:
            limit = max(min(policy.attempt_timeout, policy.deadline - at_ms / 1000), 0.001)
            seen = look(targets, limit, crew, check=check)
        finally:
            crew.close()
        # All of a round count as begun together: only then is one healthy round enough.
        attempts = [msgspec.structs.replace(attempt, at_ms=at_ms) for attempt in seen]
        take(attempts)
        tallies = [tally.after(attempt, policy) for tally, attempt in zip(tallies, attempts, strict=True)]
        failed = [attempt for attempt in attempts if not attempt.ok]
        if not failed:
            return decide(tallies, policy)
        pace = pace.after(Reply(max(failed, key=lambda attempt: attempt.end_ms)))
        if pace.is_exhausted():
            return decide(tallies, policy)
        while (left := pace.next_at_ms / 1000 - (time.monotonic() - began)) > 0:
            check()
            time.sleep(min(left, TURN))
