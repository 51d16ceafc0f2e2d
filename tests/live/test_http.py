"""Behaviours of an HTTP server, and what each deserves: healthy, or the kind that must be named.

Every case runs over HTTP and over HTTPS.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.live.servers import (
    LATE,
    OK_BODY,
    Script,
    Server,
    answer,
    by_path,
    chunked,
    close_at_once,
    document,
    drip,
    endless,
    gzipped,
    half_closed,
    hang,
    hang_after,
    healthy,
    in_turn,
    redirect,
    reset_after,
    response,
    status,
)

if TYPE_CHECKING:
    import ssl

    from tests.live.conftest import Attempting, Authority

MIB = 1024 * 1024
BRIEF = 0.4
"""The limit, in s, of a case that uses all of it."""


class Case(NamedTuple):
    name: str
    script: Script | bytes
    kind: str | None
    """None: healthy."""
    expect: dict[str, Any] = {}  # noqa: RUF012 - never changed
    limit: float = 5.0
    tls_kind: str | None = None
    """What it may be over TLS, where some Pythons cannot tell a reset from an end without the alert."""


def encoded(body: bytes, *codings: str) -> bytes:
    return response(body, headers=[("Content-Encoding", ", ".join(codings))])


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


BOMB = gzip.compress(bytes(200 * MIB), 9)
HEAD = response(b"").partition(b"\r\n\r\n")[0] + b"\r\n"
NEST = b'[{"x":' * 50_000 + b'"]}"' + b"}]" * 50_000
BLANK = " " * 60_000
NO_LENGTH = response(b"", length=None)

WHOLE = [
    Case("plain", healthy(), None),
    Case("HTTP/1.0 with a length", response(version="HTTP/1.0"), None),
    Case("HTTP/1.0 until the end", response(version="HTTP/1.0", length=None), None),
    Case("HTTP/1.1 until the end", response(length=None), None),
    Case("status line without a reason", response(status="200"), None),
    Case("bare line feeds", response().replace(b"\r\n", b"\n"), None),
    Case("folded header", response(headers=[("X-Long", "one\r\n two")]), None),
    Case("much white space in a header", response(headers=[("X", f"a{BLANK}b")]), None, limit=2.0),
    Case("much white space in a fold", response(headers=[("X", f"1\r\n a{BLANK}b")]), None, limit=2.0),
    Case("a folded length", response(length=None, headers=[("Content-Length", "\r\n 15")]), None),
    Case("a length in one list", response(length=None, headers=[("Content-Length", "15, 15")]), None),
    Case("chunked, in capitals", chunked(OK_BODY).replace(b": chunked", b": CHUNKED"), None),
    Case("chunk sizes with zeros and spaces", chunked(end=b"003  \r\nabc\r\n000\r\n\r\n"), None),
    Case("chunks with bare line feeds", chunked(end=b"3\nabc\n0\n\n"), None),
    Case("200000 chunks", chunked(*[b"x"] * 200_000), None),
    Case("1 MiB in two chunks", chunked(bytes(MIB // 2), bytes(MIB // 2)), None),
    Case("10000 headers", response(headers=[("a", "")] * 10_000), None),
    Case("gzip and padding", encoded(gzipped(OK_BODY) + bytes(99), "gzip"), None),
    Case("x-gzip", encoded(gzipped(OK_BODY), "x-gzip"), None),
    Case("an empty encoding", encoded(OK_BODY, ""), None),
    Case("gzip of nothing at all", encoded(b"", "gzip"), None),
    Case("part of the content", response(status="206 Partial"), None),
    Case("reset the form", response(b"", status="205 Reset"), None),
    Case("half a connection", half_closed(response(length=None)), None),
    Case("no content", response(b"", status="204 No Content", length=None), None),
    Case("empty body", response(b""), None),
    Case("exactly 1 MiB", response(b"x" * MIB), None),
    Case("chunks", chunked(b'{"status":', b'"UP"}'), None),
    Case("chunk extensions", chunked(end=b'3;a="b"\r\nabc\r\n0;last\r\n\r\n'), None),
    Case("identity as transfer encoding", response(headers=[("Transfer-Encoding", "identity")]), None),
    Case("an unusual header name", response(headers=[("X@/{Y}", "1")]), None),
    Case("a trailer", chunked(OK_BODY, end=b"0\r\nX-Sum: 1\r\n\r\n"), None),
    Case("the same length twice", response(headers=[("Content-Length", str(len(OK_BODY)))]), None),
    Case("keeps the connection open", hang_after(response().replace(b"Connection: close\r\n", b"")), None),
    Case("says close, and does not", hang_after(response()), None),
    Case("gzip", encoded(gzipped(OK_BODY), "gzip"), None),
    Case("gzip in two members", encoded(gzipped(b'{"a":') + gzipped(b"1}"), "gzip"), None),
    Case("deflate", encoded(zlib.compress(OK_BODY), "deflate"), None),
    Case("bare deflate", encoded(raw_deflate(OK_BODY), "deflate"), None),
    Case("gzip within gzip", encoded(gzipped(gzipped(OK_BODY)), "gzip", "gzip"), None),
    Case("deflate within gzip", encoded(gzipped(zlib.compress(OK_BODY)), "deflate", "gzip"), None),
    Case("identity", encoded(OK_BODY, "identity"), None),
    Case("gzip of exactly 1 MiB", encoded(gzipped(bytes(MIB)), "gzip"), None),
    Case("gzip in chunks", chunked(gzipped(OK_BODY), headers=[("Content-Encoding", "gzip")]), None),
    Case("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + response(), None),
    Case("early hints first", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response(), None),
    Case("16 interims", b"HTTP/1.1 102 Processing\r\n\r\n" * 16 + response(), None),
    Case("slow, in time", drip(response(), 0.001, size=4), None),
    Case("reset after the end", reset_after(response()), None),
]

CUT = [
    Case("closes at once", close_at_once(), "reset"),
    Case("reads, then closes", answer(b""), "reset"),
    Case("reads, then resets", reset_after(b""), "reset"),
    Case("ends inside the status line", b"HTTP/1.1 20", "protocol"),
    Case("ends after the status line", b"HTTP/1.1 200 OK\r\n", "protocol"),
    Case("ends inside a header", b"HTTP/1.1 200 OK\r\nX", "protocol"),
    Case("ends before the empty line", HEAD, "protocol"),
    Case("ends after an interim", b"HTTP/1.1 103 Early Hints\r\n\r\n", "reset"),
    Case("reset inside the head", reset_after(b"HTTP/1.1 200 OK\r\nX"), "reset", tls_kind="protocol"),
    Case("reset inside the body", reset_after(response(length=100)), "reset", tls_kind="truncated"),
    Case("no body at all", response(b"", length=10), "truncated"),
    Case("body shorter than announced", response(length=100), "truncated"),
    Case("1 MiB short of one byte", response(b"x" * (MIB - 1), length=MIB), "truncated"),
    Case("body longer than announced", response(length=5), "protocol"),
    Case("body where none was announced", response(length=0), "protocol"),
    Case("no chunk at all", chunked(end=b""), "truncated"),
    Case("no last chunk", chunked(OK_BODY, end=b""), "truncated"),
    Case("last chunk without its end", chunked(OK_BODY, end=b"0\r\n"), "truncated"),
    Case("ends inside the trailer", chunked(OK_BODY, end=b"0\r\nX-Sum"), "truncated"),
    Case("ends inside a chunk", chunked(end=b"20\r\nabc"), "truncated"),
    Case("ends inside a chunk size", chunked(OK_BODY, end=b"1"), "truncated"),
    Case("ends after a chunk's data", chunked(end=b"3\r\nabc"), "truncated"),
    Case("truncated gzip", encoded(gzipped(OK_BODY * 9)[:-9], "gzip"), "truncated"),
    Case("gzip without its checksum", encoded(gzipped(OK_BODY)[:-8], "gzip"), "truncated"),
    Case("gzip header only", encoded(gzipped(OK_BODY)[:10], "gzip"), "truncated"),
    Case("truncated deflate", encoded(zlib.compress(OK_BODY * 9)[:-5], "deflate"), "truncated"),
    Case("truncated inner gzip", encoded(gzipped(gzipped(OK_BODY)[:-4]), "gzip", "gzip"), "truncated"),
]

MALFORMED = [
    Case("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n", "protocol"),
    Case("HTTP/0.9", OK_BODY, "protocol"),
    Case("HTTP/2 preface", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18), "protocol"),
    Case("HTTP/2 in the status line", response(version="HTTP/2"), "protocol"),
    Case("status without digits", response(status="OK"), "protocol"),
    Case("status of two digits", response(status="20 OK"), "protocol"),
    Case("negative status", response(status="-200 OK"), "protocol"),
    Case("garbage", bytes(range(256)) * 8, "protocol"),
    Case("one endless line", endless(b"HTTP/1.1 200 ", b"x" * 4096), "protocol"),
    Case("header without a colon", response(headers=[("broken\r\nX", "1")]), "protocol"),
    Case("header with a space in its name", response(headers=[("X Y", "1")]), "protocol"),
    Case("space before the colon", response(headers=[("X ", "1")]), "protocol"),
    Case("NUL in a header", response(headers=[("X", "a\0b")]), "protocol"),
    Case("carriage return in a header", response(headers=[("X", "a\rb")]), "protocol"),
    Case("many spaces and NUL in a header", response(headers=[("X", " " * 2000 + "\0")]), "protocol"),
    Case("header flood", endless(b"HTTP/1.1 200 OK\r\n", b"X-Flood: 1\r\n" * 400), "protocol"),
    Case("one header of 70 KiB", response(headers=[("X", "y" * 70_000)]), "protocol"),
    Case("17 interims", b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + response(), "protocol"),
    Case("interim flood", endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "protocol"),
    Case("HTTP in small letters", response(version="http/1.1"), "protocol"),
    Case("ICY", b"ICY 200 OK\r\n\r\n", "protocol"),
    Case("HTTP/1.2", response(version="HTTP/1.2"), "protocol"),
    Case("two spaces in the status line", response(status=" 200 OK"), "protocol"),
    Case("status of four digits", response(status="2000 OK"), "protocol"),
    Case("an empty line first", b"\r\n" + response(), "protocol"),
    Case("carriage returns only", response().replace(b"\r\n", b"\r"), "protocol"),
    Case("a fold first", b"HTTP/1.1 200 OK\r\n X: 1\r\n\r\n", "protocol"),
    Case("an interim with a body", b"HTTP/1.1 102 P\r\nX: 1\r\n\r\nabc" + response(), "protocol"),
    Case("two responses", response() * 2, "protocol"),
    Case("no length in the header", response(length=None, headers=[("Content-Length", "")]), "protocol"),
    Case("length in hexadecimal", response(length=None, headers=[("Content-Length", "0xf")]), "protocol"),
    Case("length with a fraction", response(length=None, headers=[("Content-Length", "15.0")]), "protocol"),
    Case("length in two halves", response(length=None, headers=[("Content-Length", "1\r\n 5")]), "protocol"),
    Case("almost chunked", chunked(OK_BODY).replace(b": chunked", b": xchunked"), "protocol"),
    Case("chunked twice", chunked(OK_BODY, headers=[("Transfer-Encoding", "chunked")]), "protocol"),
    Case("chunk size after a space", chunked(end=b" 3\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("chunk size of 20 digits", chunked(end=b"1" + b"0" * 18 + b"3\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("no chunk size", chunked(end=b"\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("zstd, which was not asked for", encoded(b"\x28\xb5\x2f\xfd", "zstd"), "protocol"),
    Case("length is a word", response(length=None, headers=[("Content-Length", "many")]), "protocol"),
    Case("negative length", response(length=None, headers=[("Content-Length", "-1")]), "protocol"),
    Case("length with a sign", response(length=None, headers=[("Content-Length", "+15")]), "protocol"),
    Case("two different lengths", response(headers=[("Content-Length", "3")]), "protocol"),
    Case("one length, written in two ways", response(headers=[("Content-Length", "015")]), "protocol"),
    Case("unasked transfer encoding", response(headers=[("Transfer-Encoding", "gzip")]), "protocol"),
    Case("stacked transfer encoding", chunked(b"x", headers=[("Transfer-Encoding", "gzip")]), "protocol"),
    Case("chunk size is a word", chunked(end=b"many\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("negative chunk size", chunked(end=b"-3\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("chunk size with a prefix", chunked(end=b"0x3\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("chunk size with underscores", chunked(end=b"0_3\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("chunk longer than its size", chunked(end=b"2\r\nabc\r\n0\r\n\r\n"), "protocol"),
    Case("endless chunk extension", endless(chunked(end=b"1;"), b"x" * 4096), "protocol"),
    Case(
        "a flood of chunk extensions",
        endless(chunked(end=b""), b"1;" + b"x" * 4000 + b"\r\na\r\n"),
        "protocol",
    ),
    Case("endless trailer", endless(chunked(b"x", end=b"0\r\n"), b"X: y\r\n" * 100), "protocol"),
    Case("bytes after the last chunk", chunked(OK_BODY, end=b"0\r\n\r\nmore"), "protocol"),
    Case("not gzip", encoded(OK_BODY, "gzip"), "protocol"),
    Case("gzip with a wrong checksum", encoded(gzipped(OK_BODY)[:-8] + bytes(8), "gzip"), "protocol"),
    Case("not deflate", encoded(b"\xff" * 20, "deflate"), "protocol"),
    Case("brotli, which was not asked for", encoded(b"\x0b\x02\x80hello\x03", "br"), "protocol"),
    Case("six encodings", encoded(gzipped(OK_BODY), *["gzip"] * 6), "protocol"),
    Case("a thousand gzip members", encoded(gzipped(b"") * 1000, "gzip"), "protocol"),
]

TOO_LARGE = [
    Case("1 MiB and one byte", response(b"x" * (MIB + 1)), "too_large"),
    Case("announces more than it may", response(length=10 * MIB), "too_large"),
    Case("announces more than can be counted", response(length=10**30), "too_large"),
    Case("endless body", endless(NO_LENGTH, b"x" * 65536), "too_large"),
    Case("announces too much, and hangs", hang_after(response(length=10**12)), "too_large"),
    Case("a chunk of too much, and hangs", hang_after(chunked(end=b"200000\r\n")), "too_large"),
    Case("1 MiB and one byte in chunks", chunked(bytes(MIB), b"x"), "too_large"),
    Case("1 MiB and one byte until the end", response(bytes(MIB + 1), length=None), "too_large"),
    Case("endless chunks", endless(chunked(end=b""), b"1000\r\n" + b"x" * 4096 + b"\r\n"), "too_large"),
    Case("an immense chunk", chunked(end=b"ffffffffffffffff\r\nabc"), "too_large"),
    Case("gzip bomb", encoded(BOMB, "gzip"), "too_large"),
    Case("bomb within gzip", encoded(gzipped(BOMB), "gzip", "gzip"), "too_large"),
    Case("deflate bomb", encoded(zlib.compress(bytes(50 * MIB), 9), "deflate"), "too_large"),
    Case("gzip of 1 MiB and one byte", encoded(gzipped(bytes(MIB + 1)), "gzip"), "too_large"),
]

SLOW = [
    Case("accepts and stays silent", hang(), "timeout", limit=BRIEF),
    Case("reads and stays silent", hang_after(b""), "timeout", limit=BRIEF),
    Case("stops inside the head", hang_after(HEAD), "timeout", limit=BRIEF),
    Case("stops inside the body", hang_after(response(length=100)), "timeout", limit=BRIEF),
    Case("an interim, then silence", hang_after(b"HTTP/1.1 100 C\r\n\r\n"), "timeout", limit=BRIEF),
    Case("no end after the last chunk", hang_after(chunked(b"x", end=b"0\r\n")), "timeout", limit=BRIEF),
    Case("a stream of events", hang_after(response(b"data: x\n\n", length=None)), "timeout", limit=BRIEF),
    Case("stops inside a chunk", hang_after(chunked(end=b"9\r\nabc")), "timeout", limit=BRIEF),
    Case("drips its head", drip(HEAD * 100, 0.02), "timeout", limit=BRIEF),
    Case("drips its body", drip(response(bytes(1000)), 0.01), "timeout", limit=BRIEF),
    Case("drips interims", drip(b"HTTP/1.1 102 P\r\n\r\n" * 9, 0.02), "timeout", limit=BRIEF),
    Case("drips chunks", drip(chunked(*[b"x"] * 500), 0.01), "timeout", limit=BRIEF),
    Case("until the end, and never ends", hang_after(response(length=None)), "timeout", limit=BRIEF),
]

STATUS = [
    *(
        Case(f"status {code}", status(code), "status")
        for code in (300, 304, 400, 401, 404, 418, 429, 500, 503)
    ),
    Case("status 999", status(999), "status"),
    Case("switching protocols", status(101), "status"),
    Case(
        "503 with an endless body",
        endless(response(b"", status="503 No", length=None), b"x" * 9999),
        "status",
    ),
    Case("503 and silence", hang_after(response(status="503 No", length=99)), "status", limit=BRIEF),
    Case("500 and broken chunks", chunked(end=b"zz").replace(b"200 OK", b"500 No"), "status"),
    Case(
        "a status that is wanted, and down",
        status(503, body=b'{"status":"DOWN"}'),
        "health_document",
        {"status": ((503, 503),)},
    ),
    Case("503 and cut off", response(status="503 No", length=99), "status"),
    Case("503 with a bomb", encoded(BOMB, "gzip").replace(b"200 OK", b"503 No"), "status"),
    Case("a status that is wanted", status(418), None, {"status": ((418, 418),)}),
    Case("304, wanted", response(b"", status="304 Not Modified", length=15), None, {"status": ((304, 304),)}),
]

DOCUMENTS = [
    *(
        Case(f"says {word}", document(status=word), "health_document")
        for word in ("down", "DOWN", "Fail", "failed", "error", "Unhealthy", "OUT_OF_SERVICE", "critical")
    ),
    *(Case(f"says {word}", document(status=word), None) for word in ("UP", "pass", "ok", "warn", "")),
    Case("outcome down", document(outcome="DOWN", checks=[]), "health_document"),
    Case("no status, outcome down", response(b'{"status":null,"outcome":"fail"}'), "health_document"),
    Case("down, in escapes", response(b'{"st\\u0061tus":"D\\u004fWN"}'), "health_document"),
    Case("down, with white space", document(status=" down "), "health_document"),
    Case("down, one level below", document(status={"status": "DOWN"}), None),
    Case("down, in single quotes", response(b"{'status':'DOWN'}"), None),
    Case("status fine, outcome not", document(status="UP", outcome="failed"), "health_document"),
    Case("a status that is no string", document(status=False), None),
    Case("a check below that is down", document(status="UP", checks=[{"status": "DOWN"}]), None),
    Case("a list", answer(response(b'[{"status":"DOWN"}]')), None),
    Case("an RFC draft document", response(b'{"status":"fail","version":"1"}').replace(
        b"application/json", b"application/health+json"), "health_document"),
    Case("a document that calls itself text", response(b'{"status":"DOWN"}').replace(
        b"application/json", b"text/plain"), "health_document"),
    Case("a document in gzip", encoded(gzipped(b'{"status":"DOWN"}'), "gzip"), "health_document"),
    Case("a document with a byte order mark", response(b'\xef\xbb\xbf{"status":"DOWN"}'), "health_document"),
    Case("after much white space", response(b" " * 9999 + b'{"status":"DOWN"}'), "health_document"),
    Case("a document with NaN", response(b'{"x":NaN,"status":"DOWN"}'), "health_document"),
    Case("a document with a huge number", response(b'{"x":' + b"9" * 9999 + b',"status":"DOWN"}'),
         "health_document"),
    Case("a status given twice", response(b'{"status":"DOWN","status":"UP"}'), "health_document"),
    Case("a document that is not UTF-8", response(b'{"x":"\xff","status":"DOWN"}'), "health_document"),
    *(Case(f"a document in {charset}", response('{"status":"DOWN"}'.encode(charset)), "health_document")
      for charset in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    Case("a line end in a string", response(b'{"x":"1\n2","status":"DOWN"}'), "health_document"),
    Case("down, above a deep nest", response(b'{"status":"DOWN","x":' + NEST + b"}"), "health_document"),
    Case("down, below a deep nest", response(b'{"x":' + NEST + b',"status":"DOWN"}'), "health_document"),
    Case("a deep nest that says down inside", response(
        b'{"x":' + b'{"status":"DOWN","x":' * 20_000 + b"1" + b"}" * 20_000 + b',"status":"UP"}'), None),
    Case("a deep nest, and a text without end", response(b'{"x":' + NEST + b',"' + b'\\"' * 250_000), None),
    Case("a document nested without end", response(b'{"x":' * 100_000), None),
    Case("down, at the end of 900 KiB", response(json.dumps({"x": "y" * 900_000, "status": "DOWN"}).encode()),
         "health_document"),
]  # fmt: skip

EXPECTATIONS = [
    Case("text that is there", healthy(b"all ready here"), None, {"body": "ready"}),
    Case("text that is not", healthy(b"booting"), "body", {"body": "ready"}),
    Case("text past 64 KiB", healthy(b"x" * 65536 + b"ready"), "body", {"body": "ready"}),
    Case("text in another charset", response("gr\xfc\xdfe".encode("latin-1")).replace(
        b"application/json", b"text/plain; charset=iso-8859-1"), None, {"body": "grüße"}),
    Case("an unknown charset", response("grüße".encode()).replace(
        b"application/json", b"text/plain; charset=nonsense"), None, {"body": "grüße"}),
    Case("a charset that is no text", response("grüße".encode()).replace(
        b"application/json", b"text/plain; charset=hex"), None, {"body": "grüße"}),
    Case("a pattern", healthy(b"version 12"), None, {"body_regex": r"version \d+"}),
    Case("a pattern that is not there", healthy(b"version x"), "body", {"body_regex": r"version \d+"}),
    Case("a pattern that explodes", healthy(b"a" * 60_000), "timeout", {"body_regex": "(a+)+b"}, 1.0),
    Case("json as expected", document(a={"b": [1, {"up": True}]}), None, {"json": (("a.b.1.up", True),)}),
    Case("json of another value", document(n=1), "json", {"json": (("n", 2),)}),
    Case("true is not 1", document(n=1), "json", {"json": (("n", True),)}),
    Case("1 is not true", document(n=True), "json", {"json": (("n", 1),)}),
    Case("1.0 is 1", document(n=1.0), None, {"json": (("n", 1),)}),
    Case("json that is missing", document(), "json", {"json": (("n", 1),)}),
    Case("an index past the end", document(a=[1]), "json", {"json": (("a.1", 1),)}),
    Case("json, but html", response(b"<html>"), "json", {"json": (("n", 1),)}),
    Case("half of the json", response(b'{"n": 1, '), "json", {"json": (("n", 1),)}),
    Case("json in UTF-16", answer(response('{"n":1}'.encode("utf-16"))), None, {"json": (("n", 1),)}),
    Case("json beside a deep nest", response(b'{"x":' + NEST + b',"n":1}'), None, {"json": (("n", 1),)}),
    Case("a key with dots", document(**{"a.b": {"c": 1}}), None, {"json": (("a.b.c", 1),)}),
    Case("a header", status(200, ("X-Ready", "yes")), None, {"headers": (("x-ready", "yes"),)}),
    Case("another header", status(200, ("X-Ready", "no")), "header", {"headers": (("x-ready", "yes"),)}),
    Case("no such header", status(200), "header", {"headers": (("x-ready", "yes"),)}),
    Case("a header in UTF-8", status(200, ("X-It", "gr\xc3\xbcn")), None, {"headers": (("X-It", "grün"),)}),
    Case("a header in Latin-1", status(200, ("X-It", "gr\xfcn")), None, {"headers": (("X-It", "grün"),)}),
    Case("a pattern after a byte order mark", healthy(b"\xef\xbb\xbfready"), None, {"body_regex": "^ready"}),
    Case("text in UTF-16", response("ready".encode("utf-16")).replace(
        b"application/json", b"text/plain; charset=utf-16"), None, {"body_regex": "^ready"}),
    Case("a header given twice", status(200, ("X", "a"), ("X", "b")), None, {"headers": (("X", "a, b"),)}),
    Case("too slow", drip(response(), 0.02, size=20), "latency", {"max_latency": 0.05}),
    Case("fast enough", healthy(), None, {"max_latency": 4.0}),
]  # fmt: skip

REDIRECTS = [
    Case("to itself with success", by_path(index=redirect("/ok"), ok=healthy()), None),
    Case("by a relative Location", by_path(index=redirect("ok?x=1"), ok=healthy()), None),
    *(
        Case(f"by {code}", by_path(index=redirect("/ok", code), ok=healthy()), None)
        for code in (301, 303, 307, 308)
    ),
    Case("to a path in UTF-8", by_path(
        index=redirect("/gr\xc3\xbc\xc3\x9fe"), **{"gr%C3%BC%C3%9Fe": healthy()}), None),
    Case("to something broken", by_path(index=redirect("/bad"), bad=status(500)), "status"),
    Case("to a document that is down", by_path(index=redirect("/bad"), bad=document(status="DOWN")),
         "health_document"),
    Case("five times", by_path(index=redirect("/a"), a=redirect("/b"), b=redirect("/c"), c=redirect("/d"),
                               d=redirect("/e"), e=healthy()), None),
    Case("six times", by_path(index=redirect("/a"), a=redirect("/b"), b=redirect("/c"), c=redirect("/d"),
                              d=redirect("/e"), e=redirect("/f"), f=healthy()), "redirect"),
    Case("to itself, no scheme", by_path(index=redirect("//127.0.0.1:{port}/ok#x"), ok=healthy()), None),
    Case("above the root", by_path(index=redirect("../../ok"), ok=healthy()), None),
    Case("past a body in broken chunks", by_path(index=chunked(end=b"zz").replace(
        b"200 OK", b"302 Found\r\nLocation: /ok"), ok=healthy()), None),
    Case("300, with a Location", by_path(index=redirect("/ok", 300), ok=healthy()), "status"),
    Case("201, with a Location", redirect("/bad", 201), None),
    Case("to a number for an address", redirect("http://2130706433:{port}/"), "redirect"),
    Case("to a Location of 60 KiB", redirect("/" + "%zz" * 20_000), "redirect"),
    Case("behind backslashes", redirect("http:\\\\login.example.com\\@127.0.0.1:{port}/"), "redirect"),
    Case("cut off after the Location", b"HTTP/1.1 302 Found\r\nLocation: /ok\r\n", "protocol"),
    Case("to one place, told twice", by_path(
        index=status(302, ("Location", "/ok"), ("location", "/ok")), ok=healthy()), None),
    Case("to 2 places", in_turn(status(302, ("Location", "/a"), ("Location", "/b")), healthy()), "redirect"),
    Case("created in two places", status(201, ("Location", "/ok"), ("Location", "/no")), None),
    Case("for ever", redirect("/again"), "redirect"),
    Case("nowhere", redirect(None), "redirect"),
    Case("to an empty Location", redirect(""), "redirect"),
    Case("to another host", redirect("http://login.example.com/"), "redirect"),
    Case("to another host without a scheme", redirect("//login.example.com/"), "redirect"),
    Case("to another name of this host", redirect("http://localhost:{port}/"), "redirect"),
    Case("to another scheme", redirect("ftp://127.0.0.1/"), "redirect"),
    Case("to a script", redirect("javascript:alert(1)"), "redirect"),
    Case("to nonsense", redirect("http://[::1"), "redirect"),
    Case("to a port that is none", redirect("http://127.0.0.1:99999/"), "redirect"),
    Case("to port 0", redirect("http://127.0.0.1:0/"), "redirect"),
    Case("to a host hidden by userinfo", redirect("http://127.0.0.1@login.example.com/"), "redirect"),
    Case("with a bomb as body", by_path(
        index=answer(encoded(BOMB, "gzip").replace(b"200 OK\r\n", b"302 Found\r\nLocation: /ok\r\n")),
        ok=healthy()), None),
    Case("with an endless body", by_path(
        index=endless(response(b"", status="302 F", length=None, headers=[("Location", "/ok")]), b"x" * 99),
        ok=healthy()), None),
    Case("a redirect that is wanted", redirect("https://example.com/"), None, {"status": ((302, 302),)}),
    Case("200-399 does not want a login page", redirect("https://login.example.com/"), "redirect",
         {"status": ((200, 399),)}),
    Case("200-399 follows", by_path(index=redirect("/ok"), ok=healthy()), None, {"status": ((200, 399),)}),
]  # fmt: skip

CASES = [*WHOLE, *CUT, *MALFORMED, *TOO_LARGE, *SLOW, *STATUS, *DOCUMENTS, *EXPECTATIONS, *REDIRECTS]


def test_a_flood_of_headers_is_told_by_its_size(attempt: Attempting) -> None:
    with Server(endless(b"HTTP/1.1 200 OK\r\n", b"X-Flood: 1\r\n" * 400)) as server:
        made = attempt(server.url)
    assert made.detail == "response head larger than 64 KiB"
    assert made.bytes < 256 * 1024


def test_there_are_enough_of_them_and_each_has_its_own_name() -> None:
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "-") for case in CASES])
def test_server(
    case: Case, scheme: str, attempt: Attempting, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    with Server(case.script, tls=server_tls if scheme == "https" else None) as server:
        made = attempt(server.url, limit=case.limit, **case.expect)
    kinds = {case.kind, case.tls_kind} if scheme == "https" and case.tls_kind else {case.kind}
    assert made.kind in kinds, made
    assert made.ok == (made.kind is None)
    assert made.elapsed_ms <= case.limit * 1000 + LATE
    assert len(made.detail) <= 200
    assert made.detail.isprintable()
    assert made.remote_ip == "127.0.0.1"
    assert (made.tls_not_after is not None) == (scheme == "https")
    if case.kind == "timeout" and case.limit == BRIEF:
        assert made.elapsed_ms >= BRIEF * 1000 - 10


def test_a_time_limit_is_told_in_digits_that_matter(attempt: Attempting) -> None:
    with Server(hang()) as server:
        made = attempt(server.url, limit=0.1234567)
    assert made.detail == "time limit of 0.123 s reached while waiting for an answer"
