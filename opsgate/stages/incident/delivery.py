"""One message to another service: tried again while that can help, and never past its time limit."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import Final
from urllib.parse import urlsplit

from opsgate.errors import OpsgateError
from opsgate.stages.oci.wire import Answer, Request, Unreachable, exchange

ATTEMPT_LIMIT: Final = 10.0
"""Seconds of one attempt: for the connection, and between two pieces of the answer."""
_RETRIES: Final = 20
_SUCCESS: Final = range(200, 300)


class Undelivered(OpsgateError):
    """The service did not take it, or not in time."""

    exit_code = 1


class Post:
    """Sends until `deadline` (monotonic seconds), or until `stop` is set.

    `environ` names proxies and trusted certificates.
    """

    def __init__(self, deadline: float, stop: Event, environ: Mapping[str, str]) -> None:
        self._deadline, self._stop, self._environ = deadline, stop, environ

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        """The answer, whose status is a success. Raises `Undelivered`, which names the host only."""
        request = Request(
            url=url,
            method=method,
            headers=headers,
            body=body,
            redirects=0,
            retries=_RETRIES,
            attempt_limit=ATTEMPT_LIMIT,
        )
        try:
            answer = exchange(request, self._deadline, environ=self._environ, check=self._check)
        except Unreachable as error:
            raise Undelivered(error.message) from None
        if answer.status not in _SUCCESS:
            raise Undelivered(f"{urlsplit(url).netloc.rpartition('@')[2]} answered {answer.status}")
        return answer

    def _check(self) -> None:
        if self._stop.is_set():
            raise Undelivered("given up")
