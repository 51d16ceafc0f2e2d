"""The frontend: one page. It proxies nothing, so it can be up while the backend is down."""

from __future__ import annotations

import html
import sys
from pathlib import Path

from server import Reply, baked_fault, health_reply, revision, serve, version_reply


def main() -> int:
    """Serves until it is told to end."""
    fault = baked_fault()
    template = (Path(__file__).parent / "index.html").read_text(encoding="utf-8")
    page = Reply(
        200, template.replace("{revision}", html.escape(revision(fault))).encode(), "text/html; charset=utf-8"
    )
    routes = {
        ("GET", "/"): lambda _: page,
        ("GET", "/healthz"): lambda _: health_reply(fault),
        ("GET", "/version"): lambda _: version_reply("frontend", fault),
    }
    return serve("frontend", routes, fault)


if __name__ == "__main__":
    sys.exit(main())
