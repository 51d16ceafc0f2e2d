"""A checkout of its own for each test: the sample's images, an opsgate.toml, the tasks run as people do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from tests.docker.bench import Engine

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

CONFIGURATION = """
max_rollbacks_per_day = 50

[publish]
compose_files = ["compose.yaml"]

[gate]
deadline = "10s"
soak = "{soak}"
# Docker starts a crashed container again after 100 ms: what is asked less often may not see it.
interval = "50ms"
attempt_timeout = "1s"

[environments.default]
urls = [
  {{ name = "backend", url = "http://127.0.0.1:{port}/healthz" }},
  {{ name = "version", url = "http://127.0.0.1:{port}/version", revision = "json:version" }},
  {{ name = "worker", url = "http://127.0.0.1:{worker}/healthz" }},
  {{ name = "frontend", url = "http://127.0.0.1:{frontend}/healthz" }},
]
{hooks}
"""
COMPOSE = 'deploy = "compose"\nrollback = "redeploy"\n'


class Done:
    """How a task ended: its exit code, its record, and what it told people."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.err = code, err
        self.record: dict[str, Any] = json.loads(out) if out.startswith("{") else {}

    @property
    def stages(self) -> dict[str, Any]:
        stages: dict[str, Any] = self.record["stages"]
        return stages

    @property
    def reason(self) -> str:
        return str(self.record["status_reason"])

    def __repr__(self) -> str:
        return f"exit {self.code}, {self.record.get('status_reason')}: {self.err[-1500:]}"


class Mission:
    """A git checkout with the sample's compose file, released into one engine through one registry."""

    def __init__(self, engine: Engine, directory: Path, registry: str, port: int, name: str) -> None:
        self.engine, self.directory, self.registry, self.port = engine, directory, registry, port
        self.environ = {
            "MISSION_CONTROL_REGISTRY": registry,
            "MISSION_CONTROL_PORT": str(port),
            "MISSION_CONTROL_PROJECT": name,
            "MISSION_CONTROL_CRASH_AFTER": "1",
            "PYTHONPATH": str(ROOT),
            "OPSGATE_EVIDENCE_DIR": str(directory / "evidence"),
        }
        self.configure()
        self.git("init", "--quiet")
        self.commit()

    def configure(self, hooks: str = COMPOSE, *, soak: str = "600ms") -> None:
        (self.directory / "opsgate.toml").write_text(
            CONFIGURATION.format(
                port=self.port, worker=self.port + 1, frontend=self.port + 2, hooks=hooks, soak=soak
            )
        )

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Pilot", "-c", "user.email=pilot@example.com")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.directory, check=True, capture_output=True, text=True
        ).stdout

    def commit(self) -> str:
        """Commit everything; gives back the revision."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change")
        return self.git("rev-parse", "HEAD").strip()[:12]

    def start(self, task: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "opsgate", task, *arguments, "--json"],
            cwd=self.directory,
            env=self.engine.environ(**{**self.environ, **environ}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, task: str, *arguments: str, **environ: str) -> Done:
        with self.start(task, *arguments, **environ) as process:
            out, err = process.communicate(timeout=80)
        return Done(process.returncode, out, err)

    def running(self) -> dict[str, str]:
        """Service → the reference that its container was started from."""
        format_ = '{{.Label "com.docker.compose.service"}} {{.Image}}'
        project = f"label=com.docker.compose.project={self.environ['MISSION_CONTROL_PROJECT']}"
        listed = self.engine.run("ps", "--no-trunc", "--filter", project, "--format", format_).stdout
        return dict(line.split() for line in listed.splitlines())

    def served(self, reference: str) -> tuple[str, bytes]:
        """The digest and the manifest that the registry has for HOST/NAME:TAG."""
        host, _, rest = reference.partition("/")
        name, _, tag = rest.rpartition(":")
        answer = requests.get(
            f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST}, timeout=5
        )
        answer.raise_for_status()
        return answer.headers["Docker-Content-Digest"], answer.content

    def down(self) -> None:
        self.engine.run("compose", "down", "--timeout", "1", cwd=self.directory, environ=self.environ)


def pinned(record: dict[str, Any]) -> dict[str, str]:
    """Service → the reference by digest that a record's images come to; the worker runs the backend's."""
    images = {
        image["name"]: f"{image['reference'].rpartition(':')[0]}@{image['digest']}"
        for image in record["images"]
    }
    return {**images, "worker": images["backend"]}


class DyingProxy:
    """In front of a registry, until the first manifest goes up: then it is gone, connections and all.

    Earlier, in a layer, the engine would try again for most of a minute.
    """

    def __init__(self, registry: str) -> None:
        host, _, port = registry.partition(":")
        self._upstream, self.dead, self._closed = (host, int(port)), False, False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._door.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            sockets, self._sockets = [self._door, *self._sockets], []
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(self._upstream, 5)
            except OSError:
                client.close()
                continue
            # A registry may think longer than that before it answers.
            upstream.settimeout(None)
            with self._lock:
                closed = self._closed
                self._sockets += [] if closed else [client, upstream]
            if closed:
                client.close()
                upstream.close()
                return
            for source, sink, watched in ((client, upstream, True), (upstream, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, watched), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                if watched and data.startswith(b"PUT ") and b"/manifests/" in data.partition(b"\r\n")[0]:
                    self.dead = True
                    self.close()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def only(directory: Path, *programs: str) -> str:
    """A PATH on which these programs are found, and no others."""
    directory.mkdir()
    for program in programs:
        (directory / Path(program).name).symlink_to(program)
    return os.fspath(directory)
