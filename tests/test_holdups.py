"""Nothing holds up an interrupt, a takeover, a rollback or the verdict that was announced."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.console.plain import PlainReporter
from opsgate.errors import Interrupted
from opsgate.evidence.record import Image, Rollout
from opsgate.evidence.store import Store
from opsgate.hooks import process
from opsgate.settings import Flags, load
from opsgate.stages import deploy, halt
from opsgate.stages.docker import images
from opsgate.stages.doctor.quiet import Quiet
from opsgate.stages.halt import Halt
from opsgate.stages.incident import incident
from opsgate.stages.limits import ENDING, worst_case
from opsgate.stages.session import COMMIT_LIMIT, Session
from tests.e2e.rig import Runtime, Site
from tests.live import servers
from tests.runs import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON = 8.0
"""Seconds in which a command has ended that waits for nothing, however busy the machine; the limits looked
at here are longer."""
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    runtime = Runtime(tmp_path / "state")
    runtime.becomes("up", "v1")
    yield Site(tmp_path, runtime)
    runtime.close()


@contextmanager
def silent_registry() -> Iterator[tuple[str, threading.Event]]:
    """A host that takes connections and says nothing; set once it has been asked."""
    asked = threading.Event()

    def script(peer: servers.Peer) -> None:
        peer.request()
        asked.set()
        peer.hang()

    with servers.Server(script) as server:
        yield f"127.0.0.1:{server.port}", asked


def leaving(image: str) -> str:
    return f'echo "image.app={image}" > "$OPSGATE_OUTPUT"'


def publishing(site: Site, command: str, **keys: Any) -> None:
    extra = f"[environments.prod.publish]\ncommand = {json.dumps(command)}\n" + keys.pop("extra", "")
    site.configure(extra=extra, **keys)


def fake(directory: Path, name: str, script: str) -> str:
    """Put a program on a path of its own."""
    (directory / "bin").mkdir(exist_ok=True)
    program = directory / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{directory / 'bin'}:{os.environ['PATH']}"


def alone(site: Site) -> dict[str, str]:
    """The environment of an opsgate that nothing else breaks off in time: what waits has to ask by itself."""
    return site.seam(
        "from opsgate.stages import halt, session\nhalt.PATIENCE = session.COMMIT_LIMIT = 40.0\n"
    )


# --- an interrupt, a takeover ---------------------------------------------------------------------


def test_a_silent_registry_does_not_hold_up_an_interrupt(site: Site) -> None:
    with silent_registry() as (host, asked):
        publishing(site, leaving(f"{host}/acme/app:v2"))
        process = site.start("publish", **alone(site))
        assert asked.wait(30)
        process.terminate()
        began = time.monotonic()
        site.ended(process, 143)
    assert time.monotonic() - began < SOON
    assert site.record()["status_reason"] == "interrupted"


def test_a_silent_registry_after_the_deploy_hook_does_not_either(site: Site) -> None:
    with silent_registry() as (host, asked):
        site.configure(deploy=leaving(f"{host}/acme/app:v2"), rollback="touch rolled-back")
        process = site.start("deploy", **alone(site))
        assert asked.wait(30)
        process.terminate()
        began = time.monotonic()
        site.ended(process, 143)
    assert time.monotonic() - began < SOON
    assert site.record()["stages"]["deploy"]["status"] == "interrupted"
    assert not (site.path / "rolled-back").exists()


def test_nor_does_it_hold_up_a_takeover(site: Site) -> None:
    with silent_registry() as (host, asked):
        publishing(site, leaving(f"{host}/acme/app:v2"), rollback="true")
        process = site.start("publish")
        assert asked.wait(30)
        began = time.monotonic()
        rollback = site.run("rollback", "--force", "--no-verify")
        took = time.monotonic() - began
        site.ended(process, 75)
    assert took < 1.5 * SOON
    assert "did not answer" not in rollback.err


def test_a_slow_git_does_not_hold_up_an_interrupt(site: Site) -> None:
    publishing(site, "true")
    path = fake(site.path, "git", "echo begun > begun; exec sleep 30")
    with site.during("publish", PATH=path, **alone(site)) as process:
        process.terminate()
        began = time.monotonic()
        site.ended(process, 143)
    assert time.monotonic() - began < SOON


class Heard(Quiet):
    """Keeps the warnings."""

    def __init__(self) -> None:
        super().__init__(PlainReporter(io.StringIO()))
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Bench:
    """A run in this process, with what it says."""

    def __init__(self, directory: Path, configuration: str, path: str = os.environ["PATH"]) -> None:
        (directory / "opsgate.toml").write_text(configuration)
        self.heard = Heard()
        self.halt = Halt()
        environ = {"PATH": path, "HOME": str(directory)}
        settings = load(Flags(), environ, directory)
        store = Store(directory / "rollout", settings.redactor)
        evidence = record("run-1", environment="default")
        store.begin(evidence)
        self.session = Session(
            settings,
            evidence,
            store,
            redactor=settings.redactor,
            reporter=self.heard,
            halt=self.halt,
            environ=environ,
        )


@pytest.fixture
def watched() -> Iterator[None]:
    """The clock that pytest-timeout watches tests by is the one that a run is broken off by."""
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)


@pytest.mark.usefixtures("watched")
def test_a_check_of_the_last_good_images_ends_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt, "PATIENCE", 40.0)
    bench = Bench(tmp_path, "")
    with silent_registry() as (host, asked):
        good = Rollout(
            run_id="first",
            revision="v1",
            images=tuple(Image(name=name, reference=f"{host}/{name}:v1", digest=DIGEST) for name in "ab"),
        )

        def interrupt() -> None:
            asked.wait(30)
            os.kill(os.getpid(), signal.SIGTERM)

        with bench.halt:
            threading.Thread(target=interrupt).start()
            began = time.monotonic()
            with pytest.raises(Interrupted):
                list(images.lost(bench.session, good))
    assert time.monotonic() - began < SOON


def test_an_unknown_name_costs_the_check_of_last_good_images_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    image = Image(name="app", reference="registry.example/app:v1", digest=DIGEST)
    (warning,) = images.lost(
        Bench(tmp_path, "").session, Rollout(run_id="first", revision="v1", images=(image,))
    )
    assert looked_up == ["registry.example"]
    assert "registry.example: no such host" in warning


@pytest.mark.usefixtures("watched")
def test_a_hook_that_ignores_term_is_killed_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt, "ALL_OVER", 1.2)
    monkeypatch.setattr(process, "CUT_GRACE", 9.0)
    bench = Bench(tmp_path, "")
    command = "trap '' TERM; kill -TERM $PPID; sleep 30 & wait; wait"
    with bench.halt:
        done, _ = bench.session.run_hook("deploy", command, limit=60)
    assert done.explanation == "interrupted"
    assert done.duration_ms < 5000


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(("left", "is_run"), [(9.0, True), (0.6, False)])
def test_after_an_interrupt_the_incident_hook_has_what_is_left(
    left: float, is_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt, "ALL_OVER", left)
    monkeypatch.setattr(halt, "PATIENCE", 40.0)
    monkeypatch.setattr(incident, "HURRY", 2.0)
    bench = Bench(tmp_path, "[environments.default]\nincident = 'touch told; exec sleep 30'\n")
    with bench.halt:
        os.kill(os.getpid(), signal.SIGTERM)
        began = time.monotonic()
        incident.run(bench.session)
    assert (tmp_path / "told").exists() is is_run
    assert time.monotonic() - began < 6
    (warning,) = bench.heard.warnings
    assert ("no time was left after the interrupt" in warning) is not is_run


@pytest.mark.usefixtures("watched")
def test_a_rollback_that_goes_on_uses_up_no_time_of_the_end() -> None:
    with Halt() as halting:
        with halting.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            assert halting.left() == float("inf")
        assert 0 < halting.left() <= halt.ALL_OVER


# --- a glitch of the registry after a good deploy -------------------------------------------------


@pytest.mark.parametrize("fault", ["refuses", "serves a page", "leads astray", "wants a broken login"])
def test_a_registry_that_cannot_say_rolls_nothing_back(site: Site, fault: str) -> None:
    answers = {
        "refuses": servers.status(403),
        "serves a page": servers.answer(servers.response(b"<html>Log in</html>")),
        "leads astray": servers.redirect("ftp://registry.example/"),
        "wants a broken login": servers.status(401, ("WWW-Authenticate", 'Basic realm="r"')),
    }
    (site.path / "config.json").write_text("not JSON" if fault == "wants a broken login" else "{}")
    with servers.Server(answers[fault]) as server:
        publishing(
            site,
            leaving(f"registry.example/app:v2@{DIGEST}"),
            deploy=leaving(f"127.0.0.1:{server.port}/acme/app:v2"),
            rollback="touch rolled-back",
        )
        result = site.run("release", "--json", DOCKER_CONFIG=str(site.path))
    assert "the digests of what was deployed are not known" in result.err
    assert result.document["stages"]["deploy"]["status"] == "passed"
    assert "are not known" in result.document["stages"]["deploy"]["detail"]
    assert [image["digest"] for image in result.document["images"]] == [DIGEST]
    assert not (site.path / "rolled-back").exists()


def test_what_names_no_image_is_still_a_failed_deploy(site: Site) -> None:
    site.configure(deploy=leaving("registry.example/App:v2"), rollback="touch rolled-back")
    result = site.run("deploy", "--json", code=1)
    assert result.document["status_reason"] == "deploy_failed"
    assert "is not the name of an image" in result.document["stages"]["deploy"]["detail"]
    assert (site.path / "rolled-back").exists()


# --- the verdict that was announced ---------------------------------------------------------------


def test_all_of_publish_has_one_limit(site: Site) -> None:
    path = fake(site.path, "docker", "exec sleep 30")
    fake(site.path, "docker-compose", "exec sleep 30")
    site.configure(
        extra='[environments.prod.publish]\ncompose_files = ["compose.yaml"]\n'
        '[environments.prod.timeouts]\npublish = "1s"\n'
    )
    (site.path / "compose.yaml").write_text("services: {}\n")
    began = time.monotonic()
    result = site.run("publish", "--json", code=1, PATH=path, OPSGATE_REVISION="v2")
    assert time.monotonic() - began < 1 + SOON
    assert result.document["status_reason"] == "publish_failed"
    assert "there was no time left" in result.document["stages"]["publish"]["detail"]


@pytest.mark.parametrize("task", ["publish", "deploy"])
def test_a_silent_registry_has_what_is_left_of_the_stage(site: Site, task: str) -> None:
    with silent_registry() as (host, _):
        hook = leaving(f"{host}/acme/app:v2")
        limits = '[environments.prod.timeouts]\npublish = "3s"\ndeploy = "3s"\n'
        publishing(site, hook, deploy=hook, extra=limits)
        began = time.monotonic()
        result = site.run(task, code=1 if task == "publish" else 0, OPSGATE_REVISION="v2")
    assert time.monotonic() - began < 3 + SOON
    assert "gave no whole answer in time" in result.err + result.out


def test_a_hook_that_has_no_time_left_is_not_started(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "")
    with bench.session.within(0.0):
        done, _ = bench.session.run_hook("deploy", "touch begun", limit=60)
        asked = bench.session.ask("touch begun", limit=60)
    assert done.timed_out
    assert done.explanation == asked.explanation == "not started: there was no time left"
    assert not (tmp_path / "begun").exists()
    assert bench.session.ask("true", limit=60).succeeded


def test_what_lies_within_can_only_be_shorter(tmp_path: Path) -> None:
    session = Bench(tmp_path, "").session
    with session.within(10):
        with session.within(60):
            assert 9 < session.left(30) <= 10
        with session.within(1):
            assert session.left(30) <= 1
        assert session.left(5) == 5
    assert session.left(30) == 30


def test_git_is_counted_where_it_is_asked(tmp_path: Path) -> None:
    settings = Bench(tmp_path, "[timeouts]\npublish = '5m'\n").session.settings
    unknown = worst_case(settings, "publish", ("publish",))
    assert unknown >= COMMIT_LIMIT + 300 + ENDING
    known = load(Flags(revision="v2"), {}, tmp_path)
    assert worst_case(known, "publish", ("publish",)) == unknown - COMMIT_LIMIT


# --- a rollback -----------------------------------------------------------------------------------


def deployed_by_compose(directory: Path, docker: str) -> Bench:
    """A run whose deploy is under way, and its `docker`."""
    (directory / "compose.yaml").write_text("services: {}\n")
    configuration = (
        "[environments.default]\ndeploy = 'compose'\npublish = { compose_files = ['compose.yaml'] }\n"
    )
    bench = Bench(directory, configuration, fake(directory, "docker", docker))
    bench.session.record.stages.deploy.started_at = "2026-01-01T12:00:00.000Z"
    return bench


def test_slow_answers_about_containers_hold_no_rollback_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"ID": f"id{n}", "Service": f"s{n}", "State": "exited", "ExitCode": n} for n in range(20)]
    listed = shlex.quote("\n".join(map(json.dumps, rows)))
    answers = f"""case "$*" in
        *version) ;;
        *'ps --all'*) printf '%s\\n' {listed} ;;
        *) exec sleep 30 ;;
    esac"""
    monkeypatch.setattr(deploy, "CONTAINERS_LIMIT", 4.0)
    bench = deployed_by_compose(tmp_path, answers)
    began = time.monotonic()
    deploy.look_at_containers(bench.session)
    assert time.monotonic() - began < 4 + SOON
    found = bench.session.record.stages.deploy.containers
    assert isinstance(found, list)
    # Docker itself did not say; what compose had listed is kept all the same.
    assert [(c.service, c.exit_code, c.log_tail) for c in found] == [(f"s{n}", n, "") for n in range(20)]


def test_no_room_for_answers_about_containers_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = deployed_by_compose(tmp_path, "true")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    deploy.look_at_containers(bench.session)
    (warning,) = bench.heard.warnings
    assert warning.startswith("the containers cannot be looked at: the answer of")
