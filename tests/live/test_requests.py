"""What is sent to a target, and what is never sent."""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.connection import HTTPSConnection

from opsgate import __version__
from opsgate.errors import ConfigurationError
from opsgate.probe import transport
from opsgate.probe.exchange import Exchange
from opsgate.probe.kinds import Prober
from opsgate.probe.network import proxy_for
from opsgate.probe.resolve import connect
from opsgate.redact import Redactor, Secret
from opsgate.verdict.targets import Expectation, RevisionRule, Target
from tests.live.servers import (
    LATE,
    Peer,
    Proxy,
    Server,
    answer,
    by_path,
    document,
    drip,
    endless,
    gzipped,
    hang,
    healthy,
    redirect,
    response,
    status,
)

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.live.conftest import Attempting, Authority

TOKEN = "token-of-the-test"
MIB = 1024 * 1024


def headers(request: bytes) -> dict[str, str]:
    lines = request.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}


def probe(url: str, environ: dict[str, str] | None = None, limit: float = 2.0, **options: Any) -> Any:
    """One attempt: `token`, `rule`, `lenient` are the prober's, the rest the target's."""
    own = {name: options.pop(name) for name in ("token", "rule", "lenient") if name in options}
    prober = Prober(environ=environ or {}, redactor=Redactor(["whisper-it"]), **own)
    return prober(Target(name="it", url=url, **options), limit, 0)


def test_headers(attempt: Attempting) -> None:
    with Server(healthy()) as server:
        assert attempt(f"{server.url}a%20b?x=1&y=%2F#part").ok
    assert server.requests[0].startswith(b"GET /a%20b?x=1&y=%2F HTTP/1.1\r\n")
    assert headers(server.requests[0]) == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": f"opsgate/{__version__}",
        "accept": "application/health+json, application/json;q=0.9, */*;q=0.5",
        "accept-encoding": "gzip, deflate",
        "connection": "close",
    }


def test_headers_of_the_target_replace_them(attempt: Attempting) -> None:
    own = (("host", "app.example.com"), ("ACCEPT", "text/html"), ("X-Probe", "1"))
    with Server(healthy()) as server:
        assert attempt(server.url, request_headers=own).ok
    sent = headers(server.requests[0])
    assert (sent["host"], sent["accept"], sent["x-probe"]) == ("app.example.com", "text/html", "1")
    assert server.requests[0].lower().count(b"accept:") == 1


def test_head(attempt: Attempting) -> None:
    with Server(response(b"", length=100)) as server:
        assert attempt(server.url, method="HEAD").ok
    assert server.requests[0].startswith(b"HEAD / HTTP/1.1\r\n")


def test_head_that_is_answered_with_a_body(attempt: Attempting) -> None:
    with Server(response()) as server:
        assert attempt(server.url, method="HEAD").ok


def test_head_with_two_lengths(attempt: Attempting) -> None:
    with Server(response(b"", length=7, headers=[("Content-Length", "5")])) as server:
        made = attempt(server.url, method="HEAD")
    assert (made.kind, made.detail) == ("protocol", 'unusable Content-Length "5, 7"')


def test_head_stays_head_across_a_redirect(attempt: Attempting) -> None:
    with Server(by_path(index=redirect("/ok", 303), ok=healthy())) as server:
        assert attempt(server.url, method="HEAD").ok
    assert server.requests[1].startswith(b"HEAD /ok ")


def test_userinfo_is_basic_authorization(attempt: Attempting) -> None:
    with Server(healthy()) as server:
        assert attempt(f"http://me:p%40ss@127.0.0.1:{server.port}/").ok
    assert headers(server.requests[0])["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert b"p%40ss" not in server.requests[0]


def test_a_header_that_cannot_be_sent() -> None:
    with pytest.raises(ConfigurationError, match="no request can be made"):
        probe("http://127.0.0.1:1/", request_headers=(("X", "a\nb"),))
    with pytest.raises(ConfigurationError, match="no request can be made"):
        probe("http://127.0.0.1:1/", request_headers=(("X", "☃"),))


# The token


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_goes_to_loopback(host: str) -> None:
    with Server(healthy()) as server:
        assert probe(f"http://{host}:{server.port}/", token=Secret(TOKEN)).attempt.ok
    assert headers(server.requests[0])["authorization"] == f"Bearer {TOKEN}"


def test_the_token_goes_over_https(authority: Authority, server_tls: ssl.SSLContext) -> None:
    with Server(healthy(), tls=server_tls) as server:
        assert probe(server.url, {"SSL_CERT_FILE": authority.file}, token=Secret(TOKEN)).attempt.ok
    assert headers(server.requests[0])["authorization"] == f"Bearer {TOKEN}"


def test_the_token_does_not_go_to_a_target_that_is_not_required() -> None:
    with Server(healthy()) as server:
        assert probe(server.url, token=Secret(TOKEN), required=False).attempt.ok
    assert "authorization" not in headers(server.requests[0])


def test_the_token_does_not_go_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest: lookup("127.0.0.1", *rest))
    with Server(healthy()) as server:
        assert probe(f"http://app.example.com:{server.port}/", token=Secret(TOKEN)).attempt.ok
    assert "authorization" not in headers(server.requests[0])


def test_the_token_does_not_go_through_a_proxy_in_the_clear() -> None:
    with Server(healthy()) as server, Proxy(("127.0.0.1", server.port)) as proxy:
        assert probe(server.url, {"HTTP_PROXY": proxy.url}, token=Secret(TOKEN)).attempt.ok
    assert "authorization" not in headers(proxy.requests[0])


def test_the_token_follows_a_redirect_to_the_same_host_only() -> None:
    with Server(healthy()) as other, Server(redirect(f"http://127.0.0.1:{other.port}/")) as server:
        assert probe(server.url, token=Secret(TOKEN)).attempt.ok
        assert headers(other.requests[0])["authorization"] == f"Bearer {TOKEN}"
    with Server(healthy()) as other, Server(redirect(f"http://localhost:{other.port}/")) as server:
        assert probe(server.url, token=Secret(TOKEN)).attempt.kind == "redirect"
        assert other.connections == 0


def test_a_host_that_only_a_proxy_would_be_asked_for(authority: Authority) -> None:
    with Proxy(("127.0.0.1", 1), refuse="502 Bad Gateway") as proxy:
        environ = {"ALL_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        for host in ("a..b", "a" * 64 + ".example.com"):
            assert not probe(f"https://{host}/", environ).attempt.ok


def test_a_header_of_the_target_wins_over_the_token() -> None:
    with Server(healthy()) as server:
        own = (("authorization", "Basic abc"),)
        assert probe(server.url, token=Secret(TOKEN), request_headers=own).attempt.ok
        assert probe(server.url.replace("//", "//me:it@"), request_headers=own).attempt.ok
    assert [headers(request)["authorization"] for request in server.requests] == ["Basic abc"] * 2


# What must not be remembered, or picked up


def test_cookies_do_not_make_one_instance_look_healthy(attempt: Attempting) -> None:
    def sticky(peer: Peer) -> None:
        if b"cookie:" in peer.request().lower():
            peer.send(response())
        else:
            peer.send(response(b"", status="503 No", headers=[("Set-Cookie", "instance=good; Path=/")]))

    with Server(sticky) as server:
        for _ in range(3):
            assert attempt(server.url).kind == "status"


def test_cookies_do_not_pass_a_redirect(attempt: Attempting) -> None:
    with Server(
        by_path(index=status(302, ("Location", "/ok"), ("Set-Cookie", "a=b; Path=/")), ok=healthy())
    ) as server:
        assert attempt(server.url).ok
    assert b"cookie" not in server.requests[1].lower()


def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: Attempting) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Server(healthy()) as server:
        assert attempt(server.url).ok
    assert "authorization" not in headers(server.requests[0])


def test_what_the_server_says_is_masked() -> None:
    with Server(answer(response(b"it says whisper-it loudly"))) as server:
        made = probe(server.url, expect=Expectation(body="ready")).attempt
    assert made.detail == 'body does not contain "ready" (starts with "it says *** loudly")'


def test_control_characters_do_not_reach_a_terminal(attempt: Attempting) -> None:
    with Server(document(status="\x1b]0;title\x07 down\u202e")) as server:
        made = attempt(server.url, json=(("status", "UP"),))
    assert made.kind == "json"
    assert made.detail.isprintable()


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        ("86400", 86400.0),
        ("9" * 5000, 1e9),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    with Server(status(503, ("Retry-After", value))) as server:
        assert probe(server.url).retry_after == seconds


def test_retry_after_of_a_healthy_answer_is_not_heeded() -> None:
    with Server(status(200, ("Retry-After", "60"))) as server:
        assert probe(server.url).retry_after is None


# Revisions

RULE = RevisionRule(expected="abcdef0123456789")


@pytest.mark.parametrize(
    ("script", "kind", "revision"),
    [
        (document(version="abcdef0"), None, "abcdef0"),
        (document(version="1234567"), "revision", "1234567"),
        (document(version=None), "revision", None),
        (document(status="DOWN", version="abcdef0"), "health_document", "abcdef0"),
        (answer(response(b'{"version":"abcdef0"}', status="500 No")), "status", "abcdef0"),
    ],
)
def test_revision(script: Any, kind: str | None, revision: str | None) -> None:
    with Server(script) as server:
        made = probe(server.url, expect=Expectation(revision="json:version"), rule=RULE).attempt
    assert (made.kind, made.revision) == (kind, revision)


def test_revision_in_a_header() -> None:
    with Server(status(200, ("X-Revision", "abcdef0"))) as server:
        made = probe(server.url, expect=Expectation(revision="header:x-revision"), rule=RULE).attempt
    assert (made.ok, made.revision) == (True, "abcdef0")


def test_recovery_takes_other_expectations_as_warnings() -> None:
    with Server(healthy(b"old")) as server:
        made = probe(server.url, expect=Expectation(body="new"), lenient=True).attempt
    assert made.ok
    assert made.detail == 'warning: body does not contain "new" (starts with "old")'


# Proxies


def test_http_through_a_proxy() -> None:
    with Server(healthy()) as server, Proxy(("127.0.0.1", server.port)) as proxy:
        made = probe("http://app.example.com/x?y", {"http_proxy": proxy.url}).attempt
    assert made.ok
    assert made.remote_ip == "127.0.0.1"
    assert proxy.requests[0].startswith(b"GET http://app.example.com/x?y HTTP/1.1\r\n")
    assert headers(proxy.requests[0])["host"] == "app.example.com"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_https_through_a_tunnel(variable: str, authority: Authority) -> None:
    environ = {"SSL_CERT_FILE": authority.file}
    context = authority.server("app.example.com")
    with Server(healthy(), tls=context) as server, Proxy(("127.0.0.1", server.port)) as proxy:
        made = probe("https://app.example.com/", environ | {variable: proxy.url}).attempt
    assert made.ok, made
    assert made.tls_not_after is not None
    assert proxy.requests[0].startswith(b"CONNECT app.example.com:443 HTTP/1.")
    assert server.requests[0].startswith(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n")


def test_credentials_for_the_proxy(authority: Authority, server_tls: ssl.SSLContext) -> None:
    demand = "Basic " + base64.b64encode(b"me:p@ss").decode()
    with (
        Server(healthy()) as plain,
        Server(healthy(), tls=server_tls) as secure,
        Proxy(("127.0.0.1", plain.port), demand=demand) as forwarding,
        Proxy(("127.0.0.1", secure.port), demand=demand) as tunnelling,
    ):
        environ = {
            "SSL_CERT_FILE": authority.file,
            "HTTP_PROXY": f"http://me:p%40ss@127.0.0.1:{forwarding.port}",
            "HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{tunnelling.port}",
        }
        assert probe(plain.url, environ).attempt.ok
        assert probe(secure.url, environ).attempt.ok
        assert b"roxy-" not in secure.requests[0]
        unknown = environ | {"HTTPS_PROXY": tunnelling.url, "HTTP_PROXY": forwarding.url}
        refused = probe(secure.url, unknown).attempt
        assert (refused.kind, refused.status_code) == ("status", None)
        assert "407" in refused.detail
        assert probe(plain.url, unknown).attempt.status_code == 407


def test_a_proxy_that_cannot_reach_the_target(authority: Authority) -> None:
    with Proxy(("127.0.0.1", 1), refuse="502 Bad Gateway") as proxy:
        made = probe(
            "https://app.example.com/", {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        ).attempt
    assert (made.kind, made.status_code) == ("status", None)
    assert "502 Bad Gateway" in made.detail


def test_a_dead_proxy_is_no_answer_of_the_runtime(authority: Authority) -> None:
    environ = {"ALL_PROXY": "http://127.0.0.1:1", "SSL_CERT_FILE": authority.file}
    for url in ("http://app.example.com/", "https://app.example.com/"):
        made = probe(url, environ).attempt
        assert (made.kind, made.remote_ip) == ("refused", None)
        assert made.detail.startswith("proxy 127.0.0.1:1: ")


def test_a_silent_proxy(authority: Authority) -> None:
    with Server(lambda peer: peer.hang()) as proxy:
        environ = {"ALL_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        for url in ("http://app.example.com/", "https://app.example.com/"):
            made = probe(url, environ, limit=0.3).attempt
            assert (made.kind, made.bytes) == ("timeout", 0)
            assert 290 <= made.elapsed_ms < 300 + LATE


def test_a_tunnel_into_silence(authority: Authority) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.pause(2.3)
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.hang()

    with Server(script) as proxy:
        made = probe(
            "https://app.example.com/", {"ALL_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}, limit=2.5
        ).attempt
    assert (made.kind, made.bytes) == ("timeout", 0)
    assert 2490 <= made.elapsed_ms < 4500, "the handshake gets what the proxy has left of the limit"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_limit_that_passes_just_after_connecting_leaves_no_socket(
    scheme: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def late(addresses: Any, exchange: Exchange) -> Any:
        made.append(connect(addresses, exchange))
        exchange.deadline = exchange.started
        return made[-1]

    monkeypatch.setattr(transport, "connect", late)
    with Server(hang()) as server:
        found = probe(f"{scheme}://127.0.0.1:{server.port}/", {"SSL_CERT_FILE": authority.file}).attempt
        assert [sock.fileno() for sock in made] == [-1]
    assert (found.kind, found.remote_ip) == ("timeout", "127.0.0.1")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_limit_that_passes_just_after_the_proxys_handshake_leaves_no_socket(
    scheme: str, authority: Authority, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLSocket] = []
    shaking_hands = HTTPSConnection._connect_tls_proxy

    def late(connection: Any, *args: Any) -> Any:
        made.append(shaking_hands(connection, *args))
        connection.exchange.deadline = connection.exchange.started
        return made[-1]

    monkeypatch.setattr(HTTPSConnection, "_connect_tls_proxy", late)
    with Server(hang(), tls=server_tls) as proxy:
        environ = {"ALL_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        found = probe(f"{scheme}://app.example.com/", environ).attempt
        assert [sock.fileno() for sock in made] == [-1]
    assert (found.kind, found.bytes) == ("timeout", 0)


@pytest.mark.parametrize(
    ("answered", "kind"),
    [
        (b"", "reset"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX", "tls"),
        (response(b"<html>"), "tls"),
        (response(b"<html>", status="403 Forbidden"), "status"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "status"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "protocol"),
    ],
    ids=["nothing", "another protocol", "half a head", "a page", "a refusal", "an interim", "a long line"],
)
def test_a_proxy_that_makes_no_tunnel(answered: bytes, kind: str, authority: Authority) -> None:
    with Server(answered) as proxy:
        environ = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        made = probe("https://app.example.com/", environ, limit=5.0).attempt
    assert (made.kind, made.status_code) == (kind, None), made


def test_a_proxy_whose_head_never_ends(authority: Authority) -> None:
    with Server(endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 500)) as proxy:
        environ = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        made = probe("https://app.example.com/", environ, limit=0.4).attempt
    assert made.kind in ("timeout", "protocol")
    assert made.elapsed_ms < 400 + LATE


def test_a_proxy_that_drips_says_nothing_of_the_runtime(authority: Authority) -> None:
    """The observer must still look at the control URLs: nothing was heard from the host."""
    with Server(drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500, 0.01)) as proxy:
        environ = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": authority.file}
        made = probe("https://app.example.com/", environ, limit=0.4).attempt
    assert (made.kind, made.bytes) == ("timeout", 0)
    assert made.detail.startswith("proxy: time limit of 0.4 s reached")


def test_through_a_proxy_that_speaks_tls(authority: Authority, server_tls: ssl.SSLContext) -> None:
    environ = {"SSL_CERT_FILE": authority.file}
    for tls in (None, server_tls):
        with Server(healthy(), tls=tls) as server, Proxy(("127.0.0.1", server.port), tls=server_tls) as proxy:
            made = probe(server.url, environ | {"ALL_PROXY": proxy.url}).attempt
        assert made.ok, made
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("127.0.0.1", True),
        ("*", True),
        ("example.com, 127.0.0.0/8", True),
        ("example.com 127.0.0.1", True),
        ("example.com", False),
        ("127.0.0.2", False),
        ("", False),
    ],
)
def test_no_proxy(no_proxy: str, direct: bool) -> None:
    with Server(healthy()) as server, Proxy(("127.0.0.1", server.port)) as proxy:
        assert probe(server.url, {"HTTP_PROXY": proxy.url, "NO_PROXY": no_proxy}).attempt.ok
        assert (proxy.connections == 0) is direct


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        (".example.com", "http://app.example.com/", True),
        ("*.example.com", "http://app.example.com/", True),
        ("example.com.", "http://app.EXAMPLE.com./", True),
        ("ample.com", "http://example.com/", False),
        ("example.com:80", "http://example.com/", True),
        ("example.com:443", "https://example.com/", True),
        ("example.com:443", "http://example.com/", False),
        ("127.0.0.1:80", "http://127.0.0.1/", True),
        ("[::1]", "http://[::1]:8080/", True),
        ("[::1]:8080", "http://[::1]:8080/", True),
        ("[::1]:8080", "http://[::1]/", False),
        ("fd00::/8", "http://[fd00::1]/", True),
        ("10.0.0.0/8", "http://ten.example.com/", False),
        ("localhost\n\texample.com", "http://example.com/", True),
        (" , . ,", "http://example.com/", False),
    ],
)
def test_no_proxy_forms(no_proxy: str, url: str, direct: bool) -> None:
    environ = {"all_proxy": "http://proxy.example.com:3128", "no_proxy": no_proxy}
    assert (proxy_for(url, environ) is None) is direct


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://", "ftp://127.0.0.1", "http://h:99999"])
def test_a_proxy_that_cannot_be_used(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="ALL_PROXY: not the URL of an http or https proxy"):
        probe("http://127.0.0.1:1/", {"ALL_PROXY": proxy})


# Memory


BOMBS = {
    "gzip": response(gzipped(bytes(300 * MIB)), headers=[("Content-Encoding", "gzip")]),
    "deflate": response(zlib.compress(bytes(300 * MIB)), headers=[("Content-Encoding", "deflate")]),
    "stacked": response(gzipped(gzipped(bytes(300 * MIB))), headers=[("Content-Encoding", "gzip, gzip")]),
}


@pytest.mark.parametrize("name", [*BOMBS, "endless", "head"])
def test_memory_stays_flat(name: str, attempt: Attempting) -> None:
    script = answer(BOMBS[name]) if name in BOMBS else endless(response(b"", length=None), b"x" * 65536)
    if name == "head":
        script = endless(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 65536)
    with Server(script) as server:
        attempt(server.url)
        tracemalloc.start()
        try:
            made = attempt(server.url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert made.kind == ("protocol" if name == "head" else "too_large")
    assert peak < 8 * MIB
