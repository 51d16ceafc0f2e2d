"""The pins of a run: a compose override that names each image by its digest, and by nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping

from opsgate.evidence.files import explained, replace_durably
from opsgate.evidence.record import Image
from opsgate.stages.session import Session


def write(session: Session, services: Mapping[str, Image]) -> None:
    """Write the override that pins each service to its image's digest. Raises `EvidenceError`."""
    lines = ["services:"]
    for service, image in services.items():
        # JSON strings are YAML: no name of a service can mean anything else here.
        lines += [f"  {json.dumps(service)}:", f"    image: {json.dumps(image.pinned)}"]
    with explained("writing the pins", session.pins):
        replace_durably(session.pins, ("\n".join(lines) + "\n").encode())
