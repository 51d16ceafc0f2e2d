"""An in-toto Statement v1 with the test-result predicate: what the gate says about the images by digest.

Where no images are known it is about the record itself; where nothing was validated, or what was is not what
runs, its result is neither passed nor failed, and says so. It is not signed; `cosign attest-blob`, `gh
attestation` or any DSSE signer takes it as it is.
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsgate.evidence.record import pretty
from opsgate.evidence.views.headline import NOT_VALIDATED

if TYPE_CHECKING:
    from opsgate.evidence.record import Evidence, Image

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://in-toto.io/attestation/test-result/v0.1"


def render(record: Evidence, file: bytes) -> str:
    """The statement as JSON; `file` are the bytes of the record's file."""
    document = {
        "_type": STATEMENT,
        "subject": [_image(image) for image in record.images] or [_file(record, file)],
        "predicateType": PREDICATE,
        "predicate": _predicate(record),
    }
    return pretty(document).decode()


def _image(image: Image) -> dict[str, Any]:
    algorithm, _, value = image.digest.partition(":")
    return {"name": image.pinned.partition("@")[0], "digest": {algorithm: value}}


def _file(record: Evidence, file: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(file).hexdigest()
    return {"name": f"{record.run_id}/evidence.json", "digest": {"sha256": digest}}


def _predicate(record: Evidence) -> dict[str, Any]:
    gate = record.stages.gate
    policy = base64.b64encode(msgspec.json.encode(gate.policy or None)).decode()
    predicate: dict[str, Any] = {
        "result": "PASSED" if gate.status == "passed" else "FAILED",
        "configuration": [{"name": "policy", "mediaType": "application/json", "content": policy}],
    }
    if record.ci.run_url:
        predicate["url"] = record.ci.run_url
    targets = gate.targets or []
    predicate["passedTests"] = [target.name for target in targets if target.healthy]
    predicate["warnedTests"] = [one.name for one in targets if not one.healthy and not one.required]
    predicate["failedTests"] = [one.name for one in targets if not one.healthy and one.required]
    if why := _why_not_validated(record):
        predicate |= {"result": "WARNED", "passedTests": [], "failedTests": []}
        predicate["warnedTests"] = [f"{NOT_VALIDATED}: {why}"]
    return predicate


def _why_not_validated(record: Evidence) -> str:
    gate = record.stages.gate
    if gate.status_reason == "observer_offline":
        return "the runtime could not be seen from where the gate ran"
    if gate.status not in {"passed", "failed"} or not gate.targets:
        return "no gate has come to a verdict"
    if gate.status == "passed" and (since := _undone(record)):
        return f"the gate passed, but {since}"
    return ""


def _undone(record: Evidence) -> str:
    """Why the images that a gate passed may not be what runs."""
    if record.rollbacks:
        return "the release was rolled back"
    if not record.proven:
        return "the release had not come out whole"
    return "" if record.status == "passed" else "the run did not end as passed"
