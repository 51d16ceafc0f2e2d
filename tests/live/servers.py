"""Servers of every sort on real sockets, for whoever needs something to probe.

`Server` accepts on a port of the system's choosing and gives each connection to a script, on a
thread of its own. A script is bytes to answer with, or a callable that gets a `Peer`. The functions
below make scripts. Leaving the `with` block ends everything, hanging scripts included.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any, Self

Script = Callable[["Peer"], None]

OK_BODY = b'{"status":"UP"}'
LATE = 5000
"""ms after its limit in which an attempt has ended, however busy the machine; a server that hangs takes
longer."""


class Peer:
    """One accepted connection, seen from the server."""

    def __init__(self, sock: socket.socket, server: Server, number: int) -> None:
        self.sock = sock
        self.server = server
        self.number = number
        """0 for the server's first connection, counted up."""

    def request(self) -> bytes:
        """Read one request head; what was read when the client stops early."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.sock.recv(65536)
            if not piece:
                break
            head += piece
        if head:
            self.server.requests.append(head)
        return head

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pause(self, seconds: float) -> bool:
        """Wait; True when the server is being stopped."""
        return self.server.stopping.wait(seconds)

    def hang(self) -> None:
        """Keep the connection open and silent until the server is stopped."""
        self.server.stopping.wait()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """A TCP server on loopback that follows a script; `tls` makes it speak TLS first."""

    def __init__(
        self,
        script: Script | bytes,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.script = script if callable(script) else answer(script)
        self.tls = tls
        self.host = host
        self.requests: list[bytes] = []
        self.stopping = threading.Event()
        self._peers: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/"

    @property
    def connections(self) -> int:
        """How many were accepted so far."""
        return len(self._threads)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse new connections, end the old ones. May be called twice."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        with self._lock:
            for sock in self._peers:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock, len(self._threads)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket, number: int) -> None:
        sock = raw
        with self._lock:
            self._peers.add(raw)
        try:
            # Answers go out as they are written: scripts decide what arrives together.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                sock = self.tls.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._peers.discard(raw)
                    self._peers.add(sock)
            self.script(Peer(sock, self, number))
        except (OSError, ValueError):
            pass  # the client went away, or the server is being stopped
        finally:
            _close(sock)
            with self._lock:
                self._peers -= {raw, sock}


def _close(sock: socket.socket) -> None:
    """Close as a well-behaved server does: all that was sent arrives, and no RST destroys it."""
    with suppress(OSError, ValueError):
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(0.2)
            sock.unwrap()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(0.2)
        while sock.recv(65536):
            pass
    sock.close()


# Scripts


def response(
    body: bytes = OK_BODY,
    *,
    status: str = "200 OK",
    headers: Iterable[tuple[str, str]] = (),
    version: str = "HTTP/1.1",
    length: int | None = -1,
) -> bytes:
    """A well-formed response; `length` overrides Content-Length, None leaves it out."""
    lines = [f"{version} {status}", "Content-Type: application/json"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A response in chunks; `end` is what stands after the last one."""
    head = response(b"", length=None, headers=[("Transfer-Encoding", "chunked"), *headers])
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def answer(data: bytes) -> Script:
    """Read the request, send these bytes, close."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)

    return script


def healthy(body: bytes = OK_BODY) -> Script:
    return answer(response(body))


def status(code: int, *headers: tuple[str, str], body: bytes = b"") -> Script:
    return answer(response(body, status=f"{code} Whatever", headers=headers))


def document(**fields: Any) -> Script:
    """A JSON body with status 200."""
    return answer(response(json.dumps(fields).encode()))


def redirect(location: str | None, code: int = 302, body: bytes = b"") -> Script:
    """`{url}` and `{port}` in the location stand for the server's own."""

    def script(peer: Peer) -> None:
        peer.request()
        where = () if location is None else (("Location", location.replace("{port}", str(peer.server.port))),)
        peer.send(response(body, status=f"{code} Moved", headers=where))

    return script


def by_path(**scripts: Script | bytes) -> Script:
    """Choose by the path's first word; `index` is `/`. Others get 404."""

    def script(peer: Peer) -> None:
        head = peer.request()
        path = head.split(b" ")[1].decode("latin-1").split("?")[0].strip("/") or "index"
        chosen = scripts.get(path, response(b"", status="404 Not Found"))
        # The request has been read already.
        peer.request = lambda: head  # type: ignore[method-assign]
        chosen(peer) if callable(chosen) else peer.send(chosen)

    return script


def hang() -> Script:
    """Accept and stay silent."""
    return Peer.hang


def hang_after(data: bytes) -> Script:
    """Send these bytes, then stay silent with the connection open."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        peer.hang()

    return script


def drip(data: bytes, every: float, *, size: int = 1) -> Script:
    """Send a few bytes at a time."""

    def script(peer: Peer) -> None:
        peer.request()
        for start in range(0, len(data), size):
            peer.send(data[start : start + size])
            if peer.pause(every):
                return

    return script


def endless(head: bytes, piece: bytes) -> Script:
    """Send the head, then the piece again and again."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head)
        while not peer.server.stopping.is_set():
            peer.send(piece)

    return script


def reset_after(data: bytes) -> Script:
    """Send these bytes, then RST."""

    def script(peer: Peer) -> None:
        peer.request()
        if data:
            peer.send(data)
            # Let them arrive: RST overtakes what is still on its way.
            peer.pause(0.02)
        peer.reset()

    return script


def close_at_once() -> Script:
    """Accept and close without reading."""
    return lambda _peer: None


def half_closed(data: bytes) -> Script:
    """Send these bytes and close one direction only; over TLS the closing alert is all that ends."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        if isinstance(peer.sock, ssl.SSLSocket):
            with suppress(OSError):
                peer.sock.unwrap()
        else:
            peer.sock.shutdown(socket.SHUT_WR)
        peer.hang()

    return script


def cut_tls(data: bytes) -> Script:
    """Send these bytes, then end the connection without TLS's closing alert."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.pause(0.2)
        peer.sock.close()

    return script


# Scripts that depend on how often they were asked: for gates, which ask again.


def in_turn(*scripts: Script | bytes) -> Script:
    """Each connection gets the next script; the last one stays."""
    prepared = [script if callable(script) else answer(script) for script in scripts]
    return lambda peer: prepared[min(peer.number, len(prepared) - 1)](peer)


def flaky(good: int, bad: int = 1, worse: Script | None = None) -> Script:
    """`good` healthy answers, then `bad` failing ones, over and over."""
    failing = worse or status(503)
    return lambda peer: (healthy() if peer.number % (good + bad) < good else failing)(peer)


def healthy_until(failing: threading.Event, worse: Script | None = None) -> Script:
    """Healthy until the event is set, then failing."""
    return _switched(failing, healthy(), worse or status(503))


def healthy_from(ready: threading.Event, before: Script | None = None) -> Script:
    """Failing until the event is set, then healthy."""
    return _switched(ready, before or status(503), healthy())


def _switched(event: threading.Event, before: Script, after: Script) -> Script:
    def script(peer: Peer) -> None:
        chosen = after if event.is_set() else before
        chosen(peer)

    return script


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


class BlackHole:
    """An address that swallows connection requests: its queue is full and nobody accepts."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        with ExitStack() as stack:
            self._listener = stack.enter_context(socket.socket())
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(0)
            self.host, self.port = self._listener.getsockname()
            stack.pop_all()
        self._fillers: list[socket.socket] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.push(self.__exit__)
            self._fill()
            stack.pop_all()
        return self

    def _fill(self) -> None:
        for _ in range(16):
            filler = socket.socket()
            filler.settimeout(0.2)
            self._fillers.append(filler)
            try:
                filler.connect((self.host, self.port))
            except TimeoutError:
                return
        message = "the queue of the black hole cannot be filled"
        raise RuntimeError(message)

    def __exit__(self, *_: object) -> None:
        for sock in [*self._fillers, self._listener]:
            sock.close()


class Proxy(Server):
    """A forwarding and tunnelling proxy that notes what it was asked for.

    Every name leads to `upstream` (host, port). `demand` is the Proxy-Authorization it wants.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        *,
        demand: str | None = None,
        refuse: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(self._follow, tls=tls)
        self._upstream = upstream
        self._demand = demand
        self._refuse = refuse

    def _follow(self, peer: Peer) -> None:
        head = peer.request()
        if self._refuse is not None:
            peer.send(f"HTTP/1.1 {self._refuse}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        if self._demand is not None and f"Proxy-Authorization: {self._demand}".encode() not in head:
            peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(self._upstream, timeout=5) as upstream:
            if head.startswith(b"CONNECT "):
                peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(upstream, peer.sock), daemon=True)
                back.start()
                _pump(peer.sock, upstream)
                back.join(5)
            else:
                upstream.sendall(head)
                _pump(upstream, peer.sock)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
