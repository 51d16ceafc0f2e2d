"""Who else is told of a failure, and of the pass after it: a webhook, a GitHub issue.

Both work beside the incident hook, each on a thread that can be left behind. None can change the
verdict, or delay the exit by more than its limit, which is short once the run was interrupted.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opsgate.errors import OpsgateError
from opsgate.evidence.record import encode
from opsgate.stages.incident import delivery, issues

if TYPE_CHECKING:
    from opsgate.stages.session import Session

WEBHOOK_LIMIT: Final = 60.0
"""Seconds from the first attempt to the last."""
GITHUB_LIMIT: Final = 30.0
SIGNATURE: Final = "X-Opsgate-Signature-256"
_LOOK: Final = 0.05


class Job:
    """One message on its way."""

    def __init__(
        self, name: str, limit: float, environ: Mapping[str, str], work: Callable[[delivery.Post], None]
    ) -> None:
        self._name, self._limit, self._environ = name, limit, environ
        self._deadline = time.monotonic() + limit
        self._stop = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._work, args=(work,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._problem = f"{name}: this machine: {error}"

    def _work(self, work: Callable[[delivery.Post], None]) -> None:
        try:
            work(delivery.Post(self._deadline, self._stop, self._environ))
        except OpsgateError as error:
            self._problem = f"{self._name}: {error.one_line}"
        except Exception as error:  # noqa: BLE001 - telling others can never be what fails a run
            self._problem = f"{self._name}: {type(error).__name__}"

    def finish(self, interrupted: Callable[[], bool]) -> str | None:
        """Wait for the end, the limit or an interrupt; what went wrong, in words."""
        while self._thread.is_alive() and not interrupted() and time.monotonic() < self._deadline:
            self._thread.join(_LOOK)
        self._stop.set()
        if self._thread.is_alive():
            return f"{self._name}: given up" + ("" if interrupted() else f" after {self._limit:g} s")
        return self._problem


def begin(session: Session, *, hurry: float | None = None) -> list[Job]:
    """Start telling those who are configured; the caller has to `finish` each.

    `hurry` is what an interrupted run has left, in seconds.
    """
    record, notify, environ = session.record, session.settings.notify, session.environ
    if record.status == "skipped" or session.halt.taken_over_by():
        return []
    jobs = []
    if notify.webhook_url and (record.status == "failed" or _failed_before(session)):
        jobs.append(Job("webhook", hurry or WEBHOOK_LIMIT, environ, _webhook(session)))
    if notify.github_issues:

        def issue(post: delivery.Post) -> None:
            issues.tell(record, issues.place(environ), post)

        jobs.append(Job("GitHub issue", hurry or GITHUB_LIMIT, environ, issue))
    return jobs


def finish(session: Session, jobs: list[Job], interrupted: Callable[[], bool]) -> None:
    """Wait for the jobs, side by side; what went wrong is a warning."""
    for job in jobs:
        problem = job.finish(interrupted)
        if problem:
            session.reporter.warn(problem)


def _webhook(session: Session) -> Callable[[delivery.Post], None]:
    notify, record = session.settings.notify, session.record
    body = encode(record, session.redactor)
    headers = {
        "Content-Type": "application/json",
        "X-Opsgate-Event": "failed" if record.status == "failed" else "recovered",
        "X-Opsgate-Run": record.run_id,
    }
    if notify.webhook_secret:
        headers[SIGNATURE] = signature(notify.webhook_secret.reveal(), body)
    url = notify.webhook_url or ""

    def work(post: delivery.Post) -> None:
        post.send("POST", url, headers, body)

    return work


def signature(key: str, body: bytes) -> str:
    """`sha256=` and the HMAC of the body in hex, as GitHub's own webhooks have it."""
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def _failed_before(session: Session) -> bool:
    """Whether the run of this environment before this one that decided anything failed."""
    record = session.record
    with suppress(OpsgateError):
        for line in session.store.newest_runs():
            others = line.environment != record.environment or line.run_id == record.run_id
            if not others and line.status != "skipped":
                return line.status == "failed"
    return False
