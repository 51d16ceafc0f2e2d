"""Releases: what is shipped, in directories named by the hash of what is in them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from errors import ControlError

SOURCE = Path(__file__).resolve().parent / "app"
IMAGES = {
    "backend": ("server.py", "backend.py", "worker.py", "openapi.json"),
    "frontend": ("server.py", "frontend.py", "index.html"),
}
LONGEST_FAULT_SECONDS = 3600
# Each fault, and its time in seconds where it has one: until the crash, of a full up and down, of an answer.
FAULTS = {
    "dead-port": 0.0,
    "crash-late": 3.0,
    "flapping": 2.0,
    "wrong-revision": 0.0,
    "status-down": 0.0,
    "slow": 10.0,
    "hang": 0.0,
}


class Release(NamedTuple):
    """A built release: its directory, its revision (12 hexadecimal), and each image's `sha256:` digest."""

    path: Path
    revision: str
    digests: Mapping[str, str]


def build_document(run_id: str, fault: str, fault_seconds: str) -> bytes:
    """Give the BUILD file: it makes each run's release another one, and carries the fault into the image."""
    if fault and fault not in FAULTS:
        near = difflib.get_close_matches(fault, FAULTS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ControlError(
            f"MISSION_CONTROL_FAULT={fault} is not a fault", f"{hint}known: {', '.join(FAULTS)}"
        )
    try:
        seconds = float(fault_seconds) if fault_seconds else FAULTS.get(fault, 0.0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_FAULT_SECONDS or (fault == "flapping" and not seconds):
        message = f"MISSION_CONTROL_FAULT_SECONDS={fault_seconds} is not a time"
        raise ControlError(message, f"give 0 to {LONGEST_FAULT_SECONDS} seconds; flapping needs more than 0")
    document = {"run_id": run_id, "fault": fault, "fault_seconds": seconds}
    return json.dumps(document, sort_keys=True).encode() + b"\n"


def build(releases: Path, build_file: bytes) -> Release:
    """Copy the source into a release of its own; a release that is there already is left as it is."""
    releases.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=releases))
    try:
        for image, files in IMAGES.items():
            (staging / image).mkdir()
            for name in files:
                shutil.copyfile(SOURCE / name, staging / image / name)
        (staging / "backend" / "BUILD").write_bytes(build_file)
        built = _examine(staging)
        final = releases / built.revision
        if not final.exists():
            staging.chmod(0o755)
            staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return built._replace(path=final)


def find(releases: Path, revision: str) -> Release:
    """Give the release of that revision, its content checked against its name."""
    path = releases / revision
    # The revision comes from outside and becomes a path.
    if not re.fullmatch("[0-9a-f]{12}", revision) or not path.is_dir():
        known = sorted(
            (entry for entry in releases.glob("[0-9a-f]*")), key=lambda entry: entry.stat().st_mtime
        )
        newest = f"the newest is {known[-1].name}" if known else "there is none yet"
        raise ControlError(
            f"no release {revision or '(none named)'} in {releases}", f"{newest}; publish makes one"
        )
    release = _examine(path)
    if release.revision != revision:
        raise ControlError(
            f"release {revision} was changed after it was built", f"delete {path} and publish again"
        )
    return release


def _examine(path: Path) -> Release:
    digests = {image: _digest(path / image) for image in IMAGES}
    manifest = "".join(f"{image} {digest}\n" for image, digest in sorted(digests.items()))
    return Release(path, hashlib.sha256(manifest.encode()).hexdigest()[:12], digests)


def _digest(directory: Path) -> str:
    """Hash all names and contents, each with its length, so that no two trees give the same bytes."""
    content = hashlib.sha256()
    for folder, subfolders, files in os.walk(directory):
        subfolders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            for part in (path.relative_to(directory).as_posix().encode(), path.read_bytes()):
                content.update(len(part).to_bytes(8, "big"))
                content.update(part)
    return f"sha256:{content.hexdigest()}"
