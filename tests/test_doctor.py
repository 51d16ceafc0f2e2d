"""doctor: what it finds, what that means, and that it leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from opsgate.console.plain import PlainReporter
from opsgate.evidence.lock import EnvironmentLock, Holder
from opsgate.evidence.record import Image
from opsgate.evidence.store import Store
from opsgate.redact import Redactor
from opsgate.settings import Flags, load
from opsgate.stages.doctor import checks as local
from opsgate.stages.doctor import doctor, readiness
from opsgate.stages.doctor.checks import first_word
from opsgate.stages.doctor.diagnosis import Check, Diagnosis, conclude
from tests.e2e.rig import Result, Runtime, Site, alive
from tests.live.servers import Server
from tests.ports import free_port
from tests.runs import add, add_failed, add_passed, at, record
from tests.test_registry import DIGEST, Asked, Reply, serving

if TYPE_CHECKING:
    from collections.abc import Callable

ENVIRON = {"PATH": os.environ["PATH"]}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path / "state")
    runtime.becomes("up", "v1")
    yield runtime
    runtime.close()


@pytest.fixture
def site(tmp_path: Path, runtime: Runtime) -> Site:
    site = Site(tmp_path, runtime)
    site.configure(deploy="true", rollback="true")
    return site


def look(site: Site, **env: str) -> Diagnosis:
    environ = {"HOME": str(site.path), **ENVIRON, **env}
    quiet = PlainReporter(io.StringIO())
    return doctor.run(load(Flags(), environ, site.path), environ=environ, reporter=quiet)


def said(result: Result) -> list[str]:
    """The lines of stderr, without the time of the day."""
    return [re.sub(r"^\d\d:\d\d:\d\dZ ", "", line) for line in result.err.splitlines()]


def checks(found: Diagnosis) -> dict[str, Check]:
    """By name; of several with one name the worst."""
    order = ["skipped", "ok", "warning", "problem"]
    return {each.name: each for each in sorted(found.checks, key=lambda each: order.index(each.status))}


def store_of(site: Site) -> Store:
    store = Store(site.evidence, Redactor())
    store.prepare()
    return store


def tree(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and directory: mode, time of change, content."""
    return {
        str(each.relative_to(path)): (
            each.lstat().st_mode,
            each.lstat().st_mtime_ns,
            each.read_bytes() if each.is_file() else b"",
        )
        for each in path.rglob("*")
    }


def test_ready_before_the_first_release_and_nothing_is_made(site: Site) -> None:
    before = tree(site.path)
    result = site.run("doctor", "--json")
    assert tree(site.path) == before
    document = result.document
    assert document["schema"] == "opsgate/doctor/v1"
    assert (document["ready"], document["exit_code"], document["environment"]) == (True, 0, "prod")
    assert set(document["checks"][0]) == {"name", "status", "detail", "hint"}
    rows = {row["key"]: (row["value"], row["origin"]) for row in document["configuration"]}
    assert rows["gate.soak"] == ("200ms", "opsgate.toml [environments.prod.gate]")
    assert rows["timeouts.deploy"] == ("10m", "default")
    assert said(result) == ["note      asking 1 target once, up to 1 s"]


def test_after_a_release_it_says_where_back_leads_and_touches_no_evidence(site: Site) -> None:
    site.run("release", OPSGATE_REVISION="v1")
    before = tree(site.path)
    result = site.run("doctor", "--evidence-dir", str(site.evidence))
    assert tree(site.path) == before
    assert result.headline == "prod is ready for a release"
    lines = {line[11:].split("  ")[0].strip(): line for line in result.out.splitlines()}
    assert "v1, run " in lines["last good"]
    assert "prod runs v1: healthy" in lines["last run"]
    assert "1 line, an unbroken chain" in lines["ledger"]
    assert f"{site.evidence}  (flag --evidence-dir)" in result.out


def test_what_the_runtime_answers_now_is_told_and_never_holds_a_release_up(
    site: Site, runtime: Runtime
) -> None:
    other = f"http://127.0.0.1:{free_port()}/"
    urls = [site.url(revision="json:version"), {"name": "aside", "url": other, "required": False}]
    site.configure(deploy="true", rollback="true", urls=urls)
    found = checks(look(site))
    assert found["target api"].status == "ok"
    assert "status 200, revision v1" in found["target api"].detail
    runtime.becomes("down")
    found = checks(broken := look(site))
    assert found["target api"].status == "warning"
    assert found["target api"].detail == "down: status 503"
    assert found["target aside"].detail.endswith("(not required)")
    assert broken.ready


def test_without_a_url_it_says_not_validated(site: Site) -> None:
    site.configure(urls=[], rollback="true")
    found = look(site)
    assert found.ready
    assert "NOT VALIDATED" in found.as_text
    assert "NOT VALIDATED" in found.as_json
    refused = look(site, OPSGATE_FAIL_ON_SKIPPED="true")
    assert refused.as_text.startswith("prod is NOT ready for a release: 1 problem")


def test_the_rollback_check_runs_in_a_room_of_its_own(site: Site, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    check = 'env -0 > told; echo left=1 > "$OPSGATE_OUTPUT"; test -f "$OPSGATE_EVIDENCE"; echo reached'
    site.configure(deploy="true", rollback="true", rollback_check=check)
    result = site.run("doctor", TMPDIR=str(scratch))
    told = site.variables("told")
    assert told["OPSGATE_STAGE"] == "rollback_check"
    assert Path(told["OPSGATE_OUTPUT"]).is_relative_to(scratch)
    assert list(scratch.iterdir()) == []
    assert said(result) == [
        "note      running the rollback check, up to 30 s",
        "rollback_check | reached",
        "note      asking 1 target once, up to 1 s",
    ]
    assert not site.evidence.exists()


def test_a_rollback_check_that_fails_is_a_problem_with_its_words(site: Site) -> None:
    site.configure(deploy="true", rollback="true", rollback_check="echo no route to host; exit 7")
    result = site.run("doctor", code=2)
    assert re.search(
        r"^  PROBLEM  rollback check +failed: exit 7: no route to host$", result.out, re.MULTILINE
    )
    assert "1. rollback check: mend the way back" in result.out


def test_redeploy_without_a_last_good_is_said_and_is_not_refused(site: Site) -> None:
    site.configure(deploy="true", rollback="redeploy")
    found = look(site)
    assert found.ready
    assert "a first release cannot be rolled back by redeploy" in checks(found)["rollback"].detail
    add_passed(store_of(site), "good", "v1", environment="prod")
    found = look(site)
    assert checks(found)["rollback"].detail == "redeploy of v1"
    assert checks(found)["last good"].detail.startswith("v1, run good, finished ")


def test_no_rollback_or_one_that_may_not_run_is_a_warning(site: Site) -> None:
    assert checks(look(site, OPSGATE_ROLLBACK="false"))["rollback"].status == "warning"
    site.configure(deploy="true")
    found = look(site)
    assert (checks(found)["rollback"].status, found.ready) == ("warning", True)


def test_the_cap_on_automatic_rollbacks_is_told_before_it_withholds_one(site: Site) -> None:
    site.configure(top="max_rollbacks_per_day = 1", rollback="true")
    settings = load(Flags(), ENVIRON, site.path)
    add_failed(store_of(site), "bad", "v2", environment="prod")
    now = readiness.way_back(settings, store_of(site), readiness.Way(None), now=at_epoch(60))
    cap = next(each for each in now if each.name == "rollback cap")
    assert cap.status == "warning"
    assert cap.hint.endswith("a person can always: opsgate rollback --env prod --reason 'WHY'")
    later = readiness.way_back(settings, store_of(site), readiness.Way(None), now=at_epoch(2 * 86400))
    assert {each.name: each.status for each in later}["rollback cap"] == "ok"


def at_epoch(seconds: float) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at(seconds)).timestamp()


def test_a_place_where_no_evidence_can_be_written_is_a_problem(site: Site) -> None:
    (site.path / "file").write_text("")
    (site.path / "loose").symlink_to(site.path / "nowhere" / "x")
    for place in ("file", "file/below", "loose"):
        found = look(site, OPSGATE_EVIDENCE_DIR=place)
        assert (checks(found)["evidence directory"].status, found.ready) == ("problem", False), place
    (site.path / "here").mkdir()
    (site.path / "here" / "ledger.jsonl").mkdir()
    assert checks(look(site, OPSGATE_EVIDENCE_DIR="here"))["evidence directory"].status == "problem"


def test_a_directory_without_the_right_to_write_is_a_problem(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.evidence.mkdir(parents=True)
    site.evidence.chmod(0o500)
    if os.geteuid() == 0:
        # root may write everywhere, and would be told so.
        monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    assert checks(look(site))["evidence directory"].detail == f"{site.evidence} cannot be written"


def test_who_holds_the_environment_is_named(site: Site) -> None:
    holder = Holder(run_id="r7", pid=4711, host="ci-3", started_at=at(0), task="release")
    lock = EnvironmentLock(site.evidence, "prod")
    lock.acquire(holder)
    try:
        found = look(site)
    finally:
        lock.release()
    held = checks(found)["lock"]
    assert held.status == "problem"
    assert held.detail == f"held by run r7 (release, process 4711 on ci-3, since {at(0)})"
    assert "`opsgate rollback --env prod --force`" in held.hint
    assert checks(look(site))["lock"].detail == "no run is under way"
    note = site.evidence / ".locks" / "prod.holder.json"
    note.write_bytes(msgspec.json.encode(holder))
    assert checks(look(site))["lock"].status == "ok"
    lock.acquire(holder)
    try:
        note.unlink()
        nameless = checks(look(site))["lock"]
    finally:
        lock.release()
    assert (nameless.status, nameless.detail) == ("problem", "held by another run")


def test_a_ledger_that_was_edited_and_a_clock_that_went_back_are_warnings(site: Site) -> None:
    store = store_of(site)
    for number in range(3):
        add(store, record(f"r{number}", start=number, environment="prod"), end=number + 1)
    path = store.ledger.path
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    broken = {
        b"".join([lines[0], lines[2]]): "line 2: follows a line that is not there",
        whole.replace(b'"r1"', b'"rX"', 1): "line 2: its hash is not that of its content (edited)",
        whole.replace(b":", b": ", 1): "line 1: its hash is not that of its content (edited)",
        lines[0] + b"{}\n": "line 2: is no line of a ledger (edited)",
    }
    for content, words in broken.items():
        path.write_bytes(content)
        found = look(site)
        assert (checks(found)["ledger"].status, found.ready) == ("warning", True)
        assert words in checks(found)["ledger"].detail
    path.write_bytes(whole)
    assert checks(look(site))["ledger"].status == "ok"
    clocks = [
        {each.name: each.status for each in local.ledger(store, now=at_epoch(seconds))}["clock"]
        for seconds in (-3600, 3600)
    ]
    assert clocks == ["warning", "ok"]


def test_a_run_that_was_killed_is_told(site: Site) -> None:
    store = store_of(site)
    store.begin(record("killed", environment="prod"))
    last = checks(look(site))["last run"]
    assert last.status == "warning"
    assert "this run has not finished" in last.detail
    assert last.hint == f"see why: opsgate evidence --run killed --evidence-dir {site.evidence}"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program-here --now", "command not found: no-such-program-here"),
        ("if true; then", "the shell cannot read it"),
        ("./missing", "there is no "),
        ("./state", "is not executable"),
    ],
)
def test_a_hook_that_cannot_run_is_a_problem(site: Site, command: str, words: str) -> None:
    site.configure(deploy=command, rollback="true")
    found = look(site)
    assert checks(found)["hook deploy"].status == "problem"
    assert words in checks(found)["hook deploy"].detail
    assert any(command in step for step in found.next_steps)


def test_a_hook_that_cannot_be_looked_for_is_a_problem(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "sh" in arguments:
            raise subprocess.TimeoutExpired(arguments, options["timeout"])
        return really(arguments, **options)

    really = subprocess.run
    site.configure(deploy=f"./{'x' * 300}", rollback="cd /")
    assert "File name too long" in checks(look(site))["hook deploy"].detail
    # A directory on the PATH that answers as slowly cannot be had.
    monkeypatch.setattr(subprocess, "run", run)
    found = checks(look(site))["hook rollback"]
    assert found.status == "problem"
    assert "timed out after 5" in found.detail


def test_a_hook_is_read_and_not_run(site: Site) -> None:
    (site.path / "deploy").write_text("#!/bin/sh\n")
    (site.path / "deploy").chmod(0o755)
    site.configure(deploy="FROM=here ./deploy && touch ran", rollback='"$BACK" now')
    found = checks(look(site))
    assert found["hook deploy"].detail == f"{site.path / 'deploy'} is there"
    assert found["hook rollback"].status == "ok"
    assert not (site.path / "ran").exists()


def test_one_working_command_of_a_chain_is_a_way_back(site: Site) -> None:
    site.configure(rollback=["no-such-program-here", "true"], incident="no-such-program-here")
    found = look(site)
    assert checks(found)["hook rollback 1 of 2"].status == "warning"
    assert checks(found)["hook incident"].status == "warning"
    assert found.ready
    site.configure(rollback=["no-such-program-here", "./neither"])
    assert not look(site).ready


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ('ssh prod deploy < "$OPSGATE_PINS"', "ssh"),
        ("A=1 B='x y' ./go now", "./go"),
        ("# why\n( cd /srv && make )", "cd"),
        ("! grep -q x file", "grep"),
        ("exec scripts/page", "scripts/page"),
        ("'my tool' x", "my tool"),
        ('"$TOOL" x', None),
        ("~/bin/x", None),
        ("$(which x)", None),
        ("< in cat", None),
        ("'open", None),
        ("exec 2>&1; ssh prod deploy", None),
        ("exec 3>&1; ssh prod deploy", None),
        ("exec -a x y", None),
        ("2>/dev/null ssh prod true", None),
        ("A=1 2>/dev/null ssh prod true", None),
        ('f() { ssh h "$@"; }; f deploy', None),
        ("go () {\n  ssh h\n}\ngo", None),
        ("X=${A:-a b} ssh y", None),
        ("X=${A:-a} ssh y", "ssh"),
        ("X=$(cat x) ssh y", None),
        ("cat <<EOF\nit's\nEOF", "cat"),
    ],
)
def test_the_word_that_a_command_begins_with(command: str, word: str | None) -> None:
    assert first_word(command) == word


def test_production_refuses_a_dirty_work_tree(site: Site) -> None:
    site.configure(rollback="true", production=True, extra='[publish]\ncommand = "true"\n')
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", "-C", str(site.path)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True, env={**ENVIRON, "HOME": str(site.path)})
    found = look(site)
    assert checks(found)["work tree"].status == "ok"
    assert len(checks(found)["revision"].detail) == 12
    (site.path / "loose").write_text("")
    found = look(site)
    assert checks(found)["work tree"].status == "problem"
    assert "?? loose" in checks(found)["work tree"].detail
    site.configure(rollback="true", extra='[publish]\ncommand = "true"\n')
    assert checks(look(site))["work tree"].status == "warning"


def test_a_target_that_judges_the_revision_needs_one(site: Site) -> None:
    site.configure(rollback="true", urls=[site.url(revision="json:version")])
    assert checks(look(site))["revision"].status == "warning"
    assert checks(look(site, OPSGATE_REVISION="v9"))["revision"].detail == "v9"


def test_control_urls_are_asked_too(site: Site, runtime: Runtime) -> None:
    silent = f"http://127.0.0.1:{free_port()}/"
    site.configure(rollback="true", control_urls=[runtime.url, silent])
    runtime.becomes("down")
    found = checks(look(site))
    assert found[f"control {runtime.url}"].status == "ok"
    assert found[f"control {silent}"].status == "warning"


def holds(digests: list[str]) -> Callable[[Asked], Reply]:
    """A registry that serves these digests of any repository."""

    def reply(asked: Asked) -> Reply:
        if "/manifests/" not in asked.path:
            return Reply()
        return Reply(status=200 if asked.path.rpartition("/")[2] in digests else 404)

    return reply


def good_images(site: Site, host: str) -> None:
    image = Image(name="web", reference=f"{host}/acme/web:t1", digest=DIGEST)
    add_passed(store_of(site), "good", "v1", environment="prod", images=[image])


def test_images_of_the_last_good_release_are_looked_for(site: Site) -> None:
    kept: list[str] = [DIGEST]
    with serving(holds(kept)) as registry:
        good_images(site, registry.host)
        site.configure(deploy="true", rollback="redeploy")
        found = look(site)
        assert checks(found)["last good image web"].status == "ok"
        assert found.ready
        kept.clear()
        found = look(site)
        assert checks(found)["last good image web"].status == "problem"
        assert f"{registry.host}/acme/web@{DIGEST} cannot be pulled" in found.as_text
        # A command of one's own may know another way.
        site.configure(deploy="true", rollback="true")
        found = look(site)
        assert checks(found)["last good image web"].status == "warning"
        assert found.ready


def test_a_registry_that_refuses_to_tell_is_a_warning(site: Site) -> None:
    with serving(lambda _: Reply(status=403)) as registry:
        good_images(site, registry.host)
        site.configure(deploy="true", rollback="redeploy")
        found = look(site)
    assert checks(found)["last good image web"].status == "warning"
    assert found.ready


def compose_site(site: Site, image: str, *, engine: str = "exit 0") -> dict[str, str]:
    """A site published by compose, and a `docker` that answers what doctor asks."""
    programs = site.path / "bin"
    programs.mkdir()
    answer = json.dumps(
        {"services": {"web": {"image": image, "build": {"context": "."}}, "db": {"image": "postgres"}}}
    )
    script = f"""#!/bin/sh
case "$*" in
  "compose version") exit 0 ;;
  *" config --format json") echo '{answer}' ;;
  *" ps --quiet") {engine} ;;
  *) echo "asked: $*" >&2; exit 9 ;;
esac
"""
    (programs / "docker").write_text(script)
    (programs / "docker").chmod(0o755)
    (site.path / "compose.yaml").write_text("services: {}\n")
    publish = '[publish]\ncompose_files = ["compose.yaml"]\n'
    site.configure(deploy="compose", rollback="true", extra=publish)
    return {"PATH": f"{programs}{os.pathsep}{ENVIRON['PATH']}", "OPSGATE_REVISION": "v1"}


def test_what_compose_would_build_is_read_and_its_registry_asked(site: Site) -> None:
    with serving(holds([])) as registry:
        env = compose_site(site, f"{registry.host}/acme/web:t1")
        found = look(site, **env)
        assert found.ready
        assert f"builds {registry.host}/acme/web:t1" in checks(found)["compose"].detail
        assert checks(found)[f"registry {registry.host}"].status == "ok"
        assert [asked.path for asked in registry.asked] == ["/v2/"]


def test_a_registry_that_wants_another_login_is_a_problem(site: Site) -> None:
    challenge = Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    with serving(lambda _: challenge) as registry:
        found = look(site, **compose_site(site, f"{registry.host}/acme/web:t1"))
        assert checks(found)[f"registry {registry.host}"].status == "problem"
        assert f"docker login {registry.host}" in found.as_text


def test_an_engine_that_is_down_is_a_problem_in_its_own_words(site: Site) -> None:
    env = compose_site(site, "127.0.0.1:9/web:t1", engine="echo Cannot connect to the daemon; exit 1")
    found = look(site, **env)
    assert not found.ready
    assert "Cannot connect to the daemon" in checks(found)["compose"].detail


def test_production_refuses_names_without_a_registry(site: Site) -> None:
    env = compose_site(site, "acme/web:t1")
    publish = '[publish]\ncompose_files = ["compose.yaml"]\n'
    site.configure(deploy="compose", rollback="true", production=True, extra=publish)
    found = look(site, **env)
    assert checks(found)["compose"].status == "problem"
    assert "names no registry" in checks(found)["compose"].detail


def test_compose_files_that_are_not_there_are_a_problem(site: Site) -> None:
    site.configure(rollback="true", extra='[publish]\ncompose_files = ["gone.yaml"]\n')
    assert "gone.yaml does not exist" in checks(look(site))["compose"].detail


def test_a_configuration_that_cannot_be_used_is_one_document_too(site: Site) -> None:
    site.configure(rollbck="true")
    result = site.run("doctor", "--json", code=2)
    assert [each["name"] for each in result.document["checks"]] == ["configuration"]
    assert "environments.prod.rollbck" in result.document["checks"][0]["detail"]
    assert "environments.prod.rollbck" in result.err
    assert site.run("doctor", code=2).out == ""
    padded = site.run("doctor", "--json", code=2, OPSGATE_ENV=" prod ")
    assert padded.document["environment"] == "prod"


def test_no_secret_is_shown(site: Site, runtime: Runtime) -> None:
    secret = "hunter2-hunter2"
    check = "echo opened with $DEPLOY_PASSWORD; exit 1"
    url = f"{runtime.url}?token={secret}"
    site.configure(
        deploy=f"./{secret} --password={secret}", rollback_check=check, rollback="true", urls=[url]
    )
    for arguments in (["doctor"], ["doctor", "--json"]):
        result = site.run(*arguments, code=2, DEPLOY_PASSWORD=secret)
        assert "opened with ***" in result.out
        assert "opened with ***" in result.err
        assert secret not in result.out + result.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_at_once_and_its_hook_with_it(site: Site, signum: signal.Signals) -> None:
    scratch = site.path / "scratch"
    scratch.mkdir()
    check = "echo $$ > pid; echo > begun; exec sleep 60"
    site.configure(rollback="true", rollback_check=check)
    with site.during("doctor", TMPDIR=str(scratch)) as process:
        began = time.monotonic()
        os.kill(process.pid, signum)
        result = site.ended(process, 128 + signum)
    assert time.monotonic() - began < 5
    assert result.out == ""
    assert said(result) == [
        "note      running the rollback check, up to 30 s",
        f"opsgate: interrupted by {signum.name}",
    ]
    assert not alive(int((site.path / "pid").read_text()))
    assert list(scratch.iterdir()) == []


def test_a_signal_ends_the_wait_for_a_registry_at_once(site: Site) -> None:
    with Server(lambda peer: peer.hang()) as registry:
        good_images(site, f"{registry.host}:{registry.port}")
        process = site.start("doctor")
        give_up = time.monotonic() + 30
        while not registry.connections and time.monotonic() < give_up:
            time.sleep(0.01)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        result = site.ended(process, 130)
    assert time.monotonic() - began < 5
    assert said(result)[-2:] == [
        "note      asking registries, up to 10 s a question",
        "opsgate: interrupted by SIGINT",
    ]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"SSL_CERT_FILE": "/nonexistent"}, "cannot read the certificates that the environment names"),
        ({"https_proxy": "socks5://127.0.0.1:1"}, "https_proxy: not the URL of an http or https proxy"),
    ],
)
def test_targets_that_cannot_be_asked_at_all_are_a_problem_among_the_findings(
    site: Site, env: dict[str, str], words: str
) -> None:
    site.configure(rollback="true", rollback_check="true", urls=["https://127.0.0.1:9/"])
    result = site.run("doctor", "--json", code=2, **env)
    found = checks(msgspec.json.decode(result.out, type=Diagnosis))
    assert words in found["targets"].detail
    assert [name for name, each in found.items() if each.status == "problem"] == ["targets"]
    assert found["rollback check"].status == "ok"


@pytest.mark.parametrize("none_at_all", [False, True])
def test_no_room_to_look_is_said_in_words(site: Site, none_at_all: bool) -> None:
    # Where every directory is full, Python does not even name one.
    full = "def full(): raise FileNotFoundError(2, 'No usable temporary directory')\n"
    script = f"import sys, tempfile\n{full}tempfile.tempdir = sys.argv.pop(1)\n"
    if none_at_all:
        script += "tempfile.tempdir, tempfile._get_default_tempdir = None, full\n"
    script += "from opsgate.program import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, str(site.path / "nowhere"), "doctor", "--json"],
        cwd=site.path,
        env=site.environ({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    found = checks(msgspec.json.decode(done.stdout, type=Diagnosis))
    assert found["scratch directory"].status == "problem"
    assert "no scratch directory can be made" in found["scratch directory"].detail
    assert "TMPDIR" in found["scratch directory"].hint
    assert found["rollback"].status == "ok"


def test_what_to_do_names_problems_first_and_nothing_twice(site: Site) -> None:
    found = conclude(
        load(Flags(), ENVIRON, site.path),
        [
            Check(name="a", status="warning", detail="x", hint="later"),
            Check(name="b", status="problem", detail="::error::y\nz", hint="now"),
            Check(name="b", status="problem", detail="w", hint="now"),
        ],
        now=0.0,
    )
    assert found.next_steps == ("b: now", "a: later")
    assert found.as_text.splitlines()[0] == "prod is NOT ready for a release: 2 problems, 1 warning"
    assert "  PROBLEM  b  ::error::y; z" in found.as_text
