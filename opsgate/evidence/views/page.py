"""Self-contained HTML: a template and its styles as one page that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def page(template: str, *styles: str, **context: Any) -> str:
    """The template rendered; it also gets `style`, and the `style_hash` that its policy allows."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "\n".join(environment.get_template(name).render() for name in styles)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # The style sheets are ours: nothing in them comes from a record.
    context |= {"style": Markup(style), "style_hash": f"sha256-{digest}"}  # noqa: S704
    return environment.get_template(template).render(context) + "\n"
