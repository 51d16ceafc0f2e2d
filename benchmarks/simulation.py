"""How often each policy passes a broken runtime and fails a healthy one, and what it costs.

Run `./inv bench --simulation`, or this file with `--runs N`. Prints the tables of docs/verdict.md,
writes its pictures, and exits 1 when a goal is missed or the flat copy of opsgate's gate does not say
what the real one says. The same figures come out however many processors there are.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.curves import Points, chart
from benchmarks.policies import LATENCY, RUNTIMES, Judge, opsgate, polled, really
from opsgate.verdict.targets import Policy

IMAGES = Path(__file__).parent.parent / "docs" / "images"
DEFAULTS = Policy()
POLICIES: dict[str, Judge] = {
    "opsgate": opsgate(DEFAULTS),
    "first success": polled(1, 120),
    "3 in a row": polled(1, 120, successes=3),
    "8 tries, 15 s apart": polled(15, 120),
    "Kamal: first 2xx": polled(1, 30),
    "Nomad: 10 s healthy": polled(2, 300, hold=10),
}
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
GOALS = (
    # rate of failing requests, whether the runtime counts as broken, wrong verdicts at most
    (0.2, True, 0.001), (0.1, True, 0.01), (0.05, True, 0.15), (0.001, False, 0.001), (0.005, False, 0.03),
)  # fmt: skip
SCENES: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("healthy", "random", (0,)),
    ("one request in 5 fails", "one in", (5,)),
    ("one in 20", "one in", (20,)),
    ("one in 100", "one in", (100,)),
    ("crash after 1 s", "crash", (1,)),
    ("crash after 5 s", "crash", (5,)),
    ("crash after 14.9 s", "crash", (14.9,)),
    ("crash after 20 s", "crash", (20,)),
    ("up 2 s, down 2 s", "flap", (2, 2)),
    ("up 10 s, down 5 s", "flap", (10, 5)),
    ("up 14 s, down 1 s", "flap", (14, 1)),
    ("up 30 s, down 30 s", "flap", (30, 30)),
    ("late start, 10 s", "recover", (10,)),
    ("late start, 60 s", "recover", (60,)),
    ("late start, 104 s", "recover", (104,)),
    ("3 replicas restart, 2 s each", "rolling", (3, 2)),
    ("3 replicas restart, 10 s each", "rolling", (3, 10)),
)
VARIANTS = (
    DEFAULTS,
    Policy(interval=0.5), Policy(interval=0.2), Policy(interval=0.2, flaps=3), Policy(interval=0.1),
    Policy(soak=10), Policy(soak=30), Policy(flaps=0), Policy(flaps=1), Policy(flaps=3),
    Policy(successes=1), Policy(successes=10),
)  # fmt: skip
UP_TIMES = (1, 2, 4, 6, 8, 10, 12, 13, 14, 15, 16, 18, 20, 25, 30)
CRASHES = (0, 0.9, 1.1, 1.9, 2.1, 5, 9.9, 10.1, 12, 14.99, 15.01, 20, 30)


class Cell(msgspec.Struct, frozen=True):
    """One policy against one runtime, so many times."""

    judge: str | Policy
    kind: str
    shape: tuple[float, ...]
    runs: int
    latency: float = LATENCY


class Found(msgspec.Struct, frozen=True):
    """What came of a cell: the share of runs that passed, and seconds to the verdict, mean and longest."""

    passed: float
    seconds: float
    longest: float
    runs: int


def play(cell: Cell) -> Found:
    """All runs of a cell; its random numbers depend on the cell alone."""
    rng = random.Random(repr(cell))  # noqa: S311 - reproducible on purpose
    judge = POLICIES[cell.judge] if isinstance(cell.judge, str) else opsgate(cell.judge, cell.latency)
    begin = RUNTIMES[cell.kind]
    passed, total, longest = 0, 0.0, 0.0
    for _ in range(cell.runs):
        ok, ms = judge(begin(rng, *cell.shape), rng)
        passed += ok
        total += ms
        longest = max(longest, ms)
    return Found(passed / cell.runs, total / cell.runs / 1000, longest / 1000, cell.runs)


def disagreements(seeds: range) -> int:
    """Runs, of many kinds, in which the flat copy and the real gate differ in verdict or time."""
    shapes = [(kind, shape) for _, kind, shape in SCENES] + [("random", (rate,)) for rate in (*RATES, 0.9)]
    policies = (*VARIANTS, Policy(deadline=20, soak=5, interval=1), Policy(deadline=9, soak=0, successes=2))
    wrong = 0
    for seed in seeds:
        kind, shape = shapes[seed % len(shapes)]
        policy = policies[seed // len(shapes) % len(policies)]
        latency = (LATENCY, 80.0, 700.0)[seed % 3]
        answers = [
            judge(RUNTIMES[kind](random.Random(seed), *shape), random.Random(~seed))  # noqa: S311
            for judge in (opsgate(policy, latency), really(policy, latency))
        ]
        wrong += answers[0] != answers[1]
    return wrong


def expected(policy: Policy, rate: float) -> float:
    """The share passed of a runtime that fails at random, worked out: one of `flaps` + 1 runs holds."""
    attempts = math.ceil(policy.soak / policy.interval) + 1
    holds = (1 - rate) ** (attempts - policy.successes)
    return 1 - float((1 - holds) ** (policy.flaps + 1))


class Simulation:
    """Plays cells on all processors and prints what came of them."""

    def __init__(self, runs: int) -> None:
        self.runs, self.played, self.missed = runs, 0, 0

    def go(self) -> int:
        """The whole of it; the number of goals missed and of disagreements."""
        with multiprocessing.Pool() as pool:
            self.pool = pool
            self._agreement(2000)
            self._goals()
            self._rates()
            self._scenes()
            self._variants()
            self._latencies()
            self._pictures()
        return self.missed

    def _play(self, cells: Iterable[Cell]) -> list[Found]:
        found = self.pool.map(play, cells, chunksize=1)
        self.played += sum(each.runs for each in found)
        return found

    def _agreement(self, count: int) -> None:
        chunks = [range(start, start + 100) for start in range(0, count, 100)]
        wrong = sum(self.pool.map(disagreements, chunks, chunksize=1))
        self.missed += wrong
        print(f"The flat copy and the real gate differ in {wrong} of {count} runs.\n")

    def _goals(self) -> None:
        cells = [Cell("opsgate", "random", (rate,), self.runs * 10) for rate, _, _ in GOALS]
        rows = []
        for (rate, broken, most), found in zip(GOALS, self._play(cells), strict=True):
            wrong = found.passed if broken else 1 - found.passed
            worked_out = expected(DEFAULTS, rate) if broken else 1 - expected(DEFAULTS, rate)
            self.missed += wrong >= most
            verdict = "passed" if broken else "failed"
            rows.append(
                [_percent(rate), f"{verdict} < {_percent(most)}", _percent(wrong), _percent(worked_out)]
            )
        healthy = self._play([Cell("opsgate", "random", (0,), 100)])[0]
        self.missed += healthy.longest >= DEFAULTS.soak + 0.3
        _table(["requests failing", "goal", "simulated", "worked out"], rows)
        print(f"A healthy release takes {healthy.longest:.3f} s.\n")

    def _rates(self) -> None:
        self.rates = {
            name: self._play(Cell(name, "random", (rate,), self.runs) for rate in RATES) for name in POLICIES
        }
        _table(
            ["passed when requests fail at", *map(_percent, RATES)],
            [[name, *(_percent(each.passed) for each in found)] for name, found in self.rates.items()],
        )

    def _scenes(self) -> None:
        rows = []
        for words, kind, shape in SCENES:
            found = self._play(Cell(name, kind, shape, self.runs // 10) for name in POLICIES)
            rows.append([words, *(f"{_percent(each.passed)}, {each.seconds:.1f} s" for each in found)])
        _table(["passed, mean time to the verdict", *POLICIES], rows)

    def _variants(self) -> None:
        rates = (0.001, 0.005, 0.05, 0.1, 0.2)
        rows = []
        for policy in VARIANTS:
            found = self._play(Cell(policy, "random", (rate,), self.runs // 2) for rate in rates)
            wrong = [1 - each.passed if rate < 0.01 else each.passed  # noqa: PLR2004
                     for rate, each in zip(rates, found, strict=True)]  # fmt: skip
            requests = math.ceil(policy.soak / policy.interval) + 1
            rows.append([_changes(policy), *map(_percent, wrong), f"{requests}"])
        _table(["", *(f"{_percent(rate)} {'failed' if rate < 0.01 else 'passed'}" for rate in rates),  # noqa: PLR2004
                "requests"], rows)  # fmt: skip

    def _latencies(self) -> None:
        latencies = (5.0, 250.0, 500.0, 1000.0, 2000.0)
        rows = []
        for rate in (0.05, 0.1, 0.2):
            found = self._play(Cell(DEFAULTS, "random", (rate,), self.runs, ms) for ms in latencies)
            rows.append([_percent(rate), *(_percent(each.passed) for each in found)])
        _table(["passed when an answer takes", *(f"{ms:g} ms" for ms in latencies)], rows)

    def _pictures(self) -> None:
        IMAGES.mkdir(parents=True, exist_ok=True)
        rates: dict[str, Points] = {
            name: [(rate * 100, each.passed * 100) for rate, each in zip(RATES, found, strict=True)]
            for name, found in self.rates.items()
        }
        crashes, flaps = self._curves("crash", CRASHES), self._curves("flap", UP_TIMES)
        pictures = {
            "random": chart("Runs passed, by share of requests that fail", "requests failing",
                            (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50), rates, log=True),
            "crash": chart("Runs passed, by when the runtime crashes", "healthy for, then down for good",
                           (0, 5, 10, 15, 20, 25, 30), crashes),
            "flap": chart("Runs passed, when the runtime is up and down in turns",
                          "up for, then down for 3 s, and so on", (0, 5, 10, 15, 20, 25, 30), flaps),
        }  # fmt: skip
        for name, picture in pictures.items():
            (IMAGES / f"verdict-{name}.svg").write_text(picture, encoding="utf-8")

    def _curves(self, kind: str, seconds: Sequence[float]) -> dict[str, Points]:
        rest = (3.0,) if kind == "flap" else ()
        curves: dict[str, Points] = {}
        for name in POLICIES:
            found = self._play(Cell(name, kind, (x, *rest), self.runs // 20) for x in seconds)
            curves[name] = [(x, each.passed * 100) for x, each in zip(seconds, found, strict=True)]
        return curves


def _percent(share: float) -> str:
    text = f"{share * 100:.2g}" if share < 0.1 else f"{share * 100:.1f}"  # noqa: PLR2004
    return f"{float(text):.10g} %"


def _changes(policy: Policy) -> str:
    names = ("soak", "interval", "successes", "flaps")
    changed = [name for name in names if getattr(policy, name) != getattr(DEFAULTS, name)]
    return ", ".join(f"{name} {getattr(policy, name):g}" for name in changed) or "defaults"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def main() -> int:
    """0 when every goal is met and the copy agrees with the original."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=40_000, help="runs of each cell (default: %(default)s)")
    simulation, began = Simulation(parser.parse_args().runs), time.monotonic()
    missed = simulation.go()
    seconds = time.monotonic() - began
    print(f"{simulation.played / 1e6:.1f} million runs in {seconds:.0f} s; {missed} goals missed.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
