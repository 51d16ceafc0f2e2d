"""Files that are whole or not there, whenever the power goes."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from opsgate.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

HINT = "Make the directory writable, free some space on its disk, or choose another with --evidence-dir."
DAMAGED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises where a file does not hold what was written, JSON nested without end included."""
_OLD_STAYS: Final = frozenset({ENOSPC, EDQUOT, EFBIG, EIO})


def write_durably(path: Path, data: bytes) -> None:
    """Write and fsync a file; on failure nothing stays. Raises `OSError`."""
    _write(path, data, sync=True)


def write(path: Path, data: bytes) -> None:
    """As `write_durably`, but a power cut may leave the file empty: for what can be made again."""
    _write(path, data, sync=False)


def _write(path: Path, data: bytes, *, sync: bool, mode: int = 0o666) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(descriptor, data)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as error:
        if isinstance(error, OSError):
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
    """As `replace_durably`, within the bounds of `write`."""
    _replace(path, data, sync=False)


def overwrite(path: Path, data: bytes) -> None:
    """Write a file that a person named; where there is no room the old one stays. Raises `OSError`.

    Links are followed, owner and mode are kept. What cannot be replaced like that is written in place: a
    device, a pipe, `/dev/stdout` wherever it leads, a file that has a second name or is mounted, or whose
    directory is not ours.
    """
    target = Path(os.path.realpath(path))
    try:
        there = target.stat() if os.path.exists(path) else None
        if there is None or (_is_plain(there) and os.access(target, os.W_OK) and not _is_open(path)):
            _replace(target, data, sync=True, like=there)
            sync_directory(target.parent)
            return
    except OSError as error:
        if error.errno in _OLD_STAYS:
            raise
    try:
        path.write_bytes(data)
    except OSError as error:
        error.filename = str(path)
        raise


def _is_plain(there: os.stat_result) -> bool:
    return stat.S_ISREG(there.st_mode) and there.st_nlink == 1


def _is_open(path: Path) -> bool:
    """Whether the name leads over a descriptor: who holds it would go on in a file without a name."""
    step = path.absolute()
    while not step.is_relative_to("/dev") and not step.is_relative_to("/proc"):
        if not step.is_symlink():
            return False
        step = step.parent / step.readlink()
    return True


def _replace(path: Path, data: bytes, *, sync: bool, like: os.stat_result | None = None) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    mode = stat.S_IMODE(like.st_mode) if like else 0o666
    _write(temporary, data, sync=sync, mode=mode)
    try:
        if like:
            os.chown(temporary, like.st_uid, like.st_gid)
            temporary.chmod(mode)
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
