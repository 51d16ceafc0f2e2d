"""What a registry really serves: tags, digests and manifests, without a Docker engine.

OpsgateError
├── Unreachable          no usable answer (in `wire`)
├── CredentialsError     Docker's configuration cannot be read (in `credentials`)
└── RegistryError     1  the registry answered, and the answer is no
    ├── Unauthorized     not logged in, or not allowed
    ├── NotFound         no such repository, tag or digest
    └── DigestMismatch   what was served is not what its digest says

The protocol is the OCI distribution specification 1.1; tokens are as Docker documents them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from opsgate.errors import ExitCode, OpsgateError
from opsgate.hosts import is_loopback
from opsgate.redact import Redactor, Secret, whole
from opsgate.settings.mistakes import shown
from opsgate.stages.halt import go_on
from opsgate.stages.oci.credentials import Credential, Credentials, login_command
from opsgate.stages.oci.reference import DOCKER_HUB, Reference, is_digest
from opsgate.stages.wire import Answer, Request, exchange

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
LIMIT: Final = 30.0
"""Seconds that one question may take, retries and tokens included."""

_HUB_HOST: Final = "registry-1.docker.io"
_CHALLENGE: Final = re.compile(r"(?:^|,)\s*(bearer|basic)\s+(?=[\w-]+=)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class RegistryError(OpsgateError):
    """The registry answered, and not with what was asked for."""

    exit_code = ExitCode.FAILED


class Unauthorized(RegistryError):
    """Not logged in, or not allowed."""


class NotFound(RegistryError):
    """No such repository, tag or digest."""


class DigestMismatch(RegistryError):
    """The bytes served are not those that the digest names."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or an index, as served, and the digest of exactly these bytes."""

    content: bytes
    media_type: str
    digest: str


class Registry:
    """One registry. Each question takes `limit` seconds at most, everything included.

    `host` is as in `Reference.registry`. Plain HTTP is used for this machine only. Questions raise
    `RegistryError`, `Unreachable` or `CredentialsError`, and what `check` raises, which is asked many times
    meanwhile. No question goes on after `until` (monotonic seconds); a hasty client does not look up a
    second time a name that does not resolve.
    """

    def __init__(
        self,
        host: str,
        credentials: Credentials,
        *,
        check: Callable[[], None] = go_on,
        until: float = float("inf"),
        hasty: bool = False,
    ) -> None:
        self.host = host
        api = _HUB_HOST if host == DOCKER_HUB else host
        self._base = f"{'http' if is_loopback(host) else 'https'}://{api}/v2/"
        self._credentials = credentials
        self._check, self._until, self._hasty = check, until, hasty
        self._logins: list[Credential | None] = []
        self._authorizations: dict[str, Secret] = {}

    def ping(self, *, limit: float = LIMIT) -> None:
        """Ask whether this is a registry and, where it wants a login, whether ours is accepted."""
        deadline = self._by(limit)
        answer = self._ask("GET", "", "", deadline)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise RegistryError(f"{self.host} answers, but is no image registry (404 for /v2/)")
        self._expect_ok(answer, self.host, deadline)

    def digest(self, reference: Reference, *, limit: float = LIMIT) -> str:
        """Resolve the digest that the registry serves for `reference`; without a tag, for `latest`."""
        deadline = self._by(limit)
        answer = self._manifest_request("HEAD", reference, deadline)
        served = answer.headers.get("docker-content-digest", "")
        if answer.status == HTTPStatus.OK and is_digest(served) and reference.digest in (None, served):
            return served
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            self._expect_ok(answer, str(reference), deadline)
        # Only a body says why there is none, and only the bytes themselves prove their digest.
        return self._manifest(reference, deadline).digest

    def exists(self, repository: str, digest: str, *, limit: float = LIMIT) -> bool:
        """Tell whether the manifest `digest` can be pulled from `repository`."""
        reference = Reference(registry=self.host, repository=repository, digest=digest)
        deadline = self._by(limit)
        answer = self._manifest_request("HEAD", reference, deadline)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            answer = self._manifest_request("GET", reference, deadline)
        if answer.status == HTTPStatus.NOT_FOUND:
            return False
        self._expect_ok(answer, str(reference), deadline)
        return True

    def manifest(self, reference: Reference, *, limit: float = LIMIT) -> Manifest:
        """Fetch the manifest that `reference` names, checked against its digest."""
        return self._manifest(reference, self._by(limit))

    def _by(self, limit: float) -> float:
        return min(time.monotonic() + limit, self._until)

    def _exchange(self, request: Request, deadline: float) -> Answer:
        request = msgspec.structs.replace(request, looks_up_again=not self._hasty)
        return exchange(request, deadline, environ=self._credentials.environ, check=self._check)

    def _find(self, deadline: float) -> Credential | None:
        """Our login, which a helper is asked for once."""
        if not self._logins:
            left = max(deadline - time.monotonic(), 0.0)
            self._logins.append(self._credentials.find(self.host, limit=left, check=self._check))
        return self._logins[0]

    def _manifest(self, reference: Reference, deadline: float) -> Manifest:
        answer = self._manifest_request("GET", reference, deadline)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise self._missing(reference, deadline)
        self._expect_ok(answer, str(reference), deadline)
        served = answer.headers.get("docker-content-digest", "")
        promised = reference.digest or served
        algorithm = promised.partition(":")[0] if is_digest(promised) else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, answer.body).hexdigest()}"
        if is_digest(promised) and promised != digest:
            raise DigestMismatch(
                f"{reference}: the registry served other bytes than {promised} ({digest})",
                "Do not deploy it. A proxy between here and the registry may rewrite or cache answers.",
            )
        return Manifest(content=answer.body, media_type=self._media_type(answer, reference), digest=digest)

    def _media_type(self, answer: Answer, reference: Reference) -> str:
        """The type of the manifest. A proxy's page of 200 is none, and must not pass for one."""
        named = answer.headers.get("content-type", "").partition(";")[0].strip()
        media_type = named.lower()
        if media_type in MANIFEST_TYPES and isinstance(_parsed(answer.body), dict):
            return media_type
        raise RegistryError(
            f"{reference}: {self.host} answered with no manifest, but {whole(named) or 'no type at all'}",
            "Something else may answer for the registry: a proxy, or a login page.",
        )

    def _manifest_request(self, method: str, reference: Reference, deadline: float) -> Answer:
        path = f"{reference.repository}/manifests/{reference.pointer}"
        return self._ask(method, path, f"repository:{reference.repository}:pull", deadline)

    def _missing(self, reference: Reference, deadline: float) -> NotFound:
        """Find out what is missing: most registries say `manifest unknown` for either."""
        path = f"{reference.repository}/tags/list?n=1"
        listing = self._ask("GET", path, f"repository:{reference.repository}:pull", deadline)
        if listing.status == HTTPStatus.NOT_FOUND:
            return NotFound(
                f"no such repository: {reference.name}",
                "Was the image pushed, and is the name spelled right?",
            )
        if reference.digest:
            return NotFound(
                f"{reference.name} does not serve {reference.digest}",
                "It was deleted, or never pushed there.",
            )
        return NotFound(f"{reference.name} has no tag {reference.pointer}", "Was it pushed under that tag?")

    def _ask(self, method: str, path: str, scope: str, deadline: float) -> Answer:
        """Send one question, with a login as soon as the registry asks for one."""
        headers = {"Accept": ", ".join(MANIFEST_TYPES)} if "/manifests/" in path else {}
        known = self._authorizations.get(scope)
        request = Request(
            url=self._base + path,
            method=method,
            headers=headers,
            authorization=known.reveal() if known else None,
        )
        answer = self._exchange(request, deadline)
        if answer.status != HTTPStatus.UNAUTHORIZED:
            return answer
        # A token that was good before may have run out: what the registry asks now counts.
        authorization = self._authorize(answer, scope, deadline)
        self._authorizations[scope] = authorization
        return self._exchange(
            msgspec.structs.replace(request, authorization=authorization.reveal()), deadline
        )

    def _authorize(self, challenged: Answer, scope: str, deadline: float) -> Secret:
        """Answer a challenge: the value of the Authorization header."""
        challenges = _challenges(challenged.headers.get("www-authenticate", ""))
        credential = self._find(deadline)
        if "bearer" in challenges:
            if credential is not None and credential.registry_token is not None:
                return Secret(f"Bearer {credential.registry_token.reveal()}")
            return self._token(challenges["bearer"], scope, credential, deadline)
        if "basic" in challenges:
            if credential is None or credential.password is None:
                raise self._unauthorized(self.host, used=False)
            return _basic(credential.username, credential.password)
        raise RegistryError(
            f"{self.host} asks for a login of a kind that is not known here",
            "Bearer tokens and Basic are: see the WWW-Authenticate header of its /v2/.",
        )

    def _token(
        self, challenge: dict[str, str], scope: str, credential: Credential | None, deadline: float
    ) -> Secret:
        """Exchange our login for a token; without a login, ask for an anonymous one."""
        realm = challenge.get("realm", "")
        self._check_realm(realm)
        wanted = {"service": challenge.get("service", ""), "scope": challenge.get("scope") or scope}
        query = {name: value for name, value in wanted.items() if value}
        if credential is not None and credential.identity_token is not None:
            refresh = credential.identity_token.reveal()
            form = {
                **query, "grant_type": "refresh_token", "client_id": "opsgate", "refresh_token": refresh
            }  # fmt: skip
            answer = self._exchange(Request(url=realm, method="POST", body=form, redirects=0), deadline)
        else:
            basic = None
            if credential is not None and credential.password is not None:
                basic = _basic(credential.username, credential.password).reveal()
            joint = "&" if "?" in realm else "?"
            answer = self._exchange(
                Request(url=f"{realm}{joint}{urlencode(query)}", authorization=basic, redirects=0), deadline
            )
        if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise self._unauthorized(self.host, used=credential is not None)
        self._expect_ok(answer, f"{self.host}: its token server {urlsplit(realm).hostname}", deadline)
        return _bearer(answer, self.host)

    def _check_realm(self, realm: str) -> None:
        try:
            scheme, host = urlsplit(realm).scheme, urlsplit(realm).hostname or ""
        except ValueError:
            scheme, host = "", ""
        local = is_loopback(self.host) and is_loopback(host)
        if not host or not (scheme == "https" or (scheme == "http" and local)):
            raise RegistryError(
                f"{self.host} wants the login sent to {shown(realm)}: refused, since that is not https",
                "Nothing was sent. Ask whoever runs the registry.",
            )

    def _expect_ok(self, answer: Answer, subject: str, deadline: float) -> None:
        if answer.status == HTTPStatus.OK:
            return
        if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise self._unauthorized(subject, used=self._find(deadline) is not None)
        passing = (
            answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS
        )
        raise RegistryError(
            f"{subject}: the registry answered {answer.status}: {whole(self._masked(_words(answer)))}",
            "Tried for as long as there was time. Try again later." if passing else "",
        )

    def _masked(self, words: str) -> str:
        """The words without our login, which the run's settings did not know and a registry may repeat."""
        known = [secret.reveal() for login in self._logins if login for secret in login.secrets()]
        known += [sent.reveal().partition(" ")[2] for sent in self._authorizations.values()]
        return Redactor(known).scrub(words)

    def _unauthorized(self, subject: str, *, used: bool) -> Unauthorized:
        path = self._credentials.path
        return Unauthorized(
            f"{subject}: unauthorized: log in with {login_command(self.host)}",
            f"The login in {path} was not accepted: it may have expired, or may not read this."
            if used
            else f"There is no login for {self.host} in {path}.",
        )


def _basic(username: str, password: Secret) -> Secret:
    return Secret("Basic " + base64.b64encode(f"{username}:{password.reveal()}".encode()).decode())


def _bearer(answer: Answer, host: str) -> Secret:
    document = _parsed(answer.body)
    token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
    # A line break in a token would end the header early.
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise RegistryError(f"the token server of {host} answered without a token")
    return Secret(f"Bearer {token}")


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """Read `WWW-Authenticate`: scheme in lower case → its parameters."""
    starts = list(_CHALLENGE.finditer(header))
    ends = [*(match.start() for match in starts[1:]), len(header)]
    return {
        match[1].lower(): {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
            for name, quoted, plain in _PARAMETER.findall(header[match.end() : end])
        }
        for match, end in zip(starts, ends, strict=False)
    }


def _words(answer: Answer) -> str:
    """The registry's own explanation, printable; else the status line's."""
    try:
        first = _parsed(answer.body)["errors"][0]
        words = str(first.get("message") or first.get("code") or "")
    except (LookupError, TypeError, AttributeError):
        words = ""
    return "".join(char for char in words or answer.reason if char.isprintable())


def _parsed(body: bytes) -> Any:
    """The JSON document; None for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
