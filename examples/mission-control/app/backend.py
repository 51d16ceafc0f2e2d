"""The backend: health, readiness, version, its API description, and the missions for bearers of the token."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from server import (
    Reply,
    Request,
    baked_fault,
    bearer_only,
    health_reply,
    json_reply,
    revision,
    serve,
    version_reply,
)

MISSIONS = (
    {"id": 1, "name": "lunar survey", "phase": "cruise"},
    {"id": 2, "name": "comet flyby", "phase": "launch"},
)


def main() -> int:
    """Serves until it is told to end."""
    fault = baked_fault()
    description = json.loads((Path(__file__).parent / "openapi.json").read_text(encoding="utf-8"))
    description["info"]["version"] = revision(fault)

    def ready(_: Request) -> Reply:
        return health_reply(fault, checks=[{"name": "missions", "up": bool(MISSIONS)}])

    routes = {
        ("GET", "/healthz"): lambda _: health_reply(fault),
        ("GET", "/readyz"): ready,
        ("GET", "/version"): lambda _: version_reply("backend", fault),
        ("GET", "/openapi.json"): lambda _: json_reply(200, description),
        ("GET", "/api/missions"): bearer_only(lambda _: json_reply(200, {"missions": MISSIONS})),
    }
    return serve("backend", routes, fault)


if __name__ == "__main__":
    sys.exit(main())
