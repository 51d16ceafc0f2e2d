"""As much of a compose file as init needs, read without Docker and without a YAML library.

Services, whether they are built, and the ports they publish, in the usual block style. What is
written in another way is not found, and a person adds it: nothing here decides about a rollout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

NAMES: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_DEPTH: Final = 3
_LARGEST: Final = 1 << 20
_PASSED_OVER: Final = frozenset({"node_modules", "vendor", "venv", "site-packages", "dist", "build"})
# Ports of programs that do not speak HTTP: there only the connection says something.
_NOT_HTTP: Final = frozenset(
    {22, 25, 53, 587, 1433, 1521, 1883, 3306, 4222, 5432, 5672, 6379, 9042, 9092, 11211, 27017}
)
_TLS: Final = frozenset({443, 8443})
_ASKS: Final = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::(\d+))?(/[^\s\"'|;&)\]]*)?")


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the host, and what the container behind it offers."""

    published: int
    inside: int
    path: str = "/"
    """What the service's own health check asks for, if that is known."""

    @property
    def speaks_http(self) -> bool:
        """Whether an answer can be expected, and not only a connection."""
        return self.inside not in _NOT_HTTP

    @property
    def speaks_tls(self) -> bool:
        """Whether that answer is one over HTTPS, going by the container's port."""
        return self.inside in _TLS


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service."""

    name: str
    builds: bool
    tagged: bool
    """Its image's tag is `${OPSGATE_TAG}`."""
    ports: tuple[Port, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The compose file of a repository."""

    path: str
    """Relative to the repository, with `/`."""
    services: tuple[Service, ...]
    others: tuple[str, ...] = ()
    """Further compose files, left alone."""


class Line(msgspec.Struct, frozen=True):
    """A line with something in it: its indentation and its text without comment."""

    indent: int
    text: str


def find(root: Path) -> Found | None:
    """The compose file nearest to `root`, at most three directories down; None without one."""
    files = sorted(_files(root, _DEPTH), key=lambda path: (len(path.parts), NAMES.index(path.name), path))
    for index, path in enumerate(files):
        try:
            text = path.read_bytes()[:_LARGEST].decode("utf-8", "replace")
        except OSError:
            continue
        names = [each.relative_to(root).as_posix() for each in files]
        others = tuple(names[:index] + names[index + 1 :])
        return Found(path=names[index], services=tuple(services(text)), others=others)
    return None


def services(text: str) -> Iterator[Service]:
    """The services in the text of a compose file."""
    block = _block(_lines(text), "services")
    for name, body in _entries(block):
        keys = dict(_entries(body))
        flat = {line.text.partition(":")[0]: line.text.partition(":")[2].strip() for line in body}
        asked = [_ASKS.search(line.text) for line in keys.get("healthcheck", [])]
        paths = {match[1]: match[2] or "/" for match in asked if match}
        yield Service(
            name=name,
            builds="build" in keys,
            tagged=bool(
                re.search(r":\$\{?OPSGATE_TAG\b[^:]*(:?-[^:}]*)?\}?$", _unquoted(flat.get("image", "")))
            ),
            ports=tuple(_ports(flat.get("ports", ""), keys.get("ports", []), paths)),
        )


def _files(directory: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name in NAMES and entry.is_file():
            yield entry
        elif depth > 1 and _is_looked_into(entry):
            yield from _files(entry, depth - 1)


def _is_looked_into(entry: Path) -> bool:
    named = entry.name.isprintable() and not entry.name.startswith(".") and entry.name not in _PASSED_OVER
    return named and entry.is_dir() and not entry.is_symlink()


def _lines(text: str) -> list[Line]:
    found = []
    for raw in text.expandtabs(8).splitlines():
        # A # belongs to the text unless space stands before it.
        kept = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if kept.strip():
            found.append(Line(len(kept) - len(kept.lstrip()), kept.strip()))
    return found


def _block(lines: list[Line], name: str) -> list[Line]:
    """What stands below the top-level key `name`."""
    for index, line in enumerate(lines):
        if line.indent == 0 and re.fullmatch(rf"[\"']?{name}[\"']?\s*:.*", line.text):
            rest = lines[index + 1 :]
            end = next((number for number, each in enumerate(rest) if each.indent == 0), len(rest))
            return rest[:end]
    return []


def _entries(lines: list[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The keys of a block with the lines below each; a list may stand at the indentation of its key."""
    if not lines:
        return
    indent = lines[0].indent
    name, body = "", list[Line]()
    for line in lines:
        key = re.fullmatch(r"[\"']?([A-Za-z0-9._-]+)[\"']?\s*:(\s.*)?", line.text)
        if line.indent == indent and key:
            if name:
                yield name, body
            name, body = key[1], []
        else:
            body.append(line)
    if name:
        yield name, body


def _ports(flow: str, lines: list[Line], paths: dict[str | None, str]) -> Iterator[Port]:
    items = [line.text.removeprefix("-").strip() for line in lines if line.text.startswith("-")]
    items += flow.strip("[]").split(",") if flow.startswith("[") else []
    pairs = [_short(_unquoted(item)) for item in items if not re.match(r"\w+\s*:\s", item)]
    pairs += _long(lines)
    for pair in dict.fromkeys(pairs):
        if pair:
            published, inside = pair
            path = paths.get(str(inside)) or (paths.get(None) if inside == 80 else None)  # noqa: PLR2004
            yield Port(published=published, inside=inside, path=path or "/")


def _short(item: str) -> tuple[int, int] | None:
    """`[address:]published:target[/protocol]`, ranges by their first port; None where no port is fixed."""
    text = re.sub(r"\$\{\w+:?-(\d+)\}", r"\1", item)
    match = re.fullmatch(r"(?:.*:)?(\d+)(?:-\d+)?:(\d+)(?:-\d+)?(?:/tcp)?", text)
    return (int(match[1]), int(match[2])) if match else None


def _long(lines: list[Line]) -> Iterator[tuple[int, int]]:
    """Ports as tables of `target` and `published`."""
    target = published = 0
    for line in lines:
        if line.text.startswith("-"):
            target = published = 0
        match = re.fullmatch(r"(?:-\s*)?(target|published)\s*:\s*[\"']?(\d+)[\"']?", line.text)
        if match and match[1] == "target":
            target = int(match[2])
        elif match:
            published = int(match[2])
        if target and published and match:
            yield published, target


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
