"""Records and stores for the tests of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opsgate.evidence.record import (
    Command,
    Deploy,
    Evidence,
    Gate,
    Image,
    Publish,
    Rollback,
    TargetResult,
    timestamp,
)
from opsgate.evidence.store import Store
from opsgate.redact import Redactor
from opsgate.verdict.judge import Failed, decide, fold
from opsgate.verdict.targets import Attempt, Kind, Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opsgate.evidence.ledger import Line
    from opsgate.evidence.record import Trigger

EPOCH = 1_780_000_000.0
POLICY = Policy(deadline=10.0, soak=1.0, interval=0.25)
URL = "http://127.0.0.1:8000/healthz"


def store_in(directory: Path) -> Store:
    """A store that can be written to."""
    store = Store(directory / "rollout", Redactor())
    store.prepare()
    return store


def at(seconds: float) -> str:
    """A time of day in the tests' own time."""
    return timestamp(EPOCH + seconds)


KINDS: dict[str, Kind] = {"-": "status", "?": "timeout"}


def attempts(pattern: str, every_ms: int = 250) -> list[Attempt]:
    """`+` healthy, `-` a status of 503, `?` no answer, one a letter."""
    return [
        Attempt(
            at_ms=index * every_ms,
            elapsed_ms=5.0,
            ok=letter == "+",
            kind=KINDS.get(letter),
            status_code={"+": 200, "-": 503}.get(letter),
            bytes=0 if letter == "?" else 120,
        )
        for index, letter in enumerate(pattern)
    ]


def probed(*patterns: str, policy: Policy = POLICY, control: Sequence[str] = (), start: float = 1.0) -> Gate:
    """A gate's stage as the probing of these targets leaves it."""
    targets = [_result(index, pattern, policy) for index, pattern in enumerate(patterns)]
    others = [_result(index, pattern, policy) for index, pattern in enumerate(control)]
    verdict = decide(
        [fold(target.attempts, policy) for target in targets],
        policy,
        control=[fold(target.attempts, policy) for target in others],
    )
    failed = isinstance(verdict, Failed)
    return Gate(
        status="failed" if failed else "passed",
        status_reason=verdict.reason if isinstance(verdict, Failed) else "all_probes_healthy",
        started_at=at(start),
        duration_ms=1500,
        policy=policy,
        revision=None,
        targets=targets,
        control=others,
    )


def _result(index: int, pattern: str, policy: Policy) -> TargetResult:
    tried = attempts(pattern)
    run = fold(tried, policy)
    return TargetResult(
        name=f"{URL}/{index}",
        url=f"{URL}/{index}",
        required=True,
        healthy=run.is_healthy(policy),
        first_healthy_ms=run.first_healthy_ms,
        flaps=run.flaps,
        attempts=tried,
    )


def image(digest: str = "a", name: str = "backend") -> Image:
    return Image(name=name, reference=f"registry.example/{name}:t", digest=f"sha256:{digest * 64}")


def record(run_id: str, *, start: float = 0.0, trigger: Trigger = "release", **fields: Any) -> Evidence:
    """A record as it is before the first side effect."""
    fields.setdefault("environment", "production")
    return Evidence(run_id=run_id, trigger=trigger, started_at=at(start), **fields)


def ran(command: str, exit_code: int = 0) -> Command:
    """A hook's command that was run."""
    explanation = f"exit {exit_code}" if exit_code else ""
    return Command(
        command=command,
        exit_code=exit_code,
        duration_ms=5,
        timed_out=False,
        output_tail="",
        explanation=explanation,
    )


def deployed(evidence: Evidence, gate: Gate | None = None) -> Evidence:
    """The record once its deploy hook has run, and its gate, if given, has decided."""
    began = evidence.started_at
    evidence.stages.publish = Publish(status="passed", started_at=began, duration_ms=5, tag="t1")
    evidence.stages.deploy = Deploy(
        status="passed", started_at=began, duration_ms=10, commands=[ran("deploy")]
    )
    evidence.status, evidence.status_reason = "skipped", "not_gated"
    return gated(evidence, gate) if gate is not None else evidence


def gated(evidence: Evidence, gate: Gate) -> Evidence:
    """The record once its gate has decided."""
    evidence.stages.gate = gate
    evidence.status = "passed" if gate.status == "passed" else "failed"
    evidence.status_reason = gate.status_reason or "internal_error"
    targets = gate.targets or []
    evidence.failed_urls = [target.url or target.name for target in targets if not target.healthy]
    evidence.attempt_count = sum(len(target.attempts) for target in targets)
    return evidence


def rolled_back(evidence: Evidence, *, recovered: bool = True, trigger: str = "auto") -> Evidence:
    """The record once a rollback has run."""
    evidence.stages.rollback = Rollback(
        status="passed" if recovered else "failed",
        started_at=at(20),
        duration_ms=4000,
        attempted=True,
        withheld=None,
        trigger="manual" if trigger == "manual" else "auto",
        reason=None,
        succeeded=True,
        recovered=recovered,
        exit_code=0,
        commands=[ran("rollback")],
        recovery=probed("+++++" if recovered else "-" * 50, start=22),
    )
    if trigger == "manual":
        evidence.status = "passed" if recovered else "failed"
        evidence.status_reason = "recovered" if recovered else "not_recovered"
    return evidence


def ended(evidence: Evidence, end: float = 30.0) -> Evidence:
    """The record with an end."""
    evidence.finished_at, evidence.duration_ms = at(end), int(end * 1000)
    evidence.exit_code = int(evidence.status == "failed")
    return evidence


def add(store: Store, evidence: Evidence, *, end: float | None = None) -> Line:
    """Begin and finish a run."""
    store.begin(evidence)
    ended(evidence, end if end is not None else 30.0)
    return store.finish(evidence, evidence.trigger)


def goes_on(store: Store, evidence: Evidence) -> None:
    """A later task of a run that has a line is under way, or was killed."""
    evidence.finished_at = evidence.duration_ms = evidence.exit_code = None
    evidence.status, evidence.status_reason = "failed", "interrupted"
    store.begin(evidence, continuing=True)


def add_passed(store: Store, run_id: str, revision: str | None = None, **fields: Any) -> Line:
    """A run that deployed and passed."""
    return add(store, deployed(record(run_id, revision=revision, **fields), probed("+++++")))


def add_failed(store: Store, run_id: str, revision: str | None = None, **fields: Any) -> Line:
    """A run that deployed, failed, was rolled back and recovered."""
    return add(store, rolled_back(deployed(record(run_id, revision=revision, **fields), probed("-" * 50))))
