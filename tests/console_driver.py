"""Plays a gate to a reporter on standard error; after each round it waits for a line on standard input.

`python -m tests.console_driver TARGETS ROUNDS [stop] [silent] [threadless]`: with `stop` the gate is never
told that it is over, with `silent` the first target never ends an attempt, with `threadless` none of its
threads can start.
"""

from __future__ import annotations

import os
import sys
import threading

from opsgate.console import reporter
from opsgate.evidence.record import decode
from opsgate.verdict.judge import Passed, Tally
from opsgate.verdict.targets import Attempt, Policy, Target
from tests import records


def main(targets: int, rounds: int, *, stop: bool, silent: bool) -> None:
    record = decode((records.DIRECTORY / "passed.json").read_bytes())
    policy = Policy(deadline=20, soak=3)
    told = reporter(sys.stderr, os.environ)
    told.started(record, verdict_by=1_700_000_000)
    told.stage("gate")
    told.probing([Target(name=f"target-{i}", url=f"http://h/{i}") for i in range(targets)], policy, "gate")
    tallies = [Tally() for _ in range(targets)]
    for turn in range(rounds):
        for i in range(silent, targets):
            # The last of all is the worst: an order of names would not show it.
            bad = i == targets - 1 or (i % 50 == 7 and turn % 2 == 0)
            attempt = Attempt(
                at_ms=turn * 250, elapsed_ms=12, ok=not bad, kind="refused" if bad else None, status_code=None
            )
            tallies[i] = tallies[i].after(attempt, policy)
            told.attempt(i, attempt, tallies[i])
        sys.stdin.readline()
    if not stop:
        told.probed(Passed())
        told.stage_done("gate", "passed", 3.2)
    told.finished(record, "ab" * 32)


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


if __name__ == "__main__":
    if "threadless" in sys.argv:
        threading.Thread.start = no_thread  # type: ignore[assignment, method-assign]
    main(int(sys.argv[1]), int(sys.argv[2]), stop="stop" in sys.argv, silent="silent" in sys.argv)
