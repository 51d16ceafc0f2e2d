"""Content encodings, undone within bounds."""

from __future__ import annotations

import zlib
from typing import Final

from opsgate.probe.exchange import ProbeFailure

ACCEPTED: Final = "gzip, deflate"
LIMIT: Final = 1024 * 1024
"""Bytes after decompression; more is `too_large`."""
_STACKED: Final = 5
_MEMBERS: Final = 16
_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b"


def decode(body: bytes, encodings: str) -> bytes:
    """The body with all its content encodings undone, the last applied first.

    Raises `ProbeFailure`: `too_large` past 1 MiB, `truncated` when the compressed data stop early,
    `protocol` when they are corrupt or the encoding was not asked for.
    """
    codings = [coding for part in encodings.split(",") if (coding := part.strip())]
    if not body:
        return body
    if len(codings) > _STACKED:
        raise ProbeFailure("protocol", f"{len(codings)} content encodings on top of each other")
    for coding in reversed(codings):
        if (name := coding.lower()) in ("gzip", "x-gzip"):
            body = _gunzip(body)
        elif name == "deflate":
            body = _inflate(body)
        elif name != "identity":
            raise ProbeFailure("protocol", f'content encoding "{coding}" was not asked for')
    return body


def _gunzip(body: bytes) -> bytes:
    whole = b""
    for _ in range(_MEMBERS):
        member, body = _expand(body, _GZIP, "gzip", LIMIT - len(whole))
        whole += member
        # What follows a whole stream is the next member, or padding that every client ignores.
        if not body.startswith(_GZIP_MAGIC):
            return whole
    raise ProbeFailure("protocol", f"more than {_MEMBERS} gzip members")


def _inflate(body: bytes) -> bytes:
    # "deflate" means zlib's format; some servers send the bare stream, and clients take both.
    wrapped = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    return _expand(body, zlib.MAX_WBITS if wrapped else _RAW, "deflate", LIMIT)[0]


def _expand(body: bytes, window: int, name: str, room: int) -> tuple[bytes, bytes]:
    """One compressed stream: its content, and what follows it."""
    stream = zlib.decompressobj(window)
    try:
        content = stream.decompress(body, room + 1)
    except zlib.error as error:
        raise ProbeFailure("protocol", f"corrupt {name} data: {error}") from error
    if len(content) > room:
        raise ProbeFailure("too_large", f"body larger than {LIMIT // 1024} KiB after decompression")
    if not stream.eof:
        raise ProbeFailure("truncated", f"the {name} data end early, after {len(content)} bytes")
    return content, stream.unused_data
