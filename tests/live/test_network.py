"""What happens before a server answers: names, addresses, connections; and resets at every byte."""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.probe import resolve
from opsgate.probe.exchange import DeadlineSocket, Exchange, ProbeFailure
from opsgate.probe.kinds import Prober
from opsgate.redact import Redactor
from opsgate.verdict.targets import Target
from tests.live.servers import (
    LATE,
    OK_BODY,
    BlackHole,
    Peer,
    Server,
    chunked,
    hang,
    healthy,
    reset_after,
    response,
)
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.live.conftest import Attempting

UNREACHABLE = "255.255.255.255"
"""No route leads there, on any machine."""


class Names:
    """A name service: names to addresses, `None` for a name that does not exist, an event for silence."""

    def __init__(self) -> None:
        self.known: dict[str, list[str] | threading.Event | None] = {}
        self.asked: list[str] = []
        self.before: Callable[[], object] = lambda: None
        self._system = socket.getaddrinfo

    def __call__(self, host: str, port: int, *_: Any) -> list[Any]:
        self.asked.append(host)
        self.before()
        found = self.known.get(host)
        if isinstance(found, threading.Event):
            found.wait(20)
            found = None
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [info for address in found for info in self._system(address, port, 0, socket.SOCK_STREAM)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


@contextmanager
def silent() -> Iterator[threading.Event]:
    """A name server that says nothing until the test is over."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")

# Names


def test_a_name_that_does_not_exist(attempt: Attempting, names: Names) -> None:
    made = attempt("http://app.example.com/")
    assert (made.kind, made.remote_ip, made.bytes) == ("dns", None, 0)
    assert made.detail == "cannot look up app.example.com: Name or service not known"


def test_a_name(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.1"]
    with Server(healthy()) as server:
        made = attempt(f"http://app.example.com:{server.port}/")
        assert b"Host: app.example.com:" in server.requests[0]
    assert (made.ok, made.remote_ip) == (True, "127.0.0.1")


def test_a_silent_name_server(attempt: Attempting, names: Names) -> None:
    with silent() as names.known["app.example.com"]:
        made = attempt("http://app.example.com/", limit=0.3)
    assert (made.kind, made.bytes) == ("timeout", 0)
    assert "looking up app.example.com" in made.detail
    assert 290 <= made.elapsed_ms < 300 + LATE


def test_a_silent_name_server_does_not_pile_up_threads(attempt: Attempting, names: Names) -> None:
    with silent() as names.known["app.example.com"]:
        for _ in range(9):
            assert attempt("http://app.example.com/", limit=0.02).kind == "timeout"
        assert len(names.asked) <= 4


def test_a_name_server_that_comes_back(attempt: Attempting, names: Names) -> None:
    with silent() as silence, Server(healthy()) as server:
        names.known["app.example.com"] = silence
        url = f"http://app.example.com:{server.port}/"
        assert attempt(url, limit=0.1).kind == "timeout"
        names.known["app.example.com"] = ["127.0.0.1"]
        assert attempt(url, limit=2).ok


def test_a_slow_name_server(attempt: Attempting, names: Names) -> None:
    answer = threading.Event()
    with Server(healthy()) as server:
        names.known["app.example.com"] = ["127.0.0.1"]
        names.before = lambda: answer.wait(10)
        threading.Timer(0.2, answer.set).start()
        made = attempt(f"http://app.example.com:{server.port}/")
    assert made.ok
    assert made.elapsed_ms >= 190


def test_a_name_without_an_address(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = []
    made = attempt("http://app.example.com/")
    assert (made.kind, made.detail) == ("dns", "cannot look up app.example.com: it has no address")


@pytest.mark.parametrize("url", [f"http://{'a' * 64}.example.com/", "https://a..b/", "tcp://a..b:1"])
def test_a_name_that_cannot_be_one(url: str, attempt: Attempting) -> None:
    made = attempt(url)
    assert made.kind == "dns"
    assert "not a valid host name" in made.detail


def test_each_attempt_asks_again(attempt: Attempting, names: Names) -> None:
    with Server(healthy()) as server:
        url = f"http://app.example.com:{server.port}/"
        assert attempt(url).kind == "dns"
        names.known["app.example.com"] = ["127.0.0.1"]
        assert attempt(url).ok


def test_a_literal_address_asks_nobody(attempt: Attempting, names: Names) -> None:
    with Server(healthy()) as server:
        assert attempt(server.url).ok
    assert names.asked == []


# Addresses


def test_one_of_two_addresses_refuses(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.2", "127.0.0.1"]
    with Server(healthy()) as server:
        made = attempt(f"http://app.example.com:{server.port}/")
    assert (made.ok, made.remote_ip) == (True, "127.0.0.1")


def test_one_of_two_addresses_is_silent(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.2", "127.0.0.1"]
    with Server(healthy()) as server, BlackHole("127.0.0.2", server.port):
        made = attempt(f"http://app.example.com:{server.port}/", limit=10.0)
    assert (made.ok, made.remote_ip) == (True, "127.0.0.1")
    assert 240 <= made.elapsed_ms < LATE


def test_one_of_two_addresses_cannot_be_reached(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = [UNREACHABLE, "127.0.0.1"]
    with Server(healthy()) as server:
        assert attempt(f"http://app.example.com:{server.port}/").ok


def test_three_of_four_addresses_are_silent(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]
    with Server(healthy()) as server:
        port = server.port
        with BlackHole("127.0.0.2", port), BlackHole("127.0.0.3", port), BlackHole("127.0.0.4", port):
            assert attempt(f"http://app.example.com:{port}/", limit=4.0).ok


def test_13_of_14_addresses_are_silent(attempt: Attempting, names: Names) -> None:
    # With a head start of a quarter of a second each they would take longer than the limit.
    silent = [f"127.0.0.{n}" for n in range(2, 15)]
    names.known["app.example.com"] = [*silent, "127.0.0.1"]
    with Server(healthy()) as server, ExitStack() as holes:
        for address in silent:
            holes.enter_context(BlackHole(address, server.port))
        made = attempt(f"http://app.example.com:{server.port}/", limit=3.0)
    assert (made.ok, made.remote_ip) == (True, "127.0.0.1")


def test_a_refusal_counts_more_than_silence(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.2", "127.0.0.1"]
    with BlackHole("127.0.0.2", free_port()) as hole:
        made = attempt(f"http://app.example.com:{hole.port}/", limit=2.0)
    assert (made.kind, made.remote_ip) == ("refused", "127.0.0.1")
    assert made.elapsed_ms < 2000 + LATE


def test_all_addresses_are_silent(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.2", "127.0.0.3"]
    with BlackHole("127.0.0.2", free_port()) as hole, BlackHole("127.0.0.3", hole.port):
        made = attempt(f"http://app.example.com:{hole.port}/", limit=0.5)
    assert (made.kind, made.remote_ip, made.bytes) == ("timeout", None, 0)
    assert 490 <= made.elapsed_ms < 500 + LATE


@needs_ipv6
def test_both_families_and_only_ipv4_listens(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["::1", "127.0.0.1"]
    with Server(healthy()) as server:
        made = attempt(f"http://app.example.com:{server.port}/")
    assert (made.ok, made.remote_ip) == (True, "127.0.0.1")


@needs_ipv6
def test_both_families_and_only_ipv6_listens(attempt: Attempting, names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.1", "::1"]
    with Server(healthy(), host="::1", port=free_port()) as server:
        made = attempt(f"http://app.example.com:{server.port}/")
    assert (made.ok, made.remote_ip) == (True, "::1")


@needs_ipv6
def test_an_ipv6_literal(attempt: Attempting) -> None:
    with Server(healthy(), host="::1", port=free_port()) as server:
        made = attempt(server.url)
        assert f"Host: [::1]:{server.port}".encode() in server.requests[0]
    assert (made.ok, made.remote_ip) == (True, "::1")


@needs_ipv6
def test_an_ipv6_literal_with_a_zone() -> None:
    # Nothing is asked for it: the address need not be there.
    index, name = socket.if_nameindex()[0]
    found = resolve.Resolver().resolve(f"fe80::1%25{name}", 80, Exchange(2.0))
    assert [address[4] for address in found] == [("fe80::1", 80, 0, index)]


def test_an_address_given_twice_is_tried_once(names: Names) -> None:
    names.known["app.example.com"] = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    found = resolve.Resolver().resolve("app.example.com", 80, Exchange(2.0))
    assert [address[4][0] for address in found] == ["127.0.0.1", "127.0.0.2"]


def test_families_take_turns() -> None:
    def info(family: int, address: str) -> Any:
        return (family, socket.SOCK_STREAM, 6, "", (address, 80))

    six = [info(socket.AF_INET6, f"::{n}") for n in range(1, 4)]
    four = [info(socket.AF_INET, "127.0.0.1")]
    found = resolve._interleaved([*six, *four, *six])
    assert [address[4][0] for address in found] == ["::1", "127.0.0.1", "::2", "::3"]


# Connections


@pytest.mark.parametrize("scheme", ["http", "https", "tcp"])
def test_a_dead_port(scheme: str, attempt: Attempting) -> None:
    made = attempt(f"{scheme}://127.0.0.1:{free_port()}")
    assert (made.kind, made.remote_ip, made.bytes) == ("refused", "127.0.0.1", 0)
    assert made.detail == "connection refused by 127.0.0.1"


@pytest.mark.parametrize("scheme", ["http", "https", "tcp"])
def test_an_unreachable_network_is_refused_by_nobody(scheme: str, attempt: Attempting) -> None:
    made = attempt(f"{scheme}://{UNREACHABLE}:80")
    assert (made.kind, made.remote_ip) == ("refused", None)
    assert made.detail == f"cannot reach {UNREACHABLE}: network is unreachable"


@pytest.mark.parametrize("scheme", ["http", "https", "tcp"])
def test_an_address_that_does_not_answer(scheme: str, attempt: Attempting) -> None:
    with BlackHole() as hole:
        made = attempt(f"{scheme}://127.0.0.1:{hole.port}", limit=0.3)
    assert (made.kind, made.remote_ip, made.bytes) == ("timeout", None, 0)
    assert 290 <= made.elapsed_ms < 300 + LATE


def test_a_port_that_accepts(attempt: Attempting) -> None:
    with Server(hang()) as server:
        made = attempt(f"tcp://127.0.0.1:{server.port}")
    assert (made.ok, made.remote_ip, made.detail) == (True, "127.0.0.1", "connection accepted")


def resets_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch, *, noticed: bool) -> Server:
    """A server that accepts and resets, so fast that the client finds its connection reset, or gone."""
    done = threading.Event()
    connecting = DeadlineSocket.connect_ex

    def connect_ex(sock: DeadlineSocket, where: Any) -> int:
        code = connecting(sock, where)
        done.wait(5)
        done.clear()
        if not noticed:
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code

    def script(peer: Peer) -> None:
        peer.reset()
        done.set()

    monkeypatch.setattr(DeadlineSocket, "connect_ex", connect_ex)
    return Server(script)


@pytest.mark.parametrize("noticed", [True, False])
def test_a_port_that_accepts_and_resets_has_accepted(
    noticed: bool, attempt: Attempting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resets_before_it_is_looked_at(monkeypatch, noticed=noticed) as server:
        made = attempt(f"tcp://127.0.0.1:{server.port}")
    assert (made.ok, made.remote_ip, made.detail) == (True, "127.0.0.1", "connection accepted")


@pytest.mark.parametrize("noticed", [True, False])
def test_a_server_that_accepts_and_resets(
    noticed: bool, attempt: Attempting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resets_before_it_is_looked_at(monkeypatch, noticed=noticed) as server:
        made = attempt(server.url)
    assert (made.kind, made.remote_ip) == ("reset", "127.0.0.1")


def test_a_dead_port_that_connects_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel does this once in some ten thousand times; here the socket is bound so that it must.
    made: list[socket.socket] = []

    class Bound(DeadlineSocket):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(("127.0.0.1", port))
            made.append(self)

    port = free_port()
    monkeypatch.setattr("opsgate.probe.resolve.DeadlineSocket", Bound)
    exchange = Exchange(1.0)
    with pytest.raises(ProbeFailure) as failure:
        resolve.connect(resolve.Resolver().resolve("127.0.0.1", port, exchange), exchange)
    assert failure.value.kind == "refused"
    assert made[0].fileno() == -1


def test_no_file_descriptors_left(attempt: Attempting) -> None:
    prober = Prober(environ={}, redactor=Redactor())
    prober.resolver = Exhausted()
    made = prober(Target(name="it", url="http://127.0.0.1:1/"), 1.0, 0).attempt
    assert (made.kind, made.remote_ip) == ("refused", None)


class Exhausted(resolve.Resolver):
    """Leads to an address family that no socket can be made for."""

    def resolve(self, host: str, port: int, exchange: Exchange) -> Any:
        return [(9999, socket.SOCK_STREAM, 0, "", (host, port))]


def test_old_connections_do_not_count(attempt: Attempting) -> None:
    with Server(hang()) as server, socket.create_connection(("127.0.0.1", server.port)) as kept:
        url = f"tcp://127.0.0.1:{server.port}"
        assert attempt(url).ok
        server._listener.shutdown(socket.SHUT_RDWR)
        server._listener.close()
        server._acceptor.join(5)
        assert kept.fileno() != -1
        assert attempt(url).kind == "refused"


def test_a_new_connection_for_each_attempt(attempt: Attempting) -> None:
    def keep_alive(peer: Peer) -> None:
        while peer.request():
            peer.send(response().replace(b"Connection: close", b"Connection: keep-alive"))

    with Server(keep_alive) as server:
        for _ in range(3):
            assert attempt(server.url).ok
        assert server.connections == 3
        assert len(server.requests) == 3


# Cut off at each byte


WHOLE = {
    "length": response(b'{"status":"UP","n":12}'),
    "chunks": chunked(b'{"status":', b'"UP"}'),
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("framing", list(WHOLE))
def test_closed_at_each_byte(framing: str, scheme: str, attempt: Attempting, server_tls: Any) -> None:
    whole = WHOLE[framing]
    head = whole.index(b"\r\n\r\n") + 4

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(whole[: peer.number])

    with Server(script, tls=server_tls if scheme == "https" else None) as server:
        for size in range(len(whole) + 1):
            made = attempt(server.url)
            expected = "reset" if size == 0 else "protocol" if size < head else "truncated"
            assert made.kind == (None if size == len(whole) else expected), (size, made)


@pytest.mark.parametrize("framing", list(WHOLE))
def test_reset_at_each_byte(framing: str, attempt: Attempting) -> None:
    whole = WHOLE[framing]

    def script(peer: Peer) -> None:
        reset_after(whole[: peer.number])(peer)

    with Server(script) as server:
        for size in range(len(whole)):
            made = attempt(server.url)
            assert made.kind == "reset", (size, made)


def test_answers_before_the_request_is_read(attempt: Attempting) -> None:
    def script(peer: Peer) -> None:
        peer.send(response())

    with Server(script) as server:
        assert attempt(server.url, request_headers=(("X-Much", "y" * 60_000),)).ok


def test_answers_and_resets_before_the_request_is_read(attempt: Attempting) -> None:
    def script(peer: Peer) -> None:
        peer.send(response(OK_BODY, status="431 Too Large"))
        peer.pause(0.05)
        peer.reset()

    with Server(script) as server:
        made = attempt(server.url, request_headers=(("X-Much", "y" * 60_000),))
    assert made.kind in ("status", "reset")


def test_a_server_that_does_not_read(attempt: Attempting) -> None:
    with Server(hang()) as server:
        # More than the socket buffers of both sides take.
        made = attempt(server.url, limit=0.3, request_headers=(("X-Much", "y" * 12_000_000),))
    assert (made.kind, made.bytes) == ("timeout", 0)
    assert 290 <= made.elapsed_ms < 300 + LATE


def test_many_at_once_keep_their_own_limits(attempt: Attempting) -> None:
    late: list[float] = []

    def one(limit: float) -> None:
        late.append(attempt(server.url, limit=limit).elapsed_ms - limit * 1000)

    with Server(hang()) as server:
        threads = [threading.Thread(target=one, args=(0.2 + n / 100,)) for n in range(30)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - began < 8
    assert len(late) == 30
    assert min(late) > -5
    assert max(late) < LATE


@pytest.mark.parametrize("code", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN])
def test_every_sort_of_unreachable(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeadlineSocket, "connect_ex", lambda *_: code)
    exchange = Exchange(1.0)
    with pytest.raises(ProbeFailure) as failure:
        resolve.connect(resolve.Resolver().resolve("127.0.0.1", 1, exchange), exchange)
    assert (failure.value.kind, exchange.peer) == ("refused", None)
