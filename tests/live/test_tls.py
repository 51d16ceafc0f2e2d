"""What only TLS can do."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from opsgate.errors import ConfigurationError
from opsgate.probe.kinds import Prober
from opsgate.redact import Redactor
from opsgate.verdict.targets import Target
from tests.live.servers import LATE, Peer, Server, answer, cut_tls, drip, hang, healthy, redirect, response

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live.conftest import Attempting, Authority

NOW = datetime.now(UTC)


def test_the_certificates_end_of_life_is_recorded(attempt: Attempting, authority: Authority) -> None:
    ends = NOW.replace(microsecond=0) + timedelta(days=40)
    with Server(healthy(), tls=authority.server("127.0.0.1", not_after=ends)) as server:
        assert attempt(server.url).tls_not_after == ends.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("days", "kind"), [(30.0, None), (50.0, "certificate")])
def test_a_certificate_that_ends_soon(
    days: float, kind: str | None, attempt: Attempting, authority: Authority
) -> None:
    with Server(healthy(), tls=authority.server("127.0.0.1", not_after=NOW + timedelta(days=40))) as server:
        made = attempt(server.url, tls_days=days)
    assert made.kind == kind
    assert kind is None or made.detail == "certificate ends in 40.0 days, at least 50 wanted"


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["127.0.0.1"], {"not_after": NOW - timedelta(days=1)}, "certificate has expired"),
        (["127.0.0.1"], {"not_before": NOW + timedelta(days=1)}, "not yet valid"),
        (["app.example.com"], {}, "IP address mismatch"),
        (["127.0.0.2"], {}, "IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_valid(
    names: list[str], options: dict[str, datetime], said: str, attempt: Attempting, authority: Authority
) -> None:
    with Server(healthy(), tls=authority.server(*names, **options)) as server:
        made = attempt(server.url)
        assert server.requests == []
    assert made.kind == "tls"
    assert said in made.detail


def test_a_certificate_for_another_name(attempt: Attempting, authority: Authority) -> None:
    with Server(healthy(), tls=authority.server("127.0.0.1")) as server:
        made = attempt(f"https://localhost:{server.port}/")
    assert made.kind == "tls"
    assert "Hostname mismatch" in made.detail


def test_a_certificate_that_has_the_name_only_as_its_common_name(
    attempt: Attempting, authority: Authority
) -> None:
    # Browsers and every newer client refuse it: the names are those of the extension.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert(common_name="localhost").configure_cert(context)
    with Server(healthy(), tls=context) as server:
        made = attempt(f"https://localhost:{server.port}/")
    assert made.kind == "tls"
    assert "Hostname mismatch" in made.detail


def test_an_authority_that_is_not_trusted(attempt: Attempting) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Server(healthy(), tls=context) as server:
        made = attempt(server.url)
    assert made.kind == "tls"
    assert "certificate verify failed" in made.detail


@pytest.mark.parametrize(("sent", "kind"), [(1, "tls"), (2, None)])
def test_a_certificate_from_an_authority_between(
    sent: int, kind: str | None, attempt: Attempting, authority: Authority, tmp_path: Path
) -> None:
    issued = authority.ca.create_child_ca().issue_cert("127.0.0.1")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(
        issued.private_key_pem.bytes() + b"".join(p.bytes() for p in issued.cert_chain_pems[:sent])
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with Server(healthy(), tls=context) as server:
        assert attempt(server.url).kind == kind


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_protocol_that_is_new_enough(
    version: ssl.TLSVersion, attempt: Attempting, authority: Authority
) -> None:
    context = authority.server()
    context.minimum_version = context.maximum_version = version
    with Server(healthy(), tls=context) as server:
        assert attempt(server.url).ok


def test_a_server_that_would_rather_speak_http_2(attempt: Attempting, authority: Authority) -> None:
    context = authority.server()
    context.set_alpn_protocols(["h2"])
    with Server(healthy(), tls=context) as server:
        assert attempt(server.url).ok


def test_a_client_certificate_that_may_be_left_out(attempt: Attempting, authority: Authority) -> None:
    context = authority.server()
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.ca.configure_trust(context)
    with Server(healthy(), tls=context) as server:
        assert attempt(server.url).ok


def test_a_server_that_speaks_plain_http(attempt: Attempting) -> None:
    with Server(lambda peer: peer.send(response(status="400 Bad Request"))) as server:
        made = attempt(server.url.replace("http:", "https:"))
    assert made.kind == "tls"
    assert "wrong version number" in made.detail


def test_plain_http_to_a_server_that_speaks_tls(attempt: Attempting, server_tls: ssl.SSLContext) -> None:
    with Server(healthy(), tls=server_tls) as server:
        assert not attempt(server.url.replace("https:", "http:")).ok


def test_a_silent_handshake(attempt: Attempting) -> None:
    with Server(hang()) as server:
        made = attempt(server.url.replace("http:", "https:"), limit=0.3)
    assert (made.kind, made.bytes) == ("timeout", 0)
    assert 290 <= made.elapsed_ms < 300 + LATE


def test_a_dripping_handshake(attempt: Attempting) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(4096)
        drip(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76" + bytes(99), 0.05)(peer)

    with Server(script) as server:
        made = attempt(server.url.replace("http:", "https:"), limit=0.4)
    assert made.kind == "timeout"
    assert 390 <= made.elapsed_ms < 400 + LATE


@pytest.mark.parametrize("data", [b"", b"\x16\x03"], ids=["at once", "inside a record"])
def test_a_handshake_that_is_cut_off(data: bytes, attempt: Attempting) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(4096)
        peer.send(data)

    with Server(script) as server:
        assert attempt(server.url.replace("http:", "https:")).kind == "tls"


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x03\x00\x02\x02\x50",
        b"\x15\x03\x03\x00\x02\x01\x5a" * 2000,
        bytes(range(256)) * 999,
        b"\x16\x03\x03\xff\xff" + bytes(70_000),
        (b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + bytes(16_380)) * 50,
        response(),
    ],
    ids=["alert", "warnings without end", "garbage", "a record too long", "a message too long", "plain HTTP"],
)
def test_a_handshake_that_is_none(data: bytes, attempt: Attempting) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(4096)
        peer.send(data)
        peer.hang()

    with Server(script) as server:
        assert attempt(server.url.replace("http:", "https:"), limit=5.0).kind == "tls"


@pytest.mark.parametrize(("wait", "limit", "kind"), [(0.2, 5.0, None), (1.0, 0.3, "timeout")])
def test_a_slow_handshake(
    wait: float, limit: float, kind: str | None, attempt: Attempting, server_tls: ssl.SSLContext
) -> None:
    def script(peer: Peer) -> None:
        peer.pause(wait)
        with server_tls.wrap_socket(peer.sock, server_side=True) as peer.sock:
            answer(response())(peer)
            peer.sock.unwrap()

    with Server(script) as server:
        made = attempt(server.url.replace("http:", "https:"), limit=limit)
    assert made.kind == kind


def test_a_handshake_that_is_reset(attempt: Attempting) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1)
        peer.reset()

    with Server(script) as server:
        assert attempt(server.url.replace("http:", "https:")).kind in ("tls", "reset")


def test_a_protocol_that_is_too_old(attempt: Attempting, authority: Authority) -> None:
    context = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Server(healthy(), tls=context) as server:
        made = attempt(server.url)
    assert made.kind == "tls"


def test_a_client_certificate_that_is_demanded(attempt: Attempting, authority: Authority) -> None:
    context = authority.server()
    context.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(context)
    with Server(healthy(), tls=context) as server:
        made = attempt(server.url)
    assert made.kind in ("tls", "reset")


def test_a_body_until_the_end_that_tls_does_not_confirm(
    attempt: Attempting, server_tls: ssl.SSLContext
) -> None:
    with Server(cut_tls(response(length=None)), tls=server_tls) as server:
        assert attempt(server.url).kind == "truncated"


def test_a_whole_body_needs_no_closing_alert(attempt: Attempting, server_tls: ssl.SSLContext) -> None:
    with Server(cut_tls(response()), tls=server_tls) as server:
        assert attempt(server.url).ok


def test_from_https_to_http(attempt: Attempting, server_tls: ssl.SSLContext) -> None:
    with Server(healthy()) as plain, Server(redirect(plain.url), tls=server_tls) as server:
        made = attempt(server.url)
        assert plain.connections == 0
    assert (made.kind, made.status_code) == ("redirect", 302)


def test_from_http_to_https(attempt: Attempting, server_tls: ssl.SSLContext) -> None:
    with Server(healthy(), tls=server_tls) as secure, Server(redirect(secure.url)) as server:
        made = attempt(server.url)
    assert made.ok
    assert made.tls_not_after is not None


def test_a_ca_file_of_its_own(authority: Authority, server_tls: ssl.SSLContext) -> None:
    prober = Prober(environ={}, redactor=Redactor())
    with Server(healthy(), tls=server_tls) as server:
        assert prober(Target(name="it", url=server.url), 2.0, 0).attempt.kind == "tls"
        assert prober(Target(name="it", url=server.url, ca_file=authority.file), 2.0, 0).attempt.ok


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_that_the_environment_names(
    variable: str, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    prober = Prober(environ={variable: authority.file}, redactor=Redactor())
    with Server(healthy(), tls=server_tls) as server:
        assert prober(Target(name="it", url=server.url), 2.0, 0).attempt.ok


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    prober = Prober(environ={"REQUESTS_CA_BUNDLE": str(tmp_path / "gone.pem")}, redactor=Redactor())
    with pytest.raises(ConfigurationError, match="cannot read"):
        prober.prepare([Target(name="it", url="https://127.0.0.1:1/")])


def test_certificates_are_loaded_once_a_run(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    loaded: list[int] = []
    create = ssl.create_default_context

    def counted(*args: Any, **options: Any) -> ssl.SSLContext:
        loaded.append(1)
        return create(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    prober = Prober(environ={"SSL_CERT_FILE": authority.file}, redactor=Redactor())
    with Server(healthy(), tls=server_tls) as server:
        for _ in range(3):
            assert prober(Target(name="it", url=server.url), 2.0, 0).attempt.ok
    assert loaded == [1]


def test_the_name_is_sent_to_the_server(attempt: Attempting, authority: Authority) -> None:
    context = authority.server("localhost")
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    with Server(healthy(), tls=context) as server:
        assert attempt(f"https://localhost:{server.port}/").ok
    assert names == ["localhost"]


def test_tls_records_one_byte_at_a_time(attempt: Attempting, server_tls: ssl.SSLContext) -> None:
    with Server(drip(response(), 0.0), tls=server_tls) as server:
        assert attempt(server.url).ok


def test_a_tcp_target_does_not_look_at_tls(attempt: Attempting) -> None:
    with Server(hang()) as server:
        began = time.monotonic()
        assert attempt(f"tcp://127.0.0.1:{server.port}").ok
        assert time.monotonic() - began < 2


def test_the_server_hears_the_end(attempt: Attempting, server_tls: ssl.SSLContext) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        answer(response())(peer)
        peer.sock.settimeout(2)
        try:
            seen.append(peer.sock.recv(1))
        except (ssl.SSLError, ConnectionError):
            seen.append(b"")
        except TimeoutError:
            seen.append(b"still open")
        peer.sock.shutdown(socket.SHUT_RDWR)

    with Server(script, tls=server_tls) as server:
        assert attempt(server.url).ok
    assert seen == [b""]
