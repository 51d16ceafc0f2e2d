"""Settings' targets probed and judged, for the gate and for the recovery check alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from opsgate.evidence.record import Gate, TargetResult
from opsgate.probe.kinds import Prober
from opsgate.probe.watch import Lane, Threads, Watch, look
from opsgate.stages.session import Session
from opsgate.verdict.judge import Failed, Passed, Verdict, fold
from opsgate.verdict.targets import Policy, RevisionRule, Target


def any_required(targets: Sequence[Target]) -> bool:
    """Whether any target decides."""
    return any(target.required for target in targets)


def probe(session: Session, gate: Gate, *, rule: RevisionRule, label: str, lenient: bool = False) -> Verdict:
    """Probe all targets until there is a verdict, and fill in `gate`.

    The attempts are kept even when the run is interrupted meanwhile.
    """
    settings, reporter = session.settings, session.reporter
    gate.policy, gate.revision = settings.policy, rule.expected
    gate.targets = [TargetResult.untried(target) for target in settings.targets]
    gate.control = []
    prober = _prober(session, rule=rule, lenient=lenient)
    crew = Threads(prober)
    watch = Watch(
        settings.targets,
        settings.policy,
        crew,
        control=settings.control,
        check=session.halt.check,
        on_attempt=reporter.attempt,
        on_turn=reporter.turn,
    )
    reporter.probing(settings.targets, settings.policy, label)
    try:
        verdict = watch.run()
    finally:
        crew.close()
        prober.close()
        gate.targets = [result_of(lane, settings.policy) for lane in watch.lanes]
        gate.control = [result_of(lane, settings.policy) for lane in watch.control if lane.attempts]
    reporter.probed(verdict)
    gate.status = "passed" if isinstance(verdict, Passed) else "failed"
    gate.status_reason = verdict.reason if isinstance(verdict, Failed) else "all_probes_healthy"
    return verdict


def baseline(session: Session, targets: Sequence[Target], *, limit: float = math.inf) -> list[TargetResult]:
    """One attempt of each of these targets, in `limit` seconds at most: what they answer now.

    Judges no revision.
    """
    if not targets:
        return []
    policy = session.settings.policy
    prober = _prober(session, rule=RevisionRule(), lenient=False)
    crew = Threads(prober)
    try:
        attempts = look(targets, min(policy.attempt_timeout, limit), crew, check=session.halt.check)
    finally:
        crew.close()
        prober.close()
    once = msgspec.structs.replace(policy, successes=1, soak=0.0)
    results = []
    for target, attempt in zip(targets, attempts, strict=True):
        run = fold([attempt], once)
        result = TargetResult.untried(target)
        result.healthy, result.first_healthy_ms, result.attempts = attempt.ok, run.first_healthy_ms, [attempt]
        results.append(result)
    return results


def result_of(lane: Lane, policy: Policy) -> TargetResult:
    """A lane of the loop as it stands in the record."""
    result = TargetResult.untried(lane.target)
    result.healthy = lane.tally.is_healthy(policy)
    result.first_healthy_ms = lane.tally.first_healthy_ms
    result.flaps = lane.tally.flaps
    result.attempts = list(lane.attempts)
    return result


def _prober(session: Session, *, rule: RevisionRule, lenient: bool) -> Prober:
    """A prober for the settings' targets; `ConfigurationError` for one that cannot be probed at all."""
    settings = session.settings
    prober = Prober(
        environ=session.environ,
        rule=rule,
        lenient=lenient,
        token=settings.token,
        redactor=session.redactor,
        cwd=settings.directory,
    )
    prober.prepare([*settings.targets, *settings.control])
    return prober
