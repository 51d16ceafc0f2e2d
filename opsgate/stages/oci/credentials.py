"""Who we are to a registry: what `docker login` left in Docker's own configuration."""

from __future__ import annotations

import base64
import binascii
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsgate.errors import ExitCode, OpsgateError
from opsgate.redact import Secret, whole
from opsgate.stages.answers import answer
from opsgate.stages.halt import go_on
from opsgate.stages.oci.reference import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HUB_KEY: Final = "https://index.docker.io/v1/"
_TOKEN_USER: Final = "<token>"  # noqa: S105 - the user name by which helpers mark an identity token
HELPER_LIMIT: Final = 15.0
"""Seconds that a credential helper may take."""


class CredentialsError(OpsgateError):
    """Docker's configuration, or the helper that it names, cannot be read."""

    exit_code = ExitCode.FAILED


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """One login: a user with a password, or a token that is exchanged, or one that is sent as it is."""

    username: str = ""
    password: Secret | None = None
    identity_token: Secret | None = None
    """Exchanged at the token server for an access token (OAuth 2 refresh token)."""
    registry_token: Secret | None = None
    """Sent to the registry itself."""

    def secrets(self) -> tuple[Secret, ...]:
        """Everything here that must never be shown."""
        found = (self.password, self.identity_token, self.registry_token)
        return tuple(secret for secret in found if secret is not None)


class Credentials:
    """Docker's configuration file, asked for one registry at a time.

    `environ` decides where it is (`DOCKER_CONFIG`, else `~/.docker`) and is what helpers run with.
    No file means no login, which is no error: public images need none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        home = environ.get("DOCKER_CONFIG")
        self.path = (Path(home) if home else Path(environ.get("HOME") or "/") / ".docker") / "config.json"

    def find(
        self, registry: str, *, limit: float = HELPER_LIMIT, check: Callable[[], None] = go_on
    ) -> Credential | None:
        """Find the login for `registry` (host with optional port); None when there is none.

        As Docker does: the registry's own helper, else the common store, else the file itself. Raises
        `CredentialsError`, and what `check` raises, which is asked while a helper thinks.
        """
        config = self._load()
        key = _HUB_KEY if registry == DOCKER_HUB else registry
        helpers = _table(config, "credHelpers")
        helper = helpers.get(registry) or helpers.get(key) or config.get("credsStore")
        if helper:
            return self._ask_helper(str(helper), key, min(limit, HELPER_LIMIT), check)
        auths = _table(config, "auths")
        entry = auths.get(key)
        if entry is None:
            entry = next((auths[name] for name in auths if _host(name) == _host(key)), None)
        return self._read_entry(entry, registry) if isinstance(entry, dict) else None

    def _load(self) -> dict[str, Any]:
        try:
            config = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CredentialsError(
                f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}",
                "docker login writes it anew, once the broken file is out of the way.",
            ) from None
        return config if isinstance(config, dict) else {}

    def _read_entry(self, entry: dict[str, Any], registry: str) -> Credential | None:
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                decoded = base64.b64decode(str(entry["auth"]), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise CredentialsError(
                    f"{self.path}: the login for {registry} is damaged (auth is not base64)",
                    f"Log in again: {login_command(registry)}",
                ) from None
            username, _, password = decoded.partition(":")
        credential = Credential(
            username=username,
            # Docker pads what it writes with NUL bytes.
            password=_secret(password.strip("\0")),
            identity_token=_secret(entry.get("identitytoken")),
            registry_token=_secret(entry.get("registrytoken")),
        )
        return credential if credential.secrets() else None

    def _ask_helper(
        self, helper: str, key: str, limit: float, check: Callable[[], None]
    ) -> Credential | None:
        program = f"docker-credential-{helper}"
        hint = f"{self.path} names it for {key}. Install it, or remove that entry and log in again."
        if "/" in helper:
            raise CredentialsError(f"{program} is not the name of a credential helper", hint)
        try:
            done = answer([program, "get"], environ=self.environ, limit=limit, check=check, given=key)
        except OSError as error:
            raise CredentialsError(f"{program} cannot be run: {error.strerror}", hint) from None
        except subprocess.TimeoutExpired:
            message = f"{program} gave no answer for {key} within {limit:.0f} s"
            raise CredentialsError(message, "It may be waiting for somebody to unlock it.") from None
        if done.returncode != 0:
            # Helpers report on stdout, and this one sentence is part of their protocol.
            if "credentials not found" in done.stdout:
                return None
            said = whole(done.stderr.strip() or done.stdout.strip() or "no reason given")
            raise CredentialsError(f"{program} failed for {key} (exit {done.returncode}): {said}", hint)
        return _read_answer(program, done.stdout, hint)


def login_command(registry: str) -> str:
    """Return what a person types to log in to `registry`."""
    return "docker login" if registry == DOCKER_HUB else f"docker login {registry}"


def _read_answer(program: str, text: str, hint: str) -> Credential | None:
    try:
        answer = json.loads(text)
        username, secret = str(answer["Username"]), _secret(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        # The answer itself is not shown: it may hold the secret.
        raise CredentialsError(f"{program} gave an answer without user name and secret", hint) from None
    if secret is None:
        return None
    if username == _TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(username=username, password=secret)


def _secret(value: object) -> Secret | None:
    return Secret(value) if isinstance(value, str) and value else None


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _host(key: str) -> str:
    """Old entries are URLs, `https://registry.example.com/v1/`; the host is what counts."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]
