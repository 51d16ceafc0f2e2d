"""One message to another service: tried again while that can help, and never past its time limit."""

from __future__ import annotations

import os
import time
from threading import Event
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from opsgate import __version__
from opsgate.errors import OpsgateError
from opsgate.stages.reference import is_loopback

if TYPE_CHECKING:
    import requests

ATTEMPT_LIMIT: Final = 10.0
"""Seconds of one attempt: for the connection, and between two pieces of the answer."""
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 10.0
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_BODY_LIMIT: Final = 4 << 20


class Undelivered(OpsgateError):
    """The service did not take it, or not in time."""

    exit_code = 1


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the service answered."""

    status: int
    body: bytes
    retry_after: float = 0.0
    """Seconds that it asks to be left alone."""


class Post:
    """Sends until `deadline` (monotonic seconds), or until `stop` is set."""

    def __init__(self, deadline: float, stop: Event) -> None:
        self._deadline, self._stop = deadline, stop

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Reply:
        """The answer, whose status is below 300. Raises `Undelivered`, which names the host only."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        wait = _FIRST_WAIT
        while True:
            try:
                reply = self._once(method, url, headers, body)
                why, again = f"{host} answered {reply.status}", reply.status in _TRANSIENT
                if reply.status < 300:  # noqa: PLR2004 - success
                    return reply
            except Undelivered as error:
                reply, why, again = None, f"{host}: {error.message}", True
            pause = max(wait, min(reply.retry_after, 60.0) if reply else 0.0)
            if not again or time.monotonic() + pause >= self._deadline or self._stop.wait(pause):
                raise Undelivered(why)
            wait = min(wait * 2, _LONGEST_WAIT)

    def _once(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Reply:
        import requests

        left = max(min(ATTEMPT_LIMIT, self._deadline - time.monotonic()), 0.001)
        try:
            with requests.Session() as session:
                session.trust_env = not is_loopback(urlsplit(url).hostname or "")
                session.verify = os.environ.get("SSL_CERT_FILE") or True
                with session.request(
                    method,
                    url,
                    headers={"User-Agent": f"opsgate/{__version__}", **headers},
                    data=body,
                    auth=_as_it_is,
                    timeout=left,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    return _reply(response)
        except (requests.RequestException, OSError, ValueError) as error:
            raise Undelivered(_words(error)) from None


def _reply(response: requests.Response) -> Reply:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise Undelivered(f"an answer of more than {_BODY_LIMIT >> 20} MiB")
    asked = response.headers.get("Retry-After", "")
    return Reply(
        status=response.status_code,
        body=bytes(body),
        retry_after=float(asked) if asked.isascii() and asked.isdecimal() else 0.0,
    )


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An authentication that adds nothing: without one, requests would look into ~/.netrc."""
    return request


def _words(error: Exception) -> str:
    """What happened, without the URL, which may be a secret: library errors quote it."""
    import requests

    for kind, words in (
        (requests.exceptions.SSLError, "no trusted TLS connection"),
        (requests.exceptions.ProxyError, "the proxy does not let it through"),
        (requests.exceptions.ConnectTimeout, "no connection in time"),
        (requests.exceptions.ReadTimeout, "no answer in time"),
        (requests.exceptions.ConnectionError, "no connection, or it was cut off"),
        (requests.exceptions.InvalidHeader, "a header that cannot be sent"),
    ):
        if isinstance(error, kind):
            return words
    return f"the exchange failed ({type(error).__name__})"
