"""One bounded HTTP exchange with another service: a registry, its token server, a webhook, GitHub.

requests, with urllib3's `Retry` made to know the time: what is transient is tried again, no wait
starts that cannot end in time, and nothing that a server does holds the caller past the limit.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, NameResolutionError, ResponseError
from urllib3.exceptions import TimeoutError as OutOfTime
from urllib3.util.retry import Retry

import opsgate
from opsgate.errors import ConfigurationError, ExitCode, OpsgateError
from opsgate.hosts import is_loopback
from opsgate.probe.network import proxy_for, trust_for
from opsgate.redact import whole
from opsgate.stages.halt import go_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BODY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one body: the size of a manifest that every registry has to take."""
_REDIRECTS: Final = 3
_RETRIES: Final = 5
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_CONNECT_LIMIT: Final = 5.0
_LONGEST_WAIT: Final = 10.0
_LOOK: Final = 0.1
"""Seconds between two looks at whether the exchange is still wanted."""


class Unreachable(OpsgateError):
    """No usable answer: no such host, refused, cut off, TLS, too large or too late."""

    exit_code = ExitCode.FAILED


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, whole. Header names are in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `redirects` is how many are followed, `retries` how often it is sent again."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    authorization: str | None = None
    """Never sent to another host than the URL's."""
    body: bytes | dict[str, str] | None = None
    """Bytes as they are, or the fields of a form."""
    redirects: int = _REDIRECTS
    retries: int = _RETRIES
    attempt_limit: float = float("inf")
    """Seconds for a connection, and between two pieces of the answer."""
    looks_up_again: bool = True
    """Whether a name that does not resolve is tried again."""


class DeadlineRetry(Retry):
    """A `Retry` that gives up rather than wait past `deadline` (monotonic seconds), or once `left` is set."""

    def __init__(
        self,
        *args: Any,
        deadline: float = float("inf"),
        left: threading.Event | None = None,
        looks_up_again: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.deadline, self.left, self.looks_up_again = deadline, left or threading.Event(), looks_up_again

    def new(self, **kw: Any) -> Self:
        """Copy, as is done for each attempt: the base class copies only what it knows."""
        own = {"deadline": self.deadline, "left": self.left, "looks_up_again": self.looks_up_again}
        return super().new(**own, **kw)

    def increment(
        self, method: Any = None, url: Any = None, response: Any = None, *args: Any, **kwargs: Any
    ) -> Self:
        """Count one failure. Raises `MaxRetryError` where the next attempt would come too late."""
        error = kwargs.get("error")
        is_final = isinstance(error, NameResolutionError) and not self.looks_up_again
        if is_final or self.left.is_set():
            raise MaxRetryError(kwargs["_pool"], url, error)
        following = super().increment(method, url, response, *args, **kwargs)
        asked = self.get_retry_after(response) if response is not None else None
        if time.monotonic() + (asked or following.get_backoff_time()) >= self.deadline:
            reason = error or ResponseError("no time left to try again")
            raise MaxRetryError(kwargs["_pool"], url, reason)
        return following


def exchange(
    request: Request, deadline: float, *, environ: Mapping[str, str], check: Callable[[], None] = go_on
) -> Answer:
    """Send `request`, again where the failure is transient, and read the whole answer.

    `deadline` is in monotonic seconds; `environ` names proxies and trusted certificates. Any HTTP status
    is an answer. Raises `Unreachable`, or what `check` raises, which is asked many times meanwhile.
    """
    host = urlsplit(request.url).netloc.rpartition("@")[2]
    # Not a SimpleQueue: a signal at the end of its time limit can make its `get` wait for ever.
    outcomes: queue.Queue[Answer | Exception] = queue.Queue()
    left = threading.Event()

    def work() -> None:
        try:
            outcomes.put(_follow(request, deadline, environ, left))
        except Exception as error:  # noqa: BLE001 - raised again where the caller waits
            outcomes.put(error)

    # A name server that is silent, or headers that drip, respect no socket timeout; a thread can be left.
    try:
        threading.Thread(target=work, name=f"exchange {host}", daemon=True).start()
    except RuntimeError as error:
        hint = "Raise the limit on processes, or end some of them."
        raise Unreachable(f"{host} was not asked: this machine: {error}", hint) from None
    try:
        outcome = _wait(outcomes, deadline, check)
    except queue.Empty:
        raise _too_late(host) from None
    finally:
        left.set()
    if isinstance(outcome, (requests.RequestException, OSError, ValueError)):
        raise _explain(outcome, host) from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _wait(
    outcomes: queue.Queue[Answer | Exception], deadline: float, check: Callable[[], None]
) -> Answer | Exception:
    """The outcome. Raises `queue.Empty` at the deadline."""
    while True:
        check()
        remaining = deadline - time.monotonic()
        try:
            return outcomes.get(timeout=min(max(remaining, 0.001), _LOOK))
        except queue.Empty:
            if remaining <= _LOOK:
                raise


def _follow(request: Request, deadline: float, environ: Mapping[str, str], left: threading.Event) -> Answer:
    for _ in range(request.redirects + 1):
        answer = _send(request, deadline, environ, left)
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


def _send(request: Request, deadline: float, environ: Mapping[str, str], left: threading.Event) -> Answer:
    limit = min(max(deadline - time.monotonic(), 0.001), request.attempt_limit)
    headers = {
        "User-Agent": f"opsgate/{opsgate.__version__}",
        "Accept-Encoding": "identity",
        **request.headers,
    }
    if request.authorization is not None:
        headers["Authorization"] = request.authorization
    with requests.Session() as session:
        # What the environment says is looked up here: requests would read ~/.netrc as well.
        session.trust_env = False
        session.proxies = _proxies(request.url, environ)
        session.verify = next(filter(None, trust_for(None, environ)), True)
        adapter = HTTPAdapter(max_retries=_retry(request, deadline, left))
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        with session.request(
            request.method,
            request.url,
            headers=headers,
            data=request.body,
            timeout=(min(_CONNECT_LIMIT, limit), limit),
            allow_redirects=False,
            stream=True,
        ) as response:
            return Answer(
                status=response.status_code,
                reason=response.reason or "",
                headers={name.lower(): value for name, value in response.headers.items()},
                body=_read(response, deadline),
            )


def _proxies(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    # As Docker does, no proxy stands between us and this machine.
    if is_loopback(urlsplit(url).hostname or ""):
        return {}
    try:
        proxy = proxy_for(url, environ)
    except ConfigurationError as error:
        raise Unreachable(error.message, error.hint) from None
    return {urlsplit(url).scheme: proxy} if proxy else {}


def _retry(request: Request, deadline: float, left: threading.Event) -> DeadlineRetry:
    return DeadlineRetry(
        total=request.retries,
        other=0,  # a certificate does not get better by asking again
        allowed_methods=None,
        status_forcelist=_TRANSIENT,
        backoff_factor=0.2,
        backoff_max=_LONGEST_WAIT,
        backoff_jitter=0.1,
        raise_on_status=False,
        deadline=deadline,
        left=left,
        looks_up_again=request.looks_up_again,
    )


def _read(response: requests.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        host = urlsplit(response.url).netloc
        if len(body) > BODY_LIMIT:
            raise Unreachable(f"{host} sent more than {BODY_LIMIT} bytes")
        if time.monotonic() > deadline:
            raise _too_late(host)
    return bytes(body)


def _too_late(host: str) -> Unreachable:
    return Unreachable(
        f"{host} gave no whole answer in time", "Try again, or look at the network between here and there."
    )


def _explain(error: Exception, host: str) -> Unreachable:
    causes = tuple(_causes(error))
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return Unreachable(f"{host}: no such host", "Check the spelling, and the name server.")
    if any(isinstance(cause, requests.exceptions.SSLError) for cause in causes):
        innermost = whole(str(causes[-1]))
        hint = "For a private certificate authority, name its file in SSL_CERT_FILE or REQUESTS_CA_BUNDLE."
        return Unreachable(f"{host}: no trusted TLS connection: {innermost}", hint)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Unreachable(f"{host}: connection refused", "Is it running, and is the port right?")
    if any(isinstance(cause, (requests.Timeout, OutOfTime)) for cause in causes):
        return _too_late(host)
    if isinstance(causes[-1], ValueError):
        # Libraries quote what they could not send: a URL or a header, and either may be a secret.
        return Unreachable(f"{host}: the request cannot be sent ({type(causes[-1]).__name__})")
    words = whole(str(causes[-1])) or type(error).__name__
    return Unreachable(f"{host}: {words}", "Try again; if it stays, look at its own log.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from what requests raised to what happened: it wraps in `args`, `reason` and causes."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        wrapped = getattr(following, "reason", None), *following.args, following.__cause__
        following = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)
