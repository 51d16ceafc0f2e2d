"""One bounded HTTP exchange with a registry or its token server.

requests, with urllib3's `Retry` made to know the time: what is transient is tried again, no wait
starts that cannot end in time, and nothing that a server does holds the caller past the limit.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, NameResolutionError, ResponseError
from urllib3.util.retry import Retry

import opsgate
from opsgate.errors import OpsgateError
from opsgate.stages.reference import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one body: the size of a manifest that every registry has to take."""
_REDIRECTS: Final = 3
_RETRIES: Final = 5
_TRANSIENT: Final = (429, 500, 502, 503, 504)
_CONNECT_LIMIT: Final = 5.0


class Unreachable(OpsgateError):
    """No usable answer: no such host, refused, cut off, TLS, too large or too late."""

    exit_code = 1


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, whole. Header names are in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `form` makes it a POST; `redirects` is how many are followed."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    authorization: str | None = None
    """Never sent to another host than the URL's."""
    form: dict[str, str] | None = None
    redirects: int = _REDIRECTS


class DeadlineRetry(Retry):
    """A `Retry` that gives up rather than wait past `deadline` (monotonic seconds)."""

    def __init__(self, *args: Any, deadline: float = float("inf"), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline = deadline

    def new(self, **kw: Any) -> Self:
        """Copy, as is done for each attempt: the base class copies only what it knows."""
        return super().new(deadline=self.deadline, **kw)

    def increment(
        self, method: Any = None, url: Any = None, response: Any = None, *args: Any, **kwargs: Any
    ) -> Self:
        """Count one failure. Raises `MaxRetryError` where the next attempt would come too late."""
        following = super().increment(method, url, response, *args, **kwargs)
        asked = self.get_retry_after(response) if response is not None else None
        if time.monotonic() + (asked or following.get_backoff_time()) >= self.deadline:
            reason = kwargs.get("error") or ResponseError("no time left to try again")
            raise MaxRetryError(kwargs["_pool"], url, reason)
        return following


def exchange(request: Request, deadline: float) -> Answer:
    """Send `request`, again where the failure is transient, and read the whole answer.

    `deadline` is in monotonic seconds. Any HTTP status is an answer. Raises `Unreachable`.
    """
    host = urlsplit(request.url).netloc.rpartition("@")[2]
    limit = deadline - time.monotonic()
    # Not a SimpleQueue: a signal at the end of its time limit can make its `get` wait for ever.
    outcomes: queue.Queue[Answer | Exception] = queue.Queue()

    def work() -> None:
        try:
            outcomes.put(_follow(request, deadline))
        except Exception as error:  # noqa: BLE001 - raised again where the caller waits
            outcomes.put(error)

    # A name server that is silent, or headers that drip, respect no socket timeout; a thread can be left.
    threading.Thread(target=work, name=f"registry {host}", daemon=True).start()
    try:
        outcome = outcomes.get(timeout=max(limit, 0.001))
    except queue.Empty:
        raise _too_late(host) from None
    if isinstance(outcome, (requests.RequestException, OSError, ValueError)):
        raise _explain(outcome, host) from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _follow(request: Request, deadline: float) -> Answer:
    for _ in range(request.redirects + 1):
        answer = _send(request, deadline)
        location = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            return answer
        following = urljoin(request.url, location)
        here, there = urlsplit(request.url), urlsplit(following)
        if there.scheme not in {"https", here.scheme}:
            raise Unreachable(f"{here.netloc} redirects from {here.scheme} to {there.scheme}: not followed")
        same = here.netloc == there.netloc
        request = msgspec.structs.replace(
            request, url=following, authorization=request.authorization if same else None
        )
    return answer


def _send(request: Request, deadline: float) -> Answer:
    left = max(deadline - time.monotonic(), 0.001)
    with requests.Session() as session:
        # As Docker does, no proxy stands between us and this machine.
        session.trust_env = not is_loopback(urlsplit(request.url).hostname or "")
        # requests itself reads REQUESTS_CA_BUNDLE only, and lets that one win.
        session.verify = os.environ.get("SSL_CERT_FILE") or True
        adapter = HTTPAdapter(max_retries=_retry(deadline))
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        with session.request(
            "POST" if request.form is not None else request.method,
            request.url,
            headers={
                "User-Agent": f"opsgate/{opsgate.__version__}",
                "Accept-Encoding": "identity",
                **request.headers,
            },
            data=request.form,
            auth=_Authorization(request.authorization),
            timeout=(min(_CONNECT_LIMIT, left), left),
            allow_redirects=False,
            stream=True,
        ) as response:
            return Answer(
                status=response.status_code,
                reason=response.reason or "",
                headers={name.lower(): value for name, value in response.headers.items()},
                body=_read(response, deadline),
            )


def _retry(deadline: float) -> DeadlineRetry:
    return DeadlineRetry(
        total=_RETRIES,
        other=0,  # a certificate does not get better by asking again
        allowed_methods=None,
        status_forcelist=_TRANSIENT,
        backoff_factor=0.2,
        backoff_jitter=0.1,
        raise_on_status=False,
        deadline=deadline,
    )


def _read(response: requests.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        host = urlsplit(response.url).netloc
        if len(body) > BODY_LIMIT:
            raise Unreachable(f"{host} sent more than {BODY_LIMIT} bytes where a manifest was expected")
        if time.monotonic() > deadline:
            raise _too_late(host)
    return bytes(body)


class _Authorization(requests.auth.AuthBase):
    """One header and nothing else: without this, requests would look into ~/.netrc."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header is not None:
            request.headers["Authorization"] = self._header
        return request


def _too_late(host: str) -> Unreachable:
    return Unreachable(
        f"{host} gave no whole answer in time", "Try again, or look at the network between here and there."
    )


def _explain(error: Exception, host: str) -> Unreachable:
    causes = tuple(_causes(error))
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return Unreachable(
            f"{host}: no such host", "Check the spelling of the registry, and the name server."
        )
    if any(isinstance(cause, requests.exceptions.SSLError) for cause in causes):
        innermost = str(causes[-1])[:300]
        hint = "For a private certificate authority, name its file in SSL_CERT_FILE or REQUESTS_CA_BUNDLE."
        return Unreachable(f"{host}: no trusted TLS connection: {innermost}", hint)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Unreachable(f"{host}: connection refused", "Is the registry running, and is the port right?")
    if any(isinstance(cause, requests.Timeout) for cause in causes):
        return _too_late(host)
    words = str(causes[-1])[:300] or type(error).__name__
    return Unreachable(f"{host}: {words}", "Try again; if it stays, look at the registry's own log.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from what requests raised to what happened: it wraps in `args`, `reason` and causes."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        wrapped = getattr(following, "reason", None), *following.args, following.__cause__
        following = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)
