"""The backend: health, readiness, version, its API description, and the missions for bearers of the token."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import server

MISSIONS = (
    {"id": 1, "name": "lunar survey", "phase": "cruise"},
    {"id": 2, "name": "comet flyby", "phase": "launch"},
)


def main() -> int:
    """Serve until it is told to end."""
    fault = server.baked_fault()
    description = json.loads((Path(__file__).parent / "openapi.json").read_text(encoding="utf-8"))
    description["info"]["version"] = server.revision(fault)

    def ready(_: server.Request) -> server.Reply:
        return server.health_reply(fault, checks=[{"name": "missions", "up": bool(MISSIONS)}])

    routes = {
        ("GET", "/healthz"): lambda _: server.health_reply(fault),
        ("GET", "/readyz"): ready,
        ("GET", "/version"): lambda _: server.version_reply("backend", fault),
        ("GET", "/openapi.json"): lambda _: server.json_reply(200, description),
        ("GET", "/api/missions"): server.bearer_only(
            lambda _: server.json_reply(200, {"missions": MISSIONS})
        ),
    }
    return server.serve("backend", routes, fault)


if __name__ == "__main__":
    sys.exit(main())
