"""A runtime to ship, and a directory to ship it from with the real command."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import jsonschema

import opsgate.evidence

ENVIRONMENT: Final = "prod"
GATE: Final = {"deadline": "2s", "soak": "200ms", "interval": "50ms", "attempt_timeout": "1s", "successes": 2}
DEPLOY: Final = 'echo "up $OPSGATE_REVISION" > state'
BROKEN: Final = 'echo "down $OPSGATE_REVISION" > state'
ROLLBACK: Final = 'echo "up $OPSGATE_LAST_GOOD_REVISION" > state'
TOP_LEVEL: Final = frozenset(
    [
        "schema",
        "opsgate_version",
        "run_id",
        "environment",
        "trigger",
        "started_at",
        "finished_at",
        "duration_ms",
        "status",
        "status_reason",
        "exit_code",
        "revision",
        "images",
        "failed_urls",
        "attempt_count",
        "ci",
        "stages",
        "next_steps",
        "previous",
    ]
)


class Runtime:
    """An HTTP server on a port of its own that does what its state file says.

    `up REVISION` serves, `down` answers 503, `sick` is a 200 whose document says DOWN, `flap` fails every
    fourth request, `hang` never answers.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self.requests: list[dict[str, str]] = []
        self.hung, self.closing = threading.Event(), threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/healthz"

    @property
    def revision(self) -> str:
        return self.read()[1]

    def read(self) -> tuple[str, str]:
        health, _, revision = self.state.read_text().strip().partition(" ")
        return health, revision

    def becomes(self, health: str, revision: str = "v0") -> None:
        self.state.write_text(f"{health} {revision}\n")

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, runtime: Runtime, *args: Any) -> None:
        self.runtime = runtime
        super().__init__(*args)

    def do_GET(self) -> None:
        health, revision = self.runtime.read()
        self.runtime.requests.append(dict(self.headers))
        if health == "hang":
            self.runtime.hung.set()
            self.runtime.closing.wait()
            return
        failing = health == "down" or (health == "flap" and len(self.runtime.requests) % 4 == 0)
        body = json.dumps({"status": "DOWN" if health == "sick" else "ok", "version": revision}).encode()
        self.send_response(503 if failing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: opsgate's record says it."""


class Result:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def headline(self) -> str:
        return self.out.splitlines()[0]

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Site:
    """A directory with an `opsgate.toml`, a runtime, and what opsgate leaves behind."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self.path, self.runtime = path, runtime
        self.cwd = path
        self.evidence = path / "artifacts" / "rollout"
        # What a command that is killed leaves there goes with the test; beside the site, which is looked at.
        self.scratch = path.with_name(f"{path.name}.temp")
        self.scratch.mkdir(exist_ok=True)

    def configure(
        self, *, top: str = "", extra: str = "", gate: dict[str, Any] | None = None, **keys: Any
    ) -> None:
        """Write the file; `keys` are those of the environment, a hook that is None is left out."""
        keys = {"urls": [self.url()], **keys}
        chosen = "\n".join(f"{key} = {toml(value)}" for key, value in keys.items() if value is not None)
        policy = "\n".join(f"{key} = {toml(value)}" for key, value in {**GATE, **(gate or {})}.items())
        text = f'default_environment = "prod"\n{top}\n[environments.prod]\n{chosen}\n'
        (self.path / "opsgate.toml").write_text(f"{text}[environments.prod.gate]\n{policy}\n{extra}")

    def url(self, **expectations: Any) -> dict[str, Any]:
        return {"name": "api", "url": self.runtime.url, **expectations}

    def environ(self, env: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **env,
        }

    def seam(self, code: str) -> dict[str, str]:
        """An environment in which Python runs this first: for what cannot be had from outside."""
        place = self.path / "seam"
        place.mkdir()
        (place / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": os.pathsep.join([str(place), *sys.path])}

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "opsgate", *args],
            cwd=self.cwd,
            env=self.environ(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, code: int = 0, **env: str) -> Result:
        """Run a command to its end, and hold everything that it left to what always holds."""
        return self.ended(self.start(*args, **env), code)

    def run_unchecked(self, *args: str, code: int) -> Result:
        """As `run`, over records that were damaged on purpose."""
        return answered(self.start(*args), code)

    def ended(self, process: subprocess.Popen[str], code: int) -> Result:
        result = answered(process, code)
        self.check_records()
        return result

    def check_records(self) -> None:
        for path in self.evidence.glob("*/evidence.json"):
            check_record(json.loads(path.read_bytes()))
        if (self.evidence / "latest.json").exists():
            check_record(json.loads((self.evidence / "latest.json").read_bytes()))

    def record(self) -> Any:
        return json.loads((self.evidence / "latest.json").read_bytes())

    def latest_env(self) -> dict[str, str]:
        lines = (self.evidence / "latest.env").read_text().splitlines()
        return dict(line.removeprefix("ROLLOUT_GATE_").split("=", 1) for line in lines)

    def ledger(self) -> list[Any]:
        return [json.loads(line) for line in (self.evidence / "ledger.jsonl").read_text().splitlines()]

    def variables(self, name: str) -> dict[str, str]:
        """What a hook wrote with `env -0 > NAME`."""
        text = (self.path / name).read_text()
        return dict(item.split("=", 1) for item in text.split("\0") if item)

    @contextmanager
    def during(self, *args: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """The command, once one of its hooks has written to the pipe `begun`."""
        pipe = self.path / "begun"
        if not pipe.exists():
            os.mkfifo(pipe)
        process = self.start(*args, **env)
        try:
            with pipe.open() as begun:
                begun.readline()
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def answered(process: subprocess.Popen[str], code: int) -> Result:
    out, err = process.communicate(timeout=60)
    result = Result(process.returncode, out, err)
    assert result.code == code, result
    assert "Traceback" not in out + err, result
    return result


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
    path = Path(opsgate.evidence.__file__).parent / "evidence.schema.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_bytes()))


def check_record(record: Any) -> None:
    """What holds for every record, whatever happened to its run."""
    schema().validate(record)
    assert set(record) == TOP_LEVEL
    assert set(record["stages"]) == {"preflight", "publish", "deploy", "gate", "rollback"}
    if record["finished_at"] is None:
        assert record["status"] == "failed"
    for stage in record["stages"].values():
        if "started_at" not in stage and not stage.get("withheld"):
            assert stage == {"status": "skipped"}


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def send(process: subprocess.Popen[str], signum: signal.Signals) -> None:
    os.kill(process.pid, signum)
