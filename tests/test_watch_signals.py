"""The loop's waiting comes back in time, whatever signals arrive meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A handler that runs past the end of the wait, again and again.
PROGRAM = """
import os, signal, threading, time
from opsgate.probe.watch import Threads

def busy(_signum, _frame):
    end = time.monotonic() + 0.01
    while time.monotonic() < end:
        pass

def rain():
    while True:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.03)

signal.signal(signal.SIGUSR1, busy)
crew = Threads(None)
threading.Thread(target=rain, daemon=True).start()
end = time.monotonic() + 1.5
while time.monotonic() < end:
    assert crew.next_reply(0.008) is None
"""


def test_a_signal_at_the_end_of_a_wait_does_not_make_it_endless() -> None:
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, timeout=20, check=True)
