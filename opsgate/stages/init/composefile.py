"""As much of a compose file as init needs, read without Docker: services, builds, published ports.

What cannot be read is not found, and a person adds it: nothing here decides about a rollout.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

NAMES: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_DEPTH: Final = 3
_LARGEST: Final = 1 << 18
"""Bytes of a file that is read: a second of parsing."""
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
_REFERENCE: Final = re.compile(
    r"(?<!\$)\$(?:\{(?P<name>\w+)(?::?-(?P<default>[^{}$]*)|:?\?[^{}]*)?\}|(?P<bare>\w+))"
)
_NESTED: Final = 3
"""Defaults within defaults that are looked into."""
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


class _Loader(yaml.SafeLoader):
    """Reads tables, lists and text: in YAML 1.1 a port such as 5000:50 would be a number to base 60."""

    # Merge keys only.
    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # noqa: RUF012 - PyYAML's way
    yaml_constructors = {}  # noqa: RUF012 - as above


def _untagged(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> object:
    """What stands behind any tag, compose's own `!reset` and `!override` too."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("", _untagged)


def find(root: Path) -> Found | None:
    """The compose file nearest to `root`, at most three directories down; None without one."""
    files = sorted(_files(root, _DEPTH), key=lambda path: (len(path.parts), NAMES.index(path.name), path))
    for index, path in enumerate(files):
        data = _read(path)
        if data is None:
            continue
        names = [each.relative_to(root).as_posix() for each in files]
        others = tuple(names[:index] + names[index + 1 :])
        found = services(data, _variables(_read(path.with_name(".env")) or b""))
        return Found(path=names[index], services=tuple(found), others=others)
    return None


def services(data: bytes, variables: Mapping[str, str]) -> Iterator[Service]:
    """The services in a compose file; none where it cannot be read, as compose could not."""
    try:
        document = yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    for name, fields in _table(_table(document).get("services")).items():
        service = _table(fields)
        image = _text(service.get("image"))
        host, slash, _ = _filled(image, variables).partition("/")
        if re.fullmatch(r"[A-Za-z0-9._-]+", name):
            yield Service(
                name=name,
                builds="build" in service,
                tagged=bool(re.search(r":\$\{?OPSGATE_TAG\b[^:]*(:?-[^:}]*)?\}?$", image)),
                registry=host if slash and re.search(r"[.:]", host) else "",
                # One with profiles does not start unless it is asked for.
                ports=() if "profiles" in service else tuple(_ports(service, variables)),
            )


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return None


def _files(directory: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name in NAMES and os.path.isfile(entry):
            yield entry
        elif depth > 1 and _is_looked_into(entry):
            yield from _files(entry, depth - 1)


def _is_looked_into(entry: Path) -> bool:
    named = entry.name.isprintable() and not entry.name.startswith(".") and entry.name not in _PASSED_OVER
    return named and os.path.isdir(entry) and not entry.is_symlink()


def _variables(data: bytes) -> dict[str, str]:
    """Those of a `.env` file that name a port or an address: whatever else it holds is a secret."""
    pairs = [_VARIABLE.fullmatch(line) for line in data.decode("utf-8", "replace").splitlines()]
    return {pair[1]: pair[2] for pair in pairs if pair}


def _filled(text: str, variables: Mapping[str, str]) -> str:
    """The text with its references to variables as compose would fill them in, as far as that is known."""

    def value(match: re.Match[str]) -> str:
        default = match[0] if match["default"] is None else match["default"]
        return variables.get(match["name"] or match["bare"], default)

    for _ in range(_NESTED):
        text = _REFERENCE.sub(value, text)
    return text


def _ports(service: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Port]:
    check = _table(service.get("healthcheck")).get("test")
    words = " ".join(map(_text, check)) if isinstance(check, list) else _text(check)
    asked = {match[2]: match for match in _ASKS.finditer(_filled(words, variables))}
    for published, inside, address in dict.fromkeys(_published(service.get("ports"), variables)):
        ask = asked.get(str(inside)) or (asked.get(None) if inside in {80, 443} else None)
        path = ask[3] if ask else None
        yield Port(
            published=published,
            inside=inside,
            address=address,
            path=path if path and _PATH.fullmatch(path) else "/",
            asked_over_tls=bool(ask and ask[1] == "https"),
        )


def _published(items: object, variables: Mapping[str, str]) -> Iterator[tuple[int, int, str]]:
    """Port of the host, of the container, and address, of each port that is known and takes connections."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            keys = ("host_ip", "published", "target", "protocol")
            address, published, inside, protocol = (_filled(_text(item.get(key)), variables) for key in keys)
        else:
            bound, _, protocol = _filled(_text(item), variables).partition("/")
            outside, _, inside = bound.rpartition(":")
            address, _, published = outside.rpartition(":")
        # Ranges by their first port; what no default fixes cannot be known here.
        ports = [re.fullmatch(r"(\d{1,5})(?:-\d+)?", each, re.ASCII) for each in (published, inside)]
        if (protocol or "tcp") != "tcp" or not ports[0] or not ports[1]:
            continue
        first, second = int(ports[0][1]), int(ports[1][1])
        if first in _PORTS and second in _PORTS:
            yield first, second, _address(address)


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
