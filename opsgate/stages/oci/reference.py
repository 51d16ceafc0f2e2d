"""Names of images: `registry.example.com:5000/ns/name:tag@sha256:…`, as Docker reads them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from opsgate.errors import ExitCode, OpsgateError

DOCKER_HUB: Final = "docker.io"
_HUB_ALIASES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])"
    r"(?::[0-9]{1,5})?"
)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAME_LIMIT: Final = 255
"""Longest registry and repository together, from the distribution specification."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class InvalidReference(OpsgateError):
    """A text that names no image."""

    exit_code = ExitCode.NOT_READY


def is_digest(text: str) -> bool:
    """Tell whether `text` is a whole sha256 or sha512 digest, algorithm included."""
    return _DIGEST.fullmatch(text) is not None


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """One image in one registry. `registry` is a host with an optional port, always filled in."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    explicit: bool = True
    """Whether the text named its registry itself; `nginx` and `acme/app` do not."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `text`. Raises `InvalidReference`, which says what is wrong with it."""
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _invalid(text, f"{digest or 'nothing'} after the @ is not a sha256 digest")
        host, slash, path = rest.partition("/")
        # Docker's rule: without one of these marks, the first part is a namespace of Docker Hub.
        explicit = bool(slash) and ("." in host or ":" in host or host == "localhost" or host != host.lower())
        if not explicit:
            host, path = DOCKER_HUB, rest
        elif not _HOST.fullmatch(host):
            raise _invalid(text, f"{host} is not a host name")
        repository, colon, tag = path.partition(":")
        if host.lower() in _HUB_ALIASES:
            host = DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        if colon and not _TAG.fullmatch(tag):
            raise _invalid(text, f"{tag or 'nothing'} after the : is not a tag")
        if not _REPOSITORY.fullmatch(repository) or len(f"{host}/{repository}") > _NAME_LIMIT:
            wrong = f"{repository.removeprefix('library/') or 'an empty text'} is not a repository name"
            raise _invalid(text, f"{wrong}: lower case letters, digits and single . _ - between them")
        return cls(
            registry=host, repository=repository, tag=tag or None, digest=digest or None, explicit=explicit
        )

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def pointer(self) -> str:
        """What a registry is asked for: the digest, else the tag, else `latest`, as Docker does."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def _invalid(text: str, why: str) -> InvalidReference:
    return InvalidReference(
        f"{text!r} is not the name of an image: {why}",
        "Write it as registry.example.com/namespace/name:tag.",
    )
