"""A server that says a secret back: masked before anything is cut, wherever in the answer it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from opsgate.probe.kinds import Prober
from opsgate.redact import Redactor
from opsgate.verdict.targets import Expectation, RevisionRule, Target
from tests.live.servers import Server, response

SECRET = "hunter2-Under-The-Mat-" + "0123456789-abcdefghij-" * 4
BYTES = SECRET.encode()
LONG = b"x" * 48


def parts(text: str) -> list[str]:
    """What of the secret stands in the text, in pieces of ten characters."""
    return [
        SECRET[at : at + 10] for at in range(len(SECRET) - 9) if SECRET[at : at + 10].lower() in text.lower()
    ]


@pytest.fixture
def prober() -> Iterator[Prober]:
    rule = RevisionRule(expected="v1")
    made = Prober(environ={"PATH": "/usr/bin:/bin"}, redactor=Redactor([SECRET]), rule=rule)
    yield made
    made.close()


ANSWERS: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "status line": (b"HTTP/9 " + BYTES + b"\r\n\r\n", "protocol", {}),
    "header line": (b"HTTP/1.1 200 OK\r\n" + LONG[:30] + b" " + BYTES + b"\r\n\r\n", "protocol", {}),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: " + BYTES + b"\r\n\r\n", "protocol", {}),
    "transfer encoding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + BYTES + b"\r\n\r\n", "protocol", {}),
    "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + BYTES + b"\r\n", "protocol", {}),
    "content encoding": (response(b"{}", headers=[("Content-Encoding", SECRET)]), "protocol", {}),
    "redirect": (
        response(b"", status="302 Found", headers=[("Location", f"http://{SECRET}.invalid/")]),
        "redirect",
        {},
    ),
    "redirected scheme": (
        response(b"", status="302 Found", headers=[("Location", f"{SECRET}://x/")]),
        "redirect",
        {},
    ),
    "body": (response(LONG + BYTES), "body", {"body": "well"}),
    "pattern": (response(LONG + BYTES), "body", {"body_regex": f"{LONG.decode()}{SECRET}$^"}),
    "json": (response(b'{"a": "' + LONG + BYTES + b'"}'), "json", {"json": (("a", "b"),)}),
    "json path": (response(b"{}"), "json", {"json": ((LONG.decode() + SECRET, 1),)}),
    "header": (
        response(b"{}", headers=[("X-It", LONG.decode() + SECRET)]),
        "header",
        {"headers": (("X-It", "b"),)},
    ),
    "revision": (response(b'{"v": "' + LONG + BYTES + b'"}'), "revision", {"revision": "json:v"}),
}


@pytest.mark.parametrize("place", ANSWERS)
def test_what_a_server_says_is_masked_before_it_is_cut(prober: Prober, place: str) -> None:
    script, kind, expect = ANSWERS[place]
    with Server(script) as server:
        found = prober(Target(name="it", url=server.url, expect=Expectation(**expect)), 5.0, 0).attempt
    assert found.kind == kind, found
    assert parts(f"{found.detail} {found.revision}") == []
    assert "***" in found.detail


def test_a_secret_at_the_edge_of_what_is_looked_at_leaves_no_part(prober: Prober) -> None:
    # Masking shortens: what stood far beyond the cut moves into sight.
    body = " ".join([SECRET] * 2000).encode()
    with Server(response(body)) as server:
        found = prober(Target(name="it", url=server.url, expect=Expectation(body="well")), 5.0, 0).attempt
    assert found.kind == "body"
    assert parts(found.detail) == []


def test_a_proxys_refusal_is_masked_before_it_is_cut(prober: Prober) -> None:
    refusal = b"HTTP/1.1 403 " + LONG * 2 + BYTES + b"\r\nContent-Length: 0\r\n\r\n"
    with Server(refusal) as proxy:
        through = Prober(environ={"https_proxy": proxy.url}, redactor=Redactor([SECRET]))
        found = through(Target(name="it", url="https://host.invalid/"), 5.0, 0).attempt
        through.close()
    assert found.kind == "status"
    assert parts(found.detail) == []
    assert "***" in found.detail


@pytest.mark.parametrize(("before", "after"), [(0, 0), (180, 0), (0, 4000), (0, 4090), (180, 5000)])
def test_a_commands_last_line_is_masked_before_it_is_cut(prober: Prober, before: int, after: int) -> None:
    command = f"printf '%{before}s%s%{after}s\\n' '' '{SECRET}' x; exit 1"
    found = prober(Target(name="it", command=command), 5.0, 0).attempt
    assert found.kind == "exit"
    assert parts(found.detail) == []
