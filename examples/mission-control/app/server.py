"""What the services share: routing, the fault baked into the image, a clean end on SIGTERM and SIGINT."""

from __future__ import annotations

import hmac
import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from email.message import Message

MAX_BODY_BYTES = 64 * 1024
UP_SHARE_WHEN_FLAPPING = 0.7


class Request(NamedTuple):
    """What a route sees of a request: its headers (any case) and its whole body."""

    headers: Message
    body: bytes


class Reply(NamedTuple):
    """What a route answers."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Fault(NamedTuple):
    """How this image misbehaves: a name from README.md (empty: not at all), and its time in seconds."""

    name: str = ""
    seconds: float = 0.0


Routes = Mapping[tuple[str, str], Callable[[Request], Reply]]


def baked_fault() -> Fault:
    """Read the fault that publishing baked into this image: none where it carries no BUILD file."""
    try:
        build = json.loads((Path(__file__).parent / "BUILD").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Fault()
    return Fault(build["fault"], build["fault_seconds"])


def json_reply(status: int, document: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Give the document as JSON."""
    return Reply(status, json.dumps(document).encode() + b"\n", headers=headers)


def health_reply(fault: Fault, **details: object) -> Reply:
    """Give a health document: 200, `status` and the given details."""
    return json_reply(200, {"status": "DOWN" if fault.name == "status-down" else "ok", **details})


def version_reply(service: str, fault: Fault) -> Reply:
    """Say which service answers, and of which revision it claims to be."""
    return json_reply(200, {"name": service, "version": revision(fault)})


def revision(fault: Fault) -> str:
    """Give the revision that this process was started as."""
    if fault.name == "wrong-revision":
        return "0" * 12
    return os.environ.get("MISSION_CONTROL_REVISION", "unknown")


def bearer_only(route: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    """Close the route to all who lack the token of MISSION_CONTROL_TOKEN (unset: to everybody)."""
    token = os.environ.get("MISSION_CONTROL_TOKEN", "")

    def guarded(request: Request) -> Reply:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
        if token and known:
            return route(request)
        return json_reply(401, {"error": "a bearer token is required"}, (("WWW-Authenticate", "Bearer"),))

    return guarded


class Handler(BaseHTTPRequestHandler):
    """One connection: one request, one reply."""

    server: Server
    timeout = 30

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer("GET")

    def do_HEAD(self) -> None:
        """Answer a HEAD: as a GET, without the body."""
        self._answer("GET", with_body=False)

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer("POST")

    def version_string(self) -> str:
        """Name the server without the version of Python."""
        return "mission-control"

    def log_message(self, *_: object) -> None:
        """Log nothing: a probe four times a second would fill the disk with its own traces."""

    def _answer(self, method: str, *, with_body: bool = True) -> None:
        if self.server.fault.name == "hang":
            # Blocks until the client gives up, so that no thread outlives its connection.
            self.connection.settimeout(None)
            self.connection.recv(1)
            return
        if self.server.fault.name == "slow":
            time.sleep(self.server.fault.seconds)
        reply = self._reply(method)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def _reply(self, method: str) -> Reply:
        if self.server.in_down_phase():
            return json_reply(503, {"status": "fail"})
        path = self.path.partition("?")[0]
        route = self.server.routes.get((method, path))
        if route is None:
            allowed = sorted(verb for verb, known in self.server.routes if known == path)
            if allowed:
                return json_reply(405, {"error": "wrong method"}, (("Allow", ", ".join(allowed)),))
            return json_reply(404, {"error": "no such path"})
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return json_reply(413, {"error": f"at most {MAX_BODY_BYTES} bytes, with their Content-Length"})
        return route(Request(self.headers, self.rfile.read(int(length))))


class Server(ThreadingHTTPServer):
    """A thread for each connection; on a fixed port that a restart can take over at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], routes: Routes, fault: Fault) -> None:
        self.routes = routes
        self.fault = fault
        self.started = time.monotonic()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without the reverse look-up of http.server, which can take seconds where DNS is broken."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, *_: object) -> None:
        """Log one line, unless it is only the client that went away."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log(f"request failed: {error!r}")

    def in_down_phase(self) -> bool:
        """Tell whether the fault `flapping` has the service down at this moment."""
        if self.fault.name != "flapping":
            return False
        phase = (time.monotonic() - self.started) % self.fault.seconds
        return phase > UP_SHARE_WHEN_FLAPPING * self.fault.seconds


def serve(service: str, routes: Routes, fault: Fault, *, on_start: Callable[[], None] = lambda: None) -> int:
    """Serve on MISSION_CONTROL_HOST:MISSION_CONTROL_LISTEN until SIGTERM or SIGINT; give the exit code.

    Threads of the service's own are started by `on_start`, and by nothing before it.
    """
    signals = {signal.SIGTERM, signal.SIGINT}
    # Blocked before any thread exists: every thread inherits it, and only the sigwait below takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    on_start()
    host = os.environ.get("MISSION_CONTROL_HOST", "127.0.0.1")
    port = int(os.environ["MISSION_CONTROL_LISTEN"])
    if fault.name == "dead-port":
        log(f"{service} {revision(fault)} runs and never listens (fault dead-port)")
        signal.sigwait(signals)
        return 0
    try:
        server = Server((host, port), routes, fault)
    except OSError as error:
        log(f"{service} cannot listen on {host}:{port}: {error.strerror}")
        return 1
    if fault.name == "crash-late":
        threading.Thread(target=_crash, args=(service, fault.seconds), daemon=True).start()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    log(f"{service} {revision(fault)} listens on {host}:{port}")
    received = signal.sigwait(signals)
    server.shutdown()
    server.server_close()
    log(f"{service} ended by {signal.Signals(received).name}")
    return 0


def log(text: str) -> None:
    """Write one line with its time to stderr."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()


def _crash(service: str, seconds: float) -> None:
    time.sleep(seconds)
    log(f"{service} crashes (fault crash-late)")
    os._exit(1)
