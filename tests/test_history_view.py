"""The history as text and as a page: what it says, and how it looks in a real browser."""

from __future__ import annotations

import random
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from opsgate.errors import EvidenceError
from opsgate.evidence import history
from opsgate.evidence.views import history as text_view
from opsgate.evidence.views import history_html, weeks
from tests import runs
from tests.browser import Page
from tests.test_history import failed, ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opsgate.evidence.ledger import Line

DAY = history.DAY
EVIL = "<script>document.title='owned'</script>\u202e\x1b[31m"
LOOKS = [
    (1000, False, "screen"),
    (1000, True, "screen"),
    (390, False, "screen"),
    (390, True, "screen"),
    (800, False, "print"),
]


def on_day(day: float, **fields: Any) -> dict[str, Any]:
    return {"started_at": runs.at(day * DAY), "finished_at": runs.at(day * DAY + 90), **fields}


def failed_on(day: float, **fields: Any) -> dict[str, Any]:
    return failed(day * DAY + 60, **(on_day(day) | fields))


def skipped_on(day: float) -> dict[str, Any]:
    return on_day(day, status="skipped", status_reason="no_urls_configured")


def mixed(count: int) -> list[Line]:
    """A run every second day, one in four of which went wrong, one way after the other."""
    drafts = []
    for number in range(count):
        day = number * 2
        ways = (
            failed_on(day, recovered_at=runs.at(day * DAY + 80), rollback="auto"),
            skipped_on(day),
            failed_on(day, rollback="auto", revision=None),
            on_day(day, environment="staging"),
        )
        drafts.append(ways[number // 4 % 4] if number % 4 == 3 else on_day(day))
    return ledger(*drafts)


def html(lines: Sequence[Line], now: float | None = None, **asked: Any) -> str:
    now = runs.EPOCH + 3000 * DAY if now is None else now
    figures = history.figures(lines, now=now)
    at = history_html.Asked(now=runs.at(now - runs.EPOCH), **asked)
    return history_html.render(lines, figures, at, head="ab" * 32)


def visible(document: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", document, flags=re.DOTALL))


# --- text ---------------------------------------------------------------------------------------------


def test_text_lists_runs_and_figures() -> None:
    lines = ledger(
        on_day(0),
        failed_on(1, recovered_at=runs.at(DAY + 120), rollback="auto"),
        skipped_on(2),
    )
    told = text_view.render(lines, history.figures(lines, now=runs.EPOCH + 14 * DAY)).splitlines()
    assert [re.split(r"  +", line)[4:6] for line in told[1:4]] == [
        ["passed (all_probes_healthy)", "-"],
        ["failed (probe_failures)", "auto, recovered"],
        ["skipped (NOT VALIDATED, no_urls_configured)", "-"],
    ]
    assert told[4:] == [
        "",
        "deployments            1.5 a week (3 in 14 days)",
        "change failure rate    33% (1 of 3)",
        "time to recovery       1 min (median of 1)",
        "false alarms withheld  0",
    ]


def test_text_of_nothing_says_so() -> None:
    told = text_view.render([], history.figures([], now=runs.EPOCH)).splitlines()
    assert told[:3] == ["no run matches", "", "deployments            0.0 a week (0 in 1 day)"]


def test_text_shows_a_hostile_ledger_harmless() -> None:
    lines = ledger(on_day(0, run_id=EVIL, environment=EVIL, revision=EVIL))
    assert "\x1b" not in text_view.render(lines, history.figures(lines, now=runs.EPOCH))


# --- the picture --------------------------------------------------------------------------------------


def test_nothing_has_no_picture() -> None:
    assert weeks.picture([]) is None


@pytest.mark.parametrize(
    ("days", "span", "columns"),
    [(0, "a day", 1), (44, "a day", 45), (45, "a week", 7), (700, "a week", 101), (3000, "4 weeks", 108)],
)
def test_a_column_is_as_long_as_the_history_needs(days: int, span: str, columns: int) -> None:
    drawn = weeks.picture(ledger(on_day(0), on_day(days)))
    assert drawn is not None
    assert (drawn.span, len(drawn.columns)) == (span, columns)
    assert len(drawn.columns) <= weeks.COLUMNS


def test_weeks_begin_on_mondays() -> None:
    drawn = weeks.picture(ledger(on_day(0), on_day(100)))
    assert drawn is not None
    assert [column.begin for column in drawn.columns[:2]] == ["2026-05-25", "2026-06-01"]


def test_what_failed_hangs_and_the_rest_stands() -> None:
    lines = ledger(
        on_day(0),
        on_day(0.01),
        skipped_on(0.02),
        failed_on(0.03, recovered_at=runs.at(9)),
        failed_on(0.04),
        on_day(1),
    )
    drawn = weeks.picture(lines)
    assert drawn is not None
    assert (drawn.above, drawn.below) == (3, 2)
    first, second = drawn.columns
    assert first.counts == {"passed": 2, "skipped": 1, "recovered": 1, "failed": 1}
    assert first.text == (
        "2026-05-28: 5 runs, 2 passed, 1 not validated, 1 failed, rolled back and recovered, "
        "1 failed, not seen to recover in that run"
    )
    one = weeks.HEIGHT / 5
    assert [(bar.ending, bar.y - drawn.axis, bar.height) for bar in first.bars] == [
        ("passed", -2 * one, 2 * one),
        ("skipped", -3 * one, one),
        ("recovered", 0, one),
        ("failed", one, one),
    ]
    assert [bar.ending for bar in second.bars] == ["passed"]
    assert drawn.bottom == drawn.axis + 2 * one


def test_a_single_column_is_no_wall() -> None:
    drawn = weeks.picture(ledger(on_day(0)))
    assert drawn is not None
    assert (drawn.columns[0].x, drawn.columns[0].width) == ("0.571%", "6.000%")


def test_days_without_runs_are_gaps() -> None:
    drawn = weeks.picture(ledger(on_day(0), on_day(3)))
    assert drawn is not None
    assert [len(column.bars) for column in drawn.columns] == [1, 0, 0, 1]


# --- the page -----------------------------------------------------------------------------------------


def test_page_tells_runs_figures_and_how_each_run_ended() -> None:
    lines = ledger(
        on_day(0),
        failed_on(1, recovered_at=runs.at(DAY + 120), rollback="auto"),
        skipped_on(2),
        on_day(3, environment="staging"),
    )
    told = visible(html(lines, now=runs.EPOCH + 14 * DAY))
    for words in (
        "history · 2026-05-28 to 2026-05-31",
        "production, staging: 4 runs, 2 passed, 1 failed, 1 not validated",
        "How often 2.0 a week (4 in 14 days)",
        "Change failure rate 25% (1 of 4)",
        "From failure to recovery 1 min (median of 1)",
        "1 failed, rolled back and recovered",
        "A column is a day.",
        "failed probe_failures auto, recovered 1 min 30 s",
        "skipped NOT VALIDATED, no_urls_configured",
        "head of the ledger " + "ab" * 32,
    ):
        assert words in told, words
    assert told.index("r3") < told.index("r0")


def test_page_says_what_was_asked_for() -> None:
    lines = ledger(failed_on(0))
    told = visible(html(lines, environment="production", status="failed", since=runs.at(0)))
    assert "production: 1 run, 1 failed" in told
    assert (
        "Only runs of production, since 2026-05-28 20:26:40 UTC, that failed. "
        "The figures count runs of every status."
    ) in told
    assert "all environments: no run matches" in visible(html([]))
    assert "staging: no run matches" in visible(html([], environment="staging"))


def test_of_a_long_history_the_newest_runs_have_rows() -> None:
    lines = ledger(*[on_day(number / 10) for number in range(history_html.ROWS + 20)])
    document = html(lines)
    assert document.count('<td class="when">') == history_html.ROWS
    assert "20 older ones have no row here" in visible(document)
    assert ">r519<" in document
    assert ">r19<" not in document


def test_ten_thousand_runs_are_drawn_in_sensible_time() -> None:
    order = random.Random(1)
    lines = ledger(
        *[failed_on(day / 14) if order.random() < 0.1 else on_day(day / 14) for day in range(10_000)]
    )
    began = time.process_time()
    document = html(lines)
    assert time.process_time() - began < 2
    assert len(document) < 500_000


def test_a_time_that_is_none_is_told_in_words() -> None:
    lines = ledger(on_day(0, finished_at="yesterday"))
    with pytest.raises(EvidenceError, match="'yesterday' where a time should be"):
        html(lines)


# --- in a browser -------------------------------------------------------------------------------------


def written(path: Path, lines: Sequence[Line]) -> Path:
    path.write_text(html(lines), encoding="utf-8")
    return path


@pytest.mark.xdist_group("browser")
def test_page_renders_without_errors_or_requests(page: Page, tmp_path: Path) -> None:
    hostile = ledger(
        *[on_day(day, run_id=f"{EVIL}{day}", environment=EVIL, revision=EVIL * 9) for day in range(9)]
    )
    for name, lines in (("many", mixed(400)), ("few", mixed(5)), ("none", []), ("hostile", hostile)):
        path = written(tmp_path / f"{name}.html", lines)
        for width, dark, media in LOOKS:
            page.open(path, width=width, dark=dark, media=media)
            assert page.requests == [path.as_uri()]
            assert page.errors == []
            assert page.value("document.styleSheets[0].cssRules.length") > 60
            page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert page.value("document.documentElement.scrollWidth") <= width, (name, width)
            assert page.value("document.scripts.length + document.images.length") == 0
            assert "owned" not in page.value("document.title").partition("<")[0]


def places(page: Page, kind: str) -> list[tuple[str, float, float, float]]:
    """Class, top, left and right of each `kind` of thing in the picture, as it is seen."""
    measured: list[tuple[str, float, float, float]] = page.value(
        f"[...document.querySelectorAll('.weeks {kind}')].map(one => [one, one.getBoundingClientRect()])"
        ".map(([one, at]) => [one.className.baseVal, at.top, at.left, at.right])"
    )
    return measured


@pytest.mark.xdist_group("browser")
def test_every_bar_is_seen_in_its_own_place_and_every_colour_has_words(page: Page, tmp_path: Path) -> None:
    path = written(tmp_path / "history.html", mixed(60))
    for width in (1000, 390):
        page.open(path, width=width)
        bars = places(page, "rect")
        assert {name for name, *_ in bars} == set(weeks.ENDINGS)
        assert all(left >= 0 and right <= width and right > left + 1 for _, _, left, right in bars)
        labels = sorted(place[1:] for place in places(page, "text"))
        assert len(labels) >= 1 + 3
        for (top, _, right), (other_top, left, _) in pairwise(labels):
            assert top != other_top or right < left
        edge = page.value("document.querySelector('.weeks').getBoundingClientRect().right")
        assert max(right for *_, right in labels) <= edge
    legend = page.value("[...document.querySelectorAll('.legend li')].map(item => item.innerText.trim())")
    assert [re.sub(r"^\d+ ", "", words) for words in legend] == list(weeks.ENDINGS.values())
    colours = page.value(
        "[...document.querySelectorAll('.legend .key')].map(key => getComputedStyle(key).backgroundColor)"
    )
    assert len(set(colours)) == len(weeks.ENDINGS)


@pytest.mark.xdist_group("browser")
def test_on_a_phone_a_run_is_read_from_top_to_bottom(page: Page, tmp_path: Path) -> None:
    path = written(tmp_path / "history.html", mixed(20))
    page.open(path, width=390)
    assert page.value("document.querySelector('.runs thead').getBoundingClientRect().width") <= 1
    row = page.value("document.querySelector('.runs tbody tr').innerText")
    assert "2026-07-05" in row
    assert page.value("getComputedStyle(document.querySelector('.runs tbody tr')).display") == "flex"
