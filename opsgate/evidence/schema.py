"""The JSON Schema of a record, from the structs that are one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from opsgate.evidence import record

if TYPE_CHECKING:
    from collections.abc import Iterator


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record: what is always written is required."""
    schema = msgspec.json.schema(record.Evidence)
    for name, shape in schema["$defs"].items():
        kind: type[msgspec.Struct] = getattr(record, name)
        shape["required"] = [
            field.encode_name for field in msgspec.structs.fields(kind) if field.default is not UNSET
        ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": record.SCHEMA, **schema}


def left_out(evidence: record.Evidence, data: bytes) -> list[str]:
    """The paths of what is always written and yet is not in the record's bytes."""
    written = msgspec.json.encode(evidence)
    if msgspec.json.format(written, indent=2) + b"\n" == data:
        return []
    return list(_missing(msgspec.json.decode(written), msgspec.json.decode(data), ""))


def _missing(expected: Any, found: Any, path: str) -> Iterator[str]:
    if isinstance(expected, dict):
        for name, value in expected.items():
            if name in found:
                yield from _missing(value, found[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}".removeprefix(".")
    elif isinstance(expected, list):
        for index, (each, other) in enumerate(zip(expected, found, strict=True)):
            yield from _missing(each, other, f"{path}[{index}]")
