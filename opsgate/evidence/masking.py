"""The texts of a record in which a secret may stand, changed one by one. Pure."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from opsgate.verdict.targets import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
# What a machine reads stays as it is, even where a short secret happens to have the same value.
_STRUCTURAL: Final = frozenset(
    {
        "schema", "opsgate_version", "run_id", "environment", "trigger", "started_at", "finished_at",
        "status", "status_reason", "kind", "withheld", "previous", "digest", "tls_not_after", "remote_ip",
    }
)  # fmt: skip


def changed(value: T, change: Callable[[str], str]) -> T:
    """`value`, each text in it that a person may have written changed. What stays the same is shared."""
    return cast("T", _changed(value, change))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in _texts(type(value))}
        shown = {name: _changed(item, change) for name, item in fields.items()}
        others = {name: item for name, item in shown.items() if item is not fields[name]}
        return msgspec.structs.replace(value, **others) if others else value
    if isinstance(value, list | tuple):
        items = [_changed(item, change) for item in value]
        return value if all(map(operator.is_, items, value)) else type(value)(items)
    return value


def _texts(kind: type[msgspec.Struct]) -> Iterable[str]:
    """The fields that may hold a secret. Of attempts there may be tens of thousands."""
    if kind is Attempt:
        return ("detail", "revision")
    return (name for name in kind.__struct_fields__ if name not in _STRUCTURAL)
