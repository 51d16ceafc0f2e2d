"""The one error of the sample runtime's commands."""

from __future__ import annotations


class ControlError(Exception):
    """A command could not do its work: what happened, and what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
