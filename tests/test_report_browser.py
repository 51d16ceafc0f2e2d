"""The report in a real browser: it renders, loads nothing, and what is injected into it stays text."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from opsgate.evidence.record import decode
from opsgate.evidence.views import FORMATS
from tests import records
from tests.browser import Page

pytestmark = pytest.mark.xdist_group("browser")

CASES = ("passed", "failed-recovered", "failed-unstable", "skipped-no-urls", "unfinished", "hostile")
LOOKS = [
    (1000, False, "screen"),
    (390, False, "screen"),
    (390, True, "screen"),
    (1000, True, "screen"),
    (800, False, "print"),
]


def written(tmp_path: Path, name: str) -> Path:
    path = tmp_path / f"{name}.html"
    record = decode((records.DIRECTORY / f"{name}.json").read_bytes())
    path.write_text(FORMATS["html"](record), encoding="utf-8")
    return path


def test_report_renders_without_errors_or_requests(page: Page, tmp_path: Path) -> None:
    for name in CASES:
        path = written(tmp_path, name)
        for width, dark, media in LOOKS:
            page.open(path, width=width, dark=dark, media=media)
            assert page.requests == [path.as_uri()]
            assert page.errors == []
            assert page.value("document.querySelectorAll('h1, h2').length") >= 4
            assert page.value("document.styleSheets[0].cssRules.length") > 50
            assert page.value("document.documentElement.scrollWidth") <= width, (name, width)
            assert "owned" not in page.value("document.title").partition("<")[0]
            assert page.value("document.scripts.length + document.images.length") == 0


def test_report_follows_the_colour_scheme(page: Page, tmp_path: Path) -> None:
    path, seen = written(tmp_path, "failed-recovered"), []
    for dark in (False, True):
        page.open(path, dark=dark)
        seen.append(page.value("getComputedStyle(document.body).backgroundColor"))
    assert seen == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]


def test_strip_shows_attempts_and_marks(page: Page, tmp_path: Path) -> None:
    page.open(written(tmp_path, "failed-recovered"))
    strip = "document.querySelector('.target .strip')"
    bars = page.value(
        f"[...{strip}.querySelectorAll('rect.ok, rect.bad')].filter(b => b.getBBox().width > 1).length"
    )
    assert bars == 19
    labels = page.value(
        f"[...{strip}.querySelectorAll('text:not(.tick)')].map(t => t.textContent).join('; ')"
    )
    assert labels == "first healthy 0 s; verdict failed 9 s; deadline 12 s; status"
    clipped = page.value(
        f"[...{strip}.querySelectorAll('text')].filter(t => t.getBoundingClientRect().left < 0"
        f" || t.getBoundingClientRect().right > innerWidth).length"
    )
    assert clipped == 0


def test_outputs_of_failed_hooks_are_open_and_print_shows_all(page: Page, tmp_path: Path) -> None:
    path = written(tmp_path, "failed-rollback-failed")
    visible = (
        "[...document.querySelectorAll('details pre')].filter(pre => pre.getBoundingClientRect().height"
        " && pre.checkVisibility({contentVisibilityAuto: true})).length"
    )
    page.open(path)
    assert page.value(visible) == 2
    page.open(path, media="print")
    assert page.value(visible) == 5


def test_a_script_that_got_into_the_page_would_not_run(page: Page, tmp_path: Path) -> None:
    path = written(tmp_path, "passed")
    html = path.read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as outside:
        outside.setblocking(False)
        act = "document.title='owned'"
        image = f"http://127.0.0.1:{outside.getsockname()[1]}/x"
        evil = f"<script>{act}</script><img src='{image}' onerror=\"{act}\">"
        path.write_text(html.replace("</main>", f"{evil}</main>"), encoding="utf-8")
        page.open(path)
        assert page.value("document.title") == "production: passed, gh-4711-1-production"
        # The browser tells of the image that it was asked for, and that the policy refused it.
        assert page.requests == [path.as_uri(), image]
        assert any("Content Security Policy" in error for error in page.errors)
        with pytest.raises(BlockingIOError):
            outside.accept()
