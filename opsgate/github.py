"""What GitHub Actions is told: masks, outputs, summary, annotations. Nothing of it anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from opsgate.evidence.record import Ci, Evidence
from opsgate.redact import Redactor


def facts(environ: Mapping[str, str]) -> Ci:
    """Where this run takes place; outside of CI only who started it."""
    if environ.get("GITHUB_ACTIONS") != "true":
        return Ci(actor=environ.get("USER") or environ.get("LOGNAME") or None)
    server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
    run = environ.get("GITHUB_RUN_ID", "")
    return Ci(
        provider="github",
        repository=repository or None,
        workflow=environ.get("GITHUB_WORKFLOW") or None,
        run_url=f"{server}/{repository}/actions/runs/{run}" if server and repository and run else None,
        commit=environ.get("GITHUB_SHA") or None,
        actor=environ.get("GITHUB_ACTOR") or None,
    )


def begin(redactor: Redactor, environ: Mapping[str, str], stream: TextIO) -> None:
    """Have the runner hide every secret from its log."""
    if environ.get("GITHUB_ACTIONS") == "true":
        for secret in redactor.masks():
            print(f"::add-mask::{escaped(secret)}", file=stream, flush=True)


def finish(record: Evidence, environ: Mapping[str, str], stream: TextIO, *, evidence: Path) -> None:
    """Outputs, job summary and annotations of a finished run."""


def escaped(text: str) -> str:
    """`text` as the data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
