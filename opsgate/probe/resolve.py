"""From a host name to a connected socket, within what is left of the attempt."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from opsgate.probe.exchange import DeadlineSocket, Exchange, ProbeFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    Address = tuple[int, int, int, str, tuple[Any, ...]]

HEAD_START: Final = 0.25
"""Seconds after which the next address is tried as well (RFC 8305), or less: all get their turn in half the
time that is left."""
_LOOKUPS_IN_FLIGHT: Final = 4
_UNREACHABLE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM}
)


class _Lookup:
    """One getaddrinfo under way. Such a call cannot be interrupted, only abandoned."""

    def __init__(self, host: str, port: int) -> None:
        self.done = threading.Event()
        self.addresses: Sequence[Address] = ()
        self.error: OSError | UnicodeError | None = None
        threading.Thread(target=self._run, args=(host, port), daemon=True, name="opsgate-dns").start()

    def _run(self, host: str, port: int) -> None:
        try:
            self.addresses = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self.error = error
        finally:
            self.done.set()


def _reason(error: OSError | UnicodeError | None) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it has no address" if error is None else "not a valid host name"


class Resolver:
    """Looks names up on threads of their own, a few at most for one name at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: dict[tuple[str, int], list[_Lookup]] = {}

    def resolve(self, host: str, port: int, exchange: Exchange) -> Sequence[Address]:
        """Every address of the host, in the order in which to try them.

        Raises `ProbeFailure`: `dns`, or `timeout` when the name server stays silent.
        """
        if ":" in host:
            host = host.replace("%25", "%")  # an IPv6 zone, as a URL has it
        literal = _literal(host, port)
        if literal is not None:
            return literal
        lookup = self._start(host, port)
        if not lookup.done.wait(exchange.left()):
            raise exchange.timed_out(f"looking up {host}")
        if lookup.error is not None or not lookup.addresses:
            raise ProbeFailure("dns", f"cannot look up {host}: {_reason(lookup.error)}")
        return _interleaved(lookup.addresses)

    def _start(self, host: str, port: int) -> _Lookup:
        with self._lock:
            key = (host, port)
            waiting = [lookup for lookup in self._in_flight.pop(key, ()) if not lookup.done.is_set()]
            # A silent name server holds each thread for many seconds: join the newest one instead of
            # piling up more.
            if len(waiting) < _LOOKUPS_IN_FLIGHT:
                waiting.append(_Lookup(host, port))
            self._in_flight[key] = waiting
            return waiting[-1]


def connect(addresses: Sequence[Address], exchange: Exchange) -> DeadlineSocket:
    """A connected socket to the first address that accepts, `exchange.peer` being that address.

    Later addresses get their turn when the ones before fail, or after a short head start, so that
    one dead address of several costs a quarter of a second and not the attempt. Raises
    `ProbeFailure`: `refused` (with `exchange.peer` set where a host refused, and null where no
    network leads there), `reset`, or `timeout`.
    """
    race = _Race(exchange)
    head_start = min(HEAD_START, exchange.left() / 2 / max(1, len(addresses)))
    try:
        for address in addresses:
            race.start(address)
            if (winner := race.wait(head_start if address is not addresses[-1] else None)) is not None:
                return winner
    finally:
        race.close()
    raise race.failure()


class _Race:
    """Connection attempts under way at the same time; the first to succeed wins."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._selector = selectors.PollSelector()
        self._running: dict[DeadlineSocket, str] = {}
        self._errors: list[tuple[str, OSError]] = []

    def start(self, address: Address) -> None:
        family, kind, protocol, _, where = address
        try:
            sock = DeadlineSocket(family, kind, protocol)
        except OSError as error:  # IPv6 may be missing altogether
            self._errors.append((where[0], error))
            return
        sock.exchange = self._exchange
        sock.setblocking(False)
        self._running[sock] = where[0]
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(where)
        if code in (0, errno.EINPROGRESS, errno.EINTR):
            self._selector.register(sock, selectors.EVENT_WRITE)
        else:
            self._fail(sock, code)

    def wait(self, head_start: float | None) -> DeadlineSocket | None:
        """The winner; None when all have failed or the head start is over. Past the limit it raises."""
        exchange = self._exchange
        until = exchange.deadline if head_start is None else exchange.clock() + head_start
        while self._running:
            left = min(until, exchange.deadline) - exchange.clock()
            if left <= 0 and until < exchange.deadline:
                return None
            if left <= 0:
                raise self.failure()
            for key, _ in self._selector.select(left):
                sock = key.fileobj
                assert isinstance(sock, DeadlineSocket)  # noqa: S101 - for the type checker
                self._selector.unregister(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0 and not _connected_to_itself(sock):
                    exchange.peer = self._running.pop(sock)
                    return sock
                self._fail(sock, code or errno.ECONNREFUSED)
        return None

    def _fail(self, sock: DeadlineSocket, code: int) -> None:
        self._errors.append((self._running.pop(sock), OSError(code, _words(code))))
        sock.close()

    def failure(self) -> ProbeFailure:
        """The most telling of what went wrong: a refusal is an answer, silence is not."""
        refused = [(ip, error) for ip, error in self._errors if error.errno == errno.ECONNREFUSED]
        if refused:
            self._exchange.peer = refused[0][0]
            return ProbeFailure("refused", f"connection refused by {refused[0][0]}")
        if self._running or not self._errors:
            return self._exchange.timed_out("connecting")
        ip, error = self._errors[0]
        if error.errno == errno.ETIMEDOUT:
            return ProbeFailure("timeout", f"no answer from {ip} while connecting")
        if error.errno == errno.ECONNRESET:
            self._exchange.peer = ip
            return ProbeFailure("reset", f"connection reset by {ip} while connecting")
        if error.errno in _UNREACHABLE:
            return ProbeFailure("refused", f"cannot reach {ip}: {error.strerror}")
        return ProbeFailure("refused", f"cannot connect to {ip}: {error.strerror}")

    def close(self) -> None:
        for sock in self._running:
            sock.close()
        self._selector.close()


def _words(code: int) -> str:
    import os

    return os.strerror(code).lower()


def _connected_to_itself(sock: socket.socket) -> bool:
    # On loopback the kernel may pick the target's own dead port as the source, and TCP then connects the
    # socket to itself: a dead port that would seem to answer.
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        # Reset already: a connection that was there, which is for the first read to tell.
        return False


def _literal(host: str, port: int) -> Sequence[Address] | None:
    """The address where the host is a literal one (which needs no name server), else None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None
    where: tuple[Any, ...] = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]


def _interleaved(addresses: Sequence[Address]) -> Sequence[Address]:
    """Each address once, IPv6 and IPv4 in turn, so that one broken family cannot use up the time."""
    unique = list({address[4][:2]: address for address in addresses}.values())
    first = [a for a in unique if a[0] == unique[0][0]]
    other = [a for a in unique if a[0] != unique[0][0]]
    mixed: list[Address] = []
    for position in range(max(len(first), len(other))):
        mixed += first[position : position + 1] + other[position : position + 1]
    return mixed
