"""What opsgate costs, each figure beside what it is compared with, measured in the same run.

    ./inv bench, or: python benchmarks/speed.py [start] [lag] [attempt] [many] [silent]

Takes less than four minutes; prints, and keeps nothing. A machine that does other work at the same time
changes times more than processor time, and processor time more than ratios.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.waiting import WAITERS, lags

ROOT = Path(__file__).parent.parent
TARGETS = 500
MINUTE = 60.0
SILENT_DEADLINE = 5.0
Ports = dict[str, int]


class Ended:
    """What a process came to: exit code, seconds of processor time and of the clock, MiB at its largest."""

    def __init__(self, argv: Sequence[str], place: Path, **environ: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUNTIME_", "OPSGATE_", "PYTHON"))}
        began = time.monotonic()
        process = subprocess.Popen(
            argv, cwd=place, env=kept | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        self.seconds = time.monotonic() - began
        self.code = process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = used.ru_utime + used.ru_stime
        self.mib = used.ru_maxrss / 1024


def gate(*flags: str) -> list[str]:
    """The command of one gate."""
    return [sys.executable, "-m", "opsgate", "gate", *flags]


def waiting(url: str, soak: str = "0", successes: str = "1") -> list[str]:
    """A gate that by default the first healthy answer passes."""
    return gate("--url", url, "--soak", soak, "--successes", successes)


@contextmanager
def answering(certificate: str | None = None) -> Iterator[Ports]:
    """The server of `answers.py`, for as long as the block lasts; its ports."""
    argv = [sys.executable, str(ROOT / "benchmarks/answers.py"), *([certificate] if certificate else [])]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout  # noqa: S101 - for the type checker
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.terminate()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="opsgate-bench-") as name:
        yield Path(name)


def start(repeats: int = 15) -> None:
    """One gate on a healthy URL against the bare imports, turn by turn."""
    imports: list[float] = []
    gates: list[float] = []
    with answering() as ports, scratch() as place:
        url = f"http://127.0.0.1:{ports['http']}/"
        for turn in range(repeats + 1):
            bare = Ended([sys.executable, "-c", "import invoke, requests"], place).cpu
            whole = Ended(waiting(url), place)
            assert whole.code == 0, whole.code  # noqa: S101 - a figure of a failed gate means nothing
            if turn:  # the first one compiles
                imports.append(bare)
                gates.append(whole.cpu)
    for name, of in (("least", min), ("median", statistics.median)):
        row(f"one gate, processor time, {name}", ms(of(gates)), f"n={repeats}")
        compared = f"of import invoke, requests, {ms(of(imports))}; goal: 1.2 at most"
        row("", f"x {of(gates) / of(imports):.2f}", compared)


def lag() -> None:
    """From the moment that the runtime answers 200 to the exit of whoever waits for it."""
    with answering() as ports, scratch() as place:
        found = lags(ports["http"], place, waiting)
    ours = statistics.median(found["opsgate gate"])
    for name, told in WAITERS.items():
        if name not in found:
            row(f"lag, {name}", "not found", told)
            continue
        middle, worst = statistics.median(found[name]), max(found[name])
        compared = "goal: 150 ms at most" if name.startswith("opsgate") else f"x {middle / ours:.2f}"
        row(f"lag, {name}, median", ms(middle), f"worst {ms(worst)}, n={len(found[name])}; {compared}")
        row("", "", told)


def attempt() -> None:
    """The processor time of one attempt, against a requests Session made for each."""
    with scratch() as place:
        certificate, bundle = _certificates(place)
        with answering(certificate) as ports:
            for scheme, most, repeats in (("http", "1.5", 50), ("https", "4", 20)):
                url = f"{scheme}://127.0.0.1:{ports[scheme]}/"
                ours, theirs = _prober(url, bundle), _session(url, bundle)
                # Turn by turn, so that both meet the same machine.
                costs = [(_cpu(ours, repeats), _cpu(theirs, max(2, repeats // 5))) for _ in range(10)]
                mine, other = (min(cost) for cost in zip(*costs, strict=True))
                row(f"one attempt, {scheme}, processor time", ms(mine), f"goal: {most} ms at most")
                row("", f"x {mine / other:.2f}", f"of requests.Session().get, {ms(other)}")


def many() -> None:
    """500 targets twice a second for a minute, and smaller gates for how the cost grows."""
    with answering() as ports, scratch() as place:
        base = f"http://127.0.0.1:{ports['http']}"
        for count in (TARGETS // 4, TARGETS // 2, TARGETS):
            ended, record = _gate_of(base, count, 10.0, place)
            told = f"{ended.mib:.0f} MiB, {record['attempt_count']} attempts"
            row(f"{count} targets, 10 s, processor time", ms(ended.cpu), told)
        ended, record = _gate_of(base, TARGETS, MINUTE, place)
    made, gate_stage = record["attempt_count"], record["stages"]["gate"]
    row(
        f"{TARGETS} targets, {MINUTE:.0f} s",
        f"{ended.mib:.0f} MiB",
        f"exit {ended.code}; goal: 150 MiB at most",
    )
    each = ms(ended.cpu / made)
    row("  attempts", f"{made}", f"of {TARGETS * (int(MINUTE * 2) + 1)}; {each} of processor time each")
    soaked = max(target["first_healthy_ms"] for target in gate_stage["targets"]) / 1000 + MINUTE
    late = gate_stage["duration_ms"] / 1000 - soaked
    row("  verdict after the last soak's end", ms(late), "the last round of attempts lies in between")


def silent() -> None:
    """500 targets that accept and say nothing: how long after the deadline the verdict comes."""
    with answering() as ports, scratch() as place:
        base = f"http://127.0.0.1:{ports['silent']}"
        # A pass would be possible until the end, so the deadline is what ends it.
        flags = ["--deadline", f"{SILENT_DEADLINE:g}s", "--soak", "0", "--successes", "1"]
        ended = Ended(
            gate(*flags, "--attempt-timeout", "2s"), place, RUNTIME_HEALTH_URLS=_urls(base, TARGETS)
        )
        record = _latest(place)
    late = record["stages"]["gate"]["duration_ms"] / 1000 - SILENT_DEADLINE
    row(f"{TARGETS} silent targets", ms(late), "verdict after the deadline; goal: 500 ms at most")
    row(
        "  exit after the deadline", ms(ended.seconds - SILENT_DEADLINE), f"exit {ended.code}, start included"
    )


def _gate_of(base: str, count: int, soak: float, place: Path) -> tuple[Ended, dict[str, Any]]:
    flags = ["--deadline", f"{soak + 10:g}s", "--soak", f"{soak:g}s", "--interval", "500ms"]
    ended = Ended(gate(*flags), place, RUNTIME_HEALTH_URLS=_urls(base, count))
    return ended, _latest(place)


def _urls(base: str, count: int) -> str:
    return ",".join(f"{base}/{number}" for number in range(count))


def _latest(place: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place / "artifacts/rollout/latest.json").read_bytes())
    return document


def _certificates(place: Path) -> tuple[str, str]:
    """A server's certificate for 127.0.0.1, and a bundle of a usual size that its authority is in."""
    import certifi
    import trustme

    authority = trustme.CA()
    certificate, bundle = place / "server.pem", place / "bundle.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    bundle.write_text(Path(certifi.where()).read_text() + authority.cert_pem.bytes().decode())
    return str(certificate), str(bundle)


def _prober(url: str, bundle: str) -> Callable[[], None]:
    from opsgate.probe.kinds import Prober
    from opsgate.redact import Redactor
    from opsgate.verdict.targets import Target

    target = Target(name="t", url=url, ca_file=bundle if url.startswith("https") else None)
    prober = Prober(environ={}, redactor=Redactor.gather({}))

    def probe() -> None:
        attempt = prober(target, 5.0, 0).attempt
        assert attempt.ok, attempt  # noqa: S101 - as above

    return probe


def _session(url: str, bundle: str) -> Callable[[], None]:
    import requests

    def get() -> None:
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(url, timeout=5, verify=bundle).ok  # noqa: S101 - as above

    return get


def _cpu(call: Callable[[], None], repeats: int) -> float:
    """Seconds of processor time of one call, after one that warms up."""
    call()
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def ms(seconds: float) -> str:
    """Milliseconds, for people."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004


def row(name: str, value: str, beside: str) -> None:
    """One figure and what stands beside it."""
    print(f"{name:40} {value:>10}   {beside}", flush=True)


PARTS: dict[str, Callable[[], None]] = {
    "start": start, "lag": lag, "attempt": attempt, "many": many, "silent": silent,
}  # fmt: skip


def main() -> None:
    """Measure the parts named on the command line, else all."""
    print(f"python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}, {os.cpu_count()} processors", flush=True)
    print(f"load before: {os.getloadavg()[0]:.1f}; curl: {shutil.which('curl') or 'not found'}", flush=True)
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
