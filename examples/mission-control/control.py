"""Mission control as plain processes: publish, deploy, check, stop, status, logs. Made to be hooks."""

from __future__ import annotations

import argparse
import collections
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import processes
import releases
from errors import ControlError

DEFAULT_PORT = 8000
HIGHEST_BASE_PORT = 65533
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "MISSION_CONTROL_HOST", "MISSION_CONTROL_TOKEN")


class Service(NamedTuple):
    """A service: the image that it runs from, its script there, its port above the base port."""

    name: str
    image: str
    port_offset: int


SERVICES = (
    Service("backend", "backend", 0),
    Service("worker", "backend", 1),
    Service("frontend", "frontend", 2),
)


class Runtime:
    """The runtime of one state directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.releases = home / "releases"
        self.current = home / "current.json"
        self.processes = {service.name: processes.Process(service.name, home / "run") for service in SERVICES}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one changing command work at a time; a second waits, a killed one leaves nothing locked."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / ".gitignore").write_text("*\n", encoding="utf-8")
        with (self.home / "control.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def deployed(self) -> tuple[str, int] | None:
        """Give the revision that was deployed last and its base port, or None."""
        try:
            document = json.loads(self.current.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return document["revision"], document["port"]

    def held_ports(self) -> set[int]:
        """Give the ports that this runtime's own living processes were started on."""
        deployed = self.deployed()
        if deployed is None:
            return set()
        alive = (service for service in SERVICES if self.processes[service.name].running())
        return {deployed[1] + service.port_offset for service in alive}

    def require_ports(self, port: int) -> None:
        """Fail when a port that is not held by this runtime's own process is taken."""
        host = os.environ.get("MISSION_CONTROL_HOST") or "127.0.0.1"
        own = self.held_ports()
        for service in SERVICES:
            wanted = port + service.port_offset
            if wanted not in own and not processes.port_is_free(host, wanted):
                message = f"port {wanted} for the {service.name} is taken by another process"
                hint = f"find it: ss -ltnp 'sport = :{wanted}'; or choose others with MISSION_CONTROL_PORT"
                raise ControlError(message, hint)

    def require_writable(self) -> None:
        """Fail when the state directory, or where there is none yet its nearest parent, cannot be written."""
        nearest = next(folder for folder in (self.home, *self.home.parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise ControlError(f"{nearest} cannot be written", "choose another with MISSION_CONTROL_HOME")

    def start(self, release: releases.Release, port: int) -> None:
        """Start every service of the release and does not wait for them to serve."""
        document = json.dumps({"revision": release.revision, "port": port})
        fresh = self.current.with_suffix(".new")
        fresh.write_text(document + "\n", encoding="utf-8")
        fresh.replace(self.current)
        inherited = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
        for service in SERVICES:
            listen = str(port + service.port_offset)
            environment = {
                **inherited,
                "MISSION_CONTROL_REVISION": release.revision,
                "MISSION_CONTROL_LISTEN": listen,
            }
            # -B: a byte-code cache inside the release would change its hash.
            command = [sys.executable, "-B", f"{service.name}.py"]
            self.processes[service.name].spawn(command, release.path / service.image, environment)


def publish(runtime: Runtime) -> int:
    """Build a release and say which it is, on stdout and in the file named by OPSGATE_OUTPUT."""
    run_id = os.environ.get("OPSGATE_RUN_ID", "")
    fault = os.environ.get("MISSION_CONTROL_FAULT", "")
    document = releases.build_document(run_id, fault, os.environ.get("MISSION_CONTROL_FAULT_SECONDS", ""))
    with runtime.locked():
        release = releases.build(runtime.releases, document)
    lines = [f"revision={release.revision}"]
    lines += [f"image.{image}=mission-control/{image}@{digest}" for image, digest in release.digests.items()]
    print("\n".join(lines))
    if os.environ.get("OPSGATE_OUTPUT"):
        with Path(os.environ["OPSGATE_OUTPUT"]).open("a", encoding="utf-8") as output:
            output.write("\n".join(lines) + "\n")
    return 0


def deploy(runtime: Runtime, revision: str) -> int:
    """Put the release in the place of the running one."""
    port = base_port()
    with runtime.locked():
        release = releases.find(runtime.releases, revision)
        runtime.require_ports(port)
        ended = processes.stop(list(runtime.processes.values()))
        if ended:
            print(f"ended: {', '.join(ended)}")
        # Again: where the old release ran and never listened, somebody else may hold its port.
        runtime.require_ports(port)
        runtime.start(release, port)
    last = port + len(SERVICES) - 1
    print(f"started: {release.revision} on ports {port} to {last}, not waiting for them to serve")
    return 0


def check(runtime: Runtime) -> int:
    """Prove that a deploy could work now: ports and state directory."""
    runtime.require_ports(base_port())
    runtime.require_writable()
    print(f"ready: {runtime.home}")
    return 0


def stop(runtime: Runtime) -> int:
    """End the running release."""
    with runtime.locked():
        ended = processes.stop(list(runtime.processes.values()))
    print(f"ended: {', '.join(ended)}" if ended else "nothing was running")
    return 0


def status(runtime: Runtime) -> int:
    """Show each process; exit 1 unless all of them run (which does not say that they serve)."""
    deployed = runtime.deployed()
    if deployed is None:
        print("nothing was deployed yet")
        return 1
    revision, port = deployed
    for service in SERVICES:
        pid = runtime.processes[service.name].pid()
        state = f"runs as pid {pid}" if pid else "does not run"
        print(f"{service.name:<9} {revision}  port {port + service.port_offset}  {state}")
    return 0 if all(process.running() for process in runtime.processes.values()) else 1


def logs(runtime: Runtime, service: str | None, lines: int) -> int:
    """Show the last lines of each service's log."""
    for name, process in runtime.processes.items():
        if service in (None, name) and process.log_file.exists():
            with process.log_file.open(encoding="utf-8", errors="replace") as log:
                for line in collections.deque(log, maxlen=lines):
                    print(f"{name} | {line}", end="")
    return 0


def base_port() -> int:
    """Give the backend's port; the worker's and the frontend's follow it."""
    text = os.environ.get("MISSION_CONTROL_PORT") or str(DEFAULT_PORT)
    if not text.isdecimal() or not 1 <= int(text) <= HIGHEST_BASE_PORT:
        raise ControlError(f"MISSION_CONTROL_PORT={text} is not a port", f"give 1 to {HIGHEST_BASE_PORT}")
    return int(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="control.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("publish", help="build a release")
    revision = commands.add_parser("deploy", help="put a release in the place of the running one")
    revision.add_argument("revision", nargs="?", default=os.environ.get("OPSGATE_REVISION", ""))
    commands.add_parser("check", help="prove that a deploy could work now; changes nothing")
    commands.add_parser("stop", help="end the running release")
    commands.add_parser("status", help="show the processes")
    tail = commands.add_parser("logs", help="show the last log lines")
    tail.add_argument("service", nargs="?", choices=[service.name for service in SERVICES])
    tail.add_argument("-n", "--lines", type=int, default=20)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one command and give its exit code: 0 done, 1 not done."""
    options = parse(arguments)
    default_home = Path(__file__).resolve().parents[2] / ".mission-control"
    runtime = Runtime(Path(os.environ.get("MISSION_CONTROL_HOME") or default_home).resolve())
    try:
        if options.command == "deploy":
            return deploy(runtime, options.revision)
        if options.command == "logs":
            return logs(runtime, options.service, options.lines)
        plain = {"publish": publish, "check": check, "stop": stop, "status": status}
        return plain[options.command](runtime)
    except ControlError as error:
        # One line: of a failed hook's output the last line is shown first.
        hint = f"; {error.hint}" if error.hint else ""
        print(f"mission control: {error}{hint}", file=sys.stderr)
    except OSError as error:
        print(f"mission control: {error.strerror}: {error.filename or runtime.home}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
