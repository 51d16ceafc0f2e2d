"""Views: a record in, text out. `FORMATS` names them; what cannot be seen in the record is not shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence


def _json(record: Evidence) -> str:
    from opsgate.evidence.record import encode
    from opsgate.redact import Redactor

    return encode(record, Redactor()).decode()


def _view(module: str) -> Callable[[Evidence], str]:
    def render(record: Evidence) -> str:
        return str(import_module(f"{__name__}.{module}").render(record))

    return render


FORMATS: Final[Mapping[str, Callable[[Evidence], str]]] = MappingProxyType(
    {
        "text": _view("text"),
        "json": _json,
        "md": _view("markdown"),
        "html": _view("html"),
        "junit": _view("junit"),
        "env": _view("env"),
        "intoto": _view("intoto"),
    }
)
"""Name of a format → the function that renders it, its module imported on the first call."""
