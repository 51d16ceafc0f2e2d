"""The requests adapter: a fresh connection, one hard limit over everything, a bounded whole body.

`DeadlineAdapter` can be mounted on a `requests.Session`; `fetch` uses it without one, because
a session brings cookies, netrc, its own redirects and 1 ms of CPU that a probe does not want.
"""

from __future__ import annotations

import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from opsgate.hosts import PORTS
from opsgate.probe.decode import decode
from opsgate.probe.exchange import Exchange, ProbeFailure, tls_reason
from opsgate.probe.reply import StrictResponse
from opsgate.probe.resolve import Resolver, connect

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

REDIRECT_LIMIT: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NO_RETRIES: Final = Retry(total=False, redirect=False, raise_on_status=False)


class _Connection(HTTPConnection):
    """urllib3's connection on a socket that obeys an `Exchange`."""

    response_class: Any = StrictResponse

    def __init__(self, *args: Any, exchange: Exchange, resolver: Resolver, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exchange = exchange
        self.resolver = resolver

    def _new_conn(self) -> socket.socket:
        host, port = self._dns_host.strip("[]"), self.port
        try:
            sock = connect(self.resolver.resolve(host, port, self.exchange), self.exchange)
        except ProbeFailure as failure:
            if self.proxy is None:
                raise
            # The runner's proxy is no part of the runtime: not reaching it is no answer of the host.
            self.exchange.peer = None
            raise ProbeFailure(failure.kind, f"proxy {host}:{port}: {failure.detail}") from failure
        # The handshake is one call into OpenSSL, and for that this is the limit of the whole of it.
        _limit(sock, self.exchange)
        return sock

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except ProbeFailure as failure:
            raise ProbeFailure(failure.kind, f"proxy: {failure.detail}") from failure
        except OSError as error:
            # Without a status code in the record: it is not the runtime's.
            raise ProbeFailure("status", f"proxy refused the tunnel: {error}") from error
        except HTTPException as error:
            raise ProbeFailure("protocol", f"proxy: {error}") from error
        finally:
            # What the proxy said is no answer of the runtime.
            self.exchange.received = 0
        # The handshake gets what is left now.
        self.sock.settimeout(self.exchange.left())


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS; the certificate's date is read right after the handshake."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        secured = super()._connect_tls_proxy(hostname, sock)
        return cast("ssl.SSLSocket", _bind(secured, self.exchange))

    def connect(self) -> None:
        exchange = self.exchange
        try:
            super().connect()
        except TimeoutError as error:
            raise exchange.timed_out("the TLS handshake was under way") from error
        except ssl.SSLError as error:
            raise ProbeFailure("tls", f"TLS handshake failed: {tls_reason(error)}") from error
        except OSError as error:
            raise ProbeFailure(
                "tls", f"connection closed during the TLS handshake ({_words(error)})"
            ) from error
        sock = _bind(self.sock, exchange)
        certificate = sock.getpeercert()
        if certificate:
            exchange.not_after = ssl.cert_time_to_seconds(certificate["notAfter"])


def _bind(sock: Any, exchange: Exchange) -> Any:
    """Hand a socket that TLS has just made to its exchange."""
    sock.exchange = exchange
    _limit(sock, exchange)
    # Without this the end of TLS and the end of the connection look the same.
    sock.suppress_ragged_eofs = False
    return sock


def _limit(sock: socket.socket, exchange: Exchange) -> None:
    """Give a new socket what is left; past the limit nobody has it yet who would close it."""
    try:
        sock.settimeout(exchange.left())
    except ProbeFailure:
        sock.close()
        raise


def _words(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineAdapter(HTTPAdapter):
    """A requests adapter for one exchange: whatever happens, it ends within the exchange's limit.

    `context` gives what verifies the peer, one of `network.tls_context`, whose sockets know of limits.
    Raises `ProbeFailure` for all that goes wrong on the network.
    """

    def __init__(self, exchange: Exchange, context: Callable[[], ssl.SSLContext], resolver: Resolver) -> None:
        self.exchange = exchange
        self.context = context
        self.resolver = resolver
        super().__init__(pool_connections=1, pool_maxsize=1)
        self.max_retries = _NO_RETRIES

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: no connection outlives its attempt, so there is nothing to pool."""

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the context verifies, and loading its certificates again would cost 30 ms."""

    def close(self) -> None:
        """Do nothing: `fetch` closes the one response there is."""

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: Any,  # noqa: ARG002 - as requests calls it
        proxies: Any = None,
        cert: Any = None,  # noqa: ARG002 - as requests calls it
    ) -> HTTPConnectionPool:
        """A pool made for this exchange alone."""
        url = urlsplit(cast("str", request.url))
        host, port = cast("str", url.hostname), url.port or PORTS[url.scheme]
        extra: dict[str, Any] = {"exchange": self.exchange, "resolver": self.resolver}
        proxy = (proxies or {}).get(url.scheme)
        if proxy:
            return self._proxied(proxy, url.scheme, host, port, extra)
        if url.scheme == "https":
            return _TLSPool(host, port, maxsize=1, retries=False, ssl_context=self.context(), **extra)
        return _Pool(host, port, maxsize=1, retries=False, **extra)

    def _proxied(
        self, proxy: str, scheme: str, host: str, port: int, extra: dict[str, Any]
    ) -> HTTPConnectionPool:
        tls: dict[str, Any] = {}
        if scheme == "https" or proxy.lower().startswith("https:"):
            tls = {"ssl_context": self.context(), "proxy_ssl_context": self.context()}
        manager = self.proxy_manager_for(proxy, **tls)
        pool = cast("HTTPConnectionPool", manager.connection_from_host(host, port, scheme))
        pool.ConnectionCls = _TLSConnection if pool.scheme == "https" else _Connection
        pool.conn_kw.update(extra)
        return pool

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Make requests' response without its cookie jar: no attempt remembers another."""
        response = requests.Response()
        response.status_code = resp.status
        response.headers.update(resp.headers)
        response.raw = resp
        response.reason = resp.reason
        response.url = cast("str", req.url)
        response.request = req
        return response


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, worked out once for each target."""

    prepared: requests.PreparedRequest
    proxies: Mapping[str, str]
    """Scheme to proxy URL, empty where the host is reached directly."""
    context: Callable[[], ssl.SSLContext]
    """Called only where TLS is spoken: it may cost 30 ms."""
    final: tuple[tuple[int, int], ...] = ()
    """Redirect statuses that are wanted themselves, and so not followed."""


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A response whose head arrived; `failure` says what was wrong with its body, if anything."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    elapsed_ms: float
    """From the start to the body's last byte."""
    failure: ProbeFailure | None = None


def fetch(request: Request, exchange: Exchange, resolver: Resolver) -> Fetched:
    """Send the request, follow redirects to the same host, read the whole response.

    Raises `ProbeFailure` unless at least the final head arrived.
    """
    prepared = request.prepared
    for _ in range(REDIRECT_LIMIT + 1):
        response = _send(request, prepared, exchange, resolver)
        try:
            status = response.status_code
            if status not in _REDIRECTS or any(low <= status <= high for low, high in request.final):
                return _read(exchange.reply, exchange)
        finally:
            # Not by requests' `close()`, which may read the rest first.
            response.raw.close()
        prepared = _redirected(prepared, response)
    raise ProbeFailure("redirect", f"more than {REDIRECT_LIMIT} redirects", status)


def _send(
    request: Request, prepared: requests.PreparedRequest, exchange: Exchange, resolver: Resolver
) -> requests.Response:
    adapter = DeadlineAdapter(exchange, request.context, resolver)
    limit = cast("Any", Timeout(exchange.left()))
    try:
        return adapter.send(prepared, stream=True, timeout=limit, proxies=dict(request.proxies))
    except (ValueError, HTTPError, HTTPException, requests.RequestException) as error:
        # A URL that no part of the libraries refused before, and none can use.
        raise ProbeFailure("protocol", f"no request can be made: {error}") from error


def _read(reply: StrictResponse, exchange: Exchange) -> Fetched:
    headers = tuple(reply.headers.items())
    encodings = ",".join(value for name, value in headers if name.lower() == "content-encoding")
    body, elapsed_ms, broken = b"", 0.0, None
    try:
        received = reply.read_whole()
        elapsed_ms = exchange.elapsed_ms()
        reply.refuse_more()
        body = decode(received, encodings)
    except ProbeFailure as failure:
        broken = failure
    return Fetched(status=reply.status, headers=headers, body=body, elapsed_ms=elapsed_ms, failure=broken)


def _redirected(prepared: requests.PreparedRequest, response: requests.Response) -> requests.PreparedRequest:
    """The request to follow the redirect with; the host name, and so who sees the token, stays the same."""
    status = response.status_code
    # Header bytes arrive as Latin-1; what servers write there is UTF-8.
    location = response.headers.get("location", "").encode("latin-1", "replace").decode("utf-8", "replace")
    if not location:
        raise ProbeFailure("redirect", f"status {status} without a Location", status)
    unusable = ProbeFailure("redirect", "redirected to an unusable Location", status)
    here = urlsplit(cast("str", prepared.url))
    try:
        there = urlsplit(urljoin(cast("str", prepared.url), location))
        host, port = there.hostname or "", there.port
    except ValueError:
        raise unusable from None
    if port == 0:
        raise unusable
    if there.scheme not in PORTS or not host:
        scheme = location.partition(":")[0] if there.scheme else "relative"
        raise ProbeFailure("redirect", f"redirected to a {scheme} URL", status)
    if host.rstrip(".") != (here.hostname or "").rstrip("."):
        place = there.netloc.rpartition("@")[2]
        raise ProbeFailure("redirect", f"redirected to another host: {place}", status)
    if here.scheme == "https" and there.scheme == "http":
        raise ProbeFailure("redirect", "redirected from https to http", status)
    netloc = f"[{host}]" if ":" in host else host
    followed = prepared.copy()
    url = there._replace(netloc=netloc if port is None else f"{netloc}:{port}", fragment="").geturl()
    try:
        followed.prepare_url(url, None)
    except requests.RequestException as error:
        raise unusable from error
    return followed
