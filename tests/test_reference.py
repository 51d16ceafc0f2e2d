from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsgate.stages.oci.reference import InvalidReference, Reference

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", ("docker.io", "library/nginx", None, None, False)),
        ("nginx:1.27", ("docker.io", "library/nginx", "1.27", None, False)),
        ("acme/app:v1", ("docker.io", "acme/app", "v1", None, False)),
        ("docker.io/nginx", ("docker.io", "library/nginx", None, None, True)),
        ("index.docker.io/acme/app", ("docker.io", "acme/app", None, None, True)),
        ("registry-1.docker.io/library/nginx:1", ("docker.io", "library/nginx", "1", None, True)),
        ("ghcr.io/acme/app:v1", ("ghcr.io", "acme/app", "v1", None, True)),
        ("ghcr.io/app", ("ghcr.io", "app", None, None, True)),
        (f"ghcr.io/acme/app@{SHA}", ("ghcr.io", "acme/app", None, SHA, True)),
        (f"reg.example.com:5000/ns/name:tag@{SHA}", ("reg.example.com:5000", "ns/name", "tag", SHA, True)),
        ("localhost/x", ("localhost", "x", None, None, True)),
        ("localhost:5000/x", ("localhost:5000", "x", None, None, True)),
        ("127.0.0.1:5000/a/b/c/d", ("127.0.0.1:5000", "a/b/c/d", None, None, True)),
        ("[::1]:5000/x:y", ("[::1]:5000", "x", "y", None, True)),
        ("Build/app", ("Build", "app", None, None, True)),
        ("a__b/c--d.e", ("docker.io", "a__b/c--d.e", None, None, False)),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text: str, expected: tuple[object, ...]) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest, found.explicit) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an empty text is not a repository name"),
        ("App", "App is not a repository name"),
        ("ghcr.io/", "an empty text is not a repository name"),
        ("ghcr.io/acme/App", "acme/App is not a repository name"),
        ("ghcr.io/acme//app", "acme//app is not a repository name"),
        ("ghcr.io/acme/../app", "acme/../app is not a repository name"),
        ("ghcr.io/acme/app:", "nothing after the : is not a tag"),
        ("ghcr.io/acme/app:-v1", "-v1 after the : is not a tag"),
        ("ghcr.io/acme/app:" + "v" * 129, "is not a tag"),
        ("ghcr.io/acme/app@", "nothing after the @ is not a sha256 digest"),
        ("ghcr.io/acme/app@sha256:abc", "sha256:abc after the @ is not a sha256 digest"),
        (f"ghcr.io/acme/app@{SHA.upper()}", "is not a sha256 digest"),
        ("https://ghcr.io/acme/app", "is not a host name"),
        ("user:pw@ghcr.io/acme/app", "is not a sha256 digest"),
        ("-ghcr.io/app", "-ghcr.io is not a host name"),
        ("ghcr.io/app\n", "is not a repository name"),
        ("ghcr.io/" + "a" * 250, "is not a repository name"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(text: str, why: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert why in caught.value.message
    assert caught.value.hint == "Write it as registry.example.com/namespace/name:tag."


@pytest.mark.parametrize(
    "text", [f"ghcr.io/acme/app:v1@{SHA}", "localhost:5000/x", "docker.io/library/nginx:1"]
)
def test_a_whole_name_is_written_as_it_was_read(text: str) -> None:
    assert str(Reference.parse(text)) == text


def test_a_registry_is_asked_for_the_digest_where_there_is_one() -> None:
    assert Reference.parse(f"ghcr.io/acme/app:v1@{SHA}").pointer == SHA


def test_without_tag_and_digest_docker_means_latest() -> None:
    assert Reference.parse("ghcr.io/acme/app").pointer == "latest"


@given(st.text(alphabet="aA0./:@-_[]é \n", max_size=40))
def test_a_name_is_refused_or_survives_a_round_trip(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    again = Reference.parse(str(reference))
    assert (again.registry, again.repository, again.tag) == (
        reference.registry, reference.repository, reference.tag
    )  # fmt: skip
