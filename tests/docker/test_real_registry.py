"""The registry client against real registries, and against what a real engine pushed there."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from opsgate.stages.oci.credentials import Credentials
from opsgate.stages.oci.reference import Reference
from opsgate.stages.oci.registry import NotFound, Registry, Unauthorized
from opsgate.stages.wire import Unreachable
from tests.docker.bench import PASSWORD, USER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docker.bench import Engine, OciRegistry, TokenServer

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def put(registry: OciRegistry, repository: str, tag: str, *, text: str = "{}", **kwargs: Any) -> str:
    """Push an image of one tiny blob over plain HTTP; gives back its digest."""
    base = f"http://{registry.host}/v2/{repository}"
    blob = text.encode()
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    started = requests.post(f"{base}/blobs/uploads/", timeout=5, **kwargs)
    joint = "&" if "?" in started.headers["Location"] else "?"
    done = requests.put(
        f"{started.headers['Location']}{joint}digest={digest}", data=blob, timeout=5, **kwargs
    )
    assert done.status_code == 201
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(blob)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
    return put_manifest(base, tag, manifest, **kwargs)


def put_manifest(base: str, tag: str, manifest: dict[str, Any], **kwargs: Any) -> str:
    content = json.dumps(manifest).encode()
    done = requests.put(
        f"{base}/manifests/{tag}",
        data=content,
        headers={"Content-Type": manifest["mediaType"], **kwargs.pop("headers", {})},
        timeout=5,
        **kwargs,
    )
    assert done.status_code == 201, done.text
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def login(directory: Path, host: str, password: str = PASSWORD) -> Credentials:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return Credentials({"DOCKER_CONFIG": str(directory)})


def nobody(directory: Path) -> Credentials:
    return Credentials({"DOCKER_CONFIG": str(directory)})


def at(registry: OciRegistry, name: str) -> Reference:
    return Reference.parse(f"{registry.host}/{name}")


def test_a_tag_a_digest_and_a_manifest(registry: OciRegistry, tmp_path: Path) -> None:
    digest = put(registry, "plain/app", "v1")
    client = Registry(registry.host, nobody(tmp_path))

    client.ping()
    assert client.digest(at(registry, "plain/app:v1")) == digest
    assert client.digest(at(registry, f"plain/app@{digest}")) == digest
    assert client.exists("plain/app", digest)
    manifest = client.manifest(at(registry, "plain/app:v1"))
    assert (manifest.media_type, manifest.digest) == (OCI_MANIFEST, digest)
    assert hashlib.sha256(manifest.content).hexdigest() in digest


def test_an_index_is_resolved_to_its_own_digest(registry: OciRegistry, tmp_path: Path) -> None:
    put(registry, "multi/app", "v1")
    base = f"http://{registry.host}/v2/multi/app"
    index = put_manifest(base, "v2", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})

    manifest = Registry(registry.host, nobody(tmp_path)).manifest(at(registry, "multi/app:v2"))
    assert (manifest.media_type, manifest.digest) == (OCI_INDEX, index)


def test_what_is_missing_is_named(registry: OciRegistry, tmp_path: Path) -> None:
    put(registry, "some/app", "v1")
    client = Registry(registry.host, nobody(tmp_path))
    absent = "sha256:" + "0" * 64

    with pytest.raises(NotFound, match="some/app has no tag v2"):
        client.digest(at(registry, "some/app:v2"))
    with pytest.raises(NotFound, match=f"no such repository: {registry.host}/some/ap\n") as caught:
        client.manifest(at(registry, "some/ap:v1"))
    assert caught.value.hint
    with pytest.raises(NotFound, match=f"does not serve {absent}"):
        client.digest(at(registry, f"some/app@{absent}"))
    assert not client.exists("some/app", absent)


def test_a_moved_tag_is_seen_and_the_old_digest_stays(registry: OciRegistry, tmp_path: Path) -> None:
    first = put(registry, "moved/app", "v1", text="{}")
    second = put(registry, "moved/app", "v1", text='{"moved": true}')
    client = Registry(registry.host, nobody(tmp_path))

    assert first != second == client.digest(at(registry, "moved/app:v1"))
    assert client.exists("moved/app", first)


def test_a_deleted_image_is_no_longer_there(registry: OciRegistry, tmp_path: Path) -> None:
    digest = put(registry, "deleted/app", "v1")
    client = Registry(registry.host, nobody(tmp_path))
    assert client.exists("deleted/app", digest)

    requests.delete(f"http://{registry.host}/v2/deleted/app/manifests/{digest}", timeout=5).raise_for_status()
    assert not client.exists("deleted/app", digest)


def test_basic_authentication(basic_registry: OciRegistry, tmp_path: Path) -> None:
    digest = put(basic_registry, "closed/app", "v1", auth=(USER, PASSWORD))
    client = Registry(basic_registry.host, login(tmp_path, basic_registry.host))

    client.ping()
    assert client.digest(at(basic_registry, "closed/app:v1")) == digest


def test_token_authentication(token_registry: OciRegistry, token_server: TokenServer, tmp_path: Path) -> None:
    token = token_server.issue(["repository:closed/app:pull,push"])
    digest = put(token_registry, "closed/app", "v1", headers={"Authorization": f"Bearer {token}"})
    client = Registry(token_registry.host, login(tmp_path, token_registry.host))

    client.ping()
    before = len(token_server.asked)
    assert client.digest(at(token_registry, "closed/app:v1")) == digest
    assert client.exists("closed/app", digest)
    asked = token_server.asked[before:]
    assert asked == [{"service": ["mission-control"], "scope": ["repository:closed/app:pull"]}]


@pytest.mark.parametrize("kind", ["basic_registry", "token_registry"])
def test_who_is_not_logged_in_is_told_how(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    registry: OciRegistry = request.getfixturevalue(kind)
    command = f"unauthorized: log in with docker login {registry.host}"

    with pytest.raises(Unauthorized, match=command) as caught:
        Registry(registry.host, nobody(tmp_path)).digest(at(registry, "closed/app:v1"))
    assert caught.value.hint == f"There is no login for {registry.host} in {tmp_path}/config.json."
    with pytest.raises(Unauthorized, match=command) as caught:
        Registry(registry.host, login(tmp_path, registry.host, "not-it-at-all")).ping()
    assert "was not accepted" in caught.value.hint
    assert "not-it-at-all" not in str(caught.value)


def test_a_registry_that_is_down_and_comes_back(own_registry: OciRegistry, tmp_path: Path) -> None:
    digest = put(own_registry, "back/app", "v1")
    client = Registry(own_registry.host, nobody(tmp_path))
    own_registry.stop(signal.SIGKILL)

    started = time.monotonic()
    with pytest.raises(Unreachable, match="connection refused"):
        client.ping(limit=1)
    assert time.monotonic() - started < 4

    own_registry.start()
    assert client.digest(at(own_registry, "back/app:v1")) == digest


def test_what_an_engine_pushed_and_runs_is_what_the_registry_says(
    engine: Engine, registry: OciRegistry, sample: Path, tmp_path: Path
) -> None:
    environ = {"MISSION_CONTROL_REGISTRY": registry.host, "OPSGATE_TAG": "v1", "OPSGATE_REVISION": "abc1234"}
    engine.run("compose", "build", cwd=sample, environ=environ)
    engine.run("compose", "push", cwd=sample, environ=environ)

    reference = at(registry, "mission-control/backend:v1")
    digest = Registry(registry.host, nobody(tmp_path)).digest(reference)
    shown = engine.run("image", "inspect", "--format", "{{json .RepoDigests}}", str(reference))
    assert json.loads(shown.stdout) == [f"{reference.name}@{digest}"]


def test_an_engine_logs_in_where_we_do(
    engine: Engine, token_registry: OciRegistry, sample: Path, tmp_path: Path
) -> None:
    # A configuration of its own: the engine's is shared, and others have to be strangers there.
    config = shutil.copytree(engine.config, tmp_path / "config", symlinks=True)
    environ = {
        "MISSION_CONTROL_REGISTRY": token_registry.host, "OPSGATE_TAG": "v1", "DOCKER_CONFIG": str(config)
    }  # fmt: skip
    engine.run("login", "--username", USER, "--password", PASSWORD, token_registry.host, environ=environ)
    engine.run("compose", "build", "frontend", cwd=sample, environ=environ)
    engine.run("compose", "push", "frontend", cwd=sample, environ=environ)

    client = Registry(token_registry.host, Credentials(engine.environ(**environ)))
    assert client.digest(at(token_registry, "mission-control/frontend:v1")).startswith("sha256:")
