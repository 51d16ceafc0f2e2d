"""What a long history costs: listing, drawing, verifying and replaying thousands of runs.

    ./inv bench --history, or: python benchmarks/history.py [RUNS] [DIRECTORY]

Writes an evidence directory of RUNS runs as two years of releases leave it: two targets, the default
policy, every attempt kept. Then it runs the real commands on it, each in a process of its own. Exit code
1 when listing takes 0.5 s or more, or verifying 10 s or more, of processor time. With DIRECTORY the
evidence stays there to be looked at.
"""

from __future__ import annotations

import hashlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from opsgate.evidence import lines
from opsgate.evidence.ledger import Line, chained
from opsgate.evidence.record import Evidence, Gate, decode, encode
from opsgate.redact import Redactor
from opsgate.verdict.targets import Policy
from tests import runs

RUNS = 10_000
SECONDS = 2 * 365 * 86_400.0
POLICY = Policy()
CPU_LIMITS = {"--history": 0.5, "--verify": 10.0}
COMMANDS = (
    ("--history",),
    ("--history", "--json"),
    ("--history", "--format", "html"),
    ("--verify",),
    ("--replay", "--soak", "5s"),
)


def main(arguments: list[str]) -> int:
    """Write, run, print; see the top of this file."""
    count = int(arguments[0]) if arguments else RUNS
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(arguments[1]) if len(arguments) > 1 else Path(scratch) / "rollout"
        directory.mkdir(parents=True)
        size = write(directory, count)
        print(f"{count} runs, {size / 1e6:.0f} MB of records\n")
        print("| command | processor | wall clock |\n| --- | --- | --- |")
        slow = [command for command in COMMANDS if _measured(directory, command)]
    return int(bool(slow))


def write(directory: Path, count: int, *, seed: int = 7) -> int:
    """An evidence directory with `count` finished runs; returns the bytes of their records."""
    size = 0
    last: Line | None = None
    with (directory / "ledger.jsonl").open("wb") as ledger:
        for record in _records(count, random.Random(seed)):  # noqa: S311 - the same history each time
            record.previous = last.hash if last else None
            data = encode(record, Redactor())
            # What was written is what is chained: as `Store.finish` does, but without waiting for the disk.
            draft = lines.draft(decode(data), record.trigger, hashlib.sha256(data).hexdigest())
            last = chained(draft, last)
            ledger.write(msgspec.json.encode(last, order="sorted") + b"\n")
            place = directory / record.run_id
            place.mkdir()
            (place / "evidence.json").write_bytes(data)
            size += len(data)
    (directory / "latest.json").write_bytes(data)
    return size


def _records(count: int, rng: random.Random) -> Iterator[Evidence]:
    """One after another, in production and staging; one in ten goes wrong."""
    kinds: list[tuple[Callable[[Evidence], Evidence], int]] = [
        (_gated(runs.probed("+" * 62, "+" * 62, policy=POLICY)), 88),
        (_rolled_back(runs.probed("-" * 421, "+" * 421, policy=POLICY), recovered=True), 6),
        (_rolled_back(runs.probed("+++-" * 3, "+" * 12, policy=POLICY), recovered=True), 1),
        (_rolled_back(runs.probed("-" * 421, "-" * 421, policy=POLICY), recovered=False), 1),
        (_gated(runs.probed("?" * 421, "?" * 421, control=["?" * 421], policy=POLICY)), 1),
        (_skipped, 3),
    ]
    begin = runs.EPOCH - SECONDS
    # A working week: mornings and afternoons, few at night and at weekends.
    times = sorted(begin + SECONDS * number / count + rng.gauss(0, 4 * 3600.0) for number in range(count))
    for number, at in enumerate(times):
        became = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        seconds = at - runs.EPOCH
        record = became(
            runs.record(
                f"run-{number:05}",
                start=seconds,
                environment=rng.choice(["production", "staging"]),
                revision=f"{rng.getrandbits(48):012x}",
            )
        )
        took = rng.uniform(40, 300)
        runs.ended(record, seconds + took)
        record.duration_ms = round(took * 1000)
        yield record


def _gated(gate: Gate) -> Callable[[Evidence], Evidence]:
    return lambda record: runs.deployed(record, _at(gate, record))


def _rolled_back(gate: Gate, *, recovered: bool) -> Callable[[Evidence], Evidence]:
    def became(record: Evidence) -> Evidence:
        runs.rolled_back(runs.deployed(record, _at(gate, record)), recovered=recovered)
        rollback = record.stages.rollback
        rollback.started_at = record.started_at
        if rollback.recovery:
            rollback.recovery.started_at = record.started_at
            rollback.recovery.duration_ms = 150_000
        return record

    return became


def _skipped(record: Evidence) -> Evidence:
    record.stages.gate = Gate(
        status="skipped", status_reason="no_urls_configured", started_at=record.started_at, duration_ms=0
    )
    record.status, record.status_reason = "skipped", "no_urls_configured"
    return record


def _at(gate: Gate, record: Evidence) -> Gate:
    return msgspec.structs.replace(gate, started_at=record.started_at)


def _measured(directory: Path, flags: tuple[str, ...]) -> bool:
    """Whether the command was too slow."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "opsgate", "evidence", "--evidence-dir", str(directory), *flags],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(f"| `evidence {' '.join(flags)}` | {cpu:.2f} s | {took:.2f} s |")
    return cpu >= CPU_LIMITS.get(" ".join(flags), float("inf"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
