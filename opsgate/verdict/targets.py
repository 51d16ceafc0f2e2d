"""The values a verdict is made of: what is probed, under which policy, and what came back.

All are frozen. Durations of a `Policy` and an `Expectation` are seconds; times of an
`Attempt` are milliseconds since the gate's first attempt was due.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

# What cannot have been configured or measured is damage: a record that holds it cannot be read.
Seconds = Annotated[float, msgspec.Meta(ge=0.001, le=86_400.0)]
Soak = Annotated[float, msgspec.Meta(ge=0, le=86_400.0)]
WholeMs = Annotated[int, msgspec.Meta(ge=0, le=10**13)]
Ms = Annotated[float, msgspec.Meta(ge=0, le=10**13)]
Whole = Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)]
"""A number that every reader of JSON holds exactly."""

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

    deadline: Seconds = 120.0
    soak: Soak = 15.0
    interval: Seconds = 0.25
    attempt_timeout: Seconds = 5.0
    successes: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 3
    flaps: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 2


class RevisionRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which revision a target with `revision` set must, or must no longer, report."""

    expected: str | None = None
    forbidden: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One finished attempt, as it stands in the record."""

    at_ms: WholeMs
    """Start, in whole ms since the gate began, rounded up: a soak is never counted too long."""
    elapsed_ms: Ms
    ok: bool
    kind: Kind | None = None
    status_code: Whole | None = None
    detail: str = ""
    remote_ip: str | None = None
    """The address that answered; null when none did."""
    bytes: Whole = 0
    """Bytes received from the peer, head and body."""
    tls_not_after: str | None = None
    """The certificate's end of life, RFC 3339 in UTC."""
    revision: str | None = None
    """The revision the runtime reported."""

    @property
    def end_ms(self) -> float:
        """When the answer was known."""
        return self.at_ms + self.elapsed_ms
