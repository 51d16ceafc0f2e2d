"""What `invoke --help TASK` says of each flag, with its default; and what Invoke does not tell of one."""

from __future__ import annotations

from typing import Any

from invoke import Argument, Task

COMMON = {
    "env": "environment of the configuration file (default: OPSGATE_ENV, its default_environment, 'default')",
    "evidence-dir": "where evidence is kept (default: artifacts/rollout)",
    "json": "print the evidence record as one JSON document on stdout (default: a short summary)",
}
POLICY = {
    "deadline": "the verdict is given by then, for example 90s or 2m (default: 2m)",
    "soak": "how long all required targets must stay healthy, may be 0 (default: 15s)",
    "interval": "time between attempts at a healthy target (default: 250ms)",
    "attempt-timeout": "hard limit of one attempt, everything included (default: 5s)",
    "successes": "healthy attempts in a row that a pass needs at least (default: 3)",
    "flaps": "how often a target may lose health before it counts as unstable (default: 2)",
}
GATE = {
    "url": "required URL to probe, repeatable; replaces the configured ones (default: the environment's)",
    **POLICY,
    "revision": "revision being released (default: OPSGATE_REVISION, what a hook left, or the commit)",
    "rollback": "roll back by itself when the gate fails (default: yes, if one is configured)",
    "fail-on-skipped": "exit 1 when nothing was validated (default: exit 0)",
    **COMMON,
}

EVIDENCE = {
    **COMMON,
    **{
        name: f"with --replay: {meaning.partition(' (default: ')[0]} (default: each run's own)"
        for name, meaning in POLICY.items()
    },
    "env": "only runs of this environment (default: OPSGATE_ENV, else all)",
    "json": "print one JSON document; of a run, its evidence record (default: text)",
    "run": "the run to show or to decide again (default: the newest)",
    "history": "list the runs (default: no)",
    "verify": "check every record, hash and verdict; exit 1 when anything is off (default: no)",
    "replay": "decide recorded gates again under the policy flags given (default: no)",
    "format": "text, json, md, html, junit, env or intoto (default: text)",
    "output": "write to this file (default: stdout)",
    "since": "with --history: only runs from this UTC date on, or younger than e.g. 7d (default: all)",
    "status": "with --history: only passed, failed or skipped runs (default: all)",
    "prune": "drop old records, never a last good one; the ledger stays verifiable (default: no)",
    "keep": "with --prune: how many of the newest runs stay (default: 100)",
    "head": "with --verify: a ledger hash kept elsewhere, which must still be in the chain (default: none)",
}


class _Typed(Argument):
    """A flag whose value is None unless it was typed; its default only shows and names its inverse."""

    @property
    def value(self) -> Any:
        return self._value

    @value.setter
    def value(self, given: str) -> None:
        self.set_value(given)


class GateTask(Task[Any]):
    """A task with `--[no-]rollback`, of which either, once typed, beats `OPSGATE_ROLLBACK`.

    Invoke gives `--no-X` only to a flag whose default is true, and then a typed `--X` looks like none.
    """

    def get_arguments(self, *args: Any, **kwargs: Any) -> list[Argument]:
        """Return Invoke's arguments, the flag among them."""
        return [
            _Typed(names=given.names, kind=bool, default=True, help=given.help)
            if given.name == "rollback"
            else given
            for given in super().get_arguments(*args, **kwargs)
        ]
