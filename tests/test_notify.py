"""Others are told of a failure and of the pass after it: real commands, real services, their faults."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from opsgate.errors import ConfigurationError
from opsgate.evidence.record import decode
from opsgate.settings import Flags, Settings, describe, load
from opsgate.stages.incident import issues
from opsgate.stages.incident.delivery import Post, Undelivered
from opsgate.stages.incident.notify import Job
from tests.e2e.rig import Runtime, Site
from tests.live import servers

KEY = "a-key-nobody-knows"
DATA = Path(__file__).parent / "data/records"
FAILING = {"deadline": "600ms", "soak": "0s", "successes": 1}


class Service:
    """Takes JSON requests and keeps them; as GitHub it also keeps issues."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.issues: list[dict[str, Any]] = []
        self.asked_once: Callable[[], None] = lambda: None
        self.answers: list[int] = []
        """Statuses to answer with before it works."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.service = self  # type: ignore[attr-defined]
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def asked(self) -> list[str]:
        return [f"{method} {path.partition('?')[0]}" for method, path, _, _ in self.requests]

    def answer(self, method: str, path: str, body: Any) -> Any:
        parts = path.partition("?")[0].removeprefix("/repos/octo/app/issues").strip("/").split("/")
        if method == "GET":
            asked = re.search(r"[?&]page=(\d+)", path)
            page = int(asked[1]) if asked else 1
            found = [issue for issue in reversed(self.issues) if issue["state"] == "open"]
            return found[100 * (page - 1) : 100 * page]
        if parts == [""]:
            self.issues.append({"number": len(self.issues) + 1, "state": "open", "comments": [], **body})
            return self.issues[-1]
        issue = self.issues[int(parts[0]) - 1]
        if parts[1:] == ["comments"]:
            issue["comments"].append(body["body"])
        else:
            issue.update(body)
        return issue


class _Handler(BaseHTTPRequestHandler):
    def _serve(self) -> None:
        service: Service = self.server.service  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service.requests.append((self.command, self.path, dict(self.headers), body))
        service.asked_once()
        status = service.answers.pop(0) if service.answers else 200
        document = (
            service.answer(self.command, self.path, json.loads(body or b"null"))
            if "/repos/" in self.path
            else {}
        )
        data = json.dumps(document).encode() if status < 300 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the server's own names

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    runtime = Runtime(tmp_path / "state")
    runtime.becomes("down")
    yield Site(tmp_path, runtime)
    runtime.close()


def hooked(site: Site, url: str, **keys: Any) -> None:
    """The environment with a webhook, and a gate that is over soon."""
    extra = f'[environments.prod.notify]\nwebhook_url = "{url}"\n'
    site.configure(extra=extra, gate=FAILING, **keys)


def as_github(site: Site, service: Service, **env: str) -> dict[str, str]:
    site.configure(extra="[notify]\ngithub_issues = true\n", gate=FAILING)
    return {
        "GITHUB_API_URL": service.url,
        "GITHUB_REPOSITORY": "octo/app",
        "GITHUB_TOKEN": "ghs_0123456789",
        **env,
    }


# --- webhook --------------------------------------------------------------------------------------


def test_the_webhook_gets_the_record_signed(site: Site, service: Service) -> None:
    hooked(site, f"{service.url}/hook")
    site.run("gate", code=1, RUNTIME_WEBHOOK_SECRET=KEY)
    ((method, path, headers, body),) = service.requests
    assert (method, path) == ("POST", "/hook")
    assert body == (site.evidence / "latest.json").read_bytes()
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Opsgate-Event"] == "failed"
    expected = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Opsgate-Signature-256"] == f"sha256={expected}"
    assert KEY.encode() not in body


def test_without_a_key_it_is_not_signed(site: Site, service: Service) -> None:
    hooked(site, service.url)
    site.run("gate", code=1)
    assert "X-Opsgate-Signature-256" not in service.requests[0][2]


def test_recovery_is_told_once(site: Site, service: Service) -> None:
    hooked(site, service.url)
    site.run("gate", code=1)
    site.runtime.becomes("up")
    site.run("gate", "--deadline", "20s")
    site.run("gate", "--deadline", "20s")
    assert [headers["X-Opsgate-Event"] for _, _, headers, _ in service.requests] == ["failed", "recovered"]


def test_what_decided_nothing_tells_nobody(site: Site, service: Service) -> None:
    hooked(site, service.url, urls=[])
    site.run("gate")
    assert service.requests == []


def test_off_unless_configured(site: Site, service: Service) -> None:
    site.configure(gate=FAILING)
    site.run(
        "gate", code=1, GITHUB_API_URL=service.url, GITHUB_REPOSITORY="octo/app", GITHUB_TOKEN="ghs_012345"
    )
    assert service.requests == []


def test_the_incident_hook_runs_beside_it(site: Site) -> None:
    with servers.Server(servers.status(400)) as server:
        hooked(site, server.url, incident='echo "$OPSGATE_STATUS" > told')
        result = site.run("gate", code=1)
    assert (site.path / "told").read_text() == "failed\n"
    assert f"webhook: 127.0.0.1:{server.port} answered 400" in result.err


def test_nothing_of_it_changes_the_verdict_or_shows_the_url(site: Site) -> None:
    site.runtime.becomes("up")
    site.configure(gate=FAILING, extra="[notify]\ngithub_issues = true\n")
    result = site.run("gate", "--deadline", "20s")
    assert "GitHub issue: GITHUB_REPOSITORY names no repository" in result.err
    site.runtime.becomes("down")
    hooked(site, "http://127.0.0.1:1/services/T0/secret-path")
    with servers.Server(servers.status(404)) as server:
        hooked(site, f"{server.url}services/T0/secret-path")
        result = site.run("gate", code=1)
    assert "answered 404" in result.err
    assert "secret-path" not in result.err + result.out


def test_an_interrupted_run_tells_in_a_hurry(site: Site, service: Service) -> None:
    hooked(site, service.url, deploy="echo begun > begun; sleep 30")
    with site.during("deploy") as process:
        process.terminate()
        site.ended(process, 143)
    assert json.loads(service.requests[0][3])["status_reason"] == "interrupted"


def test_nobody_can_hold_up_an_interrupted_run(site: Site) -> None:
    with servers.Server(servers.hang()) as server:
        hooked(site, server.url, deploy="echo begun > begun; sleep 30")
        with site.during("deploy") as process:
            process.terminate()
            began = time.monotonic()
            result = site.ended(process, 143)
        assert time.monotonic() - began < 5
    assert "webhook: " in result.err


# --- one delivery ---------------------------------------------------------------------------------


def post(limit: float = 5.0) -> Post:
    return Post(time.monotonic() + limit, threading.Event(), {})


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(service: Service, status: int) -> None:
    service.answers = [status]
    assert post().send("POST", service.url, {}, b"{}").status == 200
    assert len(service.requests) == 2


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
def test_what_does_not_pass_is_not(service: Service, status: int) -> None:
    service.answers = [status]
    with pytest.raises(Undelivered, match=f"answered {status}"):
        post().send("POST", service.url, {}, b"{}")
    assert len(service.requests) == 1


def test_a_connection_that_was_cut_is_tried_again(service: Service) -> None:
    with servers.Server(servers.in_turn(servers.reset_after(b""), servers.healthy())) as server:
        assert post().send("POST", server.url, {}, b"{}").status == 200


def test_retry_after_is_waited_for_only_within_the_limit() -> None:
    with servers.Server(servers.status(503, ("Retry-After", "30"))) as server:
        began = time.monotonic()
        with pytest.raises(Undelivered, match="answered 503"):
            post(10).send("POST", server.url, {}, b"{}")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("script", "limit", "words"),
    [
        (servers.close_at_once(), 2.0, "closed connection without response"),
        (
            servers.endless(servers.response(b"", length=1 << 40), b"x" * 65536),
            5.0,
            "more than 4194304 bytes",
        ),
        (servers.answer(b"nonsense\r\n\r\n"), 2.0, "nonsense"),
    ],
)
def test_what_is_no_answer_has_words(script: servers.Script, limit: float, words: str) -> None:
    with servers.Server(script) as server, pytest.raises(Undelivered, match=words):
        post(limit).send("POST", server.url, {}, b"{}")


@pytest.mark.parametrize(
    "script",
    [servers.hang(), servers.drip(servers.response(), 0.05), servers.hang_after(b"HTTP/1.1 200 OK\r\n")],
)
def test_a_job_never_takes_longer_than_its_limit(script: servers.Script) -> None:
    with servers.Server(script) as server:
        began = time.monotonic()
        job = Job("webhook", 0.5, {}, lambda post: cast("None", post.send("POST", server.url, {}, b"{}")))
        problem = job.finish(lambda: False)
        assert time.monotonic() - began < 3
    assert problem is not None
    assert problem.startswith("webhook: ")


def test_a_dripping_answer_is_bounded_as_a_whole() -> None:
    with servers.Server(servers.drip(servers.response(), 0.05)) as server:
        began = time.monotonic()
        with pytest.raises(Undelivered, match="gave no whole answer in time"):
            post(0.5).send("POST", server.url, {}, b"{}")
        assert time.monotonic() - began < 3


def test_what_was_given_up_is_not_sent_again(service: Service) -> None:
    service.answers = [503] * 9
    stop = threading.Event()
    service.asked_once = stop.set
    with pytest.raises(Undelivered, match="given up"):
        Post(time.monotonic() + 30, stop, {}).send("POST", service.url, {}, b"{}")
    sent = len(service.requests)
    for thread in threading.enumerate():
        if thread.name == f"exchange {service.url[7:]}":
            thread.join(5)
    # A wait that has begun is not cut short.
    assert len(service.requests) <= sent + 1


def test_what_cannot_be_sent_is_not_quoted() -> None:
    with pytest.raises(Undelivered, match="cannot be sent") as caught:
        post().send("POST", "http://127.0.0.1:1/", {"X-Key": "secret\nwords"}, b"{}")
    assert "secret" not in str(caught.value)


def test_the_certificates_trusted_are_those_of_the_run(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with servers.Server(servers.healthy(), tls=context) as server:
        trusting = Post(time.monotonic() + 5, threading.Event(), {"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
        assert trusting.send("POST", server.url, {}, b"{}").status == 200
        with pytest.raises(Undelivered, match="no trusted TLS connection"):
            post().send("POST", server.url, {}, b"{}")


def test_a_job_ends_with_an_interrupt() -> None:
    with servers.Server(servers.hang()) as server:
        began = time.monotonic()
        job = Job("webhook", 30, {}, lambda post: cast("None", post.send("POST", server.url, {}, b"{}")))
        assert job.finish(lambda: True) == "webhook: given up"
        assert time.monotonic() - began < 3


def test_what_went_wrong_and_what_to_do_is_one_line() -> None:
    def work(_: Post) -> None:
        raise Undelivered("answered 403", "does the job have `issues: write`?")

    problem = Job("GitHub issue", 5, {}, work).finish(lambda: False)
    assert problem == "GitHub issue: answered 403; does the job have `issues: write`?"


def test_a_defect_in_a_job_is_a_warning() -> None:
    def work(_: Post) -> None:
        raise RuntimeError("secret words")

    assert Job("webhook", 5, {}, work).finish(lambda: False) == "webhook: RuntimeError"


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_job_that_no_thread_can_do_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    job = Job("webhook", 5, {}, lambda _: None)
    assert job.finish(lambda: False) == "webhook: this machine: can't start new thread"


def test_without_threads_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(
        Undelivered, match=r"^127\.0\.0\.1:1 was not asked: this machine: can't start new thread"
    ):
        post().send("POST", "http://127.0.0.1:1/", {}, b"{}")


# --- issues ---------------------------------------------------------------------------------------


def test_an_issue_lives_as_long_as_the_incident(site: Site, service: Service) -> None:
    env = as_github(site, service)
    site.run("gate", code=1, **env)
    site.run("gate", code=1, **env)
    (issue,) = service.issues
    assert issue["title"].startswith("Rollout failed: prod ")
    assert issue["labels"] == ["rollout-failed"]
    assert issue["body"].startswith("## ")
    assert len(issue["comments"]) == 1
    site.runtime.becomes("up")
    site.run("gate", "--deadline", "20s", code=0, **env)
    assert (issue["state"], issue["state_reason"], len(issue["comments"])) == ("closed", "completed", 2)
    site.run("gate", "--deadline", "20s", code=0, **env)
    assert len(issue["comments"]) == 2
    site.runtime.becomes("down")
    site.run("gate", code=1, **env)
    assert [each["state"] for each in service.issues] == ["closed", "open"]
    assert {headers["Authorization"] for _, _, headers, _ in service.requests} == {"Bearer ghs_0123456789"}


def kept(name: str, environment: str = "prod") -> Any:
    record = decode((DATA / f"{name}.json").read_bytes())
    record.environment = environment
    return record


@pytest.fixture
def where(service: Service) -> issues.Place:
    return issues.place(
        {"GITHUB_API_URL": service.url, "GITHUB_REPOSITORY": "octo/app", "GITHUB_TOKEN": "ghs_0123456789"}
    )


def test_environments_have_issues_of_their_own(service: Service, where: issues.Place) -> None:
    for environment in ("prod", "prod-eu", "prod"):
        issues.tell(kept("failed-recovered", environment), where, post())
    assert [len(issue["comments"]) for issue in service.issues] == [1, 0]
    issues.tell(kept("passed", "prod-eu"), where, post())
    assert [issue["state"] for issue in service.issues] == ["open", "closed"]


def test_what_a_server_said_does_not_make_it_another_environments_issue(
    service: Service, where: issues.Place
) -> None:
    record = kept("failed-recovered")
    record.stages.gate.targets[0].name = "<!-- opsgate environment=other -->"
    issues.tell(record, where, post())
    assert "<!-- opsgate environment=other -->" in service.issues[0]["body"]
    issues.tell(kept("passed", "other"), where, post())
    assert service.issues[0]["state"] == "open"
    issues.tell(kept("passed"), where, post())
    assert service.issues[0]["state"] == "closed"


def test_a_pull_request_is_no_issue(service: Service, where: issues.Place) -> None:
    mark = "<!-- opsgate environment=prod -->"
    service.issues = [{"number": 1, "state": "open", "comments": [], "body": mark, "pull_request": {}}]
    issues.tell(kept("passed"), where, post())
    assert service.asked() == ["GET /repos/octo/app/issues"]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_issue_whose_answer_was_lost_has_no_twin(
    service: Service, where: issues.Place, status: int
) -> None:
    service.answers = [200, status]
    issues.tell(kept("failed-recovered"), where, post())
    (issue,) = service.issues
    assert issue["comments"] == []
    assert service.asked() == [f"{method} /repos/octo/app/issues" for method in ("GET", "POST", "GET")]


def test_an_issue_that_was_not_taken_is_sent_again() -> None:
    refused, opened = servers.status(503), servers.healthy(b"{}")
    nothing = servers.healthy(b"[]")
    with servers.Server(servers.in_turn(nothing, refused, nothing, opened)) as server:
        where = issues.place(
            {"GITHUB_API_URL": server.url, "GITHUB_REPOSITORY": "octo/app", "GITHUB_TOKEN": "ghs_0123456789"}
        )
        issues.tell(kept("failed-recovered"), where, post())
        assert len(server.requests) == 4


def test_an_issue_is_found_behind_a_hundred_others(service: Service, where: issues.Place) -> None:
    for number in range(102):
        mark = f"<!-- opsgate environment={'prod' if number < 2 else number} -->"
        service.issues.append({"number": number + 1, "state": "open", "comments": [], "body": mark})
    issues.tell(kept("failed-recovered"), where, post())
    assert [len(issue["comments"]) for issue in service.issues[:2]] == [0, 1]
    issues.tell(kept("passed"), where, post())
    assert [issue["state"] for issue in service.issues].count("closed") == 2
    assert len(service.issues) == 102


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "`issues: write`"), (403, "`issues: write`"), (404, "GITHUB_TOKEN"), (410, "switched off")],
)
def test_a_refusal_of_github_says_what_to_do(
    service: Service, where: issues.Place, status: int, words: str
) -> None:
    service.answers = [status]
    with pytest.raises(Undelivered, match=f"answered {status}") as caught:
        issues.tell(kept("failed-recovered"), where, post())
    assert words in caught.value.hint
    assert len(service.requests) == 1


def test_a_refused_issue_is_not_sent_again(service: Service, where: issues.Place) -> None:
    service.answers = [200, 422]
    with pytest.raises(Undelivered, match="answered 422"):
        issues.tell(kept("failed-recovered"), where, post())
    assert len(service.requests) == 2


def test_the_link_to_the_run_and_the_mark_survive_any_length(service: Service, where: issues.Place) -> None:
    record = kept("failed-recovered")
    record.ci.run_url = "https://github.example/octo/app/actions/runs/7"
    record.next_steps = ["x" * 1999] * 30
    for command in record.stages.rollback.commands:
        command.exit_code, command.output_tail = 1, "y" * 6000
    issues.tell(record, where, post())
    (issue,) = service.issues
    assert len(issue["body"]) <= issues.BODY_LIMIT
    assert "[The workflow run](https://github.example/octo/app/actions/runs/7)" in issue["body"]
    assert issue["body"].endswith("<!-- opsgate environment=prod -->\n")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"GITHUB_TOKEN": "x"}, "names no repository"),
        ({"GITHUB_REPOSITORY": "octo/app/../other", "GITHUB_TOKEN": "x"}, "names no repository"),
        ({"GITHUB_REPOSITORY": "octo/app"}, "GITHUB_TOKEN is not set"),
        (
            {"GITHUB_REPOSITORY": "octo/app", "GITHUB_TOKEN": "x", "GITHUB_API_URL": "http://ghe.example"},
            "in the clear",
        ),
    ],
)
def test_where_issues_cannot_go(environ: dict[str, str], words: str) -> None:
    with pytest.raises(Undelivered, match=words):
        issues.place(environ)


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("body", [b"not json", b'{"message": "odd"}', b"[1, null, {}]", b"[" * 20000])
def test_odd_answers_of_github_are_survived(body: bytes) -> None:
    with servers.Server(servers.healthy(body)) as server:
        where = issues.place(
            {"GITHUB_API_URL": server.url, "GITHUB_REPOSITORY": "octo/app", "GITHUB_TOKEN": "ghs_0123456789"}
        )
        job = Job("GitHub issue", 5, {}, lambda post: issues.tell(kept("passed"), where, post))
        problem = job.finish(lambda: False)
    assert problem in {None, "GitHub issue: GitHub's answer is not JSON"}


# --- settings -------------------------------------------------------------------------------------


def settings(cwd: Path, text: str, **environ: str) -> Settings:
    (cwd / "opsgate.toml").write_text(text, encoding="utf-8")
    return load(Flags(), environ, cwd)


def test_the_webhook_is_off_by_default(tmp_path: Path) -> None:
    notify = settings(tmp_path, "").notify
    assert (notify.webhook_url, notify.webhook_secret, notify.github_issues) == (None, None, False)


def test_an_environment_may_have_its_own(tmp_path: Path) -> None:
    text = """
    [notify]
    webhook_url = "https://all.example/hook"
    github_issues = true
    [environments.default.notify]
    webhook_url = "https://own.example/hook"
    webhook_secret_env = "HOOK_KEY"
    """
    found = settings(tmp_path, text, HOOK_KEY=KEY)
    assert found.notify.webhook_url == "https://own.example/hook"
    assert found.notify.webhook_secret is not None
    assert found.notify.webhook_secret.reveal() == KEY
    assert found.notify.github_issues is True
    assert found.redactor.scrub(f"key {KEY}, https://own.example/hook") == "key ***, ***"
    rows = {row.key: row.value for row in describe(found)}
    assert rows["notify.webhook_url"] == "own.example (signed)"


def test_the_variable_wins_over_the_file(tmp_path: Path) -> None:
    text = '[notify]\nwebhook_url = "https://all.example/hook"\n'
    found = settings(tmp_path, text, RUNTIME_WEBHOOK_URL="https://variable.example/hook")
    assert found.notify.webhook_url == "https://variable.example/hook"
    assert found.origins["notify.webhook_url"] == "RUNTIME_WEBHOOK_URL"


def test_a_key_that_is_named_and_not_set_is_a_warning(tmp_path: Path) -> None:
    text = '[notify]\nwebhook_url = "https://all.example/hook"\nwebhook_secret_env = "HOOK_KEY"\n'
    assert settings(tmp_path, text).warnings == (
        "opsgate.toml: notify.webhook_secret_env: HOOK_KEY is not set",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'webhook_url = "http://hooks.example/x"',
            "notify.webhook_url: .* would be sent evidence in the clear",
        ),
        (
            'webhook_url = "ftp://hooks.example/x"',
            "notify.webhook_url: .* is not a URL with https:// or http://",
        ),
        ('webhook_secret_env = "hunter2 is it"', "notify.webhook_secret_env: .* is not the name"),
        ("github_issues = 1", "notify.github_issues: must be true or false"),
        ('webhook = "x"', "notify.webhook: unknown key; did you mean"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        settings(tmp_path, f"[notify]\n{text}\n")
