"""What earlier runs brought out: where the way back leads, and what it leads away from.

Every function raises `EvidenceError` where the ledger cannot be read.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence.accounts import GATE_REASONS
from opsgate.evidence.record import Rollout, timestamp
from opsgate.evidence.store import decoded
from opsgate.verdict.expect import revisions_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opsgate.evidence.ledger import Line
    from opsgate.evidence.record import Evidence, Image
    from opsgate.evidence.store import Store

_GATE_DID_NOT_PASS = GATE_REASONS | {"no_urls_configured", "not_gated", "publish_failed", "deploy_failed"}
"""A line with one of these reasons needs no look at its record."""


def last_good(
    store: Store, environment: str, *, revision: str | None, images: Sequence[Image]
) -> Rollout | None:
    """The newest run whose gate passed on what it brought out, other than `revision` and `images`.

    A run whose record is missing, damaged or not the one that the ledger knows is passed over.
    """
    for rollout in _passed(store, environment):
        if _differs(rollout, revision, images):
            return rollout
    return None


def passed_rollout(store: Store, environment: str, revision: str) -> Rollout | None:
    """The newest run that passed with this revision."""
    for rollout in _passed(store, environment):
        if rollout.revision is not None and revisions_match(rollout.revision, revision):
            return rollout
    return None


def last_rolled_out(store: Store, environment: str) -> Rollout | None:
    """What was brought out last, whatever came of it: a manual rollback leads away from this.

    A run that was killed counts. One without a readable record is known by its line alone.
    """
    candidates: list[tuple[float, str, Rollout]] = []
    for line in store.newest_runs():
        if line.environment != environment or _proved_nothing_new(line):
            continue
        if (rollout := _brought_out(store, line)) is not None:
            candidates.append((line.seq, line.started_at, rollout))
            break
    begun = [(_seq_of(store, evidence.previous), evidence) for evidence in store.unfinished()]
    begun += [(_seq_at(store, _began(evidence)), evidence) for evidence in _gone_on(store, environment)]
    for seq, evidence in begun:
        if evidence.environment == environment and _is_rollout(evidence):
            candidates.append((seq + 0.5, _began(evidence), _rollout(store, evidence)))
    return max(candidates, key=lambda item: item[:2], default=(0, "", None))[2]


def unended(store: Store, environment: str | None = None) -> list[Evidence]:
    """Readable records without an end, the first that began first: under way, or killed.

    Of runs that no line names, and of those that went on after theirs.
    """
    found = [
        evidence
        for evidence in chain(store.unfinished(), _gone_on(store, environment))
        if evidence.finished_at is None and environment in {None, evidence.environment}
    ]
    return sorted(found, key=lambda evidence: (evidence.started_at, evidence.run_id))


def automatic_rollbacks(store: Store, environment: str, since: float) -> int:
    """How many runs rolled back by themselves since then (epoch seconds), cut off ones included."""
    earliest = timestamp(since)
    runs: set[str] = set()
    newest: dict[str, Line] = {}
    for line in store.ledger.read():
        if line.environment == environment and line.finished_at >= earliest:
            newest[line.run_id] = line
            if line.rollback == "auto":
                runs.add(line.run_id)
    # What was cut off may have no line of its own, and a person's rollback after it has the newest.
    asked = [run_id for run_id, line in newest.items() if run_id not in runs and not _is_settled(line)]
    for evidence in chain(store.unfinished(), _loaded(store, asked)):
        began = [
            rollback.started_at or evidence.started_at
            for rollback in evidence.rollbacks
            if rollback.trigger == "auto"
        ]
        if evidence.environment == environment and any(moment >= earliest for moment in began):
            runs.add(evidence.run_id)
    return len(runs)


def _is_settled(line: Line) -> bool:
    """Whether the gate was the run's last stage, so that its record holds no more than its line tells.

    Where gates are many their records are not read: that takes seconds while a runtime is down.
    """
    return line.rollback is None and line.status_reason in {"all_probes_healthy", *GATE_REASONS}


def _proved_nothing_new(line: Line) -> bool:
    """Whether the run was a gate on what ran already, as its line alone tells: there may be thousands."""
    return _is_settled(line) and not line.deployed and line.revision is None


def _gone_on(store: Store, environment: str | None) -> Iterator[Evidence]:
    """Records without an end of runs that the ledger names: a later task is under way, or was killed."""
    asked = (
        line.run_id
        for line in store.newest_runs()
        if environment in {None, line.environment} and not _is_settled(line)
    )
    return (evidence for evidence in _loaded(store, asked) if evidence.finished_at is None)


def _loaded(store: Store, run_ids: Iterable[str]) -> Iterator[Evidence]:
    for run_id in run_ids:
        with suppress(EvidenceError, ConfigurationError):
            yield store.load(run_id)


def _passed(store: Store, environment: str) -> Iterator[Rollout]:
    for line in store.newest_runs():
        if line.environment != environment or line.status_reason in _GATE_DID_NOT_PASS:
            continue
        if _proved_nothing_new(line):
            continue
        # A record that is not the one its line vouches for is nowhere to go back to.
        evidence = _trusted(store, line)
        if evidence is not None and evidence.proven and _is_rollout(evidence):
            yield _rollout(store, evidence)


def _trusted(store: Store, line: Line) -> Evidence | None:
    """The record that the line is about, if it is still that one."""
    with suppress(OSError, EvidenceError, ConfigurationError):
        data = store.read_bytes(line.run_id)
        if hashlib.sha256(data).hexdigest() == line.sha256:
            return decoded(data, store.run_directory(line.run_id))
    return None


def _brought_out(store: Store, line: Line) -> Rollout | None:
    try:
        evidence = store.load(line.run_id)
    except (EvidenceError, ConfigurationError):
        if not line.deployed:
            return None
        return Rollout(run_id=line.run_id, revision=line.revision, finished_at=line.finished_at)
    return _rollout(store, evidence) if _is_rollout(evidence) else None


def _is_rollout(evidence: Evidence) -> bool:
    """It deployed, or its gate passed on a revision that was deployed elsewhere."""
    gate = evidence.stages.gate
    return evidence.deployed or (gate.status == "passed" and isinstance(gate.revision, str))


def _rollout(store: Store, evidence: Evidence) -> Rollout:
    pins = store.pins_path(evidence.run_id)
    return Rollout(
        run_id=evidence.run_id,
        revision=evidence.revision,
        images=tuple(evidence.images),
        finished_at=evidence.finished_at,
        tag=evidence.stages.publish.tag or None,
        pins=str(pins) if os.path.isfile(pins) else None,
    )


def _differs(rollout: Rollout, revision: str | None, images: Sequence[Image]) -> bool:
    """By images, where both have some, or by revision, where both have one.

    What cannot be told from what is being rolled back is no way out of it.
    """
    if rollout.revision is None and not rollout.images:
        return False
    if revision is None and not images:
        return True
    if rollout.images and images and _contents(rollout.images) != _contents(images):
        return True
    return (
        rollout.revision is not None
        and revision is not None
        and not revisions_match(rollout.revision, revision)
    )


def _contents(images: Sequence[Image]) -> set[tuple[str, str]]:
    return {(image.name, image.digest) for image in images}


def _began(evidence: Evidence) -> str:
    """When it began to bring something out, or to look at what was."""
    stages = evidence.stages
    return stages.deploy.started_at or stages.gate.started_at or evidence.started_at


def _seq_at(store: Store, moment: str) -> int:
    """The last line of the ledger at that moment; 0 before the first."""
    return next((line.seq for line in store.ledger.newest_first() if line.finished_at <= moment), 0)


def _seq_of(store: Store, line_hash: str | None) -> int:
    """Where in the ledger a run began; 0 before the first line."""
    if line_hash is None:
        return 0
    return next((line.seq for line in store.ledger.newest_first() if line.hash == line_hash), 0)
