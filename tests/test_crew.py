"""The threads that make the attempts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opsgate.probe.retry import Reply
from opsgate.probe.watch import Threads
from opsgate.verdict.targets import Attempt, Target

TARGET = Target(name="t", url="http://127.0.0.1/")


class Probe:
    """Answers at once, or, for the targets named `hangs`, when it is let go."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.let_go = threading.Event()

    def __call__(self, target: Target, limit: float, at_ms: int) -> Reply:
        self.threads.add(threading.get_ident())
        if target.name == "hangs":
            assert self.let_go.wait(30)
        return Reply(Attempt(at_ms=at_ms, elapsed_ms=0.0, ok=True))


@contextmanager
def crew() -> Iterator[tuple[Threads, Probe]]:
    probe = Probe()
    threads = Threads(probe)
    try:
        yield threads, probe
    finally:
        probe.let_go.set()
        threads.close()


def answered(threads: Threads, index: int) -> None:
    reply = threads.next_reply(30)
    assert reply is not None
    assert reply[0] == index


def test_one_thread_serves_targets_that_are_probed_one_after_the_other() -> None:
    with crew() as (threads, probe):
        for index in range(50):
            threads.start(index, TARGET, 5.0, 5000.0)
            answered(threads, index)
    assert len(probe.threads) == 1


def test_attempts_that_hang_hold_up_nobody() -> None:
    with crew() as (threads, probe):
        for index in range(20):
            threads.start(index, Target(name="hangs", url=TARGET.url), 5.0, 5000.0)
        threads.start(20, TARGET, 5.0, 5000.0)
        answered(threads, 20)
        probe.let_go.set()
        seen = {reply[0] for _ in range(20) if (reply := threads.next_reply(30))}
    assert seen == set(range(20))
    assert len(probe.threads) == 21


def test_threads_end_when_the_crew_is_closed() -> None:
    before = set(threading.enumerate())
    with crew() as (threads, _):
        threads.start(0, TARGET, 5.0, 5000.0)
        answered(threads, 0)
        own = set(threading.enumerate()) - before
        assert own
    for thread in own:
        thread.join(30)
        assert not thread.is_alive()
