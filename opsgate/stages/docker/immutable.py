"""Names of images that always mean the same image: the tag of a run, and what production refuses."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from opsgate.errors import ConfigurationError, NotReady
from opsgate.stages.oci.reference import Reference
from opsgate.stages.session import Session

GIT_LIMIT: Final = 60.0

_FLOATING: Final = re.compile(
    r"latest|main|master|trunk|head|develop|dev|edge|nightly|next|canary|beta|alpha|stable|current|"
    r"staging|stage|prod|production|release|live|default|v?\d+|v?\d+\.\d+",
    re.IGNORECASE,
)
_DIFFERS: Final = re.compile(r"(?!  )[ A-Z?!]{2} .")
"""A file as `git status --porcelain` lists it, unlike what git says to it: its warnings begin with a word."""
_NOT_FOUND: Final = 127
_SHOWN: Final = 5


def tag(session: Session) -> str | None:
    """`<12 of the commit>-<UTC yyyymmddThhmmssZ>`; a run that goes on keeps the tag that it has.

    Outside a checkout the revision that was given takes the commit's place; None without either.
    """
    if known := session.record.stages.publish.tag:
        return known
    commit = session.commit_revision() or session.settings.revision or ""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", commit)[:12].lstrip(".-")
    return f"{name}-{datetime.fromtimestamp(time.time(), UTC):%Y%m%dT%H%M%SZ}" if name else None


def require_tag(session: Session) -> str:
    """The run's tag. Raises `ConfigurationError` where nothing tells the commit."""
    found = session.record.stages.publish.tag
    if not found:
        raise ConfigurationError(
            f"no commit to name the images after: {session.settings.directory} is no git checkout",
            "set OPSGATE_REVISION, or run it in a checkout with a commit",
        )
    return found


def check_work_tree(session: Session) -> None:
    """Raise `NotReady` when files differ from the commit that the images would be named after.

    Files that git does not know and does not ignore count: they would be built in as well. Where
    there is no checkout there is nothing to differ from.
    """
    finished = session.ask("LC_ALL=C git status --porcelain", limit=GIT_LIMIT)
    session.halt.check()
    said = [line for line in finished.output_tail.splitlines() if line.strip()]
    if not finished.succeeded:
        if finished.exit_code == _NOT_FOUND or any("not a git repository" in line for line in said):
            return
        raise NotReady(
            f"git cannot say whether the work tree is clean: {' '.join(said)[:300] or finished.explanation}",
            "production = true publishes only what a commit holds",
        )
    if differ := [line.strip() for line in said if _DIFFERS.match(line)]:
        more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        raise NotReady(
            f"the work tree is dirty: {', '.join(differ[:_SHOWN])}{more}",
            "production = true publishes only what a commit holds: commit it, `git stash -u`, or ignore it",
        )


def check_names(images: Mapping[str, str], tag: str | None = None) -> None:
    """Raise `ConfigurationError` unless each image (name → reference) says its registry and never moves.

    With `tag`, the run's, that tag has to be in it. Without, for what a hook pushed, any will do that is
    not known to float.
    """
    wrong = []
    for name, text in images.items():
        reference = Reference.parse(text)
        floats = tag not in (reference.tag or "") if tag else _FLOATING.fullmatch(reference.pointer)
        if not reference.explicit:
            wrong.append(f"{name}: {text} names no registry; write {_proposal(reference)}")
        elif floats:
            told = "its tag" if reference.tag else "without a tag it means latest, which"
            wrong.append(f"{name}: {text}: {told} can move to another image; write {_proposal(reference)}")
    if wrong:
        raise ConfigurationError(
            f"production = true refuses {'; '.join(wrong)}",
            "only tags that never move, in a registry that the name says, lead to one image for good",
        )


def _proposal(reference: Reference) -> str:
    bare = f"REGISTRY/{reference.repository.removeprefix('library/')}"
    return f"{reference.name if reference.explicit else bare}:${{OPSGATE_TAG}}"
