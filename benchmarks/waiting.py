"""What people use to wait for a runtime, started side by side on a runtime that comes up.

The scripts stand in for what they are called after: the same intervals, the same end. `wait-on` itself is
run where it is installed (npm install -g wait-on).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

Ours = Callable[[str, str, str], list[str]]
"""`(url, soak, successes)` to a gate's command."""

ROUNDS = 20
OLD_ROUNDS = 8
GOLDEN = 0.618034
EARLIEST = 2.0
"""Seconds after the start at which the runtime comes up at the earliest: everybody is waiting by then."""
OLD_EARLIEST = 5.0

_LOOP = """
import sys, time, urllib.request
url, pause = sys.argv[1], float(sys.argv[2])
while True:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status < 400: break
    except OSError:
        pass
    time.sleep(pause)
"""

SOAK = 1.0
SOAKED = "opsgate, its soak over"
"""Counted from the moment at which the policy could be met: the first healthy answer, and the soak."""

WAITERS = {
    SOAKED: f"--soak {SOAK:g}s, from the soak's end: an attempt is due exactly then",
    "opsgate gate": "--soak 0 --successes 1, its interval of 250 ms",
    "curl --retry": "curl -f --retry 100 --retry-delay 1 --retry-all-errors",
    "curl, own backoff": "curl -f --retry 100 --retry-all-errors: waits 1, 2, 4 s ...",
    "until curl": "until curl -fs URL; do sleep 1; done",
    "wait-on": "npm's wait-on, its interval of 250 ms",
    "loop of 250 ms": "a stand-in for wait-on: a Python loop with its interval",
    "old script": "a stand-in: 8 tries, 15 s apart, a Python loop",
}
"""What is measured, and how it is run."""


def commands(url: str, ours: Ours) -> dict[str, list[str]]:
    """The command of each waiter that is there."""
    loop = [sys.executable, "-c", _LOOP, url]
    curl = ["curl", "-fsS", "-o", os.devnull, "--retry", "100", "--retry-all-errors"]
    found = {
        SOAKED: ours(url, f"{SOAK:g}s", "3"),
        "opsgate gate": ours(url, "0", "1"),
        "curl --retry": [*curl, "--retry-delay", "1", url],
        "curl, own backoff": [*curl, url],
        "until curl": ["sh", "-c", 'until curl -fs -o /dev/null "$1"; do sleep 1; done', "sh", url],
        "wait-on": ["wait-on", url.replace("http:", "http-get:")],
        "loop of 250 ms": [*loop, "0.25"],
        "old script": [*loop, "15"],
    }
    return {name: command for name, command in found.items() if name == "until curl" or _is_there(command)}


def _is_there(command: Sequence[str]) -> bool:
    return shutil.which(command[0]) is not None


def lags(port: int, place: Path, ours: Ours) -> dict[str, list[float]]:
    """Seconds from a runtime's first healthy moment to each waiter's exit."""
    found: dict[str, list[float]] = {}
    # Each has moments of its own: they must not all end at the same time.
    offsets = {name: random.random() for name in WAITERS}  # noqa: S311 - moments, not secrets

    def waiting(name: str, number: int) -> threading.Thread:
        # Moments that cover any interval evenly, wherever it begins: fewer rounds tell as much.
        moment = (offsets[name] + number * GOLDEN) % 1.0
        return threading.Thread(target=_wait, args=(name, moment, port, place, ours, found))

    # They sleep for nearly all of their fifteen seconds: all at once, beside the others.
    old = [waiting("old script", number) for number in range(OLD_ROUNDS)]
    for thread in old:
        thread.start()
    names = [name for name in commands("http://127.0.0.1/", ours) if name != "old script"]
    for number in range(ROUNDS):
        threads = [waiting(name, number) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for thread in old:
        thread.join()
    return found


def _wait(
    name: str,
    moment: float,
    port: int,
    place: Path,
    ours: Ours,
    found: dict[str, list[float]],
) -> None:
    """One waiter on a runtime of its own, which comes up `moment`, 0 to 1, of the way through its time."""
    earliest, spread = (OLD_EARLIEST, 15.0) if name == "old script" else (EARLIEST, 2.0)
    at = time.monotonic() + earliest + moment * spread
    command = commands(f"http://127.0.0.1:{port}/at/{at:.6f}", ours)[name]
    own = place / f"{name.replace(' ', '-')}-{at:.6f}"
    own.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUNTIME_", "OPSGATE_", "PYTHON"))}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=own, env=kept, stdout=quiet, stderr=quiet) as process:
        # A wait with a time limit of its own looks only every 50 ms.
        limit = threading.Timer(60, process.kill)
        limit.start()
        code = process.wait()
        seconds = time.monotonic() - at
        limit.cancel()
    assert code == 0, (name, code)  # noqa: S101 - a figure of one that failed means nothing
    if name == SOAKED:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/first/at/{at:.6f}", timeout=5) as answer:
            seconds -= json.load(answer) - at + SOAK
    found.setdefault(name, []).append(seconds)
