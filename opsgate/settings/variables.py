"""The environment variables that opsgate reads, and those that look as if it should."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opsgate.settings.mistakes import nearest, shown
from opsgate.settings.rules import ALPHABET
from opsgate.verdict.targets import Policy

GATE: Final = Policy.__struct_fields__
"""The gate's policy: a flag, a variable and a key of `[gate]` each."""
HOOKS: Final = {
    "publish": "RUNTIME_PUBLISH_COMMAND",
    "deploy": "RUNTIME_DEPLOY_COMMAND",
    "rollback": "RUNTIME_ROLLBACK_COMMAND",
    "rollback_check": "RUNTIME_ROLLBACK_CHECK_COMMAND",
    "incident": "RUNTIME_INCIDENT_COMMAND",
}
WEBHOOK_URL: Final = "RUNTIME_WEBHOOK_URL"
RUNTIME: Final = (
    *("RUNTIME_HEALTH_URLS", "RUNTIME_HEALTH_TOKEN", "RUNTIME_CONTROL_URLS"),
    *HOOKS.values(),
    *(WEBHOOK_URL, "RUNTIME_WEBHOOK_SECRET"),
)
"""What a workflow hands on from its secrets and variables, in the order in which it lists them."""
_PREFIX: Final = "OPSGATE_"
_READ: Final = frozenset(
    f"OPSGATE_{name}"
    for name in (
        *("ENV", "CONFIG", "EVIDENCE_DIR", "RUN_ID", "REVISION", "ROLLBACK", "FAIL_ON_SKIPPED"),
        *(name.upper() for name in GATE),
    )
)
# What opsgate sets for hooks: a hook that calls opsgate passes them on.
_GIVEN_TO_HOOKS: Final = frozenset(
    f"OPSGATE_{name}"
    for name in (
        *("STAGE", "IMAGES", "PINS", "EVIDENCE", "OUTPUT", "TAG", "STATUS", "STATUS_REASON", "FAILED_URLS"),
        *("LAST_GOOD_REVISION", "LAST_GOOD_IMAGES", "LAST_GOOD_PINS"),
    )
)
# Further away, a RUNTIME_ variable is somebody else's business.
_RUNTIME_CUTOFF: Final = 0.85
_LONGEST_RUN_ID: Final = 64


def value(environ: Mapping[str, str], name: str) -> str | None:
    """The variable without surrounding space; None when unset, or empty as workflows pass unset secrets."""
    return environ.get(name, "").strip() or None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that opsgate would not read although its name says so."""
    warnings = []
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in _READ and name not in _GIVEN_TO_HOOKS:
            near = nearest(name.removeprefix(_PREFIX), (known.removeprefix(_PREFIX) for known in _READ))
            then = f"did you mean {_PREFIX}{near}?" if near else "it has no effect"
            warnings.append(f"{shown(name)[1:-1]}: unknown variable; {then}")
        elif name.startswith("RUNTIME_") and name not in RUNTIME:
            near = nearest(name, RUNTIME, _RUNTIME_CUTOFF)
            if near:
                warnings.append(f"{shown(name)[1:-1]}: unknown variable; did you mean {near}?")
    return warnings


def workflow_run_id(environ: Mapping[str, str], environment: str) -> str | None:
    """`gh-<run id>-<attempt>[-<environment>]` in GitHub Actions: its steps continue one record."""
    run, attempt = value(environ, "GITHUB_RUN_ID"), value(environ, "GITHUB_RUN_ATTEMPT") or "1"
    if value(environ, "GITHUB_ACTIONS") != "true" or run is None:
        return None
    base = f"gh-{run}-{attempt}"
    if not re.fullmatch(r"gh-[0-9]{1,20}-[0-9]{1,6}", base):
        return None
    if environment == "default":
        return base
    text = f"{base}-{environment}"
    if ALPHABET.fullmatch(text):
        return text
    # Too long together: the end of the name gives way to a digest that tells two such names apart.
    from hashlib import sha256

    digest = sha256(environment.encode()).hexdigest()[:8]
    return f"{text[: _LONGEST_RUN_ID - 9]}-{digest}"
