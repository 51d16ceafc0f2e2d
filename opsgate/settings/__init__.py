"""Flags, environment and file, weighed once into one frozen `Settings`.

`load` is the only way in. Precedence, key by key: flag, environment variable, the selected
environment of the file, the file's top level, default.
"""

from opsgate.settings.describe import Row, describe
from opsgate.settings.durations import format_duration, parse_duration
from opsgate.settings.resolve import EVIDENCE_NEEDS, ROLLBACK_NEEDS, load
from opsgate.settings.values import Flags, Hooks, Notify, Publish, Settings, Timeouts

__all__ = [
    "EVIDENCE_NEEDS",
    "ROLLBACK_NEEDS",
    "Flags",
    "Hooks",
    "Notify",
    "Publish",
    "Row",
    "Settings",
    "Timeouts",
    "describe",
    "format_duration",
    "load",
    "parse_duration",
]
