"""Ports that a test can count on: free when they are given out, and not given to another test."""

from __future__ import annotations

import functools
import itertools
import random
import socket

# Below the ports that the system hands out by itself, for connections too.
FIRST, LAST, BLOCK = 12000, 32000, 250


@functools.cache
def _block() -> tuple[socket.socket, itertools.cycle[int]]:
    """This process's own block of ports: it holds the first of them until it ends."""
    for first in random.SystemRandom().sample(range(FIRST, LAST, BLOCK), (LAST - FIRST) // BLOCK):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
            claim.listen()
        except OSError:
            claim.close()
        else:
            return claim, itertools.cycle(range(first + 1, first + BLOCK))
    raise AssertionError("every block of ports is taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on; they come round again after 249."""
    _, ports = _block()
    row: list[int] = []
    for port in itertools.islice(ports, 2 * BLOCK):
        before = row if row and row[-1] == port - 1 else []
        row = [*before, port] if _is_free(port) else []
        if len(row) == count:
            return row[0]
    raise AssertionError(f"no {count} free ports in a row")


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)
