"""The frontend: one page. It proxies nothing, so it can be up while the backend is down."""

from __future__ import annotations

import html
import sys
from pathlib import Path

import server


def main() -> int:
    """Serve until it is told to end."""
    fault = server.baked_fault()
    template = (Path(__file__).parent / "index.html").read_text(encoding="utf-8")
    text = template.replace("{revision}", html.escape(server.revision(fault)))
    page = server.Reply(200, text.encode(), "text/html; charset=utf-8")
    routes = {
        ("GET", "/"): lambda _: page,
        ("GET", "/healthz"): lambda _: server.health_reply(fault),
        ("GET", "/version"): lambda _: server.version_reply("frontend", fault),
    }
    return server.serve("frontend", routes, fault)


if __name__ == "__main__":
    sys.exit(main())
