"""What the kernel says about a hook's processes. Linux answers through /proc; elsewhere nobody does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_DEAD = frozenset("ZX")
_EXEC = 0.05
"""Seconds in which a process gets from one program to the next."""


def readable() -> bool:
    """Whether processes can be looked at here."""
    return os.path.exists(_PROC / "self" / "stat")


def living(group: int) -> bool:
    """Whether the process group has a member that runs.

    `killpg(group, 0)` would not do: it succeeds for zombies that nobody has reaped yet.
    """
    return any(fields[2] == str(group) for _, fields in _processes())


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot, a zombie too; 0 when that cannot be known."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in _DEAD


def survivors(variable: str, since: int) -> tuple[int, ...]:
    """Processes that carry `NAME=value` in their environment and started at `since` ticks or later.

    This finds what `setsid` or a double fork took out of the group. A process that emptied its
    environment, or that belongs to another user, is not found.
    """
    wanted = variable.encode("utf-8", "surrogateescape")
    newer = {pid: _environment(pid) for pid, fields in _processes() if int(fields[19]) >= since}
    if blank := [pid for pid, carried in newer.items() if carried == [b""]]:
        # In the middle of an exec a process has none.
        time.sleep(_EXEC)
        newer |= {pid: _environment(pid) for pid in blank}
    return tuple(sorted(pid for pid, carried in newer.items() if wanted in carried))


def _processes() -> Iterator[tuple[int, list[str]]]:
    try:
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return
    yield from ((pid, fields) for pid in pids if (fields := _stat(pid)) and fields[0] not in _DEAD)


def _stat(pid: int) -> list[str]:
    """The fields after the name: state, parent, group, …; empty for what is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
