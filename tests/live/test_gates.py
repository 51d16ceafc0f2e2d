"""Whole gates over runtimes that change while they are looked at: real policies made short."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from opsgate.probe.kinds import Prober
from opsgate.probe.watch import Threads, Watch
from opsgate.redact import Redactor
from opsgate.verdict.judge import Failed, Passed, Verdict
from opsgate.verdict.targets import Expectation, Policy, RevisionRule, Target
from tests.live.servers import (
    OK_BODY,
    BlackHole,
    Peer,
    Script,
    Server,
    document,
    flaky,
    hang,
    healthy,
    healthy_from,
    in_turn,
    redirect,
    response,
    status,
)
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from opsgate.verdict.judge import Tally
    from opsgate.verdict.targets import Attempt

POLICY = Policy(deadline=2.0, soak=0.4, interval=0.05, attempt_timeout=0.3, successes=3, flaps=2)
PATIENT = msgspec.structs.replace(POLICY, deadline=8.0)
"""For gates that pass: a machine that stalls costs them a try and not the verdict."""
STABLE = msgspec.structs.replace(POLICY, deadline=3.0, soak=2.0)
"""For failures within the soak, which must not be over before them."""


class Gated(NamedTuple):
    verdict: Verdict
    seconds: float
    watch: Watch


def gate(
    *targets: Target,
    policy: Policy = POLICY,
    control: tuple[Target, ...] = (),
    on_attempt: Callable[[int, Attempt, Tally], None] = lambda *_: None,
    **prober: Any,
) -> Gated:
    made = Prober(environ={}, redactor=Redactor(), **prober)
    made.prepare([*targets, *control])
    crew = Threads(made)
    watch = Watch(targets, policy, crew, control=control, rng=random.Random(1), on_attempt=on_attempt)
    began = time.monotonic()
    verdict = watch.run()
    seconds = time.monotonic() - began
    crew.close()
    made.close()
    assert seconds <= policy.deadline + 2
    return Gated(verdict, seconds, watch)


def at(url: str, name: str = "it", **options: Any) -> Target:
    return Target(name=name, url=url, **options)


def after(seconds: float, do: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()


def test_healthy_all_along_costs_the_soak() -> None:
    with Server(healthy()) as server:
        gated = gate(at(server.url), policy=PATIENT)
    assert gated.verdict == Passed()
    assert 0.4 <= gated.seconds < 4


def test_recovers_in_time() -> None:
    ready = threading.Event()
    after(0.8, ready.set)
    with Server(healthy_from(ready)) as server:
        gated = gate(at(server.url), policy=PATIENT)
    assert gated.verdict == Passed()
    assert gated.seconds < 6


def test_recovers_too_late() -> None:
    ready = threading.Event()
    after(3.0, ready.set)
    with Server(healthy_from(ready)) as server:
        gated = gate(at(server.url), policy=msgspec.structs.replace(POLICY, deadline=6.0, soak=4.5))
    assert gated.verdict == Failed("probe_failures")
    assert gated.seconds < 5, "given as soon as the deadline can no longer be met"


@pytest.mark.parametrize(
    "before",
    [
        hang(),
        status(503, ("Retry-After", "1")),
        document(status="STARTING_UP", outcome="DOWN"),
        redirect("https://login.example.com/"),
        lambda peer: peer.reset(),
    ],
    ids=["hangs", "retry in a second", "says down", "login page", "resets"],
)
def test_recovers_from(before: Script) -> None:
    ready = threading.Event()
    after(0.5, ready.set)
    with Server(healthy_from(ready, before)) as server:
        assert gate(at(server.url), policy=PATIENT).verdict == Passed()


@pytest.mark.slow
def test_a_server_that_asks_to_be_retried_tomorrow_is_asked_again_in_5_seconds() -> None:
    script = in_turn(status(503, ("Retry-After", "86400")), healthy())
    with Server(script) as server:
        gated = gate(at(server.url), policy=msgspec.structs.replace(POLICY, deadline=8.0))
    assert gated.verdict == Passed()
    assert 5.4 <= gated.seconds < 7.5


def test_starts_to_listen_while_being_probed() -> None:
    port = free_port()
    with ExitStack() as late:

        def listen(_index: int, attempt: Attempt, _tally: Tally) -> None:
            if attempt.kind == "refused":
                late.enter_context(Server(healthy(), port=port))

        gated = gate(at(f"http://127.0.0.1:{port}/"), policy=PATIENT, on_attempt=listen)
    assert gated.verdict == Passed()
    assert gated.watch.lanes[0].attempts[0].kind == "refused"


def test_dies_within_the_soak() -> None:
    with Server(in_turn(*[healthy()] * 4, status(500))) as server:
        gated = gate(at(server.url), policy=STABLE)
    assert gated.verdict == Failed("probe_failures")


def test_refuses_new_connections_and_keeps_old_ones() -> None:
    def script(peer: Peer) -> None:
        if peer.number == 3:
            peer.server._listener.close()
        peer.request()
        peer.send(response())

    with Server(script) as server:
        gated = gate(at(server.url), policy=STABLE)
    assert gated.verdict == Failed("probe_failures")
    assert gated.watch.lanes[0].attempts[-1].kind in ("refused", "reset")


def test_flaps() -> None:
    with Server(flaky(4, 1)) as server:
        gated = gate(at(server.url), policy=msgspec.structs.replace(POLICY, deadline=6.0, soak=2.0))
    assert gated.verdict == Failed("unstable")
    assert gated.seconds < 4


@pytest.mark.parametrize(("good", "bad"), [(1, 4), (1, 1), (2, 1)])
def test_answers_now_and_then(good: int, bad: int) -> None:
    with Server(flaky(good, bad)) as server:
        assert gate(at(server.url)).verdict == Failed("probe_failures")


def test_hangs_now_and_then() -> None:
    with Server(flaky(2, 1, hang())) as server:
        assert gate(at(server.url)).verdict == Failed("probe_failures")


def test_two_targets_that_are_never_healthy_together() -> None:
    began = time.monotonic()

    def turn(mine: int) -> Script:
        def script(peer: Peer) -> None:
            now = int((time.monotonic() - began) / 0.3) % 2
            (healthy() if now == mine else status(503))(peer)

        return script

    with Server(turn(0)) as one, Server(turn(1)) as other:
        gated = gate(at(one.url, "one"), at(other.url, "other"))
    assert isinstance(gated.verdict, Failed)


def test_a_target_that_is_not_required_never_decides() -> None:
    with Server(healthy()) as server, Server(hang()) as silent:
        gated = gate(at(server.url), at(silent.url, "extra", required=False), policy=PATIENT)
    assert gated.verdict == Passed()
    assert gated.seconds < 6


def test_one_dead_target_of_three() -> None:
    with Server(healthy()) as one, Server(healthy()) as two:
        dead = at(f"http://127.0.0.1:{free_port()}/", "dead")
        assert gate(at(one.url, "one"), dead, at(two.url, "two")).verdict == Failed("probe_failures")


def test_the_old_revision_still_runs() -> None:
    expect = Expectation(revision="json:version")
    with Server(document(version="abcdef0")) as server:
        gated = gate(at(server.url, expect=expect), rule=RevisionRule(expected="1234567"))
    assert gated.verdict == Failed("wrong_revision")


def test_the_new_revision_arrives() -> None:
    expect = Expectation(revision="json:version")
    script = in_turn(*[document(version="abcdef0")] * 4, document(version="12345678"))
    with Server(script) as server:
        gated = gate(at(server.url, expect=expect), policy=PATIENT, rule=RevisionRule(expected="1234567"))
    assert gated.verdict == Passed()


def test_the_runner_is_offline() -> None:
    with BlackHole() as target, BlackHole() as control:
        gated = gate(
            at(f"http://127.0.0.1:{target.port}/"),
            control=(at(f"http://127.0.0.1:{control.port}/", "control", required=False),),
        )
    assert gated.verdict == Failed("observer_offline")


@pytest.mark.parametrize(
    "answer",
    [healthy(), status(500), b"HTTP/1.1 200 OK\r\nContent-Length: 5, 7\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"],
    ids=["healthy", "an error", "unusable framing", "half a head"],
)
def test_the_runner_is_online_and_the_runtime_silent(answer: Script | bytes) -> None:
    with BlackHole() as target, Server(answer) as control:
        gated = gate(
            at(f"http://127.0.0.1:{target.port}/"), control=(at(control.url, "control", required=False),)
        )
        assert control.connections > 0
    assert gated.verdict == Failed("probe_failures")


def test_a_dead_port_is_an_answer_of_the_host() -> None:
    with Server(healthy()) as control:
        gated = gate(
            at(f"http://127.0.0.1:{free_port()}/"), control=(at(control.url, "control", required=False),)
        )
        assert control.connections == 0
    assert gated.verdict == Failed("probe_failures")


def test_many_that_hang_make_no_verdict_late() -> None:
    policy = Policy(deadline=1.5, soak=0.2, interval=0.1, attempt_timeout=9.0, successes=2)
    for _ in range(3):
        with Server(hang()) as server:
            gated = gate(*(at(server.url, f"target {n}") for n in range(20)), policy=policy)
        assert gated.verdict == Failed("probe_failures")
        if gated.seconds <= policy.deadline + 0.5:
            return
    pytest.fail("three times late: that is no stall of the machine")


def test_drips_a_byte_at_a_time_for_ever() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(response(OK_BODY, length=10_000))
        while not peer.pause(0.05):
            peer.send(b"x")

    with Server(script) as server:
        gated = gate(at(server.url))
    assert gated.verdict == Failed("probe_failures")
    assert {attempt.kind for attempt in gated.watch.lanes[0].attempts} == {"timeout"}


def test_an_attempt_stands_at_the_end_of_the_soak() -> None:
    policy = Policy(deadline=8.0, soak=0.5, interval=2.0, attempt_timeout=2.0, successes=2)
    with Server(healthy()) as server:
        gated = gate(at(server.url), policy=policy)
    attempts = gated.watch.lanes[0].attempts
    assert gated.verdict == Passed()
    assert 500 <= attempts[-1].at_ms - attempts[0].at_ms < 1900
