"""The values a verdict is made of: what is probed, under which policy, and what came back.

All are frozen. Durations of a `Policy` and an `Expectation` are seconds; times of an
`Attempt` are milliseconds since the gate's first attempt was due.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal[
    "dns", "refused", "reset", "timeout", "tls", "protocol", "status", "redirect", "too_large",
    "truncated", "health_document", "body", "json", "header", "latency", "certificate",
    "revision", "exit",
]  # fmt: skip
"""What went wrong with one attempt. `refused` without a `remote_ip` is a network that could not
be reached; `exit` belongs to command targets."""

STATUS_DEFAULT = ((200, 299),)


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What a healthy response looks like, beyond arriving whole."""

    status: tuple[tuple[int, int], ...] = STATUS_DEFAULT
    """Inclusive ranges of status codes."""
    body: str | None = None
    body_regex: str | None = None
    json: tuple[tuple[str, Any], ...] = ()
    """Pairs of a dotted path and the value that must stand there."""
    headers: tuple[tuple[str, str], ...] = ()
    revision: str | None = None
    """`json:PATH` or `header:NAME`: where the runtime says which revision it runs."""
    max_latency: float | None = None
    tls_days: float | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to probe: an `http`, `https` or `tcp` URL, or a command."""

    name: str
    url: str | None = None
    command: str | None = None
    required: bool = True
    method: Literal["GET", "HEAD"] = "GET"
    request_headers: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    expect: Expectation = Expectation()

    @property
    def scheme(self) -> str:
        """`http`, `https`, `tcp` or `command`: the key of `probe.kinds.PROBES`."""
        return "command" if self.url is None else self.url.partition(":")[0].lower()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """When a gate may say `passed`, and how long it may take. Durations in seconds."""

    deadline: float = 120.0
    soak: float = 15.0
    interval: float = 0.25
    attempt_timeout: float = 5.0
    successes: int = 3
    flaps: int = 2


class RevisionRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which revision a target with `revision` set must, or must no longer, report."""

    expected: str | None = None
    forbidden: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One finished attempt, as it stands in the record."""

    at_ms: int
    """Start, in whole ms since the gate began, rounded up: a soak is never counted too long."""
    elapsed_ms: float
    ok: bool
    kind: Kind | None = None
    status_code: int | None = None
    detail: str = ""
    remote_ip: str | None = None
    """The address that answered; null when none did."""
    bytes: int = 0
    """Bytes received from the peer, head and body."""
    tls_not_after: str | None = None
    """The certificate's end of life, RFC 3339 in UTC."""
    revision: str | None = None
    """The revision the runtime reported."""

    @property
    def end_ms(self) -> float:
        """When the answer was known."""
        return self.at_ms + self.elapsed_ms
