"""Hosts and ports: which hosts are this machine, and the port of a URL that names none."""

from __future__ import annotations

import ipaddress
from typing import Final

PORTS: Final = {"http": 80, "https": 443}
"""The port of a URL that names none, by its scheme."""


def is_loopback(host: str) -> bool:
    """Whether `host` (`name`, `name:port`, `v6`, `[v6]`, `[v6]:port`) is this machine, whoever resolves it.

    There a secret may travel unencrypted, and no proxy stands between. Nothing is looked up: `x.localhost`,
    `localhost.` and `127.0.0.1.` are names that many a machine asks its name server for, and so no proof.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host
    if name.count(":") == 1:
        name = name.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
