from __future__ import annotations

import base64
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.errors import Interrupted
from opsgate.stages.oci.credentials import Credential, Credentials, CredentialsError, login_command
from tests.e2e.rig import alive

if TYPE_CHECKING:
    from pathlib import Path


def configured(directory: Path, config: dict[str, Any]) -> Credentials:
    (directory / "config.json").write_text(json.dumps(config))
    path = f"{directory}{os.pathsep}{os.environ['PATH']}"
    return Credentials({"DOCKER_CONFIG": str(directory), "PATH": path})


def helper(directory: Path, name: str, script: str) -> None:
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def shown(credential: Credential | None) -> tuple[str, ...] | None:
    return None if credential is None else (credential.username, *(s.reveal() for s in credential.secrets()))


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_no_file_is_no_login_and_no_error(tmp_path: Path) -> None:
    assert Credentials({"DOCKER_CONFIG": str(tmp_path)}).find("ghcr.io") is None


def test_without_docker_config_the_home_directory_counts(tmp_path: Path) -> None:
    assert Credentials({"HOME": str(tmp_path)}).path == tmp_path / ".docker" / "config.json"
    assert Credentials({"HOME": str(tmp_path), "DOCKER_CONFIG": ""}).path.parent == tmp_path / ".docker"


@pytest.mark.parametrize(
    ("auths", "registry", "expected"),
    [
        ({"ghcr.io": auth("me:p:w")}, "ghcr.io", ("me", "p:w")),
        ({"ghcr.io": auth("me:pw\0\0")}, "ghcr.io", ("me", "pw")),
        ({"ghcr.io": {"username": "me", "password": "pw"}}, "ghcr.io", ("me", "pw")),
        ({"https://ghcr.io/v2/": auth("me:pw")}, "ghcr.io", ("me", "pw")),
        ({"http://reg.example.com:5000": auth("me:pw")}, "reg.example.com:5000", ("me", "pw")),
        ({"https://index.docker.io/v1/": auth("me:pw")}, "docker.io", ("me", "pw")),
        ({"ghcr.io": {**auth("me:"), "identitytoken": "idt"}}, "ghcr.io", ("me", "idt")),
        ({"ghcr.io": {"registrytoken": "rt"}}, "ghcr.io", ("", "rt")),
        ({"ghcr.io": {}}, "ghcr.io", None),
        ({"ghcr.io": auth("me:pw")}, "ghcr.io:443", None),
        ({"ghcr.io.example.com": auth("me:pw")}, "ghcr.io", None),
        ([], "ghcr.io", None),
    ],
)
def test_the_file_s_own_logins(
    auths: Any, registry: str, expected: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert shown(configured(tmp_path, {"auths": auths}).find(registry)) == expected


def test_a_helper_is_asked_for_its_registry_and_the_store_for_all_others(tmp_path: Path) -> None:
    helper(tmp_path, "one", """read key; printf '{"Username":"one","Secret":"%s-%s"}' "$1" "$key" """)
    helper(tmp_path, "store", """read key; printf '{"Username":"store","Secret":"%s"}' "$key" """)
    credentials = configured(
        tmp_path,
        {"credHelpers": {"ghcr.io": "one"}, "credsStore": "store", "auths": {"quay.io": auth("file:pw")}},
    )
    assert shown(credentials.find("ghcr.io")) == ("one", "get-ghcr.io")
    assert shown(credentials.find("quay.io")) == ("store", "quay.io")
    assert shown(credentials.find("docker.io")) == ("store", "https://index.docker.io/v1/")


def test_a_helper_s_token_is_an_identity_token(tmp_path: Path) -> None:
    helper(tmp_path, "t", """printf '{"Username":"<token>","Secret":"idt"}'""")
    found = configured(tmp_path, {"credsStore": "t"}).find("ghcr.io")
    assert found is not None
    assert found.password is None
    assert found.identity_token is not None
    assert found.identity_token.reveal() == "idt"


def test_a_helper_that_knows_nothing_is_no_error(tmp_path: Path) -> None:
    helper(tmp_path, "t", "echo credentials not found in native keychain; exit 1")
    assert configured(tmp_path, {"credsStore": "t"}).find("ghcr.io") is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo the keychain is locked >&2; exit 3", r"failed for ghcr.io \(exit 3\): the keychain is locked"),
        ("echo so-secret", "gave an answer without user name and secret"),
        ("""echo '{"Username": "so-secret"}'""", "gave an answer without user name and secret"),
        ("exec sleep 60", "gave no answer for ghcr.io within"),
    ],
)
def test_what_a_helper_did_is_said_without_its_secrets(script: str, words: str, tmp_path: Path) -> None:
    helper(tmp_path, "t", script)
    with pytest.raises(CredentialsError, match=rf"docker-credential-t {words}") as caught:
        configured(tmp_path, {"credsStore": "t"}).find("ghcr.io", limit=1.0 if "sleep" in script else 10.0)
    assert "so-secret" not in str(caught.value)


def test_a_helper_is_killed_with_its_children_when_nobody_wants_the_answer(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    helper(tmp_path, "t", f"sleep 60 & echo $! >{begun}.new; mv {begun}.new {begun}; wait")

    def check() -> None:
        if begun.exists():
            raise Interrupted(signal.SIGTERM)

    started = time.monotonic()
    with pytest.raises(Interrupted):
        configured(tmp_path, {"credsStore": "t"}).find("ghcr.io", check=check)
    assert time.monotonic() - started < 3
    pid = int(begun.read_text())
    while alive(pid):
        assert time.monotonic() - started < 10, "it was left running"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "docker-credential-missing cannot be run: No such file"),
        ("../evil", "is not the name of a credential helper"),
    ],
)
def test_a_helper_that_is_not_there(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=words) as caught:
        configured(tmp_path, {"credsStore": name}).find("ghcr.io")
    assert str(tmp_path / "config.json") in caught.value.hint


@pytest.mark.parametrize("content", ["{", "\udcff"])
def test_a_broken_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CredentialsError, match=r"config\.json cannot be read"):
        Credentials({"DOCKER_CONFIG": str(tmp_path)}).find("ghcr.io")


def test_a_damaged_login_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"the login for ghcr\.io is damaged") as caught:
        configured(tmp_path, {"auths": {"ghcr.io": {"auth": "so-secret!"}}}).find("ghcr.io")
    assert "docker login ghcr.io" in caught.value.hint
    assert "so-secret" not in str(caught.value)


def test_a_login_does_not_show_itself(tmp_path: Path) -> None:
    found = configured(tmp_path, {"auths": {"ghcr.io": auth("me:so-secret")}}).find("ghcr.io")
    assert "so-secret" not in repr(found)


def test_what_to_type() -> None:
    assert login_command("docker.io") == "docker login"
    assert login_command("ghcr.io") == "docker login ghcr.io"
