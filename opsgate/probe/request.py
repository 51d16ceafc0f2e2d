"""What is sent to a target, worked out once for all its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import requests

from opsgate import __version__
from opsgate.errors import ConfigurationError
from opsgate.hosts import is_loopback
from opsgate.probe.decode import ACCEPTED
from opsgate.probe.network import proxy_for
from opsgate.probe.transport import Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from opsgate.redact import Secret
    from opsgate.verdict.targets import Target

ACCEPT: Final = "application/health+json, application/json;q=0.9, */*;q=0.5"
_REDIRECTION: Final = 300


def build(
    target: Target,
    environ: Mapping[str, str],
    token: Secret | None,
    context_for: Callable[[str | None], ssl.SSLContext],
) -> Request:
    """The request of an http or https target.

    Raises `ConfigurationError` when the URL, a header, a proxy or a certificate file cannot be used.
    """
    prepared = _prepared(target)
    url = cast("str", prepared.url)
    proxies = {
        scheme: proxy for scheme in ("http", "https") if (proxy := proxy_for(_as(url, scheme), environ))
    }
    if token and target.required and "Authorization" not in prepared.headers and _is_private(url, proxies):
        prepared.headers["Authorization"] = f"Bearer {token.reveal()}"
    return Request(
        prepared=prepared,
        proxies=proxies,
        context=lambda: _context(target, context_for),
        final=tuple(codes for codes in target.expect.status if codes[0] >= _REDIRECTION),
    )


def _prepared(target: Target) -> requests.PreparedRequest:
    headers = requests.structures.CaseInsensitiveDict(
        {
            "User-Agent": f"opsgate/{__version__}",
            "Accept": ACCEPT,
            "Accept-Encoding": ACCEPTED,
            "Connection": "close",
        }
    )
    headers.update(target.request_headers)
    try:
        for value in headers.values():
            value.encode("latin-1")
        prepared = requests.Request(target.method, target.url, headers=dict(headers)).prepare()
    except (requests.RequestException, ValueError) as error:
        raise ConfigurationError(
            f"target {target.name}: no request can be made of it: {error}",
            "Look at its url and request_headers.",
        ) from error
    if "Authorization" in headers:
        # requests lets the URL's userinfo win; what stands in request_headers was written on purpose.
        prepared.headers["Authorization"] = headers["Authorization"]
    return prepared


def _as(url: str, scheme: str) -> str:
    return urlsplit(url)._replace(scheme=scheme).geturl()


def _is_private(url: str, proxies: Mapping[str, str]) -> bool:
    """Whether nobody on the way can read the request."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    return is_loopback(parts.hostname or "") and "http" not in proxies


def _context(target: Target, context_for: Callable[[str | None], ssl.SSLContext]) -> ssl.SSLContext:
    try:
        return context_for(target.ca_file)
    except OSError as error:
        where = (
            f"ca_file {target.ca_file}" if target.ca_file else "the certificates that the environment names"
        )
        raise ConfigurationError(
            f"target {target.name}: cannot read {where}: {error.strerror or error}",
            "Look at ca_file, REQUESTS_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from error
