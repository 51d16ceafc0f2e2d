"""What a hook is told, and what it leaves behind.

A hook gets opsgate's own environment and, on top, every variable of the contract: always set, empty
when unknown, paths absolute. In `OPSGATE_OUTPUT` it may leave `revision=…` and `image.NAME=REFERENCE@DIGEST`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from opsgate.errors import OpsgateError
from opsgate.redact import whole
from opsgate.settings.mistakes import shown

HookName = Literal["publish", "deploy", "rollback", "rollback_check", "incident"]

_OUTPUT_LIMIT = 64 * 1024
_LIST_LIMIT = 64 * 1024
"""Bytes of a variable that is a list: with one over 128 KiB Linux starts no program at all."""
_REVISION = re.compile(r"[!-~]{1,200}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_IMAGE = re.compile(r"(?P<reference>[A-Za-z0-9][A-Za-z0-9._:/-]*?)(?:@(?P<digest>sha256:[0-9a-f]{64}))?")


class HookOutputError(OpsgateError):
    """A hook left something in its output file that cannot be used."""


class NamedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a hook named it; `digest` is None when it left only a tag."""

    name: str
    reference: str
    digest: str | None


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a hook left in its output file."""

    revision: str | None = None
    images: tuple[NamedImage, ...] = ()
    unknown: tuple[str, ...] = ()
    mistake: str = ""
    """The first thing in it that cannot be used, and what to do about it; empty where all can."""


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier run's rollout, as hooks are told of it."""

    revision: str = ""
    images: Sequence[str] = ()
    """`name=reference@digest` each."""
    pins: str = ""
    tag: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What opsgate knows when it starts a hook."""

    run_id: str
    environment: str
    stage: str
    evidence: Path
    output: Path
    revision: str = ""
    images: Sequence[str] = ()
    pins: str = ""
    tag: str = ""
    status: str = ""
    status_reason: str = ""
    failed_urls: Sequence[str] = ()
    last_good: Earlier = Earlier()

    def variables(self) -> dict[str, str]:
        """The `OPSGATE_*` variables of the contract."""
        return {
            "OPSGATE_RUN_ID": self.run_id,
            "OPSGATE_ENV": self.environment,
            "OPSGATE_STAGE": self.stage,
            "OPSGATE_REVISION": self.revision,
            "OPSGATE_IMAGES": _list(self.images),
            "OPSGATE_PINS": self.pins,
            "OPSGATE_TAG": self.tag,
            "OPSGATE_EVIDENCE": str(self.evidence),
            "OPSGATE_OUTPUT": str(self.output),
            "OPSGATE_STATUS": self.status,
            "OPSGATE_STATUS_REASON": self.status_reason,
            "OPSGATE_FAILED_URLS": _list(self.failed_urls),
            "OPSGATE_LAST_GOOD_REVISION": self.last_good.revision,
            "OPSGATE_LAST_GOOD_IMAGES": _list(self.last_good.images),
            "OPSGATE_LAST_GOOD_PINS": self.last_good.pins,
        }


def environment(environ: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """The complete environment of a hook."""
    return {**environ, **facts.variables()}


def _list(items: Sequence[str]) -> str:
    """One a line, the first ones as far as they fit."""
    sizes = accumulate(len(item.encode("utf-8", "replace")) + 1 for item in items)
    return "\n".join(item for item, size in zip(items, sizes, strict=True) if size <= _LIST_LIMIT)


def read_outputs(path: Path) -> Outputs:
    """Parse a hook's output file; a file that is not there is a hook that left nothing.

    A revision or an image that cannot be what it claims to be is a mistake; what stands beside it counts.
    """
    try:
        # A pipe in its place would be waited for.
        if not os.path.isfile(path):
            return Outputs()
        with path.open("rb") as file:
            data = file.read(_OUTPUT_LIMIT + 1)
    except OSError:
        return Outputs()
    if len(data) > _OUTPUT_LIMIT:
        kib = _OUTPUT_LIMIT // 1024
        hint = "leave only lines of revision= and image.NAME= there"
        return Outputs(mistake=f"the hook left more than {kib} KiB in OPSGATE_OUTPUT; {hint}")
    text = data.decode("utf-8", "replace")
    revision, images, unknown, mistakes = None, {}, [], []
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        key, value = key.strip(), value.strip()
        if not key or key.startswith("#"):
            continue
        try:
            if key == "revision" and equals:
                # Empty when unknown, as hooks are told things themselves.
                revision = _revision(value) if value else revision
            elif key.startswith("image.") and equals:
                image = _image(key.removeprefix("image."), value)
                images[image.name] = image
            else:
                unknown.append(whole(key, 240))
        except HookOutputError as error:
            mistakes.append(error.one_line)
    return Outputs(
        revision=revision,
        images=tuple(images.values()),
        unknown=tuple(unknown),
        mistake=mistakes[0] if mistakes else "",
    )


def _revision(value: str) -> str:
    if not _REVISION.fullmatch(value):
        raise HookOutputError(
            f"the hook left an unusable revision in OPSGATE_OUTPUT: {shown(value)}",
            "write 'revision=' and 1 to 200 printable characters without spaces",
        )
    return value


def _image(name: str, value: str) -> NamedImage:
    match = _IMAGE.fullmatch(value)
    if not match or not _NAME.fullmatch(name):
        raise HookOutputError(
            f"the hook left an unusable image in OPSGATE_OUTPUT: image.{whole(name, 240)}={shown(value)}",
            "write 'image.NAME=REGISTRY/NAME:TAG@sha256:DIGEST'",
        )
    return NamedImage(name=name, reference=match["reference"], digest=match["digest"])
