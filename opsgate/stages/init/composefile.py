"""As much of a compose file as init needs, read without Docker and without a YAML library.

Services, whether they are built, and the ports they publish, in the usual block style. What is
written in another way is not found, and a person adds it: nothing here decides about a rollout.
"""

from __future__ import annotations

import ipaddress
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
_ASKS: Final = re.compile(
    r"(https?)://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(\d+))?(/[^\s\"'|;&)\]]*)?"
)
# A variable of the shell, or anything else that only looks like part of a URL, is asked for by nobody.
_PATH: Final = re.compile(r"/[\w.~%!*,:@+=?&/-]*", re.ASCII)
_VARIABLE: Final = re.compile(
    r"(?:export\s+)?(\w*(?:PORT|ADDR|HOST|BIND|IP)\w*)\s*=\s*[\"']?(\d{1,5}|[\d.]{7,15})[\"']?\s*",
    re.IGNORECASE,
)
_HERE: Final = "127.0.0.1"
_EVERYWHERE: Final = frozenset({"", "*", "0.0.0.0", "::", "localhost"})  # noqa: S104 - read, not bound to
_PORTS: Final = range(1, 65536)


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the host, and what the container behind it offers."""

    published: int
    inside: int
    address: str = _HERE
    """Where it is bound to, as it stands in a URL; this machine where that is everywhere."""
    path: str = "/"
    """What the service's own health check asks for, if that is known."""
    asked_over_tls: bool = False
    """Whether that check asks over HTTPS."""

    @property
    def speaks_http(self) -> bool:
        """Whether an answer can be expected, and not only a connection."""
        return self.inside not in _NOT_HTTP

    @property
    def speaks_tls(self) -> bool:
        """Whether that answer is one over HTTPS, going by the check or the container's port."""
        return self.asked_over_tls or self.inside in _TLS


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service."""

    name: str
    builds: bool
    tagged: bool
    """Its image's tag is `${OPSGATE_TAG}`."""
    registry: str
    """The host in its image's name, empty without one."""
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
        found = services(_interpolated(text, path.with_name(".env")))
        return Found(path=names[index], services=tuple(found), others=others)
    return None


def services(text: str) -> Iterator[Service]:
    """The services in the text of a compose file."""
    block = _block(_lines(text.removeprefix("\ufeff")), "services")
    for name, body in _entries(block):
        keys = dict(_entries(body))
        flat = {line.text.partition(":")[0]: line.text.partition(":")[2].strip() for line in body}
        ports = _ports(flat.get("ports", ""), keys.get("ports", []), keys.get("healthcheck", []))
        image = _unquoted(flat.get("image", ""))
        host, slash, _ = _defaults(image).partition("/")
        yield Service(
            name=name,
            builds="build" in keys,
            tagged=bool(re.search(r":\$\{?OPSGATE_TAG\b[^:]*(:?-[^:}]*)?\}?$", image)),
            registry=host if slash and re.search(r"[.:]", host) else "",
            # One with profiles does not start unless it is asked for.
            ports=() if "profiles" in keys else tuple(ports),
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


def _interpolated(text: str, file: Path) -> str:
    """The text with those variables of the `.env` beside it that name a port or an address."""
    try:
        lines = file.read_bytes()[:_LARGEST].decode("utf-8", "replace").splitlines()
    except OSError:
        return text
    pairs = [_VARIABLE.fullmatch(line) for line in lines]
    known = {pair[1]: pair[2] for pair in pairs if pair}

    def value(match: re.Match[str]) -> str:
        return known.get(match[1] or match[2], match[0])

    return re.sub(r"(?<!\$)\$(?:\{(\w+)(?::?[-?][^{}]*)?\}|(\w+))", value, text)


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


def _ports(flow: str, lines: list[Line], check: list[Line]) -> Iterator[Port]:
    asked = {match[2]: match for line in check if (match := _ASKS.search(line.text))}
    for published, inside, address in dict.fromkeys(_published(flow, lines)):
        ask = asked.get(str(inside)) or (asked.get(None) if inside in {80, 443} else None)
        path = ask[3] if ask else None
        yield Port(
            published=published,
            inside=inside,
            address=address,
            path=path if path and _PATH.fullmatch(path) else "/",
            asked_over_tls=bool(ask and ask[1] == "https"),
        )


def _published(flow: str, lines: list[Line]) -> Iterator[tuple[int, int, str]]:
    """Port of the host, of the container, and address, of each port that is known and takes connections."""
    for item in _items(flow, lines):
        fields = dict(_fields(item))
        if fields:
            address, published, inside = (fields.get(key, "") for key in ("host_ip", "published", "target"))
            protocol = fields.get("protocol", "tcp")
        else:
            bound, _, protocol = item.partition("/")
            outside, _, inside = bound.rpartition(":")
            address, _, published = outside.rpartition(":")
        # Ranges by their first port; what no default fixes cannot be known here.
        ports = [re.fullmatch(r"(\d+)(?:-\d+)?", each) for each in (published, inside)]
        if (protocol or "tcp") != "tcp" or not ports[0] or not ports[1]:
            continue
        first, second = int(ports[0][1]), int(ports[1][1])
        if first in _PORTS and second in _PORTS:
            yield first, second, _address(address)


def _items(flow: str, lines: list[Line]) -> Iterator[str]:
    """The items of a list, with the defaults of variables; a table is one line, parted by commas."""
    if flow.startswith("["):
        text = _defaults(" ".join([flow, *(line.text for line in lines)])).strip()
        found = re.findall(r"""\"[^"]*"|'[^']*'|\{[^{}]*\}|[^,\s"'{}][^,]*""", text[1:].removesuffix("]"))
    else:
        found = []
        for line in lines:
            text = _defaults(line.text)
            if text.startswith("-"):
                found.append(text.removeprefix("-").strip())
            elif found:
                found[-1] += f", {text}"
    for item in found:
        yield _unquoted(item)


def _fields(item: str) -> Iterator[tuple[str, str]]:
    """The keys of a port that is a table; nothing where it is a short one."""
    for part in item.strip("{}").split(","):
        match = re.fullmatch(r"\s*[\"']?([a-z_]+)[\"']?\s*:(?:\s+(.*))?", part.rstrip())
        if match:
            yield match[1], _unquoted(match[2] or "")


def _defaults(text: str) -> str:
    """Variables that have a default are that, one inside of another too."""
    pattern = re.compile(r"\$\{\w+:?-([^{}$]*)\}")
    return pattern.sub(r"\1", pattern.sub(r"\1", text))


def _address(bound: str) -> str:
    """The address in a URL that reaches what is bound there."""
    bare = bound.strip("[]")
    if bare in _EVERYWHERE:
        return _HERE
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return _HERE
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
