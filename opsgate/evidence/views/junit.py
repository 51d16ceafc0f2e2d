"""JUnit XML, so that a pipeline shows each target as a test case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from junitparser import Error, JUnitXml, Skipped, TestCase, TestSuite
from junitparser import Failure as FailureResult

from opsgate.evidence.views.facts import last_failure
from opsgate.evidence.views.headline import headline
from opsgate.evidence.views.phrases import warnings, why, why_and_before, why_lines
from opsgate.evidence.views.words import failure, plain

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence, Gate, TargetResult

SHOWN: Final = 20
"""Attempts of a failed target that its test case lists."""


def render(record: Evidence) -> str:
    """A suite for the gate and, after a rollback, one for recovery. Never all green unless passed."""
    xml = JUnitXml("opsgate")
    suites = [_suite(record, "gate", record.stages.gate)]
    if record.stages.rollback.recovery:
        suites.append(_suite(record, "recovery", record.stages.rollback.recovery))
    if not _says(suites, record):
        suites[0].add_testcase(_verdict(record))
    for one in warnings(record):
        suites[0].add_property("warning", one)
    for suite in suites:
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    document: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return document.decode()


def _suite(record: Evidence, name: str, gate: Gate) -> TestSuite:
    suite = TestSuite(plain(f"opsgate {record.environment} {name}"))
    suite.timestamp = gate.started_at or record.started_at
    suite.add_property("run_id", record.run_id)
    suite.add_property("status", record.status)
    suite.add_property("status_reason", record.status_reason)
    suite.add_property("revision", plain(record.revision or ""))
    for target in gate.targets or []:
        suite.add_testcase(_case(record, name, target))
    return suite


def _case(record: Evidence, suite: str, target: TargetResult) -> TestCase:
    case = TestCase(plain(target.name), plain(f"opsgate.{record.environment}.{suite}"))
    case.time = round(sum(attempt.elapsed_ms for attempt in target.attempts) / 1000, 3)
    if not target.healthy and target.required:
        last = last_failure(target)
        result = FailureResult(why_and_before(record, target), (last.kind or "") if last else "")
        result.text = "\n".join(
            f"{attempt.at_ms / 1000:9.3f} s {'healthy' if attempt.ok else failure(attempt)}"
            for attempt in target.attempts[-SHOWN:]
        )
        case.result = [result]
    elif not target.healthy:
        case.result = [Skipped(f"not required: {why(target)}")]
    return case


def _says(suites: list[TestSuite], record: Evidence) -> bool:
    """The targets' test cases alone tell what became of the run."""
    cases = [case for suite in suites for case in suite]
    if record.status == "failed":
        return any(isinstance(result, FailureResult) for case in cases for result in case.result)
    return record.status == "passed" and bool(cases)


def _verdict(record: Evidence) -> TestCase:
    """The run itself as a test case, for when no target speaks for it."""
    case = TestCase(record.trigger, plain(f"opsgate.{record.environment}"))
    if record.status == "skipped":
        case.result = [Skipped(headline(record))]
    elif record.status == "failed":
        error = Error(headline(record), record.status_reason)
        error.text = "\n".join(why_lines(record))
        case.result = [error]
    return case
