"""One message to another service: tried again while that can help, and never past its time limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event
from typing import Final
from urllib.parse import urlsplit

from opsgate.errors import ExitCode, OpsgateError
from opsgate.stages.wire import Answer, Request, Unreachable, exchange

ATTEMPT_LIMIT: Final = 10.0
"""Seconds of one attempt: for the connection, and between two pieces of the answer."""
RETRIES: Final = 20
_SUCCESS: Final = range(200, 300)
_REFUSALS: Final = range(300, 500)
_TRANSIENT: Final = frozenset({408, 425, 429})


class Undelivered(OpsgateError):
    """The service did not take it, or not in time. `status` is what it answered, None without an answer."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "", *, status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status

    @property
    def is_final(self) -> bool:
        """Whether the service has refused it, for as long as nobody changes anything."""
        return self.status is not None and self.status in _REFUSALS and self.status not in _TRANSIENT


class Post:
    """Sends until `deadline` (monotonic seconds), or until `stop` is set.

    `environ` names proxies and trusted certificates.
    """

    def __init__(self, deadline: float, stop: Event, environ: Mapping[str, str]) -> None:
        self._deadline, self._stop, self._environ = deadline, stop, environ

    def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None = None,
        *,
        retries: int = RETRIES,
    ) -> Answer:
        """The answer, whose status is a success. Raises `Undelivered`, which names the host only."""
        request = Request(
            url=url,
            method=method,
            headers=headers,
            body=body,
            redirects=0,
            retries=retries,
            attempt_limit=ATTEMPT_LIMIT,
        )
        try:
            answer = exchange(request, self._deadline, environ=self._environ, check=self._check)
        except Unreachable as error:
            raise Undelivered(error.message) from None
        if answer.status not in _SUCCESS:
            host = urlsplit(url).netloc.rpartition("@")[2]
            raise Undelivered(f"{host} answered {answer.status}", status=answer.status)
        return answer

    def pause(self, seconds: float) -> bool:
        """Wait before another attempt. False, at once, where none can follow any more."""
        return time.monotonic() + seconds < self._deadline and not self._stop.wait(seconds)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Undelivered("given up")
