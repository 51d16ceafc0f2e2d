"""Random kills of real releases: no finished run may be lost, no unfinished one may say passed.

    ./inv bench --faults, or: python benchmarks/faults.py [KILLS] [SEED]

Each release is a process of its own, with real hooks and a real runtime, and gets SIGKILL at a random
moment of its life. Half of the releases are broken and roll back. After each kill the evidence is read
as it lies there; at the end everything is counted again. Exit code 1 when anything was lost or torn.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.e2e.rig import Runtime, Site
from tests.faults.rig import check_evidence, configure

KILLS = 1000
LIFE = (0.3, 1.5)
"""When kills come, as parts of the time that such a release usually takes. Before, Python is loading."""


class Field:
    """One directory with one runtime, where one release after the other is shipped and killed."""

    def __init__(self, place: Path, rng: random.Random) -> None:
        place.mkdir()
        self.rng, self.counts = rng, Counter[str]()
        self.runtime = Runtime(place / "state")
        # A prober that is killed hangs up in the middle of an answer.
        setattr(self.runtime.server, "handle_error", lambda *_: None)  # noqa: B010 - a method, for this one
        self.site = Site(place, self.runtime)
        self.checked: set[str] = set()
        self.known: dict[str, Any] = {}
        """The newest line of each run that was seen to be finished."""
        policy = {"soak": "0s", "successes": 2, "deadline": "300ms", "interval": "30ms"}
        back = 'echo "up $OPSGATE_LAST_GOOD_REVISION" > state'
        configure(self.site, gate=policy, rollback=back, incident=None, top="max_rollbacks_per_day = 1000000")
        self.runtime.becomes("up", "v0")
        self.site.run("release", "--deadline", "30s")
        # One that rolls back lives longer, and its last part is the one that matters.
        self.usual = {health: self._time_of_a_release(health) for health in ("up", "down")}

    def _time_of_a_release(self, health: str) -> float:
        (self.site.path / "version").write_text(f"timed-{health}")
        (self.site.path / "health").write_text(health)
        began = time.monotonic()
        self.site.start("release").communicate()
        return time.monotonic() - began

    def strike(self, number: int) -> None:
        """One release, killed or not."""
        site = self.site
        (site.path / "version").write_text(f"v{number}")
        health = self.rng.choice(("up", "down"))
        (site.path / "health").write_text(health)
        run_id = f"run-{number}"
        release = site.start("release", OPSGATE_RUN_ID=run_id)
        try:
            release.communicate(timeout=self.usual[health] * self.rng.uniform(*LIFE))
            self.counts["releases that came through"] += 1
            ended = check_evidence(site, self.checked)
            self._count("lost finished runs", run_id not in ended)
        except subprocess.TimeoutExpired:
            release.kill()
            release.communicate()
            self.counts["kills"] += 1
            self._look(run_id)

    def _look(self, run_id: str) -> None:
        path = self.site.evidence / run_id / "evidence.json"
        try:
            newest = check_evidence(self.site, self.checked)
        except AssertionError as error:
            self.counts["false passes, torn records or lines"] += 1
            print(f"{run_id}: {error}", file=sys.stderr)
            return
        if run_id in newest:
            stage = "after the line"
        elif path.exists():
            stages = json.loads(path.read_bytes())["stages"]
            begun = [name for name, stage in stages.items() if "started_at" in stage]
            stage = f"in {begun[-1]}" if begun else "before preflight"
        else:
            stage = "before the record"
        self.counts[f"  of them {stage}"] += 1
        lost = [run for run, line in self.known.items() if newest.get(run) != line]
        self._count("lost finished runs", bool(lost))
        self.known = newest

    def close(self) -> None:
        """The next run completes what was cut short; then everything is compared once more."""
        (self.site.path / "health").write_text("up")
        (self.site.path / "version").write_text("last")
        self.site.run("release", "--deadline", "30s")
        newest = check_evidence(self.site)
        for run_id, line in newest.items():
            data = (self.site.evidence / run_id / "evidence.json").read_bytes()
            self._count("lost finished runs", hashlib.sha256(data).hexdigest() != line["sha256"])
        self._count("verifications that failed", self.site.start("evidence", "--verify").wait() != 0)
        self.runtime.close()

    def _count(self, what: str, happened: bool) -> None:
        self.counts[what] += happened


def main(kills: int, seed: int) -> int:
    """Kill until there were enough; print what came of it."""
    began = time.monotonic()
    # As an environment would, a workflow's variables would change what is released.
    for name in [name for name in os.environ if name.startswith(("OPSGATE_", "RUNTIME_", "GITHUB_"))]:
        del os.environ[name]
    total: Counter[str] = Counter()
    lock = threading.Lock()

    def work(worker: int) -> None:
        with tempfile.TemporaryDirectory(prefix="opsgate-faults-", ignore_cleanup_errors=True) as place:
            field = Field(Path(place) / "site", random.Random(f"{seed}-{worker}"))  # noqa: S311 - chance, not a secret
            number = 0
            while field.counts["kills"] < kills // workers:
                number += 1
                field.strike(number)
            field.close()
        with lock:
            total.update(field.counts)

    workers = min(2, os.cpu_count() or 1)
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bad = ("lost finished runs", "false passes, torn records or lines", "verifications that failed")
    print(f"seed {seed}, {time.monotonic() - began:.0f} s")
    for what in ("kills", *sorted(name for name in total if name.startswith("  "))):
        print(f"{what}: {total[what]}")
    for what in ("releases that came through", *bad):
        print(f"{what}: {total[what]}")
    return int(any(total[what] for what in bad) or total["kills"] < kills // workers * workers)


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(arguments[0] if arguments else KILLS, arguments[1] if len(arguments) > 1 else 1))
