"""All text for people while something runs; it decides nothing.

`reporter` chooses: a live table on a terminal, else one timestamped line for each event. Neither ever
raises, a closed or full stream costs the text, never the rollout; both are called from the main thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from opsgate.console.plain import PlainReporter

if TYPE_CHECKING:
    from collections.abc import Mapping


def reporter(stream: TextIO, environ: Mapping[str, str], *, summary: bool = False) -> PlainReporter:
    """The reporter for `stream`, usually standard error: its methods are what stages call.

    With `summary` the result is written there as well, for when standard output carries JSON.
    """
    if environ.get("CI") or environ.get("TERM", "") in {"", "dumb"} or not _is_terminal(stream):
        return PlainReporter(stream, summary=summary)
    from opsgate.console.live import LiveReporter

    return LiveReporter(stream, environ, summary=summary)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):
        return False
