"""The sample runtime: real processes, real ports, every fault seen over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
CONTROL = ROOT / "examples" / "mission-control" / "control.py"
PATIENCE_SECONDS = 15.0


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


class Sandbox:
    """One runtime of a test's own: a state directory, three ports and a free one after them."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environment = {**kept, "MISSION_CONTROL_HOME": str(home), "MISSION_CONTROL_PORT": str(port)}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(CONTROL), *arguments]
        environment = {**self.environment, **variables}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    def publish(self, run_id: str = "run-1", **variables: str) -> str:
        done = self.run("publish", OPSGATE_RUN_ID=run_id, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("revision=")[2].split()[0]

    def ship(self, run_id: str = "run-1", **variables: str) -> str:
        """Publishes and deploys; returns the revision."""
        revision = self.publish(run_id, **variables)
        done = self.run("deploy", OPSGATE_REVISION=revision)
        assert done.returncode == 0, done.stderr
        return revision

    def request(
        self,
        path: str,
        offset: int = 0,
        *,
        method: str = "GET",
        body: str | None = None,
        token: str = "",
        limit: float = 5.0,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port + offset, timeout=limit)
        ) as link:
            link.request(method, path, body=body, headers=headers)
            response = link.getresponse()
            return Answer(response.status, response.read().decode(), dict(response.headers))

    def answers(self, offset: int = 0) -> bool:
        try:
            return self.request("/healthz", offset).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def serving(self) -> None:
        until(lambda: all(self.answers(offset) for offset in range(3)))

    def pids(self) -> list[int]:
        return [int(file.read_text(encoding="utf-8")) for file in sorted((self.home / "run").glob("*.pid"))]

    def strays(self) -> list[str]:
        """The processes that work inside the state directory."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").resolve(strict=True).is_relative_to(self.home):
                    found.append(entry.name)
        return found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(0.02)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    runtime = Sandbox(tmp_path.resolve() / "state", free_ports(4))
    yield runtime
    runtime.run("stop")
    assert runtime.strays() == []


def test_a_release_serves_every_documented_path(sandbox: Sandbox) -> None:
    revision = sandbox.publish()
    assert sandbox.run("deploy", revision, MISSION_CONTROL_TOKEN="of-this-test").returncode == 0
    sandbox.serving()
    assert json.loads(sandbox.request("/readyz").text)["checks"][0]["up"] is True
    assert json.loads(sandbox.request("/version").text) == {"name": "backend", "version": revision}
    described = json.loads(sandbox.request("/openapi.json").text)
    assert described["info"]["version"] == revision
    for path in described["paths"]:
        assert sandbox.request(path, token="of-this-test").status == 200, path
    assert sandbox.request("/api/missions").status == 401
    assert sandbox.request("/api/missions", token="another").headers["WWW-Authenticate"] == "Bearer"
    assert revision in sandbox.request("/", offset=2).text
    with (
        socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as link,
        link.makefile("rb") as reply,
    ):
        link.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
        status, *headers, end = reply.read().splitlines()
    assert status.endswith(b" 200 OK")
    assert b"Content-Length: 17" in headers
    assert end == b""
    assert sandbox.request("/nowhere").status == 404
    assert sandbox.request("/version", method="POST").headers["Allow"] == "GET"


def test_the_worker_handles_deliveries_of_those_it_knows(sandbox: Sandbox) -> None:
    assert sandbox.run("deploy", sandbox.publish(), MISSION_CONTROL_TOKEN="of-this-test").returncode == 0
    sandbox.serving()

    def post(body: str, token: str = "of-this-test") -> int:
        return sandbox.request("/webhooks", 1, method="POST", body=body, token=token).status

    assert post('{"event": "launch"}') == 202
    assert post("no json") == 400
    assert post('"x"', token="another") == 401
    assert post("x" * 70_000) == 413
    until(lambda: json.loads(sandbox.request("/healthz", 1).text)["handled"] == 1)
    assert "event 'launch'" in sandbox.run("logs", "worker").stdout


def test_without_a_token_the_protected_paths_are_closed(sandbox: Sandbox) -> None:
    sandbox.ship()
    sandbox.serving()
    assert sandbox.request("/api/missions").status == 401
    assert sandbox.request("/api/missions", token=" ").status == 401


def test_each_run_is_another_revision_and_shares_the_images_that_did_not_change(sandbox: Sandbox) -> None:
    one = dict(line.split("=", 1) for line in sandbox.run("publish", OPSGATE_RUN_ID="a").stdout.split())
    two = dict(line.split("=", 1) for line in sandbox.run("publish", OPSGATE_RUN_ID="b").stdout.split())
    assert one["revision"] != two["revision"]
    assert one["image.backend"] != two["image.backend"]
    assert one["image.frontend"] == two["image.frontend"]
    assert one["image.backend"].startswith("mission-control/backend@sha256:")
    assert sandbox.publish("a") == one["revision"]
    assert sandbox.publish("a", MISSION_CONTROL_FAULT="hang") not in (one["revision"], two["revision"])


def test_publish_leaves_its_result_for_opsgate(sandbox: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("kept=1\n", encoding="utf-8")
    done = sandbox.run("publish", OPSGATE_OUTPUT=str(output))
    assert output.read_text(encoding="utf-8") == "kept=1\n" + done.stdout


def test_dead_port_runs_and_never_listens(sandbox: Sandbox) -> None:
    sandbox.ship(MISSION_CONTROL_FAULT="dead-port")
    until(lambda: sandbox.run("logs").stdout.count("never listens") == 2)
    until(lambda: sandbox.answers(2))
    assert sandbox.run("status").returncode == 0
    with pytest.raises(ConnectionRefusedError):
        sandbox.request("/healthz")


@pytest.mark.slow
def test_crash_late_serves_and_then_dies(sandbox: Sandbox) -> None:
    sandbox.ship(MISSION_CONTROL_FAULT="crash-late", MISSION_CONTROL_FAULT_SECONDS="5")
    sandbox.serving()
    until(lambda: not sandbox.answers())
    until(lambda: sandbox.run("status").stdout.count("does not run") == 2)
    assert sandbox.run("status").returncode == 1
    assert "crashes" in sandbox.run("logs", "backend").stdout
    assert sandbox.answers(2)


def test_flapping_goes_down_and_comes_back(sandbox: Sandbox) -> None:
    sandbox.ship(MISSION_CONTROL_FAULT="flapping", MISSION_CONTROL_FAULT_SECONDS="0.6")
    for expected in (200, 503, 200, 503):
        until(lambda expected=expected: reachable(sandbox) == expected)  # type: ignore[misc]


def reachable(sandbox: Sandbox) -> int:
    try:
        return sandbox.request("/healthz").status
    except OSError:
        return 0


def test_wrong_revision_is_healthy_and_names_another(sandbox: Sandbox) -> None:
    revision = sandbox.ship(MISSION_CONTROL_FAULT="wrong-revision")
    sandbox.serving()
    assert json.loads(sandbox.request("/version").text)["version"] not in ("", revision)


def test_status_down_says_so_with_status_200(sandbox: Sandbox) -> None:
    sandbox.ship(MISSION_CONTROL_FAULT="status-down")
    sandbox.serving()
    assert json.loads(sandbox.request("/healthz").text)["status"] == "DOWN"
    assert json.loads(sandbox.request("/healthz", 2).text)["status"] == "ok"


def test_slow_answers_late(sandbox: Sandbox) -> None:
    sandbox.ship(MISSION_CONTROL_FAULT="slow", MISSION_CONTROL_FAULT_SECONDS="0.4")
    sandbox.serving()
    started = time.monotonic()
    assert sandbox.request("/healthz").status == 200
    assert time.monotonic() - started >= 0.4


def test_hang_accepts_and_never_answers_and_still_ends_at_once(sandbox: Sandbox) -> None:
    sandbox.ship(MISSION_CONTROL_FAULT="hang")
    until(lambda: sandbox.answers(2))
    until(lambda: "listens on" in sandbox.run("logs", "backend").stdout)
    with pytest.raises(TimeoutError):
        sandbox.request("/healthz", limit=0.3)
    with socket.create_connection(("127.0.0.1", sandbox.port)) as held:
        held.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        started = time.monotonic()
        assert sandbox.run("stop").returncode == 0
        assert time.monotonic() - started < 3


def test_the_next_release_takes_the_place_of_the_running_one(sandbox: Sandbox) -> None:
    first = sandbox.ship("run-1")
    sandbox.serving()
    old = sandbox.pids()
    second = sandbox.ship("run-2")
    sandbox.serving()
    assert json.loads(sandbox.request("/version").text)["version"] == second
    assert set(old).isdisjoint(sandbox.pids())
    assert sandbox.run("deploy", OPSGATE_REVISION=first, OPSGATE_STAGE="rollback").returncode == 0
    sandbox.serving()
    assert json.loads(sandbox.request("/version").text)["version"] == first
    assert len(sandbox.strays()) == 3


def test_stop_lets_the_services_end_cleanly(sandbox: Sandbox) -> None:
    sandbox.ship()
    sandbox.serving()
    assert sandbox.run("stop").stdout == "ended: backend, worker, frontend\n"
    assert sandbox.strays() == []
    assert sandbox.run("logs").stdout.count("ended by SIGTERM") == 3
    assert sandbox.run("stop").stdout == "nothing was running\n"
    assert sandbox.run("status").returncode == 1


@pytest.mark.slow
def test_a_service_that_does_not_react_is_killed(sandbox: Sandbox) -> None:
    sandbox.ship()
    sandbox.serving()
    os.kill(sandbox.pids()[0], signal.SIGSTOP)
    assert sandbox.run("stop").returncode == 0
    assert sandbox.strays() == []


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_taken_port_is_named_before_anything_starts(sandbox: Sandbox, offset: int) -> None:
    revision = sandbox.publish()
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", sandbox.port + offset))
        foreign.listen()
        for command in (("deploy", revision), ("check",)):
            done = sandbox.run(*command)
            assert done.returncode == 1
            assert f"port {sandbox.port + offset} for the " in done.stderr
            assert "taken by another process" in done.stderr
            assert "MISSION_CONTROL_PORT" in done.stderr
    assert sandbox.strays() == []
    assert sandbox.run("check").returncode == 0


def test_other_ports_that_are_taken_leave_the_running_release_alone(sandbox: Sandbox) -> None:
    revision = sandbox.ship()
    sandbox.serving()
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", sandbox.port + 3))
        foreign.listen()
        for command in (("deploy", revision), ("check",)):
            done = sandbox.run(*command, MISSION_CONTROL_PORT=str(sandbox.port + 1))
            assert done.returncode == 1
            assert f"port {sandbox.port + 3} for the frontend is taken" in done.stderr
            assert len(done.stderr.splitlines()) == 1
    sandbox.serving()


def test_a_port_taken_behind_a_release_that_never_listened_is_named(sandbox: Sandbox) -> None:
    revision = sandbox.ship(MISSION_CONTROL_FAULT="dead-port")
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", sandbox.port))
        foreign.listen()
        done = sandbox.run("deploy", revision)
    assert done.returncode == 1
    assert f"port {sandbox.port} for the backend is taken" in done.stderr


def test_check_changes_nothing_and_passes_while_the_runtime_holds_its_ports(sandbox: Sandbox) -> None:
    assert sandbox.run("check").returncode == 0
    assert not sandbox.home.exists()
    sandbox.ship()
    sandbox.serving()
    assert sandbox.run("check").returncode == 0


def test_a_reused_pid_is_not_taken_for_the_service(sandbox: Sandbox) -> None:
    sandbox.ship()
    sandbox.serving()
    sandbox.run("stop")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            (sandbox.home / "run" / "backend.pid").write_text(f"{stranger.pid}\n", encoding="utf-8")
            assert sandbox.run("stop").stdout == "nothing was running\n"
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("service", ["backend", "worker", "frontend"])
def test_a_killed_deploy_leaves_nothing_that_stop_cannot_end(sandbox: Sandbox, service: str) -> None:
    revision = sandbox.publish()
    command = [sys.executable, str(CONTROL), "deploy", revision]
    with subprocess.Popen(command, env=sandbox.environment, stdout=subprocess.DEVNULL) as deploy:
        pid_file = sandbox.home / "run" / f"{service}.pid"
        while not pid_file.exists() and deploy.poll() is None:
            time.sleep(0.001)
        deploy.kill()
    assert sandbox.run("stop").returncode == 0
    assert sandbox.strays() == []
    sandbox.ship("run-2")
    sandbox.serving()


def test_a_release_that_was_changed_is_refused(sandbox: Sandbox) -> None:
    running = sandbox.ship("run-1")
    sandbox.serving()
    changed = sandbox.publish("run-2")
    with (sandbox.home / "releases" / changed / "frontend" / "index.html").open(
        "a", encoding="utf-8"
    ) as page:
        page.write("<!-- -->")
    done = sandbox.run("deploy", changed)
    assert done.returncode == 1
    assert "was changed after it was built" in done.stderr
    assert json.loads(sandbox.request("/version").text)["version"] == running


@pytest.mark.parametrize("revision", ["", "0123456789ab", "../releases", "v42"])
def test_an_unknown_revision_is_refused_and_the_newest_named(sandbox: Sandbox, revision: str) -> None:
    assert "there is none yet" in sandbox.run("deploy", OPSGATE_REVISION=revision).stderr
    known = sandbox.publish()
    done = sandbox.run("deploy", OPSGATE_REVISION=revision)
    assert done.returncode == 1
    assert f"the newest is {known}" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MISSION_CONTROL_FAULT", "deadport", "did you mean dead-port?"),
        ("MISSION_CONTROL_FAULT_SECONDS", "soon", "is not a time"),
        ("MISSION_CONTROL_FAULT_SECONDS", "nan", "is not a time"),
    ],
)
def test_a_fault_that_does_not_exist_is_an_error(sandbox: Sandbox, name: str, value: str, words: str) -> None:
    done = sandbox.run("publish", **{name: value})
    assert done.returncode == 1
    assert words in done.stderr
    assert not sandbox.home.exists()


@pytest.mark.parametrize("value", ["0", "65534", "eighty", "-1"])
def test_a_port_that_does_not_exist_is_an_error(sandbox: Sandbox, value: str) -> None:
    done = sandbox.run("deploy", sandbox.publish(), MISSION_CONTROL_PORT=value)
    assert done.returncode == 1
    assert f"MISSION_CONTROL_PORT={value} is not a port" in done.stderr


def test_the_services_see_none_of_the_secrets_of_the_hook(sandbox: Sandbox) -> None:
    secret = "not-for-the-runtime"
    sandbox.run("deploy", sandbox.publish(), RUNTIME_HEALTH_TOKEN=secret, MISSION_CONTROL_TOKEN="its-own")
    sandbox.serving()
    for pid in sandbox.pids():
        environment = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
        assert secret not in environment
        assert "its-own" in environment


def test_the_configuration_of_the_repository_ships_it_and_finds_every_target(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    local = tomllib.loads((ROOT / "opsgate.toml").read_text(encoding="utf-8"))["environments"]["local"]
    output = tmp_path / "output"
    revision = ""
    for command in (local["rollback_check"], local["publish"]["command"], local["deploy"]):
        environment = {**sandbox.environment, "OPSGATE_OUTPUT": str(output), "OPSGATE_REVISION": revision}
        subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, env=environment, check=True, timeout=30)
        if output.exists():
            revision = output.read_text(encoding="utf-8").partition("revision=")[2].split()[0]
    sandbox.serving()
    for target in local["urls"]:
        port, _, path = target["url"].removeprefix("http://127.0.0.1:").partition("/")
        answer = sandbox.request(f"/{path}", int(port) - 8000)
        assert answer.status == 200, target
        assert target.get("body", "") in answer.text
        if "revision" in target:
            assert json.loads(answer.text)["version"] == revision
