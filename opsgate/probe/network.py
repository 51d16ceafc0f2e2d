"""How the environment says that the network is to be used: proxies and trusted certificates."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opsgate.errors import ConfigurationError
from opsgate.hosts import PORTS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for this URL, or None.

    `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, the lower-case name first as curl has
    it. Raises `ConfigurationError` for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    value, name = _variable(environ, f"{parts.scheme}_proxy")
    if not value:
        value, name = _variable(environ, "all_proxy")
    port = parts.port or PORTS.get(parts.scheme)
    if not value or _bypassed(parts.hostname or "", port, _variable(environ, "no_proxy")[0]):
        return None
    proxy = value if "://" in value else f"http://{value}"
    try:
        scheme, host, _port = urlsplit(proxy).scheme.lower(), urlsplit(proxy).hostname, urlsplit(proxy).port
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            f"{name}: not the URL of an http or https proxy",
            "Write http://host:port, or take the target out with NO_PROXY.",
        )
    return proxy


def trust_for(ca_file: str | None, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """File and directory with the certificates to trust; both None for the system's own."""
    if ca_file:
        return ca_file, None
    bundle = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if bundle:
        return (None, bundle) if os.path.isdir(bundle) else (bundle, None)
    return environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    for spelling in (name, name.upper()):
        if value := environ.get(spelling, "").strip():
            return value, spelling
    return "", name.upper()


def _bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    name = host.rstrip(".").lower()
    return any(_covers(entry, name, port) for entry in no_proxy.lower().replace(",", " ").split())


def _covers(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    wanted, only_port = entry, ""
    if entry.startswith("["):
        wanted, _, only_port = entry[1:].partition("]")
    elif entry.count(":") == 1:
        wanted, _, only_port = entry.partition(":")
    if only_port and only_port.removeprefix(":") != str(port):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        pass  # either is a name
    suffix = wanted.removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def tls_context(ca_file: str | None = None, ca_path: str | None = None) -> ssl.SSLContext:
    """A verifying context whose sockets obey an `Exchange`; costs some 30 ms, so one a run.

    Without arguments the system's certificates, or certifi's where the system has none. Raises
    OSError when the given file cannot be used.
    """
    import ssl

    from opsgate.probe.exchange import DeadlineTLSSocket

    context = ssl.create_default_context(cafile=ca_file, capath=ca_path)
    if ca_file is None and ca_path is None and not context.cert_store_stats()["x509_ca"]:
        import certifi

        context.load_verify_locations(certifi.where())
    # Some Pythons set it by default (3.11.2 does), and a body that was cut off would look whole.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = DeadlineTLSSocket
    return context
