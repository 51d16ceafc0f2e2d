"""Files that are whole or not there, whenever the power goes."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from opsgate.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HINT = "Make the directory writable and its disk roomy, or choose another with --evidence-dir."


def write_durably(path: Path, data: bytes) -> None:
    """Write and fsync a file; on failure nothing stays. Raises `OSError`."""
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write and fsync files; on failure none of them stays. Raises `OSError`."""
    with ExitStack() as written:
        # All written first: the file system then brings them to the disk in one go.
        descriptors = {path: written.enter_context(_written(path, data)) for path, data in contents.items()}
        for path, descriptor in descriptors.items():
            with _undone(path):
                os.fsync(descriptor)


@contextmanager
def _written(path: Path, data: bytes) -> Iterator[int]:
    """A file written anew, open; it goes again when that or the block fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        with _undone(path):
            write_all(descriptor, data)
            yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _undone(path: Path) -> Iterator[None]:
    """Where the block fails the file goes, and an `OSError` names it."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        with suppress(OSError):
            path.unlink()
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until everything is written. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: Path) -> None:
    """Make a rename or a new file in the directory survive a power cut. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(path: Path, data: bytes) -> None:
    """Put `data` in a file's place: a reader sees the old one or the new one. Raises `OSError`."""
    _replace(path, data, sync=True)
    sync_directory(path.parent)


def replace(path: Path, data: bytes) -> None:
    """As `replace_durably`, but after a power cut the file may be empty: for what can be made again."""
    _replace(path, data, sync=False)


def _replace(path: Path, data: bytes, *, sync: bool) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with _written(temporary, data) as descriptor:
        if sync:
            os.fsync(descriptor)
    try:
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` into an `EvidenceError` that names what failed, where and why."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        raise EvidenceError(f"{doing} failed: {where}: {error.strerror or error}", HINT) from None
