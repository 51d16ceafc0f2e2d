"""A strict HTTP/1 response.

`http.client` is built to make sense of anything: it takes the end of the connection for the end
of the head, an unreadable length for none, and hands out 103 as the final answer. A probe asks
for the opposite: whatever is not a whole, well-formed response is a failure with a name.
"""

from __future__ import annotations

import http.client
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opsgate.probe.exchange import ProbeFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsgate.probe.exchange import Exchange

HEAD_LIMIT: Final = 64 * 1024
"""Bytes of all heads of one response together, interim ones included."""
INTERIM_LIMIT: Final = 16
BODY_LIMIT: Final = 1024 * 1024
_LINE_LIMIT: Final = 4096
_READ: Final = 64 * 1024
_SWITCHING: Final = 101
_EXTRA_WAIT: Final = 0.02

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n]*))?\r?\n")
# White space around a value is stripped afterwards: two parts of a pattern that both take it would try every
# way to share it, and 2 KiB of spaces would stop the whole process for seconds.
_FIELD: Final = re.compile(rb"([!-9;-~]+):([^\r\n\0]*)\r?\n")
_FOLDED: Final = re.compile(rb"[ \t]([^\r\n\0]*)\r?\n")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\r\n]*)?\r?\n")


def _malformed(detail: str) -> ProbeFailure:
    return ProbeFailure("protocol", detail)


@contextmanager
def _answered(code: int) -> Iterator[None]:
    """What fails from here on is a response all the same, with this status."""
    try:
        yield
    except ProbeFailure as failure:
        failure.status_code = failure.status_code or code
        raise


def _quoted(line: bytes) -> str:
    """The whole of it: cut here, a secret in it could not be recognized any more and masked."""
    return f'"{line.decode("utf-8", "surrogateescape").rstrip()}"'


def _value(raw: bytes) -> str:
    return raw.strip(b" \t").decode("latin-1")


def _message(fields: list[tuple[str, str]], code: int) -> http.client.HTTPMessage:
    message = http.client.HTTPMessage()
    for name, value in fields:
        if name.lower() == "location" and 300 <= code < 400:  # noqa: PLR2004 - the class 3xx
            if message.get(name, value) != value:
                raise ProbeFailure("redirect", "redirected to two places at once", code)
            # Told twice, it would be read as one place with a comma in its name.
            del message[name]
        message[name] = value
    return message


class StrictResponse(http.client.HTTPResponse):
    """`http.client`'s response with its own reading of head and body.

    It is what urllib3's connection asks for as `response_class`, so everything above it stays the
    libraries' own. `read_whole` replaces `read`. Failures are `ProbeFailure`s.
    """

    def __init__(
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._bodiless = method == "HEAD"
        self.exchange: Exchange = sock.exchange
        self.exchange.reply = self
        self._head_left = self._extra_left = HEAD_LIMIT

    def begin(self) -> None:
        """Read the head, past the interim ones."""
        for _ in range(INTERIM_LIMIT + 1):
            version, code, self.reason = self._read_status()
            with _answered(code):
                fields = self._fields()
            if not (100 <= code < 200) or code == _SWITCHING:  # noqa: PLR2004 - the class 1xx
                break
        else:
            raise _malformed(f"more than {INTERIM_LIMIT} interim responses")
        self.code = self.status = code
        self.version = 10 if version == "HTTP/1.0" else 11
        self.headers = self.msg = _message(fields, code)
        self.will_close = True
        with _answered(code):
            self._frame(fields)

    def _read_status(self) -> tuple[str, int, str]:
        line = self._line()
        if not line:
            raise ProbeFailure("reset", "connection closed before any answer")
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            if not line.endswith(b"\n"):
                raise _malformed("connection closed inside the status line")
            raise _malformed(f"not an HTTP status line: {_quoted(line)}")
        return f"HTTP/1.{match[1].decode()}", int(match[2]), (match[3] or b"").decode("latin-1")

    def _line(self) -> bytes:
        line = self.fp.readline(self._head_left + 1)
        self._head_left -= len(line)
        if self._head_left < 0:
            raise _malformed(f"response head larger than {HEAD_LIMIT // 1024} KiB")
        return line

    def _fields(self) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        while (line := self._line()) not in (b"\r\n", b"\n"):
            if not line.endswith(b"\n"):
                raise _malformed("connection closed inside the response head")
            if match := _FIELD.fullmatch(line):
                fields.append((match[1].decode("ascii"), _value(match[2])))
            elif fields and (match := _FOLDED.fullmatch(line)):
                name, value = fields[-1]
                fields[-1] = (name, f"{value} {_value(match[1])}")
            else:
                raise _malformed(f"not a header line: {_quoted(line)}")
        return fields

    def _frame(self, fields: list[tuple[str, str]]) -> None:
        """Work out how the body's end is marked (RFC 9112, 6.3)."""
        codings = [
            coding
            for name, values in fields
            if name.lower() == "transfer-encoding"
            for value in values.split(",")
            if (coding := value.strip()).lower() != "identity"
        ]
        lengths = {v.strip() for n, vs in fields if n.lower() == "content-length" for v in vs.split(",")}
        self._bodiless = self._bodiless or self.status in (_SWITCHING, 204, 304)
        self.length = None
        self.chunked = False
        if len(lengths) > 1 and not codings:
            raise _malformed(f'unusable Content-Length "{", ".join(sorted(lengths))}"')
        if self._bodiless:
            self.length = 0
        elif codings:
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise _malformed(f'transfer encoding "{", ".join(codings)}" was not asked for')
            self.chunked, self.chunk_left = True, None
        elif lengths:
            length = lengths.pop()
            if not (length.isascii() and length.isdigit()):
                raise _malformed(f'unusable Content-Length "{length}"')
            if len(length) > 15 or int(length) > BODY_LIMIT:  # noqa: PLR2004 - digits that int() may refuse
                self.length = BODY_LIMIT + 1
            else:
                self.length = int(length)

    def read_whole(self) -> bytes:
        """The body as received, transfer encoding removed, 1 MiB at most."""
        if self._bodiless:
            return b""
        if self.chunked:
            return self._read_chunks()
        if self.length is not None:
            return self._read_exactly(self.length)
        return self._read_to_end()

    def _read_exactly(self, length: int) -> bytes:
        if length > BODY_LIMIT:
            raise ProbeFailure("too_large", f"body larger than {BODY_LIMIT // 1024} KiB")
        body = self.fp.read(length)
        if len(body) < length:
            raise ProbeFailure("truncated", f"body ends after {len(body)} of {length} bytes")
        return body

    def _read_to_end(self) -> bytes:
        body = bytearray()
        while piece := self.fp.read1(_READ):
            body += piece
            if len(body) > BODY_LIMIT:
                raise ProbeFailure("too_large", f"body larger than {BODY_LIMIT // 1024} KiB")
        if self.exchange.ragged:
            raise ProbeFailure("truncated", f"TLS was cut off after {len(body)} bytes of body")
        return bytes(body)

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := self._chunk_size():
            if len(body) + size > BODY_LIMIT:
                raise ProbeFailure("too_large", f"body larger than {BODY_LIMIT // 1024} KiB")
            piece = self.fp.read(size)
            if len(piece) < size:
                raise ProbeFailure(
                    "truncated", f"body ends inside a chunk, after {len(body) + len(piece)} bytes"
                )
            body += piece
            if (end := self.fp.readline(2)) not in (b"\r\n", b"\n"):
                if b"\r\n".startswith(end):
                    raise ProbeFailure("truncated", f"body ends after a chunk, {len(body)} bytes in")
                raise _malformed("a chunk is longer than its announced size")
        while (line := self._chunk_line("the trailer")) not in (b"\r\n", b"\n"):
            self._count_extra(len(line))
        return bytes(body)

    def _count_extra(self, size: int) -> None:
        """Count what comes with chunks and is no part of the body."""
        self._extra_left -= size
        if self._extra_left < 0:
            raise _malformed(f"trailer and chunk extensions larger than {HEAD_LIMIT // 1024} KiB")

    def _chunk_size(self) -> int:
        line = self._chunk_line("a chunk size")
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise _malformed(f"not a chunk size: {_quoted(line)}")
        self._count_extra(len(match[2] or b""))
        return int(match[1], 16)

    def _chunk_line(self, what: str) -> bytes:
        line = self.fp.readline(_LINE_LIMIT)
        if not line.endswith(b"\n"):
            if len(line) < _LINE_LIMIT:
                raise ProbeFailure("truncated", f"connection closed before {what}")
            raise _malformed(f"overlong line in place of {what}")
        return bytes(line)

    def refuse_more(self) -> None:
        """Fail when more follows than was announced: whoever goes by the length sees half of it.

        Only a server that promised to close is waited for, and only for a moment.
        """
        if self._bodiless or not (self.chunked or self.length is not None):
            return
        exchange = self.exchange
        promised = "close" in (self.headers.get("connection") or "").lower() or self.version == 10  # noqa: PLR2004
        usual = exchange.deadline
        exchange.deadline = min(usual, exchange.clock() + (_EXTRA_WAIT if promised else 0.0))
        try:
            extra = self.fp.peek(1)
        except ProbeFailure:
            return
        finally:
            exchange.deadline = usual
        if extra:
            raise _malformed("more bytes follow than the response announced")
