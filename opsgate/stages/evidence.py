"""The evidence task: one run shown, all runs verified, listed, decided again, or dropped when old."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from opsgate.errors import ConfigurationError, EvidenceError, OpsgateError
from opsgate.evidence import repair, rollouts, verdicts
from opsgate.evidence.history import DAY, false_passes, figures, newest_of_each, select
from opsgate.evidence.prune import prune
from opsgate.evidence.record import Evidence, new_run_id, pretty, timestamp
from opsgate.evidence.replays import compare
from opsgate.evidence.store import Store
from opsgate.evidence.verify import Report, verify
from opsgate.evidence.views import FORMATS
from opsgate.evidence.views import history as history_view
from opsgate.evidence.views import replays as replay_view
from opsgate.evidence.views.words import count
from opsgate.settings import Settings, rules
from opsgate.settings.file import SHARED
from opsgate.settings.mistakes import Mistake
from opsgate.verdict.targets import Policy

_MODES: Final[dict[str, tuple[str, ...]]] = {
    "history": ("text", "json", "html"),
    "verify": ("text", "json"),
    "replay": ("text", "json"),
    "prune": ("text", "json"),
}
"""What else than one run can be asked for, and its formats."""
_BELONG: Final = {
    "since": "history",
    "status": "history",
    "head": "verify",
    "keep": "prune",
    **dict.fromkeys(Policy.__struct_fields__, "replay"),
}
"""Flag → the only thing it goes with."""
_SELECTED: Final = frozenset({"flag --env", "OPSGATE_ENV"})
"""An environment from elsewhere is nobody's question."""
_KEEP: Final = "100"


class Answer(msgspec.Struct, frozen=True):
    """What to print, and the exit code."""

    text: str
    exit_code: int = 0


def answer(settings: Settings, given: Mapping[str, Any]) -> Answer:
    """What the flags in `given` ask for; those not typed are None or false."""
    environment = settings.environment if settings.origins["environment"] in _SELECTED else None
    mode, form = _mode(given), _format(given)
    if mode is not None and form not in _MODES[mode]:
        raise ConfigurationError(f"--{mode} --format {form}: unknown format", _choose(_MODES[mode]))
    as_json = form == "json"
    if mode == "verify":
        return verified(settings, head=given["head"], as_json=as_json)
    if mode == "replay":
        return replayed(settings, given, run=given["run"], environment=environment, as_json=as_json)
    if mode == "prune":
        keep = _KEEP if given["keep"] is None else given["keep"]
        return pruned(settings, keep=keep, environment=environment, now=time.time(), as_json=as_json)
    if mode == "history":
        return history(
            settings,
            environment=environment,
            since=given["since"],
            status=given["status"],
            form=form,
            now=time.time(),
        )
    return show(settings, run=given["run"], environment=environment, form=form)


def _mode(given: Mapping[str, Any]) -> str | None:
    """The one thing asked for; None: a run is to be shown.

    A flag that would be ignored is a mistake: who gives `--head` alone thinks that it was checked.
    """
    if given["run"] is not None and not given["run"].strip():
        hint = "give a run (opsgate evidence --history lists them), or leave the flag out for the newest one"
        raise ConfigurationError("--run is empty: no run is named", hint)
    modes = [mode for mode in _MODES if given[mode]]
    if len(modes) > 1:
        raise ConfigurationError(f"--{' and --'.join(modes)} do not go together", "give one of them")
    mode = modes[0] if modes else None
    if given["run"] is not None and mode not in {None, "replay"}:
        raise ConfigurationError(f"--run means nothing with --{mode}", "leave one of them out")
    for name, belongs_to in _BELONG.items():
        if given[name] is not None and mode != belongs_to:
            raise ConfigurationError(
                f"{_flag(name)} means nothing without --{belongs_to}", f"add --{belongs_to}"
            )
    return mode


def _format(given: Mapping[str, Any]) -> str:
    form = given["format"]
    if given["json"] and form not in {None, "json"}:
        raise ConfigurationError(f"--json and --format {form} do not go together", "give one of them")
    return "json" if given["json"] else form or "text"


def show(settings: Settings, *, run: str | None, environment: str | None, form: str) -> Answer:
    """One run in one of the formats: `run`, else the newest one (of `environment`, if given)."""
    if form not in FORMATS:
        raise ConfigurationError(f"--format {form}: unknown format", _choose(FORMATS))
    store = _store(settings)
    record, file = store.whole(run or _chosen(store, None, environment).run_id)
    return Answer(FORMATS[form](record, file))


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
    changes = _changes(given)
    store = _store(settings)
    runs = newest_of_each(store.ledger.read())
    if not runs and run is None:
        raise _nothing(store.directory, environment)
    unreadable: list[str] = []
    if run:
        found = _again(_chosen(store, run, None), changes)
        again = [found] if found else []
    else:
        of = [line.run_id for line in runs if environment in {None, line.environment}]
        again, unreadable = _all_again(store, of, changes)
    if not again:
        raise _nothing_to_decide(unreadable)
    compared = compare(again, false_passes(runs))
    if as_json:
        told = [msgspec.to_builtins(item) | {"changed": item.changed} for item in again]
        summary = msgspec.to_builtins(compared)
        return Answer(_json({"policy": changes, "runs": told, "unreadable": unreadable, "summary": summary}))
    policy = ", ".join(f"{name} {value:g}" for name, value in changes.items()) or "each run's own policy"
    return Answer(replay_view.render(again, compared, policy, unreadable=unreadable))


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
    begin = None if since is None else _since(since, now)
    store = _store(settings)
    lines = store.ledger.read()
    begun = rollouts.unended(store, environment)
    if not lines and not begun:
        raise _nothing(settings.evidence_dir, environment)
    found = select(lines, environment=environment, since=begin, status=status)
    counted = figures(select(lines, environment=environment, since=begin), now=now, since=begin)
    earliest = "" if begin is None else timestamp(begin)
    unfinished = [one.run_id for one in begun if status in {None, one.status} and one.started_at >= earliest]
    if form == "json":
        told = {"runs": found, "unfinished": unfinished, "figures": counted}
        return Answer(_json(msgspec.to_builtins(told)))
    if form == "html" and not lines:
        from opsgate.stages.outcome import command_line

        run = begun[-1].run_id
        raise ConfigurationError(
            f"no run in {store.directory} has ended yet: {run} is under way, or was killed",
            f"see it: {command_line('evidence', settings)} --run {run}",
        )
    if form == "html":
        from opsgate.evidence.views import history_html

        asked = history_html.Asked(
            now=timestamp(now),
            environment=environment,
            since=None if begin is None else timestamp(begin),
            status=status,
        )
        head = lines[-1].hash
        return Answer(history_html.render(found, counted, asked, head=head, unfinished=unfinished))
    return Answer(history_view.render(found, counted, unfinished))


def pruned(settings: Settings, *, keep: str, environment: str | None, now: float, as_json: bool) -> Answer:
    """Old records dropped, of one environment if given; the chain stays verifiable."""
    if not (keep.isascii() and keep.isdigit() and int(keep) > 0):
        raise ConfigurationError(f"--keep {keep}: not a number of runs to keep", "give at least 1")
    store = _store(settings)
    if store.ledger.head() is None:
        raise _nothing(store.directory, environment)
    dropped = prune(
        store, keep=int(keep), run_id=new_run_id(now), now=timestamp(now), environment=environment
    )
    if as_json:
        return Answer(_json({"dropped": dropped}))
    return Answer(f"dropped {count(len(dropped), 'record')}; the ledger keeps its lines\n")


def _since(text: str, now: float) -> float:
    """Seconds since the epoch of a UTC date or time, or of an age such as `7d` or `12h`."""
    hint = "give a UTC date such as 2026-01-31, or an age such as 7d or 12h"
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        begin = now - _age(text, hint)
    else:
        begin = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    try:
        timestamp(begin)
    except (ValueError, OverflowError, OSError):
        side = "before" if begin < now else "after"
        raise ConfigurationError(f"--since {text}: that is {side} any date", hint) from None
    return begin


def _age(text: str, hint: str) -> float:
    """Seconds of an age such as `7d`."""
    # Not a duration of the policy: those end at a day, and a number alone may be meant as a year.
    match = re.fullmatch(r"(?:(\d{1,20})d)?(?:(\d{1,20})h)?(?:(\d{1,20})m)?(?:(\d{1,20})s)?", text, re.ASCII)
    if not text or match is None:
        raise ConfigurationError(f"--since {text}: neither a date nor an age", hint)
    parts = zip(match.groups(), (DAY, 3600, 60, 1), strict=True)
    return sum(int(number or 0) * unit for number, unit in parts)


def _store(settings: Settings) -> Store:
    store = Store(settings.evidence_dir, settings.redactor)
    with suppress(EvidenceError):  # looking must work where nothing can be written
        repair.complete(store)
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


def _changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The policy flags that were typed.

    Not those of the settings: each run is decided under its own policy, whatever is configured today.
    """
    changes: dict[str, Any] = {}
    for name in Policy.__struct_fields__:
        if given[name] is not None:
            try:
                changes[name] = rules.of_text(SHARED["gate"][name])(given[name])
            except Mistake as mistake:
                raise ConfigurationError(f"{_flag(name)}: {mistake.text}", mistake.hint) from None
    if changes.get("soak", 0.0) >= changes.get("deadline", math.inf):
        raise ConfigurationError(
            f"--soak {given['soak']} does not fit into --deadline {given['deadline']}",
            "give a longer deadline or a shorter soak",
        )
    return changes


def _all_again(
    store: Store, run_ids: Iterable[str], changes: Mapping[str, Any]
) -> tuple[list[verdicts.Replay], list[str]]:
    """Finished runs decided again, and those whose record cannot be read; dropped ones are neither."""
    again: list[verdicts.Replay] = []
    unreadable: list[str] = []
    # One record at a time: a long history does not fit into memory.
    for run_id in run_ids:
        try:
            if store.exists(run_id) and (found := _again(store.load(run_id), changes)):
                again.append(found)
        except (EvidenceError, ConfigurationError):
            unreadable.append(run_id)
    return again, unreadable


def _again(record: Evidence, changes: Mapping[str, Any]) -> verdicts.Replay | None:
    policy = record.stages.gate.policy
    if not policy:
        return None
    return verdicts.replay(record, msgspec.structs.replace(policy, **changes))


def _nothing_to_decide(unreadable: Sequence[str]) -> OpsgateError:
    if unreadable:
        return EvidenceError(
            f"no record with a verdict can be read: {replay_view.left_out(unreadable)}",
            "evidence --verify says what is off",
        )
    return ConfigurationError(
        "no run has a gate with a verdict to decide again", "evidence --history lists the runs"
    )


def _report_lines(report: Report) -> Iterator[str]:
    runs = f"{count(report.runs, 'run')}, {count(report.lines, 'ledger line')}"
    if report.ok:
        yield f"verified: {runs}; every hash, the chain, and every verdict hold"
    else:
        yield f"MISMATCH: {len(report.mismatches)} found in {runs}; the first one first"
        yield from (f"  {mismatch}" for mismatch in report.mismatches)
    yield from (f"  unfinished: run {run_id} (under way, or killed)" for run_id in report.unfinished)
    if report.head:
        yield f"head {report.head}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _choose(names: Iterable[str]) -> str:
    return f"choose one of {', '.join(names)}"


def _json(document: object) -> str:
    return pretty(document).decode()
