"""An environment's incident as a GitHub issue: opened, commented while it lasts, closed after it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from opsgate.evidence.record import Evidence
from opsgate.hosts import is_loopback
from opsgate.stages.incident.delivery import RETRIES, Post, Undelivered

LABEL: Final = "rollout-failed"
BODY_LIMIT: Final = 65536
"""Characters that GitHub takes in an issue or a comment."""
_PAGE: Final = 100
_PAGES: Final = 10
_PAUSES: Final = (0.2, 1.0, 3.0, 6.0)
"""Seconds after each attempt to open an issue."""
_GONE: Final = 410


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where issues go. The token is sent nowhere else."""

    issues: str
    """URL of the repository's issues."""
    token: str

    def __repr__(self) -> str:
        return f"<Place: {self.issues}>"


def place(environ: Mapping[str, str]) -> Place:
    """The repository of the workflow. Raises `Undelivered` where it is not known, or not safe to talk to."""
    api = environ.get("GITHUB_API_URL") or "https://api.github.com"
    repository, token = environ.get("GITHUB_REPOSITORY", ""), environ.get("GITHUB_TOKEN", "")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise Undelivered("GITHUB_REPOSITORY names no repository")
    if not token:
        raise Undelivered(
            "GITHUB_TOKEN is not set",
            "give the step `GITHUB_TOKEN: ${{ github.token }}`, and the job `issues: write`",
        )
    parts = urlsplit(api)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise Undelivered("GITHUB_API_URL is not https: the token would be sent in the clear")
    return Place(issues=f"{api.rstrip('/')}/repos/{repository}/issues", token=token)


def tell(record: Evidence, where: Place, post: Post) -> None:
    """Open, comment or close the environment's issue. Raises `Undelivered`."""
    found = _open_issues(record, where, post)
    if record.status == "passed":
        for number in found:
            _ask(where, post, "POST", f"/{number}/comments", {"body": _body(record)})
            _ask(where, post, "PATCH", f"/{number}", {"state": "closed", "state_reason": "completed"})
    elif found:
        _ask(where, post, "POST", f"/{found[0]}/comments", {"body": _body(record)})
    else:
        _open(record, where, post)


def _open(record: Evidence, where: Place, post: Post) -> None:
    """Open the issue once: one whose answer was lost may be there, and would have a twin for ever."""
    issue = {"title": _title(record), "body": _body(record), "labels": [LABEL]}
    for pause in _PAUSES:
        try:
            _ask(where, post, "POST", "", issue, retries=0)
        except Undelivered as error:
            if error.is_final or not post.pause(pause):
                raise
            problem = error
        else:
            return
        if _open_issues(record, where, post):
            return
    raise problem


def _open_issues(record: Evidence, where: Place, post: Post) -> list[int]:
    """The open issues of the environment, the newest first. Pull requests are issues too, and not meant."""
    numbers = []
    for page in range(1, _PAGES + 1):
        query = f"?state=open&labels={quote(LABEL)}&per_page={_PAGE}&page={page}"
        found = _ask(where, post, "GET", query, None)
        issues = found if isinstance(found, list) else []
        numbers += [
            int(issue["number"])
            for issue in issues
            if isinstance(issue, dict)
            and "pull_request" not in issue
            and _is_of(record, str(issue.get("body") or ""))
            and isinstance(issue.get("number"), int)
        ]
        if len(issues) < _PAGE:
            break
    return list(dict.fromkeys(numbers))


def _ask(
    where: Place,
    post: Post,
    method: str,
    path: str,
    document: dict[str, Any] | None,
    *,
    retries: int = RETRIES,
) -> object:
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {where.token}",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    body = None
    if document is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(document).encode()
    try:
        reply = post.send(method, where.issues + path, headers, body, retries=retries)
    except Undelivered as error:
        raise Undelivered(error.message, error.hint or _hint(error.status), status=error.status) from None
    try:
        return json.loads(reply.body or b"null")
    except (ValueError, RecursionError):
        raise Undelivered("GitHub's answer is not JSON") from None


def _hint(status: int | None) -> str:
    """What the person who reads of this status can do."""
    if status in {401, 403, 404}:
        return "does the job have `issues: write`, and the step `GITHUB_TOKEN: ${{ github.token }}`?"
    return "issues are switched off in this repository" if status == _GONE else ""


def _mark(record: Evidence) -> str:
    """What tells the issues of two environments apart; invisible in the issue."""
    return f"<!-- opsgate environment={record.environment} -->"


def _is_of(record: Evidence, body: str) -> bool:
    """Whether an issue is the environment's. What others said in it may hold marks: ours is the last."""
    mark, start = _mark(record), body.rfind("<!-- opsgate environment=")
    return start >= 0 and body.startswith(mark, start)


def _title(record: Evidence) -> str:
    from opsgate.evidence.views.headline import headline
    from opsgate.evidence.views.words import plain

    return plain(f"Rollout failed: {headline(record)}", 240)


def _body(record: Evidence) -> str:
    from opsgate.evidence.views import markdown

    end = f"\n{_link(record)}{_mark(record)}\n"
    text = markdown.render(record)
    if len(text) + len(end) > BODY_LIMIT:
        # The first two blocks say what runs and why; a cut further down could leave a code block open.
        text = "\n\n".join(text.split("\n\n")[:2]) + "\n\nThe rest is in the evidence of the run.\n"
    return text + end


def _link(record: Evidence) -> str:
    url = record.ci.run_url or ""
    return f"[The workflow run]({url})\n\n" if re.fullmatch(r"https?://[\w.:/-]+", url, re.ASCII) else ""
