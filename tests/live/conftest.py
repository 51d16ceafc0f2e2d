"""Certificates and a prober for the live tests."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from opsgate.probe.kinds import Prober
from opsgate.redact import Redactor
from opsgate.verdict.targets import Attempt, Expectation, Target


class Authority:
    """A certificate authority, its file, and server contexts signed by it."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def server(self, *names: str, **options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*(names or ("127.0.0.1", "localhost", "::1")), **options).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    return authority.server()


Attempting = Callable[..., Attempt]


@pytest.fixture
def prober(authority: Authority) -> Iterator[Prober]:
    """A prober that trusts the test's authority, in an otherwise empty environment."""
    made = Prober(environ={"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": authority.file}, redactor=Redactor())
    yield made
    made.close()


@pytest.fixture
def attempt(prober: Prober) -> Attempting:
    """Make one attempt: `attempt(url, limit=2.0, **of Target, **of Expectation)`."""
    fields = set(Expectation.__struct_fields__)

    def once(url: str, limit: float = 2.0, **options: Any) -> Attempt:
        expect = Expectation(**{name: options.pop(name) for name in fields & options.keys()})
        target = Target(name="it", url=url, expect=expect, **options)
        prober.prepare([target])
        return prober(target, limit, 0).attempt

    return once
