"""The evidence task: one run shown, all runs verified, listed, or decided again. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError
from opsgate.evidence import verdicts
from opsgate.evidence.history import DAY, figures, select
from opsgate.evidence.prune import prune
from opsgate.evidence.record import Evidence, timestamp
from opsgate.evidence.store import Store
from opsgate.evidence.verify import Report, verify
from opsgate.evidence.views import FORMATS
from opsgate.evidence.views import history as views
from opsgate.settings import Settings, parse_duration
from opsgate.stages.run import new_run_id
from opsgate.verdict.targets import Policy


class Answer(msgspec.Struct, frozen=True):
    """What to print, and the exit code."""

    text: str
    exit_code: int = 0


def answer(settings: Settings, given: Mapping[str, Any], *, environment: str | None) -> Answer:
    """What the flags in `given` ask for."""
    form = "json" if given["json"] else given["format"]
    if given["verify"]:
        return verified(settings, head=given["head"], as_json=given["json"])
    if given["replay"]:
        return replayed(settings, given, run=given["run"], environment=environment, as_json=given["json"])
    if given["prune"]:
        return pruned(settings, keep=given["keep"], now=time.time())
    if given["history"]:
        return history(
            settings,
            environment=environment,
            since=given["since"],
            status=given["status"],
            form=form,
            now=time.time(),
        )
    return show(settings, run=given["run"], environment=environment, form=form)


def show(settings: Settings, *, run: str | None, environment: str | None, form: str) -> Answer:
    """One run in one of the formats: `run`, else the newest one (of `environment`, if given)."""
    if form not in FORMATS:
        raise ConfigurationError(f"--format {form}: unknown format", f"choose one of {', '.join(FORMATS)}")
    return Answer(FORMATS[form](_chosen(_store(settings), run, environment)))


def verified(settings: Settings, *, head: str | None, as_json: bool) -> Answer:
    """The whole directory verified; exit 1 when anything is off."""
    store = _store(settings)
    report = verify(store, head)
    if not report.lines and not report.mismatches and not report.unfinished:
        raise _nothing(store.directory, None)
    if as_json:
        return Answer(_json(msgspec.to_builtins(report) | {"ok": report.ok}), int(not report.ok))
    return Answer("\n".join(_report_lines(report)) + "\n", int(not report.ok))


def replayed(
    settings: Settings, given: Mapping[str, Any], *, run: str | None, environment: str | None, as_json: bool
) -> Answer:
    """Recorded gates decided again with the policy flags in `given`: of `run`, else of every run."""
    store = _store(settings)
    records = [_chosen(store, run, None)] if run else list(_all(store, environment))
    changes = {name: getattr(settings.policy, name) for name in Policy.__struct_fields__ if given.get(name)}
    again = [found for record in records if (found := _again(record, changes))]
    if not again:
        raise ConfigurationError(
            "no run has a gate with a verdict to decide again", "evidence --history lists the runs"
        )
    if as_json:
        runs = [msgspec.to_builtins(item) | {"changed": item.changed} for item in again]
        return Answer(_json({"policy": changes, "runs": runs}))
    lines = [_replay_line(item) for item in again]
    changed = sum(item.changed for item in again)
    told = ", ".join(f"{name} {value:g}" for name, value in changes.items()) or "each run's own policy"
    return Answer("\n".join([*lines, f"{changed} of {len(again)} verdicts change under {told}"]) + "\n")


def history(
    settings: Settings,
    *,
    environment: str | None,
    since: str | None,
    status: str | None,
    form: str,
    now: float,
) -> Answer:
    """The runs that match, and the figures over them."""
    if status not in {None, "passed", "failed", "skipped"}:
        raise ConfigurationError(f"--status {status}: unknown status", "choose passed, failed or skipped")
    if form not in {"text", "json", "html"}:
        raise ConfigurationError(f"--history --format {form}: unknown format", "choose text, json or html")
    begin = None if since is None else _since(since, now)
    lines = list(_store(settings).ledger.read())
    if not lines:
        raise _nothing(settings.evidence_dir, environment)
    found = select(lines, environment=environment, since=begin, status=status)
    counted = figures(select(lines, environment=environment, since=begin), now=now, since=begin)
    if form == "json":
        return Answer(_json({"runs": msgspec.to_builtins(found), "figures": msgspec.to_builtins(counted)}))
    if form == "html":
        from opsgate.evidence.views import history_html

        asked = history_html.Asked(
            now=timestamp(now),
            environment=environment,
            since=None if begin is None else timestamp(begin),
            status=status,
        )
        return Answer(history_html.render(found, counted, asked, head=lines[-1].hash))
    return Answer(views.render(found, counted))


def pruned(settings: Settings, *, keep: str, now: float) -> Answer:
    """Old records dropped; the chain stays verifiable."""
    if not (keep.isascii() and keep.isdigit() and int(keep) > 0):
        raise ConfigurationError(f"--keep {keep}: not a number of runs to keep", "give at least 1")
    dropped = prune(_store(settings), keep=int(keep), run_id=new_run_id(now), now=timestamp(now))
    return Answer(
        f"dropped {len(dropped)} record{'' if len(dropped) == 1 else 's'}; the ledger keeps its lines\n"
    )


def _since(text: str, now: float) -> float:
    """Seconds since the epoch of a UTC date or time, or of an age such as `7d` or `12h`."""
    days = text.removesuffix("d")
    if text != days and days.isascii() and days.isdigit():
        return now - int(days) * DAY
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        pass
    try:
        return now - parse_duration(text)
    except ValueError:
        hint = "give a UTC date such as 2026-01-31, or an age such as 7d or 12h"
        raise ConfigurationError(f"--since {text}: neither a date nor an age", hint) from None


def _store(settings: Settings) -> Store:
    store = Store(settings.evidence_dir, settings.redactor)
    try:
        store.complete()
    except EvidenceError:
        # Looking must work where nothing can be written.
        return store
    return store


def _chosen(store: Store, run: str | None, environment: str | None) -> Evidence:
    record = store.load(run) if run else store.latest(environment)
    if record is None:
        raise _nothing(store.directory, environment)
    return record


def _nothing(directory: Path, environment: str | None) -> ConfigurationError:
    of = f" of environment {environment}" if environment else ""
    return ConfigurationError(
        f"there is no record{of} in {directory}",
        "run a release or a gate first, or name another directory with --evidence-dir",
    )


def _all(store: Store, environment: str | None) -> Iterator[Evidence]:
    """The readable records of finished runs, the oldest first."""
    lines = list(store.newest_runs())
    for line in reversed(lines):
        if environment in {None, line.environment} and store.exists(line.run_id):
            yield store.load(line.run_id)


def _again(record: Evidence, changes: Mapping[str, Any]) -> verdicts.Replay | None:
    policy = record.stages.gate.policy
    if not policy:
        return None
    return verdicts.replay(record, msgspec.structs.replace(policy, **changes))


def _report_lines(report: Report) -> Iterator[str]:
    runs = f"{report.runs} run{'' if report.runs == 1 else 's'}, {report.lines} ledger lines"
    if report.ok:
        yield f"verified: {runs}; every hash, the chain, and every verdict hold"
    else:
        yield f"MISMATCH: {len(report.mismatches)} found in {runs}; the first one first"
        yield from (f"  {mismatch}" for mismatch in report.mismatches)
    yield from (f"  unfinished: run {run_id} (under way, or killed)" for run_id in report.unfinished)
    if report.head:
        yield f"head {report.head}"


def _replay_line(item: verdicts.Replay) -> str:
    mark = "changed" if item.changed else "same   "
    return f"{mark}  {item.run_id}  {_outcome(item.recorded)} -> {_outcome(item.replayed)}"


def _outcome(outcome: verdicts.Outcome) -> str:
    at = "" if outcome.at_ms is None else f" after {outcome.at_ms / 1000:.1f} s"
    return f"{outcome.status}{f' ({outcome.status_reason})' if outcome.status_reason else ''}{at}"


def _json(document: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
