"""`latest.env`: the outcome as shell variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence


def render(record: Evidence) -> str:
    """Lines of `ROLLOUT_GATE_NAME=value`, fit for `source` and for `$GITHUB_ENV`.

    Values are numbers and words of closed lists, so that none needs quoting. A boolean is `true`,
    `false` or `unknown`; an exit code that does not exist is `None`.
    """
    rollback = record.stages.rollback
    attempted = rollback.attempted is True
    succeeded = rollback.succeeded if attempted else None
    exit_code = rollback.exit_code if attempted and rollback.exit_code is not UNSET else None
    values = {
        "STATUS": record.status,
        "STATUS_REASON": record.status_reason,
        "FAILED_URL_COUNT": len(record.failed_urls),
        "ROLLBACK_ATTEMPTED": _boolean(attempted),
        "ROLLBACK_SUCCEEDED": _boolean(succeeded),
        "ROLLBACK_EXIT_CODE": exit_code,
        "ATTEMPT_COUNT": record.attempt_count,
    }
    return "".join(f"ROLLOUT_GATE_{name}={value}\n" for name, value in values.items())


def _boolean(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "unknown"
