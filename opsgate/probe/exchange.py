"""What one attempt may still take and what it has seen, and the sockets that obey it."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from opsgate.verdict.targets import Kind


class ProbeFailure(Exception):
    """The attempt failed: `kind` of the closed list, `detail` for people.

    Not an OSError on purpose: urllib3 and requests let it through as it is, so that what is known
    where it happens is not guessed again from a stack of wrapped errors.
    """

    def __init__(self, kind: Kind, detail: str, status_code: int | None = None) -> None:
        super().__init__(detail)
        self.kind: Kind = kind
        self.detail = detail
        self.status_code = status_code


class Exchange:
    """One attempt under way: its time limit, and what the network has shown so far."""

    __slots__ = ("clock", "deadline", "limit", "not_after", "peer", "ragged", "received", "reply", "started")

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.limit = limit
        self.started = clock()
        self.deadline = self.started + limit
        self.received = 0
        """Bytes of heads and bodies, redirects and a refusing proxy's answer included.

        0 behind a proxy that is itself reached over TLS: what comes through it is not seen here.
        """
        self.peer: str | None = None
        self.not_after: float | None = None
        self.ragged = False
        """TLS ended without its closing alert: a body that ends there may be cut off."""
        self.reply: Any = None
        """The strict response being read; see `probe.reply`."""

    def left(self) -> float:
        """Seconds left; past the limit a `ProbeFailure` of kind `timeout`."""
        left = self.deadline - self.clock()
        if left <= 0:
            raise self.timed_out()
        return left

    def elapsed_ms(self) -> float:
        """Time since the start, in ms, to a tenth."""
        return round((self.clock() - self.started) * 1000, 1)

    def timed_out(self, doing: str = "") -> ProbeFailure:
        """The failure of an attempt whose time is over, and what it was doing."""
        where = doing or (
            "waiting for the rest of the response" if self.received else "waiting for an answer"
        )
        return ProbeFailure("timeout", f"time limit of {round(self.limit, 3):g} s reached while {where}")


class DeadlineSocket(socket.socket):
    """A socket on which every blocking call takes what is left of the exchange, and no more."""

    exchange: Exchange

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: D102 - as socket's
        exchange = self.exchange
        self.settimeout(exchange.left())
        try:
            count = super().recv_into(*args, **kwargs)
        except OSError as error:
            if not _is_ragged(error):
                raise _broken(exchange, error) from error
            exchange.ragged = True
            return 0
        exchange.received += count
        return count

    def recv(self, *args: Any, **kwargs: Any) -> bytes:  # noqa: D102 - as socket's
        exchange = self.exchange
        self.settimeout(exchange.left())
        try:
            return super().recv(*args, **kwargs)
        except OSError as error:
            raise _broken(exchange, error) from error

    def sendall(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102 - as socket's
        exchange = self.exchange
        self.settimeout(exchange.left())
        try:
            super().sendall(*args, **kwargs)
        except TimeoutError as error:
            raise _broken(exchange, error) from error
        except OSError:
            # A server may answer and close before it has read the request: its answer counts,
            # and what is wrong shows when that is read.
            return


class DeadlineTLSSocket(DeadlineSocket, ssl.SSLSocket):
    """`DeadlineSocket` after the handshake. `exchange` is set once the handshake is done."""


def _broken(exchange: Exchange, error: OSError) -> ProbeFailure:
    if isinstance(error, TimeoutError):
        return exchange.timed_out()
    if isinstance(error, ssl.SSLError):
        return ProbeFailure("tls", f"TLS failed: {tls_reason(error)}")
    when = f"after {exchange.received} bytes" if exchange.received else "before any answer"
    return ProbeFailure("reset", f"connection reset by the server {when}")


def _is_ragged(error: OSError) -> bool:
    """Whether the peer ended the connection without TLS's closing alert."""
    # Python 3.11.2 does not tell it from other errors by its class.
    return isinstance(error, ssl.SSLEOFError) or (
        isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"
    )


def tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL's words, without file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
