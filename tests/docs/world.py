"""Where the commands of the documentation run: a repository or this checkout, a runtime, a host behind ssh.

Real: opsgate, git, compose reading its files, HTTPS, a proxy, a registry's answers. Stand-ins, because the
pages talk to machines of their readers: `ssh` runs here what it is told to run there, `docker` does as if it
had built, pushed and started, `logger` notes what it is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import trustme

from tests.docs.pages import ROOT, Block, Command
from tests.live.servers import Peer, Proxy, Server, response
from tests.ports import free_ports

TOOLS: Final = Path(sys.executable).parent
NAMES: Final = ("*.example.com", "*.internal.example.com", "www.example.org", "ghcr.io")
IDENTITY: Final = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "Reader", "EMAIL": "reader@example.com"}.items()
}
GOOD: Final = ("9f1ce9952147", "3f665ce2b716")
BROKEN: Final = "3c8f378e8f39"
CONFIGURATION: Final = """\
default_environment = "production"

[environments.production]
urls = ["https://app.example.com/healthz", "https://app.example.com/readyz"]
deploy = 'ssh prod start "$OPSGATE_REVISION"'
rollback = "redeploy"

[environments.production.publish]
command = 'echo "revision=$(cat REVISION)" >>"$OPSGATE_OUTPUT"'
"""
COMPOSE: Final = """\
services:
  web:
    image: ghcr.io/example/web
    ports: ["{port}:80"]
  api:
    image: ghcr.io/example/api
    ports: ["{port}:8000"]
"""
PROGRAMS: Final = {
    "opsgate": "exec {python} -m opsgate",
    "ssh": """
        echo "ssh $*" >>{place}/calls
        while :; do
            case $1 in
            -o | -J) shift 2 ;;
            *) break ;;
            esac
        done
        case $1 in *.invalid)
            echo "ssh: Could not resolve hostname $1: Name or service not known" >&2
            exit 255 ;;
        esac
        shift
        PATH={place}/host:$PATH exec /bin/sh -c "$*"
        """,
    "docker": """
        echo "docker $*" >>{place}/calls
        case "$*" in
        "compose version" | *" config --format json") shift; exec {tools}/docker-compose "$@" ;;
        "compose "*" push "*) echo "$OPSGATE_TAG" >>{place}/pushed ;;
        "compose "*" up "*)
            # The pins name a digest: what runs now is the release that was pushed under it.
            digest=$(sed -n 's/.*@sha256:\\([0-9a-f]*\\).*/\\1/p' "$5" | head -n 1)
            while read -r tag; do
                [ "$(printf '{manifest}' "$tag" | sha256sum | cut -d ' ' -f 1)" != "$digest" ] ||
                    echo "${{tag%%-*}}" >{place}/running
            done <{place}/pushed ;;
        "compose "*" pull "*) exec {tools}/docker-compose "$2" "$3" "$4" "$5" config --quiet ;;
        "compose "*" build "* | "compose "*" ps "*) ;;
        "image inspect "*) exit 1 ;;
        *) echo "docker: not known here: $*" >&2; exit 64 ;;
        esac
        """,
    "logger": 'echo "logger $*" >>{place}/calls',
}
HOST: Final = {
    "curl": 'test ! -e {place}/down && echo "$*"',
    "rollback": "rm -f {place}/down",
    "start": """
        rm -f {place}/down
        echo "$1" >{place}/running
        test "$1" != {broken} || touch {place}/down
        """,
}
MANIFEST: Final = (
    '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", '
    '"annotations": {"tag": "%s"}}'
)


class World:
    """A place of its own for one page; `checkout` makes it a copy of this one, with the sample runtime."""

    def __init__(self, path: Path, *, checkout: bool = False, patient: bool = False) -> None:
        """`patient` keeps the policy of the checkout; otherwise nobody waits for long."""
        self.place, self.path, self.fresh = path, path / "a checkout", path / "new"
        # Longer than any soak that a page asks `--replay` for; the sample fails for as long as this.
        deadline = "6s" if checkout else "31s"
        self._policy = {"OPSGATE_SOAK": "300ms", "OPSGATE_DEADLINE": deadline}
        if patient:
            # A soak of five seconds sees the crash; one of two, which the page replays, is over before.
            self._policy = {"MISSION_CONTROL_FAULT_SECONDS": "4"}
        self.port = free_ports(3)
        self.path.mkdir(parents=True)
        (self.place / "running").write_text(GOOD[0])
        for directory, programs in (("bin", PROGRAMS), ("host", HOST)):
            for name, text in programs.items():
                self.program(directory, name, text)
        if checkout:
            self._copy_checkout()
        else:
            self._make_repository()

    def __enter__(self) -> Self:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.place / "ca.pem"))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*NAMES).configure_cert(tls)
        with ExitStack() as stack:
            self.plain = stack.enter_context(Server(self._answer))
            self.secure = stack.enter_context(Server(self._answer, tls=tls))
            self.proxy = stack.enter_context(Proxy(("127.0.0.1", self.secure.port)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _answer(self, peer: Peer) -> None:
        """Any host: a runtime that says what runs, and under `/v2/` a registry with what was pushed."""
        method, path = peer.request().decode("latin-1").split(" ")[:2]
        status, headers, body = "200 OK", [("Docker-Distribution-Api-Version", "registry/2.0")], b"{}"
        if "/manifests/" in path:
            pointer = path.rpartition("/")[2]
            found = [text for tag, text in self._manifests() if pointer in {tag, digest_of(text)}]
            status, body = ("200 OK", found[0]) if found else ("404 Not Found", b"{}")
            kind = "application/vnd.oci.image.manifest.v1+json"
            headers += [("Docker-Content-Digest", digest_of(body)), ("Content-Type", kind)]
        elif path != "/v2/":
            status = "503 Service Unavailable" if (self.place / "down").exists() else status
            body = json.dumps({"status": "UP", "version": self.running}).encode()
        head, _, _ = response(body, status=status, headers=headers).partition(b"\r\n\r\n")
        if "/manifests/" in path:
            head = head.replace(b"Content-Type: application/json\r\n", b"")
        peer.send(head + b"\r\n\r\n" + (b"" if method == "HEAD" else body))

    def _manifests(self) -> list[tuple[str, bytes]]:
        pushed = self.place / "pushed"
        tags = pushed.read_text().split() if pushed.exists() else []
        return [(tag, (MANIFEST % tag).encode()) for tag in tags]

    @property
    def running(self) -> str:
        return (self.place / "running").read_text().strip()

    @property
    def calls(self) -> list[str]:
        """What the stand-ins were called with."""
        path = self.place / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def program(self, directory: str, name: str, text: str) -> None:
        path = self.place / directory / name
        path.parent.mkdir(exist_ok=True)
        text = text.format(
            python=shlex.quote(sys.executable),
            tools=shlex.quote(str(TOOLS)),
            place=shlex.quote(str(self.place)),
            manifest=MANIFEST,
            broken=BROKEN,
        )
        path.write_text(f"#!/bin/sh\n{text}" + (' "$@"\n' if text.startswith("exec") else "\n"))
        path.chmod(0o755)

    # What is there before the page begins

    def _make_repository(self) -> None:
        (self.path / "scripts").mkdir()
        (self.path / "scripts/ci").symlink_to(ROOT / "scripts/ci")
        (self.path / "benchmarks").symlink_to(ROOT / "benchmarks")
        (self.path / "backend").mkdir()
        for name, text in {
            "opsgate.toml": CONFIGURATION,
            "REVISION": GOOD[0],
            ".gitignore": "artifacts/\n",
            "backend/Dockerfile": "FROM scratch\n",
        }.items():
            (self.path / name).write_text(text, encoding="utf-8")
        subprocess.run(["git", "init", "--quiet", "--bare", self.place / "origin"], check=True)
        self._git("init", "--quiet", "--initial-branch", "main")
        self._git("remote", "add", "origin", str(self.place / "origin"))
        self.commit()
        self._git("push", "--quiet", "--set-upstream", "origin", "main")

    def _copy_checkout(self) -> None:
        ignored = shutil.ignore_patterns("__pycache__", ".mypy_cache")
        shutil.copytree(
            ROOT / "examples/mission-control", self.path / "examples/mission-control", ignore=ignored
        )
        for name in ("tasks.py", "devtasks.py"):
            shutil.copy(ROOT / name, self.path)
        (self.path / "opsgate/evidence").mkdir(parents=True)
        text = (ROOT / "opsgate.toml").read_text(encoding="utf-8")
        for offset in range(3):
            text = text.replace(f"127.0.0.1:{8000 + offset}/", f"127.0.0.1:{self.port + offset}/")
        text = text.replace('deadline = "30s"', 'deadline = "14s"', 1)
        (self.path / "opsgate.toml").write_text(text, encoding="utf-8")
        (self.path / ".gitignore").write_text("*\n", encoding="utf-8")
        self._git("init", "--quiet", "--initial-branch", "main")
        self.commit()
        for name, module in (("inv", "-m invoke"), (".venv/bin/python", "")):
            launcher = self.path / name
            launcher.parent.mkdir(parents=True, exist_ok=True)
            launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
            launcher.chmod(0o755)

    def _make_fresh(self) -> None:
        """Somebody's repository with two services in a compose file, and no opsgate yet."""
        self.fresh.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=self.fresh, check=True)
        (self.fresh / "compose.yaml").write_text(COMPOSE.format(port=self.plain.port), encoding="utf-8")

    def _git(self, *arguments: str) -> None:
        subprocess.run(
            ["git", *arguments], cwd=self.path, env=os.environ | IDENTITY, check=True, capture_output=True
        )

    def commit(self) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", "A change")

    # What the page adds and does

    def write(self, name: str, text: str) -> None:
        """A file of the page: a program where it is a script, else part of the repository."""
        if text.startswith("#!"):
            first, rest = text.replace("/srv/app", shlex.quote(str(self.place / "srv"))).split("\n", 1)
            path = self.place / "host" / name
            path.write_text(f'{first}\necho "host {name}" >>{shlex.quote(str(self.place))}/calls\n{rest}')
            path.chmod(0o755)
            (self.place / "srv").mkdir(exist_ok=True)
            shutil.copy(self.path / "compose.yaml", self.place / "srv")
        else:
            (self.path / name).write_text(text, encoding="utf-8")
            self.commit()

    def here(self, text: str) -> str:
        """The same with the places and the sizes of the page as they are here."""
        ledger = self.path / "artifacts/rollout/ledger.jsonl"
        lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
        for told, meant in {
            "/srv/app": str(self.path),
            "/opt/opsgate/bin": str(self.place / "bin"),
            "/var/log": str(self.place),
            "/tmp/history": str(self.place / "history"),
            "./inv bench": "python benchmarks/speed.py attempt",
            "history.py 10000": "history.py 30",
            "faults.py 1000": "faults.py 3",
            "/etc/ssl/example-ca.pem": str(self.place / "ca.pem"),
            "proxy.example.com:3128": f"127.0.0.1:{self.proxy.port}",
            "312b6f315d9505084198c6ffbfdfd7e18bc86475c011b386176c57d31b629197": lines[-1]["hash"]
            if lines
            else "",
            GOOD[0]: lines[0]["revision"] or "" if lines else GOOD[0],
        }.items():
            text = text.replace(told, shlex.quote(meant) if meant.startswith("/") else meant)
        return text

    def run(self, command: Command, where: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of the page, as its reader does."""
        text, place, environ = self.here(command.text), self.path, dict(self._policy)
        if where == "as publish":
            environ |= {"RUNTIME_PUBLISH_COMMAND": text, "digest": digest_of(b"")}
            text = "opsgate publish"
        if where == "in a new repository":
            place = self.fresh
            environ |= {"OPSGATE_SOAK": "300ms", "OPSGATE_DEADLINE": "31s"}
            if not place.exists():
                self._make_fresh()
        return subprocess.run(
            ["/bin/sh", "-c", text],
            cwd=place,
            env={**self.environ, **environ, **command.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.pathsep.join([str(self.place / "bin"), str(TOOLS), os.environ["PATH"]]),
            "HOME": str(self.place),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "GIT_CEILING_DIRECTORIES": str(self.place),
            "GIT_CONFIG_GLOBAL": os.devnull,
            **IDENTITY,
            "HTTPS_PROXY": f"http://127.0.0.1:{self.proxy.port}",
            "SSL_CERT_FILE": str(self.place / "ca.pem"),
            "MISSION_CONTROL_PORT": str(self.port),
        }

    def follow(self, block: Block, elsewhere: set[str]) -> str:
        """Do what a block says; what its commands said, with the places as the pages have them."""
        for text in block.before:
            self.ends(block, Command(text, {}), 0)
        for name in block.files:
            self.write(name, block.text)
        due = [] if block.files else [command for command in block.commands if command.bare not in elsewhere]
        heard = []
        for run, command in zip(block.runs, due, strict=True):
            done = self.ends(block, command, run.exit_code, run.where)
            heard.append(done.stdout + done.stderr)
            assert run.says in heard[-1], f"{block}: {command.text}\n{heard[-1]}"
        return "".join(heard).replace(shlex.quote(str(self.path)), "/srv/mission")

    def ends(
        self, block: Block, command: Command, code: int, where: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = self.run(command, where)
        assert done.returncode == code, f"{block}: {command.text}\n{done.stdout}{done.stderr}"
        return done

    def stop(self) -> str:
        """End the sample runtime; what was said."""
        return self.run(Command("python3 examples/mission-control/control.py stop", {})).stdout


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
