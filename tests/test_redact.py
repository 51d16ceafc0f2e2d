"""No secret gets through in any dress; what is no secret stays readable."""

from __future__ import annotations

import base64
import json
import re
import shlex
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from opsgate.errors import ConfigurationError
from opsgate.redact import MASK, Redactor, Secret, found_in, looks_secret, mask_url

if TYPE_CHECKING:
    from collections.abc import Callable

TRICKY = "p@ss w/ö\"r'd+\\%&"
LONG = "".join(chr(33 + i * 7 % 90) for i in range(150))
PAT = "github_pat_" + LONG.encode().hex()[:82]
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEF\nshort\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "name",
    [
        "TOKEN", "GITHUB_TOKEN", "RUNTIME_HEALTH_TOKEN", "DB_PASSWORD", "db-password", "dbPassword",
        "MYSQL_PWD",
        "apiKey", "APIKEY", "X-Api-Key", "APIToken", "AWS_SECRET_ACCESS_KEY", "X-Amz-Signature", "sig",
        "OAuthToken", "authorization", "Proxy-Authorization", "CREDENTIALS", "SSH_PRIVATE_KEY", "TOKEN2",
        "PGPASSWORD", "key", "access_token",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "KEYBOARD", "MONKEY", "AUTHOR", "GIT_AUTHOR_NAME", "TOKENIZER", "SECRETARY", "PWD", "OLDPWD", "PATH",
        "SSH_AUTH_SOCK", "DESIGN", "passenger", "Keyboard", "HOME", "COMPASS", "authored_by",
    ],
)  # fmt: skip
def test_names_of_no_secrets(name: str) -> None:
    assert not looks_secret(name)


def percent(text: str) -> str:
    return "".join(f"%{octet:02X}" for octet in text.encode())


def unicode_escape(text: str) -> str:
    units = text.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@pytest.mark.parametrize(
    "secret", ["hunter2secret", TRICKY, "~under_the-<m>.a.t", "ends in dots...", "ключ-от-всего", "😀😀😀abc"]
)
@pytest.mark.parametrize(
    "dress",
    [
        str,
        quote,
        lambda s: quote(s, safe=""),
        quote_plus,
        lambda s: quote(s, safe="!'()*").lower() if s.isascii() else quote(s),
        lambda s: json.dumps(s)[1:-1],
        lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
        lambda s: re.sub(r"[^ -~]|[<>&'+]", lambda m: unicode_escape(m[0]), json.dumps(s)[1:-1]),
        lambda s: re.sub("[^a-zA-Z0-9]", lambda m: unicode_escape(m[0]).replace("\\U", "\\u"), s),
        lambda s: re.sub("[^a-zA-Z0-9]", lambda m: percent(m[0]), s),
        lambda s: re.sub("[^a-zA-Z0-9]", lambda m: percent(m[0]).lower(), s),
        percent,
        lambda s: percent(s).lower(),
        lambda s: shlex.quote(s).strip("'"),
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
        lambda s: base64.urlsafe_b64encode(f"user:{s}".encode()).decode(),
        lambda s: base64.b64encode(f"u:{s}:more".encode()).decode(),
        lambda s: base64.b64encode(f"us{s}\n".encode()).decode(),
    ],
)
def test_a_known_secret_in_every_dress(secret: str, dress: object) -> None:
    assert callable(dress)
    worn = dress(secret)
    shown = Redactor([secret]).scrub(f"before|{worn}|after")
    assert shown.startswith("before|")
    assert shown.endswith("|after")
    assert MASK in shown
    # Of base64 at most the characters that carry the neighbours' bits stay.
    assert len(shown) <= len("before||after") + 16


SECRETS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=6, max_size=40
)


@given(
    secret=SECRETS,
    before=st.text(max_size=7),
    after=st.text(max_size=7),
    safe=st.sampled_from(["", "/", "!'()*"]),
)
def test_no_secret_survives(secret: str, before: str, after: str, safe: str) -> None:
    redactor = Redactor([secret, "another-secret"])
    if not Redactor([secret]).masks() or secret in (before + after):
        return
    for worn in (secret, quote(secret, safe=safe), json.dumps(secret)[1:-1]):
        shown = redactor.scrub(f"{before} {worn} {after}")
        assert worn not in shown.replace(MASK, " ") or set(worn) <= {"*"}
    inside = base64.b64encode((before + secret + after).encode()).decode()
    left = redactor.scrub(inside)
    if MASK not in left:
        pytest.fail(f"{secret!r} is readable in {inside}")


@given(secret=SECRETS, data=st.data())
def test_no_mixture_of_escapes_hides_a_secret(secret: str, data: st.DataObject) -> None:
    assume(Redactor([secret]).masks())
    ways: list[Callable[[str], str]] = [str, percent, lambda char: percent(char).lower(), unicode_escape]
    ways += [lambda char: unicode_escape(char).upper().replace("\\U", "\\u")]
    worn = "".join(
        char if char.isascii() and char.isalnum() else data.draw(st.sampled_from(ways))(char)
        for char in secret.strip()
    )
    assert Redactor([secret]).scrub(f"<{worn}>") == "<***>"


@given(text=st.text())
def test_nothing_known_nothing_broken(text: str) -> None:
    plain = "".join(char for char in text if char not in "@=:?&-#\"'" and not char.isspace())
    assert Redactor(["hunter2secret"]).scrub(plain) == plain


def test_secrets_that_overlap_leave_no_rest() -> None:
    assert Redactor(["abcdefgh", "efghijkl"]).scrub("<abcdefghijkl>") == "<***>"
    assert Redactor(["secret-a", "secret-abc"]).scrub("<secret-abc>") == "<***>"
    assert Redactor(["abcdefghij", "cdefgh"]).scrub("<abcdefghij>") == "<***>"


def test_long_base64_is_found_across_wrapped_lines() -> None:
    wrapped = base64.encodebytes(LONG.encode()).decode()
    shown = Redactor([LONG]).scrub(wrapped)
    assert shown.count(MASK) == 3
    assert not any(line[:20] in shown for line in wrapped.splitlines())


@given(
    before=st.binary(max_size=80),
    after=st.binary(max_size=80),
    width=st.integers(8, 120),
    end=st.sampled_from(["", "\r", " \t\r"]),
    indent=st.sampled_from(["", "  ", "\t"]),
    encode=st.sampled_from([base64.standard_b64encode, base64.urlsafe_b64encode]),
)
@example(b"", b"", 64, "", "", base64.standard_b64encode)
@example(b"user:", b"", 64, "", "", base64.standard_b64encode)
@example(b"user:", b"", 76, "", "", base64.standard_b64encode)
def test_base64_is_found_wherever_it_is_wrapped(
    before: bytes, after: bytes, width: int, end: str, indent: str, encode: Callable[[bytes], bytes]
) -> None:
    for secret in (LONG, PAT):
        encoded = encode(before + secret.encode() + after).decode()
        first, last = -(-len(before) * 4 // 3), (len(before) + len(secret)) * 4 // 3
        redactor = Redactor([secret])
        for at in range(0, len(encoded), width):
            part = encoded[max(at, first) : min(at + width, last)]
            # By itself, as if the lines before and after it had come at another time.
            line = f"{indent}{encoded[at : at + width]}{end}"
            shown = redactor.scrub_lines(line)
            assert len(part) < 8 or part not in shown, (line, shown)


def test_a_header_before_wrapped_base64_stays_readable() -> None:
    encoded = base64.b64encode(f"user:{PAT}".encode()).decode()
    text = f"data: {encoded[:60]}\n  {encoded[60:120]}\n  {encoded[120:]}\nend: successfully\n"
    assert Redactor([PAT]).scrub(text) == "data: ***\n  ***\n  ***\nend: successfully\n"


def test_short_values_are_masked_only_as_a_whole() -> None:
    redactor = Redactor.gather({"A_TOKEN": "1", "B_KEY": "prod", "C_SECRET": "abc12"})
    assert redactor.scrub("prod has 1 abc12 left") == "prod has 1 abc12 left"
    assert redactor.scrub_value({"a": "abc12", "b": ["prod now", "prod", 1]}) == {
        "a": MASK,
        "b": ["prod now", MASK, 1],
    }
    assert redactor.scrub("export C_SECRET=abc12") == "export C_SECRET=***"
    assert redactor.masks() == ()


def test_in_output_a_line_is_a_whole_value() -> None:
    redactor = Redactor.gather({"A_TOKEN": "1", "C_SECRET": "abc12", "D_KEY": "a.c"})
    output = "abc12\n 1\t\r\n1 left\nabc12!\nabc\nlast abc12\n1"
    assert redactor.scrub_lines(output) == "***\n ***\t\r\n1 left\nabc12!\nabc\nlast abc12\n***"
    assert redactor.scrub_lines("a bar\rabc12\rrest") == "a bar\r***\rrest"
    assert redactor.scrub_lines("xabc12\nabc12", skip=1) == "abc12\n***"
    assert Redactor([PEM]).scrub_lines("short\n") == "short\n"


def test_opsgates_own_words_are_never_secrets() -> None:
    redactor = Redactor.gather({"AUTH_MODE": "manual", "KEY_A": "true", "TOKEN_B": "failed"})
    document = {"status": "failed", "rollback": {"trigger": "manual"}, "ok": True}
    assert redactor.scrub_value(document) == document


def test_lines_of_a_long_secret_are_masked_one_by_one() -> None:
    redactor = Redactor([PEM])
    assert redactor.scrub("x MIIEvQIBADANBgkq y") == "x *** y"
    assert redactor.scrub("short") == "short"
    assert redactor.scrub(PEM.replace("\n", "\r\n")).strip() == MASK
    assert redactor.scrub(json.dumps({"k": PEM.strip()})) == '{"k": "***"}'
    assert "MIIEvQIBADANBgkq" in redactor.masks()
    assert not any("\n" in mask for mask in redactor.masks())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pw@host/p", "https://***@host/p"),
        ("https://user:p@ss@host/p", "https://***@host/p"),
        ("redis://:pw@host:1/0 next", "redis://***@host:1/0 next"),
        ('"https:\\/\\/user:pw@host"', '"https:\\/\\/***@host"'),
        ("https://host/p?a=1&token=abc&b=2", "https://host/p?a=1&token=***&b=2"),
        ("https://host/p?a=1;api_key=abc", "https://host/p?a=1;api_key=***"),
        ("https://host/p?a=1;b=2;signature=ab;c&d=3", "https://host/p?a=1;b=2;signature=***&d=3"),
        ("https://host/p?token=ab;c;key=d&d=3", "https://host/p?token=***&d=3"),
        ("https://host/p?next=/a?token=abc", "https://host/p?next=/a?token=***"),
        ("https://host/p?next=/a;b=2&token=", "https://host/p?next=/a;b=2&token="),
        ("https://host/p?X-Amz-Signature=ab%2F", "https://host/p?X-Amz-Signature=***"),
        ("https://host/cb#access_token=abc&b=2", "https://host/cb#access_token=***&b=2"),
        ("https://host/p?monkey=abc&author=me", "https://host/p?monkey=abc&author=me"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("> authorization: token abc def", "> authorization: ***"),
        ("got Bearer abc.def-ghi/x= back", "got Bearer *** back"),
        ("bearer authtoken123", "bearer ***"),
        ("got Bearer token-abcdef123456", "got Bearer ***"),
        ("got Bearer auth.abc.def, Bearer tokens/abc+d==", "got Bearer ***, Bearer ***"),
        ("no Bearer token. No bearer authorization...", "no Bearer token. No bearer authorization..."),
        ("Basic dXNlcjpwdw== end", "Basic *** end"),
        ("basic authentication failed", "basic authentication failed"),
        ("no Bearer token given", "no Bearer token given"),
        ("bearer token-based login, no bearer authorization-header",) * 2,
        ("Bearer token/cookie is missing: bearer authentication-failed.",) * 2,
        ('Bearer realm="https://host/token"', 'Bearer realm="https://host/token"'),
        ("X-Api-Key: a b", "X-Api-Key: ***"),
        ("Set-Cookie: sid=1; Path=/", "Set-Cookie: ***"),
        ("error: sent X-Api-Key: abc", "error: sent X-Api-Key: ***"),
        ("curl -H 'X-Api-Key: abc' https://host/", "curl -H 'X-Api-Key: ***' https://host/"),
        ("curl -fsS -u me:pw https://host/", "curl -fsS -u *** https://host/"),
        ('{"password": "a\\"b", "x": "y"}', '{"password": "***", "x": "y"}'),
        ("{'api_key': 'abc'}", "{'api_key': '***'}"),
        ("DB_PASSWORD=abc next", "DB_PASSWORD=*** next"),
        ("export TOKEN='a b' next", "export TOKEN='***' next"),
        ("host=db password=abc user=me", "host=db password=*** user=me"),
        ("deploy --token abc --password=d -v", "deploy --token *** --password=*** -v"),
        ('deploy --token "$TOKEN" --key-file id', 'deploy --token "$TOKEN" --key-file id'),
        ("docker login -u me --password-stdin ghcr.io", "docker login -u me --password-stdin ghcr.io"),
        ("KEYBOARD=de MONKEY=1 PWD=/srv AUTHOR=me", "KEYBOARD=de MONKEY=1 PWD=/srv AUTHOR=me"),
        ("cache key=3 PASS: test_login", "cache key=3 PASS: test_login"),
        ("PASS: test_login", "PASS: test_login"),
        ("error: no such key: frontend", "error: no such key: frontend"),
        ("git@example.com:x.git and me@example.com", "git@example.com:x.git and me@example.com"),
    ],
)
def test_shapes(text: str, shown: str) -> None:
    assert Redactor().scrub(text) == shown


def test_urls_for_display() -> None:
    assert mask_url("https://me:pw@host:8443/p?sig=abc&page=2") == "https://***@host:8443/p?sig=***&page=2"
    assert mask_url("tcp://db.example.com:5432") == "tcp://db.example.com:5432"


def test_what_a_url_or_a_command_carries_is_hidden_elsewhere_too() -> None:
    redactor = Redactor.gather({"DATABASE_URL": "postgres://app:s3cr3t%2Fword@db/x?ssl_password=other-one"})
    assert redactor.scrub("s3cr3t%2Fword s3cr3t/word other-one app") == "*** *** *** app"
    assert redactor.scrub(base64.b64encode(b"app:s3cr3t/word").decode()) == MASK
    assert found_in("ssh deploy@host && curl https://ghp_abcdef@host") == ("ghp_abcdef",)
    assert found_in("curl -H 'X-Api-Key: abcdef-1'") == ("abcdef-1",)
    assert found_in("https://u:p@host?token=abc") == ()


def test_what_stands_behind_a_scheme_is_hidden_by_itself_too() -> None:
    for header in ("Authorization: Bearer {}", "authorization:  token {}", "X-Auth-Token: ApiKey {}"):
        for secret in ("ghp_abcdefgh", "token-abcdefgh"):
            said = header.format(secret)
            for command in (
                f"curl -H '{said}' https://host.invalid/",
                f'curl -H "{said}" https://host.invalid/',
                f'bash -c "curl -H \\"{said}\\" https://host.invalid/"',
            ):
                assert Redactor(found_in(command)).scrub(f"<{secret}>") == "<***>", command
    found = Redactor(found_in('{"Authorization": "token ghp_abcdefgh"}'))
    assert found.scrub("<ghp_abcdefgh>") == "<***>"
    assert found_in("deploy --password 'correct horse-battery'") == ("correct horse-battery",)


@pytest.mark.parametrize(
    "text",
    [
        "auth: restart gateway",
        "token: release 2024.11",
        "fix-auth: basic gateway",
        "authorization: move 2024.11 up",
        '{"auth": "none required"}',
        """curl -H 'Authorization: Bearer $TOKEN' -H "Authorization: token ${TOKEN}" https://host.invalid/""",
    ],
)
def test_a_word_behind_what_looks_like_a_header_is_no_secret_by_itself(text: str) -> None:
    told = "gateway restart 2024.11 required up; ssh prod rollback --token $TOKEN ${TOKEN}"
    assert Redactor.gather({"CI_COMMIT_TITLE": text}).scrub(told) == told


def test_parameters_after_a_semicolon_are_hidden_elsewhere_too() -> None:
    redactor = Redactor(found_in("https://host/p?a=1;api_key=supersecret;signature=ab%2Fcdef"))
    assert redactor.scrub("<supersecret> <ab%2Fcdef> <ab/cdef>") == "<***> <***> <***>"


@pytest.mark.parametrize(
    "text",
    ["?token=" * 20_000, ";a=" * 50_000, "Bearer token" + "-" * 100_000, "a:" + " " * 100_000, "=" * 100_000],
)
def test_no_text_takes_forever(text: str) -> None:
    redactor = Redactor([LONG, PAT])
    began = time.process_time()
    redactor.scrub_lines(text)
    assert time.process_time() - began < 2


def test_json_credentials_in_a_variable() -> None:
    key = json.dumps({"type": "service_account", "private_key": "-----BEGIN-----\nabcdefghijkl\n"})
    redactor = Redactor.gather({"GOOGLE_CREDENTIALS": key})
    assert redactor.scrub("abcdefghijkl") == MASK
    assert redactor.scrub(key) == MASK


def test_patterns() -> None:
    redactor = Redactor(patterns=["AKIA[0-9A-Z]{4}", "x*"])
    assert redactor.scrub("id AKIAABCD, axxb") == "id ***, a***b"
    with pytest.raises(ConfigurationError, match=r"redact\.patterns\[1\]"):
        Redactor(patterns=["fine", "(open"])


def test_gather() -> None:
    redactor = Redactor.gather({"HOME": "/home/me"}, extra=[Secret("header-value")], patterns=["pat+ern"])
    assert redactor.scrub("header-value patttern /home/me") == "*** *** /home/me"


def test_documents_are_masked_deeply() -> None:
    redactor = Redactor(["hunter2secret"])
    document = {
        "hunter2secret": 1,
        "list": [{"a": "x hunter2secret"}, None, 1.5, True],
        "password": "ab",
        "token": "",
    }
    assert redactor.scrub_value(document) == {
        MASK: 1, "list": [{"a": "x ***"}, None, 1.5, True], "password": MASK, "token": "",
    }  # fmt: skip


def test_masks_carry_the_encodings() -> None:
    masks = Redactor([TRICKY, "ab"]).masks()
    assert set(masks) == {TRICKY, quote(TRICKY, safe=""), base64.b64encode(TRICKY.encode()).decode()}


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("hunter2secret")
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>5}",
        repr([secret]),
        repr({"a": secret}),
    ]
    shown.append(repr(Redactor([secret.reveal()])))
    assert "hunter2" not in "".join(shown)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    assert secret.reveal() == "hunter2secret"
    assert secret == Secret("hunter2secret") != Secret("other")
    assert len({secret, Secret("hunter2secret")}) == 1
    assert secret
    assert not Secret("")


def test_values_that_are_not_utf8() -> None:
    raw = b"caf\xe9-secret".decode("utf-8", "surrogateescape")
    redactor = Redactor.gather({"MY_SECRET": raw})
    assert redactor.scrub(f"<{raw}>") == "<***>"
    assert redactor.scrub(base64.b64encode(b"caf\xe9-secret").decode()) == MASK


@given(long=st.integers(0, 5000), after=st.integers(4060, 4110))
def test_no_secret_straddles_the_cut_of_a_long_line(long: int, after: int) -> None:
    redactor = Redactor(["hunter2secret"])
    line = "x" * long + "hunter2secret" + "y?token=abcdef&z=" + "z" * after
    head, rest = redactor.part(line)
    whole = head + redactor.scrub(rest)
    assert "hunter2" not in whole
    assert "secret" not in whole
    assert "abcdef" not in whole
    assert whole.replace(MASK, "") == "x" * long + "y?token=&z=" + "z" * after
