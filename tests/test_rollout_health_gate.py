"""The older script's flags and files: passed, failed, skipped, rolled back, on real servers and processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsgate.stages import rounds
from scripts.ci import rollout_health_gate as script
from tests.e2e.rig import Runtime, alive
from tests.live.servers import Peer, Server, response
from tests.ports import free_port

PROGRAM = Path(script.__file__)
FAST = ["--attempts", "1", "--timeout-seconds", "0.3", "--sleep-seconds", "0"]
PATIENT = ["--timeout-seconds", "10"]
KEYS = {"status", "status_reason", "checked_at", "urls", "attempts", "failed_urls", "rollback"}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path / "state")
    runtime.becomes("up")
    yield runtime
    runtime.close()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Gate:
    """The script in this process: what it answered and left."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *flags: str, code: int) -> Any:
        files = ["--evidence-file", "out/gate.json", "--env-file", "gate.env"]
        # What is healthy ends the gate by itself, also where the machine takes its time.
        limits = FAST if code else [*FAST, *PATIENT]
        assert script.main([*limits, *flags, *files]) == code
        printed = self._capsys.readouterr()
        self.err = printed.err
        document = json.loads(printed.out)
        assert json.loads(Path("out/gate.json").read_text()) == document
        assert set(document) == KEYS
        assert set(document["rollback"]) == {
            "attempted", "succeeded", "exit_code", "command", "stdout", "stderr",
        }  # fmt: skip
        return document

    def env(self) -> dict[str, str]:
        lines = Path("gate.env").read_text().splitlines()
        return dict(line.removeprefix("ROLLOUT_GATE_").split("=", 1) for line in lines)


@pytest.fixture
def gate(capsys: pytest.CaptureFixture[str]) -> Gate:
    return Gate(capsys)


def dead() -> str:
    return f"http://127.0.0.1:{free_port()}/"


def test_one_healthy_round_passes(gate: Gate, runtime: Runtime) -> None:
    other = f"{runtime.url}?second"
    document = gate("--urls", f"{runtime.url}, {other},{runtime.url}", code=0)
    assert (document["status"], document["status_reason"]) == ("passed", "all_probes_healthy")
    assert document["urls"] == [runtime.url, other]
    assert document["failed_urls"] == []
    assert len(runtime.requests) == 2
    (only,) = document["attempts"]
    assert (only["attempt"], only["all_ok"]) == (1, True)
    assert [set(result) for result in only["results"]] == [
        {"url", "ok", "status_code", "detail", "elapsed_ms"}
    ] * 2
    assert gate.env() == {
        "STATUS": "passed",
        "STATUS_REASON": "all_probes_healthy",
        "FAILED_URL_COUNT": "0",
        "ROLLBACK_ATTEMPTED": "false",
        "ROLLBACK_SUCCEEDED": "unknown",
        "ROLLBACK_EXIT_CODE": "None",
        "ATTEMPT_COUNT": "1",
    }


def test_it_passes_in_the_round_in_which_all_are_healthy(gate: Gate) -> None:
    def starting(peer: Peer) -> None:
        peer.request()
        peer.send(response(status="200 OK" if peer.number >= 2 else "503 Busy"))

    with Server(starting) as slow, Server(response()) as quick:
        document = gate("--urls", f"{slow.url},{quick.url}", code=0)
    assert [each["all_ok"] for each in document["attempts"]] == [False, False, True]
    assert [each["attempt"] for each in document["attempts"]] == [1, 2, 3]
    assert [result["ok"] for result in document["attempts"][0]["results"]] == [False, True]
    assert gate.err.splitlines() == [
        "rollout gate: 2 URLs, verdict within 10 s",
        f"rollout gate: round 1: 1 of 2 URLs healthy; {slow.url}: status 503",
        "rollout gate: round 3: 2 of 2 URLs healthy",
        "rollout gate: passed (all_probes_healthy)",
    ]


def test_a_dead_port_fails_within_the_deadline(gate: Gate, runtime: Runtime) -> None:
    began = time.monotonic()
    url = dead()
    document = gate("--urls", f"{url},{runtime.url}", "--timeout-seconds", "1.5", code=1)
    assert time.monotonic() - began < 5
    assert (document["status"], document["status_reason"]) == ("failed", "probe_failures")
    assert document["failed_urls"] == [url]
    assert document["attempts"][-1]["results"][0]["status_code"] is None
    assert "refused" in document["attempts"][-1]["results"][0]["detail"]
    assert gate.env()["FAILED_URL_COUNT"] == "1"
    assert gate.env()["ATTEMPT_COUNT"] == str(len(document["attempts"]))


def test_the_deadline_is_attempts_times_timeout_and_sleep() -> None:
    policy = rounds.policy(attempts=8, timeout=8.0, sleep=15.0)
    assert policy.deadline == 8 * (8 + 15)
    assert (policy.soak, policy.successes, policy.attempt_timeout, policy.interval) == (0, 1, 8, 15)
    defaults = script.parser().parse_args([])
    assert (defaults.attempts, defaults.timeout_seconds, defaults.sleep_seconds) == (6, 5.0, 15.0)
    assert defaults.rollback_timeout_seconds == 180


def test_a_server_that_hangs_costs_one_deadline(gate: Gate) -> None:
    with Server(lambda peer: peer.hang()) as server:
        began = time.monotonic()
        document = gate("--urls", server.url, "--attempts", "2", code=1)
        assert 0.6 <= time.monotonic() - began < 5
    assert document["attempts"][0]["results"][0]["detail"].startswith("time limit")


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        ("204 No Content", [], 0),
        ("304 Not Modified", [], 0),
        ("400 Bad", [], 1),
        ("302 Found", [("Location", "/elsewhere")], 1),
        ("302 Found", [("Location", "http://other.example.com/")], 1),
    ],
)
def test_200_to_399_is_healthy_and_another_host_is_not(
    gate: Gate, status: str, headers: list[tuple[str, str]], code: int
) -> None:
    bodiless = status[:3] in {"204", "304"}
    reply = response(
        b"" if bodiless else b"{}", status=status, headers=headers, length=None if bodiless else -1
    )
    with Server(reply) as server:
        document = gate("--urls", server.url, code=code)
    if "other" in str(headers):
        assert "another host: other.example.com" in document["attempts"][-1]["results"][0]["detail"]


def test_a_redirect_on_the_same_host_is_followed(gate: Gate) -> None:
    def moved(peer: Peer) -> None:
        home = b"GET / " in peer.request()
        target = [("Location", "/new")] if home else []
        peer.send(response(status="302 Found" if home else "200 OK", headers=target))

    with Server(moved) as server:
        assert gate("--urls", server.url, code=0)["attempts"][0]["results"][0]["status_code"] == 200


def test_without_urls_it_is_skipped_and_says_so(gate: Gate) -> None:
    for urls in ("", " , "):
        document = gate("--urls", urls, code=0)
        assert (document["status"], document["status_reason"]) == ("skipped", "no_urls_configured")
        assert (document["urls"], document["attempts"], document["failed_urls"]) == ([], [], [])
        assert "NOT VALIDATED" in gate.err
    assert gate("--fail-on-skipped", code=1)["status"] == "skipped"
    assert gate.env()["STATUS"] == "skipped"


def test_a_rollback_that_succeeds_leaves_the_gate_failed(gate: Gate) -> None:
    command = "echo back; echo careful >&2; touch went-back"
    document = gate("--urls", dead(), "--rollback-on-fail", "--rollback-command", command, code=1)
    assert document["status"] == "failed"
    assert document["rollback"] == {
        "attempted": True,
        "succeeded": True,
        "exit_code": 0,
        "command": command,
        "stdout": "back\n",
        "stderr": "careful\n",
    }
    assert Path("went-back").exists()
    assert "rollback | back\n" in gate.err
    assert "rollback | careful\n" in gate.err
    assert gate.env()["ROLLBACK_SUCCEEDED"] == "true"
    assert gate.env()["ROLLBACK_EXIT_CODE"] == "0"


def test_a_rollback_that_fails_says_how(gate: Gate) -> None:
    document = gate("--urls", dead(), "--rollback-on-fail", "--rollback-command", "exit 7", code=1)
    assert (document["rollback"]["succeeded"], document["rollback"]["exit_code"]) == (False, 7)
    assert gate.env()["ROLLBACK_SUCCEEDED"] == "false"
    assert gate.env()["ROLLBACK_EXIT_CODE"] == "7"


def test_a_rollback_past_its_limit_is_ended_with_its_children(gate: Gate) -> None:
    command = "sleep 60 & echo $! > child; wait"
    limit = ["--rollback-timeout-seconds", "1.5"]
    document = gate("--urls", dead(), "--rollback-on-fail", "--rollback-command", command, *limit, code=1)
    assert document["rollback"]["attempted"]
    assert (document["rollback"]["succeeded"], document["rollback"]["exit_code"]) == (False, None)
    assert document["rollback"]["stderr"] == "timed out after 1.5 s\n"
    assert gate.env()["ROLLBACK_EXIT_CODE"] == "None"
    assert not alive(int(Path("child").read_text()))


def test_no_rollback_unless_asked_for_and_failed(gate: Gate, runtime: Runtime) -> None:
    command = ["--rollback-command", "touch went-back"]
    document = gate("--urls", dead(), *command, code=1)
    assert (document["rollback"]["attempted"], document["rollback"]["succeeded"]) == (False, None)
    gate("--urls", runtime.url, "--rollback-on-fail", *command, code=0)
    gate("--rollback-on-fail", *command, code=0)
    assert not Path("went-back").exists()
    document = gate("--urls", dead(), "--rollback-on-fail", code=1)
    assert not document["rollback"]["attempted"]
    assert "no --rollback-command" in document["rollback"]["stderr"]
    assert gate.env()["ROLLBACK_SUCCEEDED"] == "unknown"


def test_a_process_left_behind_with_both_outputs_holds_nothing_up(gate: Gate) -> None:
    command = "(while :; do echo x >&2; sleep 0.01; done) & echo $! > child; echo done"
    began = time.monotonic()
    document = gate("--urls", dead(), "--rollback-on-fail", "--rollback-command", command, code=1)
    assert time.monotonic() - began < 5
    assert document["rollback"]["succeeded"]
    assert document["rollback"]["stdout"] == "done\n"
    pid = int(Path("child").read_text())
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_without_a_thread_both_outputs_are_one(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    command = "echo out; echo err >&2"
    rollback = gate("--urls", dead(), "--rollback-on-fail", "--rollback-command", command, code=1)["rollback"]
    assert (rollback["succeeded"], rollback["stdout"], rollback["stderr"]) == (True, "out\nerr\n", "")


def test_much_output_is_cut_to_its_end(gate: Gate) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo last >&2; echo ::error::gotcha"
    document = gate("--urls", dead(), "--rollback-on-fail", "--rollback-command", command, code=1)
    assert document["rollback"]["stderr"].endswith("last\n")
    assert len(document["rollback"]["stderr"]) <= 64 * 1024
    assert document["rollback"]["stdout"] == "\\::error::gotcha\n"


def test_secrets_are_masked_everywhere(gate: Gate, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.becomes("down")
    monkeypatch.setenv("DEPLOY_TOKEN", "hunter2-hunter2")
    url = runtime.url.replace("http://", "http://me:passw0rd-1@") + "?api_key=k3y-k3y-k3y"
    command = "echo $DEPLOY_TOKEN; echo passw0rd-1 >&2; : --password=s3cr3t-s3cr3t"
    document = gate("--urls", url, "--rollback-on-fail", "--rollback-command", command, code=1)
    written = json.dumps(document) + gate.err + Path("gate.env").read_text()
    for secret in ("hunter2-hunter2", "passw0rd-1", "k3y-k3y-k3y", "s3cr3t-s3cr3t"):
        assert secret not in written
    assert document["rollback"]["stdout"] == "***\n"
    assert document["rollback"]["stderr"] == "***\n"
    assert document["urls"] == document["failed_urls"]
    assert "***" in document["urls"][0]


def test_it_reads_its_flags_only(gate: Gate, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("opsgate.toml").write_text("this is no TOML")
    monkeypatch.setenv("RUNTIME_HEALTH_URLS", runtime.url)
    monkeypatch.setenv("RUNTIME_ROLLBACK_COMMAND", "touch went-back")
    monkeypatch.setenv("RUNTIME_HEALTH_TOKEN", "a-bearer-token")
    assert gate(code=0)["status"] == "skipped"
    gate("--urls", dead(), "--rollback-on-fail", code=1)
    gate("--urls", runtime.url, code=0)
    assert "Authorization" not in runtime.requests[-1]
    assert {path.name for path in Path.cwd().iterdir()} == {"opsgate.toml", "state", "out", "gate.env"}


@pytest.mark.parametrize(
    "flags",
    [
        ["--urls", "ftp://example.com/"],
        ["--urls", "example.com/healthz"],
        ["--attempts", "0"],
        ["--attempts", "two"],
        ["--timeout-seconds", "0"],
        ["--sleep-seconds", "-1"],
        ["--sleep-seconds", "nan"],
        ["--rollback-timeout-seconds", "inf"],
        ["--timeout-seconds", "86401"],
        ["--attempts", "10001"],
        ["--attempts", "9" * 400],
        ["--no-such-flag"],
        ["--evidence-file", "state/below/gate.json"],
    ],
)
def test_wrong_usage_is_exit_2_before_anything(
    flags: list[str], runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--urls", runtime.url, *flags])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: " in said.err
    assert runtime.requests == []


def test_wrong_usage_is_told_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "hunter2-under-the-mat")
    with pytest.raises(SystemExit):
        script.main(["--urls", "hunter2-under-the-mat"])
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert "***" in said


def test_a_network_configuration_that_cannot_be_used_is_wrong_usage(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(SystemExit) as ended:
        script.main([*FAST, "--urls", "http://app.example.com/"])
    assert ended.value.code == 2
    assert "http_proxy" in capsys.readouterr().err


def test_evidence_that_cannot_be_written_at_the_end_is_never_passed(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    def ruin(peer: Peer) -> None:
        peer.request()
        Path("out/gate.json").unlink()
        Path("out").rmdir()
        Path("out").write_text("in the way")
        peer.send(response())

    with Server(ruin) as server:
        flags = [*FAST, "--urls", server.url, "--evidence-file", "out/gate.json"]
        assert script.main(flags) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "passed"
    assert "the evidence cannot be written" in said.err


def test_a_device_as_a_file_is_written_to_and_stays(gate: Gate) -> None:
    assert script.main(["--evidence-file", os.devnull, "--env-file", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_the_evidence_may_go_to_a_pipe() -> None:
    process = start("--evidence-file", "/dev/stdout")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.count('"status": "skipped"') > 1
    assert "cannot be written" not in err


def start(*flags: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *FAST, *flags],
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_as_a_program_from_any_directory(runtime: Runtime) -> None:
    process = start("--urls", runtime.url)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["status"] == "passed"


def test_killed_it_leaves_a_file_that_does_not_say_passed(tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text('{"status": "passed"}')
    with Server(lambda peer: peer.hang()) as server:
        process = start("--urls", server.url, "--timeout-seconds", "60", "--evidence-file", "gate.json")
        wait_for(lambda: server.connections > 0)
        process.kill()
        process.communicate(timeout=60)
    document = json.loads((tmp_path / "gate.json").read_text())
    assert (document["status"], document["status_reason"]) == ("failed", "interrupted")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_probing_and_starts_no_rollback(signum: signal.Signals, tmp_path: Path) -> None:
    with Server(lambda peer: peer.hang()) as server:
        rollback = ["--rollback-on-fail", "--rollback-command", "touch went-back"]
        process = start("--urls", server.url, "--timeout-seconds", "60", *rollback, "--env-file", "gate.env")
        wait_for(lambda: server.connections > 0)
        began = time.monotonic()
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + signum
    assert json.loads(out)["status_reason"] == "interrupted"
    assert "Traceback" not in err
    assert not (tmp_path / "went-back").exists()
    assert "STATUS=failed" in (tmp_path / "gate.env").read_text()


def test_the_first_signal_does_not_cut_a_rollback_off(tmp_path: Path) -> None:
    os.mkfifo("begun")
    os.mkfifo("go")
    command = "echo > begun; read _ < go; touch went-back"
    process = start("--urls", dead(), "--rollback-on-fail", "--rollback-command", command)
    Path("begun").read_text()
    process.send_signal(signal.SIGTERM)
    Path("go").write_text("\n")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert json.loads(out)["rollback"]["succeeded"]
    assert (tmp_path / "went-back").exists()


def test_a_rollback_that_fails_is_seen_under_an_inherited_ignored_sigchld(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    )
    process = start(
        "--urls", dead(), "--rollback-on-fail", "--rollback-command", "exit 3", PYTHONPATH=str(tmp_path)
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert json.loads(out)["rollback"]["exit_code"] == 3


def wait_for(condition: Any) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
