"""What a response amounts to. What needs no server; the rest is in tests/live."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from opsgate.verdict.document import look_up, parse
from opsgate.verdict.expect import (
    Finding,
    Response,
    SearchTimeout,
    examine,
    quote,
    revisions_match,
)
from opsgate.verdict.targets import Expectation, RevisionRule

NONE = RevisionRule()


def look(response: Response, rule: RevisionRule = NONE, *, lenient: bool = False, **expect: Any) -> Finding:
    return examine(Expectation(**expect), response, rule=rule, now=0.0, lenient=lenient)


def body(content: Any, **fields: Any) -> Response:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Response(**{"status": 200, "body": raw, **fields})


EVERYTHING_WRONG: dict[str, Any] = {
    "headers": (("X", "1"),),
    "body": "text",
    "body_regex": "pattern",
    "json": (("a", 1),),
    "max_latency": 0.1,
    "tls_days": 10.0,
    "revision": "json:version",
}


def test_the_first_failure_in_the_order_is_the_one_named() -> None:
    response: dict[str, Any] = {
        "body": b'{"status":"DOWN","version":"old"}',
        "elapsed_ms": 200.0,
        "tls_not_after": 86_400.0,
    }
    rule = RevisionRule(expected="new")
    kinds = [look(Response(status=500, **response), rule, **EVERYTHING_WRONG).kind]
    response["body"] = b'{"version":"old"}'
    kinds.append(look(Response(status=200, **response | {"body": b'{"status":"DOWN"}'}), rule).kind)
    left = dict(EVERYTHING_WRONG)
    for name in ("headers", "body", "body_regex", "json", "max_latency", "tls_days"):
        kinds.append(look(Response(status=200, **response), rule, **left).kind)
        del left[name]
    kinds.append(look(Response(status=200, **response), rule, **left).kind)
    assert kinds == [
        "status", "health_document", "header", "body", "body", "json", "latency", "certificate", "revision",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ranges", "status", "ok"),
    [
        (((200, 299),), 299, True),
        (((200, 299),), 300, False),
        (((200, 200), (404, 404)), 404, True),
        (((200, 200), (404, 404)), 204, False),
    ],
)
def test_status(ranges: tuple[tuple[int, int], ...], status: int, ok: bool) -> None:
    finding = look(Response(status=status), status=ranges)
    assert finding == Finding(kind=None if ok else "status", detail="" if ok else f"status {status}")


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ("v41", "v41", True),
        ("v41", "v412", False),
        ("abcdef0", "abcdef0123", True),
        ("abcdef0123", "abcdef0", True),
        ("ABCDEF0", "abcdef0123", True),
        ("abcdef", "abcdef0", False),
        ("abcdef0", "bcdef01", False),
        ("abcdefg", "abcdefgh", False),
        ("abcdef0", "abcdef0-dirty", False),
        ("", "", True),
        ("", "abcdef0", False),
        ("1234567", "12345678", True),
    ],
)
def test_revisions_match(a: str, b: str, match: bool) -> None:
    assert revisions_match(a, b) is match
    assert revisions_match(b, a) is match


SEEN = body({"version": "abcdef0"})
UNREADABLE = body({})


@pytest.mark.parametrize(
    ("response", "rule", "kind", "detail"),
    [
        (SEEN, NONE, None, ""),
        (SEEN, RevisionRule(expected="abcdef012"), None, ""),
        (SEEN, RevisionRule(expected="1234567"), "revision", 'runs revision "abcdef0", not "1234567"'),
        (SEEN, RevisionRule(forbidden="1234567"), None, ""),
        (SEEN, RevisionRule(forbidden="abcdef012"), "revision", 'still runs revision "abcdef0"'),
        (UNREADABLE, NONE, None, 'no revision at "json:version"'),
        (UNREADABLE, RevisionRule(expected="1234567"), "revision", 'no revision at "json:version"'),
        (UNREADABLE, RevisionRule(forbidden="1234567"), None, 'no revision at "json:version"'),
    ],
)
def test_revision(response: Response, rule: RevisionRule, kind: str | None, detail: str) -> None:
    finding = look(response, rule, revision="json:version")
    assert (finding.kind, finding.detail) == (kind, detail)


@pytest.mark.parametrize(
    ("value", "revision"),
    [
        ("  v1\n", "v1"),
        (41, "41"),
        (1.5, "1.5"),
        (True, None),
        (None, None),
        ("", None),
        ([], None),
        ("x" * 201, None),
    ],
)
def test_what_counts_as_a_revision(value: Any, revision: str | None) -> None:
    assert look(body({"version": value}), revision="json:version").revision == revision


def test_a_revision_is_reported_whatever_else_is_wrong() -> None:
    response = body({"version": "v1"}, status=503, headers=(("X-Revision", " v2 "),))
    assert look(response, revision="json:version").revision == "v1"
    assert look(response, revision="header:x-revision").revision == "v2"
    assert look(response).revision is None


def test_recovery_decides_on_status_document_and_revision() -> None:
    wrong = {name: value for name, value in EVERYTHING_WRONG.items() if name != "revision"}
    slow = {"elapsed_ms": 200.0, "tls_not_after": 86_400.0}
    for name, value in wrong.items():
        finding = look(body({}, **slow), lenient=True, **{name: value})
        assert finding.kind is None
        assert finding.detail.startswith("warning: ")
    assert look(body({"status": "DOWN"}), lenient=True).kind == "health_document"
    assert look(body({}, status=500), lenient=True).kind == "status"
    still = look(SEEN, RevisionRule(forbidden="abcdef0"), lenient=True, revision="json:version", body="x")
    assert still.kind == "revision"


def test_a_search_that_takes_too_long() -> None:
    def find(_pattern: str, _text: str) -> bool:
        raise SearchTimeout

    expect = Expectation(body_regex="(a+)+b")
    finding = examine(expect, body(b"a"), rule=NONE, now=0.0, find=find)
    assert (finding.kind, finding.detail) == ("timeout", 'time limit reached while searching for "(a+)+b"')
    assert examine(expect, body(b"a"), rule=NONE, now=0.0, find=find, lenient=True).kind is None


@pytest.mark.parametrize(
    ("document", "path", "value", "ok"),
    [
        ({"a": {"b": 1}}, "a.b", 1, True),
        ({"a": [{"b": 1}]}, "a.0.b", 1, True),
        ({"a": {"0": 1}}, "a.0", 1, True),
        ([1, 2], "1", 2, True),
        ([1], "-1", 1, False),
        ([1], "1", 1, False),
        ([1], "x", 1, False),
        ([1], "²", 1, False),
        ({"a.b": 1}, "a.b", 1, True),
        ({"a": 1, "a.b": {"c": 2}}, "a.b.c", 2, True),
        ({"a": None}, "a", None, True),
        ({"a": 1}, "a.b", 1, False),
        ({"a": {"b": [1, True]}}, "a", {"b": [1, True]}, True),
        ({"a": {"b": [1, 1]}}, "a", {"b": [1, True]}, False),
        ({"a": "1"}, "a", 1, False),
        ({"a": 1}, "a", 1.0, True),
        ({"a": 0}, "a", False, False),
        ({"a": False}, "a", 0, False),
        ({"a": [1]}, "a", [1, 2], False),
        ({"": 1}, "", {"": 1}, True),
    ],
)
def test_json(document: Any, path: str, value: Any, ok: bool) -> None:
    assert look(body(document), json=((path, value),)).kind == (None if ok else "json")


def test_json_details() -> None:
    response = body({"a": {"b": ["x"]}, "long": "y" * 500})
    assert look(response, json=(("a.c", 1),)).detail == 'json "a.c" is missing'
    assert look(response, json=(("a.b", 1),)).detail == 'json "a.b" is a list, not 1'
    assert look(response, json=(("a.b.0", True),)).detail == 'json "a.b.0" is "x", not true'
    assert look(response, json=(("long", "z"),)).detail == f'json "long" is "{"y" * 60}…", not "z"'


def test_repeated_headers_are_joined() -> None:
    response = Response(status=200, headers=(("Vary", "a"), ("vary", " b ")))
    assert look(response, headers=(("VARY", "a, b"),)).kind is None
    assert look(response, headers=(("VARY", "a"),)).detail == 'header VARY is "a, b", not "a"'


def test_quoting_shows_no_control_characters() -> None:
    assert quote('a"b\n\x1b[31m\u202e') == '"a\\"b\\n\\u001b[31m\\u202e"'
    assert quote("x" * 100, 10) == f'"{"x" * 10}…"'


@given(st.binary(max_size=300), st.sampled_from(["a", "a.0", "", "status"]), st.integers() | st.booleans())
def test_no_body_breaks_it(content: bytes, path: str, value: Any) -> None:
    expect: dict[str, Any] = {
        "json": ((path, value),),
        "body": "x",
        "body_regex": "y",
        "revision": f"json:{path}",
    }
    finding = look(Response(status=200, body=content), **expect)
    assert len(finding.detail) < 250
    assert finding.detail.isprintable()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=20,
    )
)
def test_every_document_equals_itself_and_names_its_members(document: Any) -> None:
    if isinstance(document, dict):
        for name, value in document.items():
            # NaN equals nothing, and a name with dots may be found elsewhere first.
            if "." not in name and "NaN" not in json.dumps(value):
                finding = look(body(document), json=((name, value),))
                assert finding.kind in (None, "health_document") or name == ""


@given(st.text(max_size=300), st.integers(1, 80))
def test_every_quote_is_short_and_printable(text: str, limit: int) -> None:
    assert quote(text, limit).isprintable()
    assert len(quote(text, limit)) <= limit + 3


def test_no_parser_is_given_what_it_cannot_follow(mocker: MockerFixture) -> None:
    loads = mocker.spy(json, "loads")
    nest = b"[" * 5000 + b"]" * 5000
    document = parse(b'{"a":"' + b"]" * 5000 + b'","x":' + nest + b',"status":"DOWN"}', needed=False)
    assert look_up(document, "status") == "DOWN"
    (call,) = loads.call_args_list
    assert "[" * 100 not in call.args[0]
