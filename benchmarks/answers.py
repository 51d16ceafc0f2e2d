"""The server that the benchmarks probe, in a process of its own so that its work is not counted.

Prints its ports as one JSON object, then answers until its standard input ends:

    http, https   200; below /at/SECONDS only once the monotonic clock has passed that, 503 before;
                  /first/at/SECONDS tells when that was asked for and healthy for the first time
    silent        accepts and never says anything
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time

BODY = b'{"status":"UP"}'
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
WAITING = 1024
"""Connections that may wait to be accepted: more than any benchmark opens at once."""


class Answer(asyncio.Protocol):
    """One request, one answer, and the connection is closed."""

    def __init__(self, firsts: dict[str, float]) -> None:
        self._firsts = firsts
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the head is whole."""
        self._received += data
        if self._transport is None or b"\r\n\r\n" not in self._received:
            return
        path = self._received.split(b" ", 2)[1].decode()
        now = time.monotonic()
        at = float(path.removeprefix("/at/")) if path.startswith("/at/") else 0.0
        status, body = b"503 Service Unavailable", BODY
        if now >= at:
            status = b"200 OK"
            self._firsts.setdefault(path, now)
        if path.startswith("/first/"):
            body = json.dumps(self._firsts[path.removeprefix("/first")]).encode()
        self._transport.write(HEAD % (status, len(body)) + body)
        self._transport.close()
        self._transport = None


async def serve(certificate: str | None) -> None:
    """Listen on ports that the system chooses, until standard input ends."""
    loop = asyncio.get_running_loop()
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    firsts: dict[str, float] = {}

    def answer() -> Answer:
        return Answer(firsts)

    kinds = {"http": (answer, None), "https": (answer, context), "silent": (asyncio.Protocol, None)}
    servers = {
        name: await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls, backlog=WAITING)
        for name, (protocol, tls) in kinds.items()
    }
    print(json.dumps({name: s.sockets[0].getsockname()[1] for name, s in servers.items()}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else None))
