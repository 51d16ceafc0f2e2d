"""The faults of the campaign: what happens, what opsgate must say, what is kept. A document is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tests.e2e.rig import Result


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, and what a command that meets it must answer."""

    group: str
    happens: str
    exit_codes: tuple[int, ...]
    status: str
    """`status`, or `status`/`status_reason`; empty where there is no record of the command."""
    says: str
    """Words that stand in the output or in `next_steps`."""
    kept: str

    def check(self, result: Result, record: Any = None) -> None:
        """Hold an answer to the table."""
        assert result.code in self.exit_codes, result
        steps = "\n".join(record["next_steps"]) if record else ""
        assert self.says in result.out + result.err + steps, result
        if self.status:
            status, _, reason = self.status.partition("/")
            assert record["status"] == status, record["status"]
            assert not reason or record["status_reason"] == reason, record["status_reason"]
            assert record["exit_code"] == result.code


def _signal(happens: str, status: str, says: str, kept: str) -> Fault:
    return Fault(
        group="Signals", happens=happens, exit_codes=(129, 130, 143), status=status, says=says, kept=kept
    )


def _kill(happens: str, says: str, kept: str) -> Fault:
    return Fault(group="Kills", happens=happens, exit_codes=(137,), status="", says=says, kept=kept)


def _evidence(happens: str, exit_codes: tuple[int, ...], status: str, says: str, kept: str) -> Fault:
    return Fault(
        group="Evidence", happens=happens, exit_codes=exit_codes, status=status, says=says, kept=kept
    )


def _hook(happens: str, exit_codes: tuple[int, ...], status: str, says: str, kept: str) -> Fault:
    return Fault(group="Hooks", happens=happens, exit_codes=exit_codes, status=status, says=says, kept=kept)


def _lock(happens: str, exit_codes: tuple[int, ...], status: str, says: str, kept: str) -> Fault:
    return Fault(
        group="Two at once", happens=happens, exit_codes=exit_codes, status=status, says=says, kept=kept
    )


BEGIN = "<!-- faults: written by `python -m tests.faults.table` -->"
END = "<!-- end of faults -->"
COMPLETE = "the final record and its ledger line"
OF_BOTH = COMPLETE + " of both, each naming the other"

FAULTS = {
    "signal-before-deploy": _signal(
        "A signal during preflight or publish (`release`, `publish`, `deploy`)",
        "failed/interrupted", "Not done because of the interrupt: ", COMPLETE,
    ),
    "signal-in-deploy": _signal(
        "A signal while the deploy hook runs: it is ended with its group, no rollback is started",
        "failed/interrupted", "v2 was being deployed and is not proven", COMPLETE + "; what the hook said",
    ),
    "signal-in-gate": _signal(
        "A signal while the gate probes", "failed/interrupted", "Not done because of the interrupt: gate",
        COMPLETE + "; every attempt so far",
    ),
    "signal-in-rollback": _signal(
        "A signal while a rollback runs: held, the rollback goes on to its end, recovery is not probed",
        "failed", "Nobody has looked whether it recovered",
        COMPLETE + "; `status_reason` stays the gate's",
    ),
    "second-signal-in-rollback": _signal(
        "A second signal of the same kind while a rollback runs: the hook is ended",
        "failed", "Go back now: opsgate rollback --env prod", COMPLETE + "; the stage says `interrupted`",
    ),
    "signal-in-recovery": _signal(
        "A signal while recovery is probed", "failed", "Nobody has looked whether it recovered",
        COMPLETE + "; the attempts so far",
    ),
    "signal-in-incident": Fault(
        group="Signals", happens="A signal while the incident hook runs: the hook is ended",
        exit_codes=(1,), status="failed/probe_failures", says="the incident hook failed: interrupted",
        kept="everything: the record was final already",
    ),
    "signal-in-doctor": _signal(
        "A signal while `doctor` looks: its hook is ended", "", "interrupted by SIG", "nothing was touched",
    ),
    "deaf-hook": _signal(
        "A signal while a hook and its children ignore TERM: KILL after 3 s",
        "failed/interrupted", "interrupted by SIG", COMPLETE,
    ),
    "deaf-target": _signal(
        "A signal while a command that is a target ignores TERM: it is killed",
        "failed/interrupted", "interrupted by SIG", COMPLETE,
    ),
    "kill-at-every-write": _kill(
        "SIGKILL at each single thing that `gate` does to its evidence, also in the middle of a write",
        "", "every finished run; the struck one as `failed`, or finished where its line was written",
    ),
    "kill-in-release": _kill(
        "SIGKILL at the writes of a `release` that rolls back",
        "", "as above; the next command completes a rename that was cut short",
    ),
    "kill-after-deploy": _kill(
        "SIGKILL after the deploy", "prod runs v1, not v2",
        "the record says what was deployed: `rollback` leads back past it",
    ),
    "unwritable-at-start": _evidence(
        "The evidence directory cannot be written when a run begins (`release`, `gate`, `deploy`)",
        (2,), "", "Make the directory writable", "nothing was touched",
    ),
    "full-disk": _evidence(
        "The disk fills up during a run, and the gate fails: the rollback runs, recovery is checked",
        (74,), "failed/probe_failures", "Evidence could not be written: ",
        "the record on stderr; on disk the last one that fitted, `failed`",
    ),
    "full-disk-passing": _evidence(
        "The disk fills up during a run whose gate passes",
        (74,), "failed/interrupted", "Evidence could not be written: ",
        "the record on stderr; on disk the last one that fitted, `failed`",
    ),
    "full-disk-rollback-fails": _evidence(
        "The disk fills up, the gate fails, and so does the rollback",
        (3,), "failed/probe_failures", "Evidence could not be written: ", "the record on stderr",
    ),
    "vanished": _evidence(
        "The evidence directory is removed during a run, and the gate fails",
        (74,), "failed/probe_failures", "Evidence could not be written: ", "the record on stderr",
    ),
    "stale": _evidence(
        "The file system of the evidence goes stale, and the gate or the deploy hook fails",
        (74,), "failed", "Evidence could not be written: ", "the record on stderr",
    ),
    "log-lost": _evidence(
        "Only a hook's log cannot be written", (74,), "failed/interrupted", "the log of deploy is incomplete",
        COMPLETE,
    ),
    "pins-lost": _evidence(
        "The pins cannot be written: nothing is deployed", (74,), "failed/interrupted",
        "Evidence could not be written: ", COMPLETE,
    ),
    "manual-without-evidence": _evidence(
        "`rollback` by a person where no evidence can be written, and it succeeds",
        (74,), "", "evidence cannot be written, rolling back all the same", "the record on stderr",
    ),
    "manual-fails-without-evidence": _evidence(
        "`rollback` by a person where no evidence can be written, and it fails",
        (3,), "failed/rollback_failed", "By hand: ", "the record on stderr",
    ),
    "ledger-held": _evidence(
        "A stopped process holds the ledger for ever: the rollback of a failed gate waits for it once",
        (74,), "failed/probe_failures", "another process has held", "the record on stderr",
    ),
    "clock-back": _evidence(
        "The clock is set back an hour during a run", (0,), "passed", "prod runs v2",
        COMPLETE + "; durations are those of a clock that nobody sets",
    ),
    "later-records": _evidence(
        "The newest records are from tomorrow, as this clock sees it: order is the ledger's, not the clock's",
        (1,), "failed/probe_failures", "prod runs v1, not v2", COMPLETE,
    ),
    "scratch-lost": _evidence(
        "There is no room for a temporary file: the rollback runs without `OPSGATE_OUTPUT`",
        (1,), "failed/probe_failures", "no file for OPSGATE_OUTPUT", COMPLETE,
    ),
    "setsid-child": _hook(
        "A deploy hook leaves a child in a session of its own: reported, let live",
        (0,), "passed", "", COMPLETE + "; its process id under `survivors`",
    ),
    "held-pipe": _hook(
        "A deploy hook exits, its child keeps the output open: the hook is finished",
        (0,), "passed", "", COMPLETE,
    ),
    "hook-hangs": _hook(
        "A rollback hook hangs past its limit; the next one of the chain helps",
        (1,), "failed/probe_failures", "timed out after", COMPLETE,
    ),
    "hook-flood": _hook(
        "A deploy hook prints without end, binary and without line ends, until its limit: memory stays flat",
        (1,), "failed/deploy_failed", "timed out after", COMPLETE + "; 64 KiB of it, 16 MiB in its log",
    ),
    "hook-oom": _hook(
        "The kernel kills a deploy hook", (1,), "failed/deploy_failed", "killed by SIGKILL (out of memory?)",
        COMPLETE,
    ),
    "defect": _hook(
        "A defect in opsgate itself after the gate has failed: the rollback runs all the same",
        (70,), "failed/probe_failures", "Report this defect with", COMPLETE + "; `defect.log`",
    ),
    "two-at-once": _lock(
        "Eight gates at once in one environment: one runs, the others are told who",
        (75,), "", "is held by", "nothing of the others, everything of the one",
    ),
    "two-environments": _lock(
        "Runs in several environments finish at once", (0,), "passed", "",
        "every run's record and line, in one chain",
    ),
    "forced-deaf-hook": _lock(
        "`rollback --force` while a release holds the environment and its hook ignores TERM",
        (75,), "failed/interrupted", "took this environment over", OF_BOTH,
    ),
    "forced-rollback": _lock(
        "`rollback --force` while a rollback that came by itself runs: its hook is ended",
        (75,), "failed/interrupted", "took this environment over",
        OF_BOTH + "; the gate's verdict stands in its stage",
    ),
    "forced-stopped-holder": _lock(
        "`rollback --force` while the holder is stopped: it goes on after 15 s; the holder, continued, "
        "starts nothing more",
        (75,), "failed/interrupted", "took this environment over", OF_BOTH,
    ),
    "forced-without-evidence": _lock(
        "`rollback --force` on a full disk: the holder cannot be asked (without `--force`: it is named, 75)",
        (74,), "", "it could not be asked to stop, and may go on", "the record on stderr names the holder",
    ),
    "force-interrupted": _lock(
        "A signal while `rollback --force` waits for a holder that does not answer",
        (129, 130, 143), "", "interrupted by SIG", "nothing was touched: the holder goes on",
    ),
    "force-interrupted-late": _lock(
        "The same once the holder has noticed what it was asked",
        (129, 130, 143), "", "was asked to stop, and ends. Nothing was rolled back",
        "the holder's final record and its ledger line",
    ),
}  # fmt: skip


def cell(text: str) -> str:
    """What stands in a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def rendered() -> str:
    """The tables of `docs/reliability.md`."""
    parts = []
    for group in dict.fromkeys(fault.group for fault in FAULTS.values()):
        parts += [f"### {group}", ""]
        parts += ["| what happens | exit code | record | it says | what is kept |", "|---|---|---|---|---|"]
        for fault in FAULTS.values():
            if fault.group == group:
                codes = ", ".join(map(str, fault.exit_codes))
                status = f"`{fault.status}`" if fault.status else ""
                says = f"`{fault.says.strip()}`" if fault.says else ""
                row = (fault.happens, codes, status, says, fault.kept)
                parts.append(f"| {' | '.join(map(cell, row))} |")
        parts.append("")
    return "\n".join(parts)


def write() -> None:
    """Put the tables into the document."""
    document = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(f"{before}{BEGIN}\n\n{rendered().strip()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
