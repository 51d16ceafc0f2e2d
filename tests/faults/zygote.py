"""Real commands that kill themselves at the n-th thing they do to the evidence directory.

A program: reads jobs from stdin, one JSON object a line, answers each with one line. It loads opsgate once
and forks for each job, so that a sweep over hundreds of places takes seconds. What the child runs is the
command itself, with real files, hooks and probes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITERS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate", "link")


class Bomb:
    """Counts what the process does to files below `directory`; at `at` it is over.

    With `half` only writes count, and the last one still brings half of its bytes out.
    """

    def __init__(self, directory: Path, at: int, *, half: bool) -> None:
        self.directory, self.at, self.half = os.fsencode(directory), at, half
        self.count = 0

    def arm(self) -> None:
        for name in ("write",) if self.half else WRITERS:
            setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **keys: Any) -> Any:
            if self._concerns(name, args):
                self.count += 1
                if self.count == self.at:
                    if self.half:
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **keys)

        return counted

    def _concerns(self, name: str, args: tuple[Any, ...]) -> bool:
        if name == "open" and not args[1] & (os.O_CREAT | os.O_TRUNC):
            return False
        place = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else args[0]
        return os.fsencode(place).startswith(self.directory)


def run(job: dict[str, Any]) -> int:
    """The command in this process; its exit code."""
    from opsgate import program

    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    for name in ("stdout", "stderr"):
        descriptor = os.open(f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, getattr(sys, name).fileno())
    bomb = Bomb(Path(job["evidence"]), job["at"], half=job["half"])
    bomb.arm()
    sys.argv = ["opsgate", *job["args"]]
    code = program.run()
    sys.stdout.flush()
    sys.stderr.flush()
    Path("count.txt").write_text(str(bomb.count))
    return code


def serve() -> None:
    """Answer jobs until there are no more."""
    import opsgate.door
    import opsgate.evidence.verify
    import opsgate.evidence.views.text
    import opsgate.probe.request
    import opsgate.probe.transport
    import opsgate.stages.evidence
    import opsgate.stages.release  # noqa: F401 - loaded once, for every child

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
