"""The registry client against servers that answer as they are told; tests/docker has the real ones."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trustme

from opsgate.errors import Interrupted
from opsgate.stages.oci.credentials import Credentials
from opsgate.stages.oci.reference import Reference
from opsgate.stages.oci.registry import (
    MANIFEST_TYPES,
    DigestMismatch,
    NotFound,
    Registry,
    RegistryError,
    Unauthorized,
)
from opsgate.stages.wire import BODY_LIMIT, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
OTHER = "sha256:" + "0" * 64


class Asked(msgspec.Struct, kw_only=True):
    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Reply(msgspec.Struct, kw_only=True):
    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""


class Server:
    """Answers with what `reply` gives for each request, and keeps the requests."""

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                asked = Asked(
                    method=self.command,
                    path=self.path,
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=self.rfile.read(length).decode(),
                )
                server.asked.append(asked)
                answer = reply(asked)
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self.http.server_address[1])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serving(reply: Callable[[Asked], Reply]) -> Iterator[Server]:
    server = Server(reply)
    server.thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        server.thread.join()


@contextmanager
def raw(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that speaks bytes instead of HTTP; gives its host."""
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                opened.append(connection)
                with connection, suppress(OSError):
                    connection.recv(65536)
                    speak(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def client(host: str, directory: Path, login: dict[str, Any] | None = None) -> Registry:
    if login is not None:
        (directory / "config.json").write_text(json.dumps({"auths": {host: login}}))
    return Registry(host, Credentials({"DOCKER_CONFIG": str(directory)}))


def reference(host: str, rest: str = "acme/app:v1") -> Reference:
    return Reference.parse(f"{host}/{rest}")


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def manifest(asked: Asked) -> Reply:
    if "/manifests/" not in asked.path:
        return Reply(body=b"{}")
    headers = {"Docker-Content-Digest": DIGEST, "Content-Type": f"{MANIFEST_TYPES[0]}; charset=utf-8"}
    return Reply(headers=headers, body=CONTENT)


class TokenRegistry:
    """A registry and its token server in one: `good` is the token that the registry takes."""

    def __init__(self) -> None:
        self.good = "t1"
        self.realm = ""
        self.challenge = 'Bearer realm="{realm}",service="svc",scope="repository:acme/app:pull"'
        self.token_reply: Reply | None = None

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return self.token_reply or Reply(body=json.dumps({"token": self.good}).encode())
        if asked.authorization == f"Bearer {self.good}":
            return manifest(asked)
        return Reply(status=401, headers={"WWW-Authenticate": self.challenge.format(realm=self.realm)})


@contextmanager
def token_registry() -> Iterator[tuple[TokenRegistry, Server]]:
    registry = TokenRegistry()
    with serving(registry) as server:
        registry.realm = f"http://{server.host}/token"
        yield registry, server


def test_all_media_types_are_asked_for(tmp_path: Path) -> None:
    with serving(manifest) as server:
        found = client(server.host, tmp_path).manifest(reference(server.host))
    assert (found.digest, found.content, found.media_type) == (DIGEST, CONTENT, MANIFEST_TYPES[0])
    assert server.asked[0].headers["accept"] == ", ".join(MANIFEST_TYPES)
    assert server.asked[0].headers["user-agent"].startswith("opsgate/")


@pytest.mark.parametrize(
    "head", [Reply(status=405), Reply(), Reply(headers={"Docker-Content-Digest": "nonsense"})]
)
def test_a_registry_without_a_usable_head_is_read_whole(head: Reply, tmp_path: Path) -> None:
    with serving(lambda asked: head if asked.method == "HEAD" else manifest(asked)) as server:
        assert client(server.host, tmp_path).digest(reference(server.host)) == DIGEST


def test_existence_without_head(tmp_path: Path) -> None:
    with serving(lambda asked: Reply(status=405) if asked.method == "HEAD" else manifest(asked)) as server:
        assert client(server.host, tmp_path).exists("acme/app", DIGEST)


@pytest.mark.parametrize("rest", ["acme/app:v1", f"acme/app@{OTHER}"])
def test_other_bytes_than_promised_are_refused(rest: str, tmp_path: Path) -> None:
    reply = Reply(headers={"Docker-Content-Digest": OTHER}, body=CONTENT)
    with (
        serving(lambda _: reply) as server,
        pytest.raises(DigestMismatch, match="served other bytes") as caught,
    ):
        client(server.host, tmp_path).manifest(reference(server.host, rest))
    assert DIGEST in caught.value.message


def test_a_digest_that_is_answered_by_another_is_refused(tmp_path: Path) -> None:
    with serving(manifest) as server, pytest.raises(DigestMismatch):
        client(server.host, tmp_path).digest(reference(server.host, f"acme/app@{OTHER}"))


def test_a_transient_error_is_tried_again(tmp_path: Path) -> None:
    answers = iter([Reply(status=503), Reply(status=429, headers={"Retry-After": "0"})])
    with serving(lambda asked: next(answers, manifest(asked))) as server:
        assert client(server.host, tmp_path).digest(reference(server.host)) == DIGEST
    assert len(server.asked) == 3


def test_no_wait_goes_past_the_limit(tmp_path: Path) -> None:
    body = json.dumps({"errors": [{"code": "X", "message": "maintenance\x1b[2J until noon"}]}).encode()
    reply = Reply(status=503, headers={"Retry-After": "3600"}, body=body)
    started = time.monotonic()
    with serving(lambda _: reply) as server, pytest.raises(RegistryError) as caught:
        client(server.host, tmp_path).manifest(reference(server.host), limit=10)
    assert time.monotonic() - started < 5
    assert "the registry answered 503: maintenance[2J until noon" in caught.value.message
    assert len(server.asked) == 1


@pytest.mark.parametrize("before", [0, 290, 980])
def test_a_registrys_words_are_quoted_whole_or_not_at_all(tmp_path: Path, before: int) -> None:
    words = "x" * before + " hunter2-under-the-mat"
    body = json.dumps({"errors": [{"code": "X", "message": words}]}).encode()
    with serving(lambda _: Reply(status=400, body=body)) as server, pytest.raises(RegistryError) as caught:
        client(server.host, tmp_path).manifest(reference(server.host))
    assert words in caught.value.message or "hunter" not in caught.value.message


def test_a_registry_that_repeats_our_login_is_quoted_without_it(tmp_path: Path) -> None:
    login, token = "hunter2-under-the-mat", "issued-a-moment-ago"

    def reply(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(body=json.dumps({"token": token}).encode())
        if asked.authorization is None:
            challenge = f'Bearer realm="http://{server.host}/token"'
            return Reply(status=401, headers={"WWW-Authenticate": challenge})
        said = f"{login}, <{basic(login)}> and {token} are on no list"
        return Reply(status=400, body=json.dumps({"errors": [{"message": said}]}).encode())

    with serving(reply) as server, pytest.raises(RegistryError) as caught:
        client(server.host, tmp_path, {"auth": basic(f"me:{login}")}).ping()
    assert "the registry answered 400: ***, <***> and *** are on no list" in caught.value.message


def test_a_bad_retry_after_is_no_crash(tmp_path: Path) -> None:
    reply = Reply(status=503, headers={"Retry-After": "soon"})
    with serving(lambda _: reply) as server, pytest.raises(Unreachable):
        client(server.host, tmp_path).ping(limit=1)


def hang(connection: socket.socket) -> None:
    connection.recv(1)


def drip(start: bytes) -> Callable[[socket.socket], None]:
    def speak(connection: socket.socket) -> None:
        connection.sendall(start)
        connection.settimeout(0.05)
        while True:
            connection.sendall(b"x")
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    return speak


@pytest.mark.parametrize(
    "speak",
    [hang, drip(b"HTTP/1.1 200 OK\r\nX: "), drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")],
    ids=["hangs", "drips its headers", "drips its body"],
)
def test_nothing_a_server_does_holds_the_caller(
    speak: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    with raw(speak) as host:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="gave no whole answer in time"):
            client(host, tmp_path).manifest(reference(host), limit=0.6)
        assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"]
)
def test_what_is_no_whole_http_answer_is_unreachable(answer: bytes, tmp_path: Path) -> None:
    with raw(lambda connection: connection.sendall(answer)) as host, pytest.raises(Unreachable, match=host):
        client(host, tmp_path).manifest(reference(host), limit=10)


def test_a_manifest_too_large_is_refused(tmp_path: Path) -> None:
    reply = Reply(body=b" " * (BODY_LIMIT + 1))
    with serving(lambda _: reply) as server, pytest.raises(Unreachable, match="more than 4194304 bytes"):
        client(server.host, tmp_path).manifest(reference(server.host))


def test_a_web_server_is_no_registry(tmp_path: Path) -> None:
    with (
        serving(lambda _: Reply(status=404)) as server,
        pytest.raises(RegistryError, match="no image registry"),
    ):
        client(server.host, tmp_path).ping()


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/html; charset=utf-8", b"<html>Log in</html>"),
        ("text/html", CONTENT),
        ("", CONTENT),
        (MANIFEST_TYPES[0], b"<html>Log in</html>"),
        (MANIFEST_TYPES[0], b"[]"),
        (MANIFEST_TYPES[0], b'"text"'),
        (MANIFEST_TYPES[0], b"[" * 100_000),
        (MANIFEST_TYPES[0], b"\xff"),
    ],
)
def test_what_is_no_manifest_is_refused(media_type: str, body: bytes, tmp_path: Path) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    with (
        serving(lambda _: Reply(headers=headers, body=body)) as server,
        pytest.raises(RegistryError, match="answered with no manifest, but "),
    ):
        client(server.host, tmp_path).digest(reference(server.host))


def test_a_question_is_broken_off_when_nobody_wants_the_answer(tmp_path: Path) -> None:
    asked = threading.Event()

    def ask_once(connection: socket.socket) -> None:
        asked.set()
        hang(connection)

    def check() -> None:
        if asked.is_set():
            raise Interrupted(signal.SIGTERM)

    with raw(ask_once) as host:
        registry = Registry(host, Credentials({"DOCKER_CONFIG": str(tmp_path)}), check=check)
        started = time.monotonic()
        with pytest.raises(Interrupted):
            registry.manifest(reference(host))
        assert time.monotonic() - started < 5


def test_no_question_goes_on_after_the_end_of_the_stage(tmp_path: Path) -> None:
    with raw(hang) as host:
        started = time.monotonic()
        registry = Registry(host, Credentials({"DOCKER_CONFIG": str(tmp_path)}), until=started + 0.3)
        with pytest.raises(Unreachable, match="in time"):
            registry.exists("acme/app", DIGEST)
        assert time.monotonic() - started < 5


# What a thread that an earlier test has left behind may still look up.
OURS = "127.0.0.1"


def test_a_hasty_client_looks_a_name_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    credentials = Credentials({"DOCKER_CONFIG": str(tmp_path)})
    with pytest.raises(Unreachable, match="no such host"):
        Registry("registry.example", credentials, hasty=True).exists("acme/app", DIGEST)
    assert [name for name in looked_up if name != OURS] == ["registry.example"]


def test_a_helper_is_asked_once(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-one"
    helper.write_text(
        f"#!/bin/sh\necho asked >> {tmp_path}/asked\n"
        """echo '{"Username": "me", "Secret": "not-this-one"}'\n"""
    )
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "one"}')
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    refuse = Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    with serving(lambda _: refuse) as server:
        registry = Registry(server.host, Credentials(environ))
        for _ in range(2):
            with pytest.raises(Unauthorized, match="log in with"):
                registry.ping()
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_an_unknown_host_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match=r"registry\.invalid: no such host"):
        client("registry.invalid", tmp_path).ping(limit=1)


def test_a_private_authority_has_to_be_named_and_netrc_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("registry.test").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **kw: resolve("127.0.0.1", *rest, **kw))
    server = Server(manifest)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.http.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.thread.start()
    host = f"registry.test:{server.port}"
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    try:
        with pytest.raises(Unreachable, match="no trusted TLS connection") as caught:
            client(host, tmp_path).ping(limit=5)
        assert "SSL_CERT_FILE" in caught.value.hint
        (tmp_path / "netrc").write_text("machine registry.test login net password rc\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        trusting = {"DOCKER_CONFIG": str(tmp_path), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        assert Registry(host, Credentials(trusting)).digest(reference(host), limit=5) == DIGEST
        assert [asked.authorization for asked in server.asked] == [None]
    finally:
        server.http.shutdown()
        server.http.server_close()


def test_a_token_is_fetched_once_and_sent_to_the_registry_only(tmp_path: Path) -> None:
    with token_registry() as (_, server):
        registry = client(server.host, tmp_path, {"auth": basic("me:pw")})
        assert registry.digest(reference(server.host)) == DIGEST
        assert registry.exists("acme/app", DIGEST)
    paths = [asked.path for asked in server.asked]
    assert paths[1] == "/token?service=svc&scope=repository%3Aacme%2Fapp%3Apull"
    assert [asked.authorization for asked in server.asked] == [
        None, f"Basic {basic('me:pw')}", "Bearer t1", "Bearer t1",
    ]  # fmt: skip


def test_a_token_that_ran_out_is_fetched_anew(tmp_path: Path) -> None:
    with token_registry() as (registry, server):
        asking = client(server.host, tmp_path)
        assert asking.digest(reference(server.host)) == DIGEST
        registry.good = "t2"
        assert asking.digest(reference(server.host)) == DIGEST


def test_an_identity_token_is_exchanged(tmp_path: Path) -> None:
    with token_registry() as (registry, server):
        registry.token_reply = Reply(body=b'{"access_token": "t1"}')
        asking = client(server.host, tmp_path, {"auth": basic("me:"), "identitytoken": "idt"})
        assert asking.digest(reference(server.host)) == DIGEST
    exchange = server.asked[1]
    assert (exchange.method, exchange.path, exchange.authorization) == ("POST", "/token", None)
    assert "grant_type=refresh_token" in exchange.body
    assert "refresh_token=idt" in exchange.body


def test_a_registry_token_is_sent_as_it_is(tmp_path: Path) -> None:
    with token_registry() as (_, server):
        asking = client(server.host, tmp_path, {"registrytoken": "t1"})
        assert asking.digest(reference(server.host)) == DIGEST
    assert not any(asked.path.startswith("/token") for asked in server.asked)


def test_bearer_is_preferred_where_both_are_offered(tmp_path: Path) -> None:
    with token_registry() as (registry, server):
        registry.challenge = 'Basic realm="a, b", ' + registry.challenge
        assert client(server.host, tmp_path).digest(reference(server.host)) == DIGEST


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply(status=401), Unauthorized, "unauthorized: log in with docker login 127"),
        (Reply(body=b"[]"), RegistryError, "answered without a token"),
        (Reply(body=b'{"token": "a\\r\\nHost: evil"}'), RegistryError, "answered without a token"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), RegistryError, "answered 302"),
    ],
)
def test_a_token_server_that_gives_none(
    reply: Reply, error: type[RegistryError], words: str, tmp_path: Path
) -> None:
    with token_registry() as (registry, server):
        registry.token_reply = reply
        with pytest.raises(error, match=words):
            client(server.host, tmp_path, {"auth": basic("me:pw")}).digest(reference(server.host))


@pytest.mark.parametrize(
    "realm",
    [
        "http://tokens.example.com/",
        "http://127.0.0.1@tokens.example.com/",
        "http://[::1]@x.test/",
        "http://[::1",
        "ftp://x/",
        "",
    ],
)
def test_a_login_is_not_sent_in_the_clear(realm: str, tmp_path: Path) -> None:
    with token_registry() as (registry, server):
        registry.realm = realm
        with pytest.raises(RegistryError, match="refused, since that is not https"):
            client(server.host, tmp_path, {"auth": basic("me:pw")}).digest(reference(server.host))
    assert len(server.asked) == 1


def test_a_redirect_to_another_host_gets_no_token(tmp_path: Path) -> None:
    registry = TokenRegistry()
    with serving(manifest) as elsewhere:

        def moved(asked: Asked) -> Reply:
            if asked.path.startswith("/token") or asked.authorization != "Bearer t1":
                return registry(asked)
            return Reply(status=307, headers={"Location": f"http://{elsewhere.host}{asked.path}"})

        with serving(moved) as front:
            registry.realm = f"http://{front.host}/token"
            asking = client(front.host, tmp_path, {"auth": basic("me:pw")})
            assert asking.digest(reference(front.host)) == DIGEST
    assert [asked.authorization for asked in elsewhere.asked] == [None]


def test_a_redirect_that_never_ends_is_given_up(tmp_path: Path) -> None:
    reply = Reply(status=302, headers={"Location": "/again"})
    with serving(lambda _: reply) as server, pytest.raises(RegistryError, match="answered 302"):
        client(server.host, tmp_path).ping()
    assert len(server.asked) == 4


def test_an_unknown_kind_of_login_is_named(tmp_path: Path) -> None:
    reply = Reply(status=401, headers={"WWW-Authenticate": "Negotiate"})
    with (
        serving(lambda _: reply) as server,
        pytest.raises(RegistryError, match="a kind that is not known here"),
    ):
        client(server.host, tmp_path).ping()


def test_a_proxy_never_stands_before_this_machine(tmp_path: Path) -> None:
    proxied = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    with serving(manifest) as server:
        Registry(server.host, Credentials({"DOCKER_CONFIG": str(tmp_path), **proxied})).ping(limit=10)


def test_the_proxy_is_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with serving(lambda _: Reply(status=403)) as proxy:
        environ = {"DOCKER_CONFIG": str(tmp_path), "HTTPS_PROXY": f"http://{proxy.host}"}
        with pytest.raises(Unreachable, match=r"registry\.example: Tunnel connection failed: 501"):
            Registry("registry.example", Credentials(environ)).ping(limit=2)
    odd = {"DOCKER_CONFIG": str(tmp_path), "HTTPS_PROXY": "socks5://127.0.0.1:1"}
    with pytest.raises(Unreachable, match="HTTPS_PROXY: not the URL of an http or https proxy"):
        Registry("registry.example", Credentials(odd)).ping(limit=2)


def test_missing_is_told_apart(tmp_path: Path) -> None:
    def reply(asked: Asked) -> Reply:
        return Reply(body=b'{"tags": []}') if asked.path.endswith("/tags/list?n=1") else Reply(status=404)

    with serving(reply) as server, pytest.raises(NotFound, match="has no tag v1"):
        client(server.host, tmp_path).digest(reference(server.host))


def test_docker_hub_is_asked_where_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def refuse(host: str, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unreachable, match="no such host"):
        client("docker.io", tmp_path).digest(Reference.parse("nginx"), limit=2)
    assert set(looked_up) - {OURS} == {"registry-1.docker.io"}
