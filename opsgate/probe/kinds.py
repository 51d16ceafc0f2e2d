"""From a target to one finished attempt: what each kind of target does, and what its failures are called."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from opsgate.errors import ConfigurationError
from opsgate.probe.exchange import Exchange, ProbeFailure
from opsgate.probe.pattern import Searcher
from opsgate.probe.resolve import Resolver, connect
from opsgate.probe.retry import Reply, retry_after_seconds
from opsgate.probe.shell import Commands
from opsgate.verdict.expect import Response, examine
from opsgate.verdict.targets import Attempt, Kind, RevisionRule, Target

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from opsgate.probe.transport import Fetched, Request
    from opsgate.redact import Redactor, Secret

_DETAIL: Final = 200


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt showed beyond its `Exchange`; healthy where `kind` is null."""

    kind: Kind | None = None
    detail: str = ""
    status_code: int | None = None
    revision: str | None = None
    retry_after: float | None = None


class Prober:
    """Makes attempts: one for a run, used by many threads at once.

    `environ` names proxies and trusted certificates, and is the environment of commands, which run
    in `cwd`. `rule` says which revision must, or must no longer, be reported; `lenient` is
    recovery's way of looking (see `verdict.expect.examine`). `token` goes to required targets only,
    over https or to loopback.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        redactor: Redactor,
        rule: RevisionRule | None = None,
        lenient: bool = False,
        token: Secret | None = None,
        cwd: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.environ = environ
        self.redactor = redactor
        self._reach = redactor.reach
        self.rule = rule or RevisionRule()
        self.lenient = lenient
        self.token = token
        self.clock = clock
        self.wall = wall
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[Target, Request]] = {}
        self._contexts: dict[tuple[str | None, str | None], ssl.SSLContext] = {}
        self.resolver = Resolver()
        self.commands = Commands(environ, cwd)
        self.searcher = Searcher()

    def prepare(self, targets: Iterable[Target]) -> None:
        """Work out beforehand what each target needs; raises `ConfigurationError` for what cannot be used."""
        for target in targets:
            probe_for(target)
            if target.scheme in ("http", "https"):
                request = self.request(target)
                if target.scheme == "https":
                    request.context()

    def __call__(self, target: Target, limit: float, at_ms: int) -> Reply:
        """One attempt that takes `limit` seconds at most; `at_ms` is its start in the record.

        Raises nothing that a server, the network or a lack of resources can cause; `ConfigurationError`
        as `prepare` does.
        """
        probe = probe_for(target)
        exchange = Exchange(limit, self.clock)
        try:
            seen = probe(self, target, exchange)
        except ProbeFailure as failure:
            seen = Seen(kind=failure.kind, detail=failure.detail, status_code=failure.status_code)
        except (OSError, RuntimeError) as error:
            # No descriptor or no thread left here: nothing was heard from the host in time, and a gate that
            # fails for it still rolls back.
            seen = Seen(kind="timeout", detail=f"this machine: {getattr(error, 'strerror', None) or error}")
        attempt = Attempt(
            at_ms=at_ms,
            elapsed_ms=exchange.elapsed_ms(),
            ok=seen.kind is None,
            kind=seen.kind,
            status_code=seen.status_code,
            detail=self._shown(seen.detail),
            remote_ip=exchange.peer,
            bytes=exchange.received,
            tls_not_after=_rfc3339(exchange.not_after),
            revision=None if seen.revision is None else self._shown(seen.revision),
        )
        return Reply(attempt, None if attempt.ok else seen.retry_after)

    def close(self) -> None:
        """End the commands that still run; none is started afterwards."""
        self.commands.close()
        self.searcher.close()

    def request(self, target: Target) -> Request:
        """What to send to an http or https target; worked out once."""
        known = self._requests.get(id(target))
        if known is not None:
            return known[1]
        from opsgate.probe.request import build

        request = build(target, self.environ, self.token, self._context)
        # The target is kept too, so that its id stays its own.
        self._requests[id(target)] = (target, request)
        return request

    def _context(self, ca_file: str | None) -> ssl.SSLContext:
        from opsgate.probe.network import tls_context, trust_for

        trust = trust_for(ca_file, self.environ)
        with self._lock:
            if trust not in self._contexts:
                self._contexts[trust] = tls_context(*trust)
            return self._contexts[trust]

    def beginning(self, text: str, limit: int) -> str:
        """The first `limit` characters at least, masked: a secret that goes on after them leaves nothing."""
        end = limit + self._reach
        return self.redactor.scrub(text) if len(text) <= end else self.redactor.part(text[:end])[0]

    def _shown(self, text: str) -> str:
        one_line = "".join(c if c.isprintable() else "�" for c in self.beginning(text, _DETAIL + 1))
        return one_line if len(one_line) <= _DETAIL else f"{one_line[: _DETAIL - 1]}…"


def probe_for(target: Target) -> Callable[[Prober, Target, Exchange], Seen]:
    """The probe of the target's scheme; `ConfigurationError` naming the valid ones if there is none."""
    try:
        return PROBES[target.scheme]
    except KeyError:
        valid = ", ".join(PROBES)
        raise ConfigurationError(
            f"target {target.name}: cannot probe {target.scheme!r}", f"Valid are: {valid}."
        ) from None


def _probe_http(prober: Prober, target: Target, exchange: Exchange) -> Seen:
    from opsgate.probe.transport import fetch

    fetched = fetch(prober.request(target), exchange, prober.resolver)
    response = Response(
        status=fetched.status,
        headers=fetched.headers,
        body=fetched.body,
        elapsed_ms=fetched.elapsed_ms,
        tls_not_after=exchange.not_after,
    )
    finding = examine(
        target.expect,
        response,
        rule=prober.rule,
        now=prober.wall(),
        lenient=prober.lenient,
        find=lambda pattern, text: prober.searcher(pattern, text, exchange.left),
        shown=prober.beginning,
    )
    kind, detail = finding.kind, finding.detail
    if fetched.failure is not None:
        # A wrong status stays the reason: that its page was cut off as well is a detail.
        broken = fetched.failure
        kind, detail = (
            (kind, f"{detail}; {broken.detail}") if kind == "status" else (broken.kind, broken.detail)
        )
    return Seen(
        kind=kind,
        detail=detail,
        status_code=fetched.status,
        revision=finding.revision,
        retry_after=_retry_after(fetched, prober.wall),
    )


def _retry_after(fetched: Fetched, wall: Callable[[], float]) -> float | None:
    asked = next((value for name, value in fetched.headers if name.lower() == "retry-after"), None)
    return None if asked is None else retry_after_seconds(asked, wall())


def _probe_tcp(prober: Prober, target: Target, exchange: Exchange) -> Seen:
    url = urlsplit(target.url or "")
    addresses = prober.resolver.resolve(url.hostname or "", url.port or 0, exchange)
    try:
        connect(addresses, exchange).close()
    except ProbeFailure as failure:
        # Only what was accepted can be reset: whether the reset came before or after we looked is chance.
        if failure.kind != "reset":
            raise
    return Seen(detail="connection accepted")


def _probe_command(prober: Prober, target: Target, exchange: Exchange) -> Seen:
    try:
        ran = prober.commands(target.command or "", exchange.left())
    except OSError as error:
        return Seen(kind="exit", detail=f"cannot run the command: {error.strerror}")
    exchange.received = ran.received
    if ran.exit_code is None:
        raise exchange.timed_out("the command was running")
    if ran.exit_code == 0:
        return Seen(detail=ran.last_line)
    ended = f"exit {ran.exit_code}" if ran.exit_code > 0 else f"killed by signal {-ran.exit_code}"
    return Seen(kind="exit", detail=f"{ended}: {ran.last_line}" if ran.last_line else ended)


def _rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


PROBES: Final[Mapping[str, Callable[[Prober, Target, Exchange], Seen]]] = {
    "http": _probe_http,
    "https": _probe_http,
    "tcp": _probe_tcp,
    "command": _probe_command,
}
