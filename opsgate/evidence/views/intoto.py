"""An in-toto Statement v1 with the test-result predicate: what the gate says about the images by digest.

It is not signed; `cosign attest-blob`, `gh attestation` or any DSSE signer takes it as it is.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsgate.errors import ConfigurationError
from opsgate.evidence.record import pretty

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence, Image

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://in-toto.io/attestation/test-result/v0.1"


def render(record: Evidence) -> str:
    """The statement as JSON; `ConfigurationError` for a record that has no digests or validated nothing."""
    why = _nothing_to_attest(record)
    if why:
        raise ConfigurationError(
            f"run {record.run_id} cannot be attested: {why}",
            "Choose a run that published images and whose gate reached a verdict: see `evidence --history`.",
        )
    document = {
        "_type": STATEMENT,
        "subject": [_subject(image) for image in record.images],
        "predicateType": PREDICATE,
        "predicate": _predicate(record),
    }
    return pretty(document).decode()


def _nothing_to_attest(record: Evidence) -> str:
    gate = record.stages.gate
    if not record.images:
        return "it has no image digests"
    if gate.status not in {"passed", "failed"} or not gate.targets:
        return "nothing was validated"
    if gate.status_reason == "observer_offline":
        return "nothing was validated, the runtime could not be seen from where the gate ran"
    return ""


def _subject(image: Image) -> dict[str, Any]:
    algorithm, _, value = image.digest.partition(":")
    return {"name": image.pinned.partition("@")[0], "digest": {algorithm: value}}


def _predicate(record: Evidence) -> dict[str, Any]:
    gate = record.stages.gate
    targets = gate.targets or []
    policy = base64.b64encode(msgspec.json.encode(gate.policy or None)).decode()
    predicate: dict[str, Any] = {
        "result": "PASSED" if gate.status == "passed" else "FAILED",
        "configuration": [{"name": "policy", "mediaType": "application/json", "content": policy}],
    }
    if record.ci.run_url:
        predicate["url"] = record.ci.run_url
    predicate["passedTests"] = [target.name for target in targets if target.healthy]
    predicate["warnedTests"] = [one.name for one in targets if not one.healthy and not one.required]
    predicate["failedTests"] = [one.name for one in targets if not one.healthy and one.required]
    return predicate
