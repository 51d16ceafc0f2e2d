"""Views: a record in, text out. `FORMATS` names them; what cannot be seen in the record is not shown."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence


class View(Protocol):
    """Renders a record; `file` are the bytes of its file, those of a new one where there is none."""

    def __call__(self, record: Evidence, file: bytes = b"", /) -> str: ...  # noqa: D102 - said above


def _json(record: Evidence, file: bytes = b"", /) -> str:
    return (file or _encoded(record)).decode()


def _intoto(record: Evidence, file: bytes = b"", /) -> str:
    from opsgate.evidence.views import intoto

    return intoto.render(record, file or _encoded(record))


def _encoded(record: Evidence) -> bytes:
    from opsgate.evidence.record import encode
    from opsgate.redact import Redactor

    return encode(record, Redactor())


def _view(module: str) -> View:
    def render(record: Evidence, _file: bytes = b"", /) -> str:
        return str(import_module(f"{__name__}.{module}").render(record))

    return render


FORMATS: Final[Mapping[str, View]] = MappingProxyType(
    {
        "text": _view("text"),
        "json": _json,
        "md": _view("markdown"),
        "html": _view("html"),
        "junit": _view("junit"),
        "env": _view("env"),
        "intoto": _intoto,
    }
)
"""Name of a format → the function that renders it, its module imported on the first call."""
