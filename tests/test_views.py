from __future__ import annotations

import copy
import hashlib
import html
import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import hypothesis
import hypothesis.strategies as st
import jsonschema
import msgspec
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from opsgate.evidence.record import (
    Deploy,
    Evidence,
    Gate,
    Status,
    StatusReason,
    Takeover,
    TargetResult,
    Withheld,
    decode,
)
from opsgate.evidence.schema import json_schema
from opsgate.evidence.verdicts import disagreements
from opsgate.evidence.views import FORMATS, facts, words
from opsgate.evidence.views.headline import headline
from opsgate.evidence.views.text import LINES
from opsgate.verdict.judge import Failed, Passed, decide, fold
from opsgate.verdict.targets import Attempt
from tests import records

CORPUS = {path.stem: decode(path.read_bytes()) for path in sorted(records.DIRECTORY.glob("*.json"))}
each = pytest.mark.parametrize("name", CORPUS)
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}


def rendered(name: str, view: str) -> str:
    return FORMATS[view](CORPUS[name])


def hidden_in(text: str) -> list[str]:
    """Characters that do not show themselves, the line feed apart."""
    return [hex(ord(char)) for char in text if unicodedata.category(char) in INVISIBLE and char != "\n"]


# --- the corpus -----------------------------------------------------------------------------------


def test_records_and_golden_files_are_current() -> None:
    expected = records.files()
    stored = {path for where in (records.DIRECTORY, records.GOLDEN) for path in where.iterdir()}
    assert stored == set(expected), "run `python -m tests.records` and look at the difference"
    for path, text in expected.items():
        assert path.read_bytes().decode() == text, (
            f"{path}: run `python -m tests.records`, look at the difference"
        )


def test_corpus_has_every_status_and_reason() -> None:
    assert {one.status for one in CORPUS.values()} == set(get_args(Status))
    assert {one.status_reason for one in CORPUS.values()} == set(get_args(StatusReason))
    withheld = {one.stages.rollback.withheld for one in CORPUS.values()}
    assert withheld >= {*get_args(Withheld), None}


@pytest.mark.parametrize("name", sorted(CORPUS.keys() - {"hostile"}))
def test_record_is_one_that_a_run_could_have_left(name: str) -> None:
    """The documentation shows two of them; of the hostile one not even the fields agree."""
    assert list(disagreements(CORPUS[name])) == []
    gate = CORPUS[name].stages.gate
    assert bool(gate.status_reason) == bool(gate.policy) == isinstance(gate.targets, list)


@each
def test_record_is_valid_and_reads_back_as_it_is(name: str) -> None:
    stored = (records.DIRECTORY / f"{name}.json").read_text(encoding="utf-8")
    jsonschema.validate(json.loads(stored), json_schema())
    assert rendered(name, "json") == stored


@each
def test_record_was_judged_as_it_says(name: str) -> None:
    for gate in gates(CORPUS[name]):
        if gate.status == "interrupted" or not gate.targets or gate.policy is msgspec.UNSET:
            continue
        runs = [fold(target.attempts, gate.policy) for target in gate.targets if target.required]
        control = [fold(target.attempts, gate.policy) for target in gate.control or []]
        verdict = decide(runs, gate.policy, control=control)
        if gate.status == "passed":
            assert isinstance(verdict, Passed)
        else:
            assert verdict == Failed(gate.status_reason)  # type: ignore[arg-type]


def gates(record: Evidence) -> Iterator[Gate]:
    yield record.stages.gate
    if record.stages.rollback.recovery:
        yield record.stages.rollback.recovery


# --- what runs now --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("passed", "production runs v42: healthy for 3 s on 3 targets"),
        ("failed-recovered", "production runs v41, not v42: rolled back and recovered"),
        ("skipped-no-urls", "NOT VALIDATED: no URL is configured, nothing was probed"),
        (
            "failed-no-rollback-configured",
            "production runs v42, which is down (since 14:01:24 UTC): no rollback is configured",
        ),
        (
            "failed-rollback-failed",
            "production is down (since 14:01:24 UTC): the rollback failed: a person is needed now",
        ),
        ("failed-not-ready", "production still runs what it ran before: not ready, nothing was touched"),
        ("failed-taken-over", "production may run v42, which is not proven: another run took over"),
        (
            "failed-evidence-lost",
            "production runs v42: healthy for 3 s on 3 targets, but the evidence of it could not be written",
        ),
        ("failed-publish", "production still runs v41: publish failed"),
        ("failed-wrong-revision", "production runs v41, not v42: no rollback is configured"),
        ("failed-interrupted-gate", "production may run v42, which is not proven: interrupted"),
        ("rollback-recovered", "production runs v41, not v42: rolled back and recovered"),
    ],
)
def test_headline_says_what_runs(name: str, line: str) -> None:
    assert headline(CORPUS[name]) == line


@each
def test_headline_asks_for_a_person_exactly_when_the_exit_code_does(name: str) -> None:
    record = CORPUS[name]
    needed = record.exit_code in {3, 70} or (
        record.exit_code == 130 and bool(record.stages.rollback.attempted)
    )
    assert ("a person is needed now" in headline(record)) == needed


@each
def test_skipped_is_never_mistaken_for_passed(name: str) -> None:
    for view in ("text", "md", "html", "junit"):
        assert ("NOT VALIDATED" in rendered(name, view)) == (CORPUS[name].status == "skipped"), view


def test_headline_of_a_failed_gate_that_was_given_no_revision_claims_none() -> None:
    record = msgspec.structs.replace(CORPUS["failed-no-rollback-configured"], revision=None, trigger="gate")
    record.stages = msgspec.structs.replace(record.stages, deploy=Deploy())
    assert headline(record) == "production is down (since 14:01:24 UTC): no rollback is configured"


def test_a_runtime_is_down_only_when_nothing_of_it_serves() -> None:
    partly = decode((records.DIRECTORY / "failed-no-rollback-configured.json").read_bytes())
    target = (partly.stages.gate.targets or [])[1]
    target.healthy = True
    assert "v42, which is not healthy (since 14:01:24 UTC)" in headline(partly)


def test_headline_without_a_revision_speaks_of_the_new_release() -> None:
    record = msgspec.structs.replace(CORPUS["passed"], revision=None, environment="default")
    assert headline(record) == "the runtime runs the new release: healthy for 3 s on 3 targets"


def test_headline_of_a_gate_that_was_given_no_revision_claims_none() -> None:
    record = decode((records.DIRECTORY / "passed-gate-only.json").read_bytes())
    for target in record.stages.gate.targets or []:
        target.attempts = [msgspec.structs.replace(one, revision=None) for one in target.attempts]
    assert headline(record) == "production is healthy for 3 s on 3 targets"


@hypothesis.given(environment=st.text(max_size=300), revision=st.text(max_size=300))
def test_headline_is_one_harmless_line(environment: str, revision: str) -> None:
    for name in ("passed", "failed-recovered", "failed-not-recovered", "skipped-not-gated-deploy"):
        line = headline(msgspec.structs.replace(CORPUS[name], environment=environment, revision=revision))
        assert not hidden_in(line)
        assert len(line) < 400


# --- facts ----------------------------------------------------------------------------------------


def test_outage_lasts_from_the_first_failed_request_to_the_run_that_recovered() -> None:
    record = CORPUS["failed-recovered"]
    gate, recovery = record.stages.gate, record.stages.rollback.recovery
    assert gate.targets
    assert recovery
    failed = next(one for one in gate.targets[0].attempts if not one.ok)
    assert facts.down_since(record) == words.moment(gate.started_at, failed.at_ms)
    healthy = next(one for one in (recovery.targets or [])[0].attempts if one.ok)
    assert facts.up_again(record) == words.moment(recovery.started_at, healthy.at_ms)


def test_a_runtime_that_was_down_before_was_down_since_preflight() -> None:
    record = CORPUS["failed-down-before-recovered"]
    assert facts.down_since(record) == words.moment(record.stages.preflight.started_at)
    assert "already down before the rollout" in rendered("failed-down-before-recovered", "text")


def test_first_failed_request_comes_first() -> None:
    record = decode((records.DIRECTORY / "failed-rollback-failed.json").read_bytes())
    targets = record.stages.gate.targets or []
    late = [msgspec.structs.replace(one, at_ms=one.at_ms + 500) for one in targets[0].attempts]
    targets[0].attempts = late
    assert [one.name for one in facts.failures(record)] == ["frontend", "inside", "backend"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.35, "350 ms"),
        (4.2, "4.2 s"),
        (15, "15 s"),
        (59.7, "1 min"),
        (64, "1 min 4 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_failure_names_the_kind_once() -> None:
    def said(**fields: Any) -> str:
        return words.failure(Attempt(at_ms=0, elapsed_ms=1, ok=False, **fields))

    assert said(kind="status", status_code=503, detail="status 503") == "status 503"
    assert said(kind="status", status_code=503) == "status 503"
    assert said(kind="timeout", detail="no answer") == "timeout: no answer"
    assert said(kind="dns") == "dns: name not resolved"


# --- text -----------------------------------------------------------------------------------------


@each
def test_text_fits_a_screen_and_begins_with_what_runs(name: str) -> None:
    lines = rendered(name, "text").splitlines()
    assert len(lines) <= LINES
    assert lines[0] == headline(CORPUS[name])
    assert not hidden_in("\n".join(lines))


def test_text_of_many_failures_keeps_the_next_steps() -> None:
    record = decode((records.DIRECTORY / "failed-rollback-failed.json").read_bytes())
    gate = record.stages.gate
    gate.targets = [
        msgspec.structs.replace(target, name=f"t{i}") for i in range(50) for target in gate.targets or []
    ]
    lines = FORMATS["text"](record).splitlines()
    assert len(lines) <= LINES
    assert [f"  {step}" for step in record.next_steps] == lines[-len(record.next_steps) :]
    assert any("more, see the record" in line for line in lines)


def shown(record: Evidence, view: str) -> str:
    """The view as a person reads it, without the marks of its format."""
    return re.sub(r"\\([^\w\s])", r"\1", html.unescape(FORMATS[view](record)))


@pytest.mark.parametrize("view", ["text", "md", "html", "junit"])
def test_what_a_hook_left_behind_is_told_with_what_becomes_of_it(view: str) -> None:
    record = decode((records.DIRECTORY / "passed.json").read_bytes())
    (command,) = record.stages.deploy.commands or []
    assert "left processes behind" not in shown(record, view)
    command.survivors = [4711, 4712]
    assert "deploy hook left processes behind: 4711, 4712" in shown(record, view)
    assert "killed by that" not in shown(record, view)
    command.output_held = True
    advice = "; what still writes to its output is killed by that: start it with >FILE 2>&1 </dev/null"
    assert f"left processes behind: 4711, 4712{advice}" in shown(record, view)
    # Where processes cannot be looked at, there is no more to say of them.
    command.survivors = []
    assert f"left processes behind{advice}" in shown(record, view)


@pytest.mark.parametrize("view", ["text", "md", "html", "junit"])
def test_from_whom_a_rollback_took_over_is_told(view: str) -> None:
    record = decode((records.DIRECTORY / "rollback-recovered.json").read_bytes())
    taken = Takeover(run_id="other-run", pid=4711, host="runner-1", reached=True)
    record.stages.rollback.took_over = taken
    words = "took over from run other-run (process 4711 on runner-1)"
    assert words in shown(record, view)
    assert "not reached" not in shown(record, view)
    record.stages.rollback.took_over = msgspec.structs.replace(taken, reached=False)
    assert f"{words}, which was not reached: its hook may still be running" in shown(record, view)


@pytest.mark.parametrize("view", ["text", "md", "html"])
def test_what_to_do_ends_with_its_command_whole(view: str) -> None:
    record = decode((records.DIRECTORY / "failed-rollback-failed.json").read_bytes())
    pins = [f"registry.example.com/team/image-{i}:tag@sha256:{i:064}" for i in range(60)]
    lists = [f"{name}=\"$(printf '%s\\n' {' '.join(pins)})\"" for name in ("IMAGES", "LAST_GOOD_IMAGES")]
    by_hand = f"By hand: cd /srv/app && {' '.join(lists)} sh -c './back now'"
    last_good = [f"Last good image image-{i}: {pin}" for i, pin in enumerate(pins)]
    record.next_steps = ["Last good: v41, run r-1", *last_good, by_hand]
    text = html.unescape(FORMATS[view](record))
    assert "Last good: v41, run r-1\n" in text
    assert f"{by_hand}\n" in text
    assert ("more, see the record" in text) == (view != "html")


@pytest.mark.parametrize("view", ["text", "md", "html"])
def test_a_deploy_that_failed_says_why(view: str) -> None:
    record = decode((records.DIRECTORY / "failed-deploy-recovered.json").read_bytes())
    record.stages.deploy.detail = "the pins are not those of this run"
    assert "the pins are not those of this run" in FORMATS[view](record)


@pytest.mark.parametrize("view", ["text", "html", "junit"])
def test_a_container_that_runs_again_has_no_exit_code(view: str) -> None:
    assert re.search(r"worker: running, 1 restart\b(?!s)", rendered("failed-deploy-recovered", view))


@pytest.mark.parametrize("view", ["text", "md", "html"])
def test_a_target_that_failed_without_a_failed_attempt_is_named(view: str) -> None:
    record = decode((records.DIRECTORY / "failed-no-rollback-flag.json").read_bytes())
    gate = record.stages.gate
    late = TargetResult(
        name="", url="http://h/", required=True, healthy=False, first_healthy_ms=None, flaps=0, attempts=[]
    )
    gate.targets = [
        *(gate.targets or []),
        *(msgspec.structs.replace(late, name=f"late-{i}", required=i != 5) for i in range(6)),
    ]
    told = "5 targets without a failed attempt, not proven healthy yet: late-0, late-1, late-2 and 2 more"
    assert told in FORMATS[view](record).replace("`", "")


# --- hostile content ------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["text", "md", "junit", "html"])
def test_hostile_text_is_shown_escaped(view: str) -> None:
    text = rendered("hostile", view)
    assert not hidden_in(text)
    assert not re.search(r"^\s*::", text, re.MULTILINE)
    assert "##[" not in text
    assert "\\x1b" in text
    assert "\\u202e" in text


def bloated() -> Evidence:
    """Bodies of 10 MB wherever text of others can be, and 300 targets of 480 attempts."""
    record = decode((records.DIRECTORY / "hostile.json").read_bytes())
    huge = "<b>\x1b|`@" * 1_500_000
    record.revision, record.next_steps, record.failed_urls = huge, [huge] * 50, [huge]
    gate = record.stages.gate
    target = (gate.targets or [])[0]
    tries = [
        msgspec.structs.replace(target.attempts[0], at_ms=i * 250, detail=huge, ok=i % 7 == 0)
        for i in range(480)
    ]
    gate.targets = [msgspec.structs.replace(target, name=huge, url=huge, attempts=tries)] * 300
    for command in record.stages.rollback.commands or []:
        command.output_tail = command.command = command.explanation = huge
    record.stages.publish.detail = record.stages.publish.tag = huge
    return record


@pytest.mark.parametrize(
    ("view", "limit"), [("text", 600_000), ("md", 750_000), ("junit", 3_000_000), ("html", 4_000_000)]
)
def test_size_is_bounded_whatever_others_send(view: str, limit: int) -> None:
    record = bloated()
    begun = time.process_time()
    text = FORMATS[view](record)
    assert len(text.encode()) < limit
    assert time.process_time() - begun < 5
    assert not hidden_in(text[:20_000])


def tokens(markdown: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(markdown):
        yield token
        yield from token.children or []


SHORT = [
    "@octocat",
    "<b>x</b>",
    "![x](//h/x)",
    "[x](//h)",
    "`x`",
    "**x**",
    "a|b",
    "<!--",
    "https://h/",
    "www.h.example",
]


@pytest.mark.parametrize("text", SHORT)
def test_markdown_of_a_short_hostile_name_is_inert(text: str) -> None:
    record = msgspec.structs.replace(CORPUS["failed-recovered"], environment=text, revision=text)
    markdown = FORMATS["md"](record)
    assert_inert(markdown)
    shown = "".join(token.content for token in tokens(markdown.partition("\n")[0]) if token.type == "text")
    assert shown == headline(record), "escaped, and still to be read"


@each
def test_markdown_has_no_markup_but_its_own(name: str) -> None:
    assert_inert(rendered(name, "md"))


def assert_inert(markdown: str) -> None:
    ours = re.compile(r"<details><summary>[^<>]*</summary>\s*|</details>\s*|<span>|</span>")
    for token in tokens(markdown):
        assert token.type not in {"link_open", "image"}
        if token.type in {"html_block", "html_inline"}:
            assert ours.fullmatch(token.content), token.content
        if token.type == "text":
            assert not re.search(r"@\w", token.content), token.content


def test_markdown_tables_keep_their_columns() -> None:
    rows = [line for line in rendered("hostile", "md").splitlines() if line.startswith("| ")]
    assert len(rows) == 6
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_markdown_shows_hostile_output_whole_in_one_block() -> None:
    fences = [token for token in tokens(rendered("hostile", "md")) if token.type == "fence"]
    output = [token.content for token in fences if "</details>" in token.content]
    assert output
    assert all(text.count("</details>") == 5 for text in output)


def test_lost_evidence_stands_in_the_first_line_of_what_was_not_validated_too() -> None:
    record = msgspec.structs.replace(CORPUS["rollback-unverified"], exit_code=74)
    assert headline(record).endswith("not probed afterwards; the evidence of it could not be written")


# --- junit ----------------------------------------------------------------------------------------


@each
def test_junit_is_green_only_for_passed(name: str) -> None:
    cases = list(ET.fromstring(rendered(name, "junit")).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert cases
    assert bool(bad) == (CORPUS[name].status == "failed")
    if CORPUS[name].status == "skipped":
        assert skipped == cases


def test_junit_has_a_case_for_each_target() -> None:
    root = ET.fromstring(rendered("failed-no-rollback-flag", "junit"))
    assert root.attrib["tests"] == "4"
    assert root.attrib["failures"] == "1"
    kinds = {case.attrib["name"]: [child.tag for child in case] for case in root.iter("testcase")}
    assert kinds == {"backend": ["failure"], "frontend": [], "inside": [], "metrics": ["skipped"]}
    failed = root.find(".//failure")
    assert failed is not None
    assert failed.attrib == {"message": "refused: connection refused by 192.0.2.10", "type": "refused"}


def test_junit_says_what_was_down_before() -> None:
    root = ET.fromstring(rendered("failed-down-before-recovered", "junit"))
    messages = [failed.attrib["message"] for failed in root.iter("failure")]
    assert messages
    assert all(message.endswith("; it was already down before the rollout") for message in messages)


# --- in-toto --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "result"), [("passed", "PASSED"), ("failed-recovered", "FAILED")])
def test_statement_names_the_images_by_digest(name: str, result: str) -> None:
    record = CORPUS[name]
    statement = json.loads(rendered(name, "intoto"))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["predicate"]["result"] == result
    assert statement["subject"] == [
        {
            "name": image.reference.rpartition(":")[0],
            "digest": {"sha256": image.digest.removeprefix("sha256:")},
        }
        for image in record.images
    ]
    assert statement["predicate"]["warnedTests"] == ["metrics"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("skipped-no-urls-released", "no gate has come to a verdict"),
        ("failed-observer-offline", "the runtime could not be seen"),
        ("failed-interrupted-gate", "no gate has come to a verdict"),
        ("failed-deploy-recovered", "no gate has come to a verdict"),
    ],
)
def test_a_statement_where_nothing_was_validated_is_no_pass(name: str, why: str) -> None:
    predicate = json.loads(rendered(name, "intoto"))["predicate"]
    (warned,) = predicate["warnedTests"]
    assert warned.startswith(f"NOT VALIDATED: {why}")
    assert (predicate["result"], predicate["passedTests"], predicate["failedTests"]) == ("WARNED", [], [])


def _roll_back(record: Evidence) -> None:
    record.status_reason, record.trigger = "recovered", "rollback"
    record.stages.rollback.attempted = True


def _cut_off_deploy(record: Evidence) -> None:
    record.stages.deploy.status = "interrupted"


def _lose_evidence(record: Evidence) -> None:
    record.status, record.status_reason, record.exit_code = "failed", "interrupted", 74


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_roll_back, "the release was rolled back"),
        (_cut_off_deploy, "the release had not come out whole"),
        (_lose_evidence, "the run did not end as passed"),
    ],
)
def test_no_statement_says_that_images_passed_which_do_not_run(
    spoil: Callable[[Evidence], None], why: str
) -> None:
    record = copy.deepcopy(CORPUS["passed"])
    spoil(record)
    predicate = json.loads(FORMATS["intoto"](record))["predicate"]
    assert predicate["warnedTests"] == [f"NOT VALIDATED: the gate passed, but {why}"]
    assert (predicate["result"], predicate["passedTests"]) == ("WARNED", [])


def test_a_statement_without_images_is_about_the_record() -> None:
    statement = json.loads(rendered("passed-gate-only", "intoto"))
    digest = hashlib.sha256(rendered("passed-gate-only", "json").encode()).hexdigest()
    name = f"{CORPUS['passed-gate-only'].run_id}/evidence.json"
    assert statement["subject"] == [{"name": name, "digest": {"sha256": digest}}]
    assert statement["predicate"]["result"] == "PASSED"


# --- html, without a browser ----------------------------------------------------------------------


class Outline(HTMLParser):
    """Headings, ids of elements left open, and every attribute that could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.add(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.loads += [
            value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "style"}
        ]
        self.loads += [key for key, _ in attrs if key.startswith("on")]
        if tag == "svg" and not (named.get("aria-label") or named.get("aria-hidden")):
            self.unnamed.append(str(attrs))


@each
def test_page_is_self_contained_and_in_order(name: str) -> None:
    outline = Outline()
    outline.feed(rendered(name, "html"))
    assert not outline.tags & {"script", "iframe", "img", "object", "embed", "form", "base"}
    run_url = CORPUS[name].ci.run_url
    assert set(outline.loads) - {"data:,"} == ({run_url} if (run_url or "").startswith("https:") else set())
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    steps = zip(outline.headings, outline.headings[1:], strict=False)
    assert all(after - before <= 1 for before, after in steps), outline.headings
    assert not outline.unnamed


def luminance(colour: str) -> float:
    full = colour if len(colour) == 7 else "#" + "".join(digit * 2 for digit in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("text", "ground", "least"),
    [
        ("fg", "bg", 7), ("fg", "card", 7), ("fg", "goodbg", 7), ("fg", "badbg", 7), ("quiet", "bg", 4.5),
        ("quiet", "card", 4.5), ("good", "goodbg", 4.5), ("bad", "badbg", 4.5), ("idle", "idlebg", 4.5),
        ("bad", "card", 4.5), ("verdict", "card", 4.5), ("link", "bg", 4.5), ("okbar", "card", 3),
        ("badbar", "card", 3),
    ],
)  # fmt: skip
def test_colours_have_contrast_in_light_dark_and_print(text: str, ground: str, least: float) -> None:
    style = Path(facts.__file__).with_name("report.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--(\w+):(#\w+)", block)) for block in re.findall(r":root\{([^}]*)\}", style)]
    assert len(themes) == 3
    for theme in themes:
        light, dark = sorted((luminance(theme[text]), luminance(theme[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, theme


def test_unknown_formats_are_not_there() -> None:
    assert list(FORMATS) == ["text", "json", "md", "html", "junit", "env", "intoto"]


@pytest.mark.parametrize("view", ["text", "md", "html"])
def test_a_hook_that_left_something_unusable_is_shown_as_failed(view: str) -> None:
    record = decode((records.DIRECTORY / "failed-deploy-recovered.json").read_bytes())
    (command,) = record.stages.deploy.commands or []
    command.exit_code, command.explanation = 0, "the hook left an unusable revision"
    assert command.explanation in FORMATS[view](record)
    command.explanation = ""
    assert "deploy hook" not in FORMATS[view](record)
