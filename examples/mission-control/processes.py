"""Processes that outlive the command that starts them, and can be found and ended by a later one."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from errors import ControlError

TERM_GRACE_SECONDS = 5.0
KILL_WAIT_SECONDS = 5.0
POLL_SECONDS = 0.02


class Process:
    """One service's process, known by the lock on its pid file: a pid may be reused, a lock is not."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.pid_file = folder / f"{name}.pid"
        self.log_file = folder / f"{name}.log"

    def running(self) -> bool:
        """Tell whether the process lives. A zombie does not: its lock is gone."""
        return self._look()[0]

    def pid(self) -> int | None:
        """Give the pid of the living process, or None."""
        return self._look()[1]

    def spawn(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        """Start it in a session of its own, its output in the log file; the log before is kept as .1."""
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.pid_file.open("a+b") as lock, self.log_file.open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            # The shell writes its own pid, then becomes the service: killing this command at any
            # moment leaves no process without a pid. The lock goes with the inherited descriptor.
            subprocess.Popen(
                ["/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"', str(self.pid_file), *command],
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            ).returncode = 0  # nobody waits for it here; said so, or Popen warns when it is collected

    def signal(self, number: signal.Signals) -> None:
        """Send the signal to the whole process group, if the process lives."""
        pid = self.pid()
        if pid is not None:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                return

    def _look(self) -> tuple[bool, int | None]:
        try:
            handle = self.pid_file.open("rb")
        except FileNotFoundError:
            return False, None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = handle.read().strip()
                return True, int(text) if text else None
        return False, None


def stop(processes: Sequence[Process]) -> list[str]:
    """End them all: TERM, after 5 s KILL. Give the names of those that were ended."""
    ended = [process.name for process in processes if process.running()]
    for number, seconds in ((signal.SIGTERM, TERM_GRACE_SECONDS), (signal.SIGKILL, KILL_WAIT_SECONDS)):
        # A process that is only just starting has no pid yet; it is asked as soon as it has one.
        asked: set[int] = set()
        deadline = time.monotonic() + seconds
        while any(process.running() for process in processes) and time.monotonic() < deadline:
            for process in processes:
                pid = process.pid()
                if pid is not None and pid not in asked:
                    process.signal(number)
                    asked.add(pid)
            time.sleep(POLL_SECONDS)
    left = [f"{process.name} (pid {process.pid()})" for process in processes if process.running()]
    if left:
        raise ControlError(
            f"still running after KILL: {', '.join(left)}", "the machine may be stuck in disk or network I/O"
        )
    return ended


def port_is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now."""
    with socket.socket() as probe:
        # As the servers do: connections of the release before, still closing, do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
