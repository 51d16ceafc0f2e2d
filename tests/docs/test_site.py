"""The site: links, and what a reader's browser fetches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, PAGES, ROOT


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page: str) -> None:
    """Also on the forge, where the pages are read as they are."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s#]+)", text):
        if not re.match(r"[a-z]+:", link):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fetched = (
        r'<(?:script|img|iframe)[^>]*\ssrc="https?:|'
        r'<link[^>]*rel="(?:stylesheet|preload|preconnect|icon)"[^>]*https?:'
    )
    for page in tmp_path.rglob("*.html"):
        found = re.findall(fetched, page.read_text(encoding="utf-8"))
        assert found == [], page
