"""doctor: preflight alone, and more of it. Says whether a release could begin now, and changes nothing.

Hooks and probes need a run; theirs is made in a scratch directory that is gone afterwards.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from opsgate.errors import EvidenceError, NotReady
from opsgate.evidence.record import Evidence, new_run_id, timestamp
from opsgate.evidence.store import Store
from opsgate.settings import Settings
from opsgate.stages.doctor import checks, readiness
from opsgate.stages.doctor.diagnosis import Check, Diagnosis, conclude, problem
from opsgate.stages.doctor.quiet import Quiet
from opsgate.stages.halt import Halt
from opsgate.stages.reporter import Reporter
from opsgate.stages.session import Session


def run(settings: Settings, *, environ: Mapping[str, str], reporter: Reporter) -> Diagnosis:
    """Look at everything; `reporter` is told before what may take long, and what the rollback check prints.

    Raises `Interrupted` as soon as a signal arrives.
    """
    now = time.time()
    found = list(_at_rest(settings, environ, now))
    store = Store(settings.evidence_dir, settings.redactor)
    way = readiness.last_good(settings, store)
    found += readiness.way_back(settings, store, way, now=now)
    references: tuple[str, ...] = ()
    try:
        with Halt() as halt, _scratch(settings, environ, halt, reporter) as session:
            found += readiness.work_tree(session)
            compose, references = readiness.shipping(session)
            found += compose
            found.append(readiness.rollback_check(session))
            found += readiness.runtime(session)
    except NotReady as error:
        found.append(problem("scratch directory", error))
    found += readiness.registries(settings, references, way.rollout, environ, tell=reporter.note)
    return conclude(settings, found, now=now)


def _at_rest(settings: Settings, environ: Mapping[str, str], now: float) -> Iterator[Check]:
    """What can be known without running or asking anything."""
    store = Store(settings.evidence_dir, settings.redactor)
    yield from checks.configuration(settings)
    yield checks.evidence_directory(settings)
    yield checks.lock(settings)
    yield from checks.ledger(store, now=now)
    yield checks.last_run(settings, store)
    yield from checks.hooks(settings, environ)


@contextmanager
def _scratch(
    settings: Settings, environ: Mapping[str, str], halt: Halt, reporter: Reporter
) -> Iterator[Session]:
    """A run of its own that leaves nothing behind. Raises `NotReady` where there is no room for it."""
    now = time.time()
    record = Evidence(
        run_id=settings.run_id or new_run_id(now),
        environment=settings.environment,
        trigger="release",
        started_at=timestamp(now),
    )
    with ExitStack() as stack:
        try:
            scratch = tempfile.TemporaryDirectory(prefix="opsgate-", ignore_cleanup_errors=True)
            store = Store(Path(stack.enter_context(scratch)), settings.redactor)
            store.begin(record)
        except (OSError, EvidenceError) as error:
            raise NotReady(
                f"no scratch directory can be made: {error}",
                "free some space in the temporary directory, or name another one in TMPDIR",
            ) from None
        yield Session(
            settings,
            record,
            store,
            redactor=settings.redactor,
            reporter=Quiet(reporter),
            halt=halt,
            environ=environ,
        )
