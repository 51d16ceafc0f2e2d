"""What GitHub Actions is told, read back as its runner reads it."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from opsgate import github
from opsgate.evidence.record import Evidence, decode
from opsgate.redact import Redactor
from tests.runs import attempts, deployed, gated, probed, record

DATA = Path(__file__).parent / "data/records"
MIB = 1024 * 1024


class Runner:
    """The runner's side: its files, its environment, and the step's standard error."""

    def __init__(self, directory: Path) -> None:
        self.output, self.summary = directory / "output", directory / "summary"
        self.stream = io.StringIO()
        self.environ = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }

    def finish(self, evidence: Evidence) -> None:
        github.finish(evidence, self.environ, self.stream, evidence=Path("/runs/r1/evidence.json"))

    def outputs(self) -> dict[str, str]:
        """As the runner parses its file: `name<<delimiter`, lines, delimiter; anything else is an error."""
        found: dict[str, str] = {}
        lines = iter(self.output.read_text(encoding="utf-8").split("\n"))
        for line in lines:
            if not line:
                continue
            name, arrows, delimiter = line.partition("<<")
            assert arrows, f"not a heredoc: {line!r}"
            value = []
            for inner in lines:
                if inner == delimiter:
                    break
                value.append(inner)
            found[name] = "\n".join(value)
        return found

    def commands(self, name: str) -> list[tuple[str, str]]:
        """Title and text of each workflow command of that name, unescaped."""
        lines = self.stream.getvalue().splitlines()
        matches = [re.fullmatch(rf"::{name}(?: title=([^,:]*))?::(.*)", line) for line in lines]
        return [(unescaped(match[1] or ""), unescaped(match[2])) for match in matches if match]


def unescaped(text: str) -> str:
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def kept(name: str) -> Evidence:
    return decode((DATA / f"{name}.json").read_bytes())


def failed(*patterns: str, **fields: Any) -> Evidence:
    return gated(deployed(record("r1", **fields)), probed(*patterns))


def test_outputs_of_the_contract(runner: Runner) -> None:
    runner.output.write_text("earlier=1\n", encoding="utf-8")
    runner.finish(failed("---", revision="v42"))
    assert runner.output.read_text(encoding="utf-8").startswith("earlier=1\n")
    runner.output.write_text(
        runner.output.read_text(encoding="utf-8")[len("earlier=1\n") :], encoding="utf-8"
    )
    assert runner.outputs() == {
        "status": "failed",
        "status_reason": "probe_failures",
        "revision": "v42",
        "evidence": "/runs/r1/evidence.json",
    }


@pytest.mark.parametrize("before", ["earlier=1", "earlier=1\n", "", "é"])
def test_a_line_that_another_program_left_open_is_ended(runner: Runner, before: str) -> None:
    for path in (runner.output, runner.summary):
        path.write_text(before, encoding="utf-8")
    runner.finish(failed("---"))
    ended = f"{before}\n" if before and not before.endswith("\n") else before
    assert runner.output.read_text(encoding="utf-8").startswith(f"{ended}status<<")
    assert runner.summary.read_text(encoding="utf-8").startswith(f"{ended}## ")


def test_an_unknown_revision_is_an_empty_output(runner: Runner) -> None:
    runner.finish(failed("---"))
    assert runner.outputs()["revision"] == ""


def test_a_revision_cannot_add_outputs(runner: Runner) -> None:
    evil = "v1\nstatus=passed\nEOF\nstatus<<EOF\npassed\nEOF\n::set-output name=status::passed"
    runner.finish(failed("---", revision=evil))
    assert runner.outputs() == {**runner.outputs(), "status": "failed", "revision": evil}
    assert set(runner.outputs()) == {"status", "status_reason", "revision", "evidence"}


def test_delimiters_differ_from_output_to_output_and_run_to_run(runner: Runner) -> None:
    runner.finish(failed("---"))
    runner.finish(failed("---"))
    delimiters = re.findall(r"<<(\S+)", runner.output.read_text(encoding="utf-8"))
    assert len(set(delimiters)) == len(delimiters) == 8


def test_the_summary_is_appended_as_markdown(runner: Runner) -> None:
    runner.summary.write_text("before\n", encoding="utf-8")
    runner.finish(kept("skipped-no-urls"))
    text = runner.summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## ")
    assert "NOT VALIDATED" in text


@pytest.mark.parametrize(
    ("there", "shown"),
    [(0, "whole"), (MIB - 1000, "short"), (MIB - 10, "none"), (MIB, "none"), (MIB + 5000, "none")],
)
def test_the_summary_never_grows_past_its_limit(runner: Runner, there: int, shown: str) -> None:
    runner.summary.write_bytes(b"x" * there)
    runner.finish(kept("failed-recovered"))
    assert runner.summary.stat().st_size <= max(MIB, there)
    text = runner.summary.read_text(encoding="utf-8").lstrip("x\n")
    assert text.startswith("## ") == (shown != "none")
    assert ("no room" in text) == (shown == "short")
    assert ("### Why" in text) == (shown == "whole")


def test_one_error_for_each_failed_target(runner: Runner) -> None:
    runner.finish(failed("---", "+++++", "-?-"))
    errors = runner.commands("error")
    assert [title for title, _ in errors] == ["opsgate: production: probe_failures"] * 2
    assert errors[0][1] == "http://127.0.0.1:8000/healthz/0: status 503"
    assert errors[1][1].startswith("http://127.0.0.1:8000/healthz/2: status 503")
    assert len(runner.commands("notice")) == 1


def test_a_step_shows_ten_errors_and_says_how_many_more(runner: Runner) -> None:
    runner.finish(failed(*["---"] * 13))
    errors = runner.commands("error")
    assert len(errors) == 10
    assert errors[-1][1] == "and 4 more targets: see the job summary"


def test_ten_failed_targets_are_all_shown(runner: Runner) -> None:
    runner.finish(failed(*["---"] * 10))
    assert [text.rpartition("/")[2] for _, text in runner.commands("error")] == [
        f"{index}: status 503" for index in range(10)
    ]


def test_a_target_that_is_not_required_is_no_error(runner: Runner) -> None:
    evidence = failed("---", "---")
    assert evidence.stages.gate.targets
    evidence.stages.gate.targets[0].required = False
    runner.finish(evidence)
    assert len(runner.commands("error")) == 1


@pytest.mark.parametrize(
    "name",
    ["failed-publish", "failed-deploy-no-rollback", "failed-internal-error", "failed-interrupted-gate"],
)
def test_a_failure_without_a_failed_target_is_one_error(runner: Runner, name: str) -> None:
    runner.finish(kept(name))
    assert len(runner.commands("error")) == 1


def test_a_manual_rollback_that_did_not_recover_names_its_targets(runner: Runner) -> None:
    runner.finish(kept("rollback-not-recovered"))
    assert runner.commands("error")
    assert all("not_recovered" in title for title, _ in runner.commands("error"))


@pytest.mark.parametrize("name", ["skipped-no-urls", "skipped-no-urls-released", "rollback-unverified"])
def test_not_validated_is_a_warning(runner: Runner, name: str) -> None:
    runner.finish(kept(name))
    (warning,) = runner.commands("warning")
    assert "NOT VALIDATED" in warning[0]
    assert not runner.commands("error")


def test_a_publish_that_a_gate_follows_is_no_warning(runner: Runner) -> None:
    runner.finish(kept("skipped-not-gated-publish"))
    assert runner.stream.getvalue() == ""
    (line,) = runner.summary.read_text(encoding="utf-8").split("\n\n")[:-1]
    assert line.startswith("NOT VALIDATED yet: ")


def test_passed_says_nothing_in_the_log(runner: Runner) -> None:
    runner.finish(kept("passed"))
    assert runner.stream.getvalue() == ""


def test_an_annotation_says_what_was_down_before(runner: Runner) -> None:
    runner.finish(kept("failed-down-before-recovered"))
    errors = [text for _, text in runner.commands("error")]
    assert errors
    assert all(text.endswith("; it was already down before the rollout") for text in errors)


def test_what_others_wrote_cannot_become_a_command(runner: Runner) -> None:
    evidence = failed("---", environment="eu:west,1")
    (target,) = evidence.stages.gate.targets or []
    target.name = "evil\n::error::injected\r::set-env name=X::1 %0A::notice::x"
    target.url = None
    target.attempts = [*attempts("-")]
    runner.finish(evidence)
    lines = runner.stream.getvalue().split("\n")
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::notice", ""]
    assert "\r" not in runner.stream.getvalue()
    (error,) = runner.commands("error")
    assert error[0] == "opsgate: eu:west,1: probe_failures"
    assert "%0A::notice::x" in error[1]


def test_hostile_record_stays_inside_its_lines(runner: Runner) -> None:
    runner.finish(kept("hostile"))
    for line in runner.stream.getvalue().splitlines():
        assert re.match(r"::(error|warning|notice) title=[^:,]*::", line)
    runner.outputs()


def test_every_secret_is_masked_before_anything_else(runner: Runner) -> None:
    redactor = Redactor(["s3cret/100%", "first-line\nsecond-line"])
    github.begin(redactor, runner.environ, runner.stream)
    masked = [text for _, text in runner.commands("add-mask")]
    assert {"s3cret/100%", "s3cret%2F100%25", "first-line", "second-line"} <= set(masked)
    assert len(masked) == len(runner.stream.getvalue().splitlines())


def test_a_refusal_is_one_error(runner: Runner) -> None:
    github.refused("opsgate.toml: soak: no\n  write 15s", runner.environ, runner.stream)
    assert runner.commands("error") == [("opsgate", "opsgate.toml: soak: no\n  write 15s")]
    assert len(runner.stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("value", [None, "", "false", "1"])
def test_nothing_of_it_elsewhere(runner: Runner, value: str | None) -> None:
    environ = {key: text for key, text in runner.environ.items() if key != "GITHUB_ACTIONS"}
    if value is not None:
        environ["GITHUB_ACTIONS"] = value
    reporter = object()
    github.begin(Redactor(["s3cret-value"]), environ, runner.stream)
    github.finish(failed("---"), environ, runner.stream, evidence=Path("x"))
    github.refused("no", environ, runner.stream)
    assert github.grouped(reporter, environ, runner.stream) is reporter
    assert github.facts(environ).provider is None
    assert runner.stream.getvalue() == ""
    assert not runner.output.exists()
    assert not runner.summary.exists()


def test_files_that_cannot_be_written_are_said_and_survived(runner: Runner, tmp_path: Path) -> None:
    runner.environ["GITHUB_OUTPUT"] = str(tmp_path)
    runner.environ["GITHUB_STEP_SUMMARY"] = str(tmp_path / "missing/summary")
    runner.finish(failed("---"))
    assert [text.partition(":")[0] for _, text in runner.commands("warning")] == [
        "GITHUB_OUTPUT cannot be written",
        "GITHUB_STEP_SUMMARY cannot be written",
    ]
    assert runner.commands("error")


def test_files_that_are_not_named_are_left_out(runner: Runner) -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": ""}
    github.finish(kept("passed"), environ, runner.stream, evidence=Path("x"))
    assert runner.stream.getvalue() == ""


def test_a_stream_that_cannot_show_it_is_survived(runner: Runner) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    github.begin(Redactor(["gehë́im-wört"]), runner.environ, narrow)
    closed = io.StringIO()
    closed.close()
    github.begin(Redactor(["s3cret-value"]), runner.environ, closed)


def test_output_of_publish_and_deploy_is_folded(runner: Runner) -> None:
    class Lines:
        def stage(self, name: str) -> None:
            runner.stream.write(f"{name} begins\n")

        def stage_done(self, name: str, status: str, seconds: float) -> None:
            runner.stream.write(f"{name} {status}\n")

        def hook_line(self, label: str, line: str) -> None:
            runner.stream.write(f"{label} | {line}\n")

    reporter = github.grouped(Lines(), runner.environ, runner.stream)
    for name in ("publish", "gate"):
        reporter.stage(name)
        reporter.hook_line(name, "built")
        reporter.stage_done(name, "passed", 1.0)
    assert runner.stream.getvalue().splitlines() == [
        "::group::opsgate publish",
        "publish begins",
        "publish | built",
        "::endgroup::",
        "publish passed",
        "gate begins",
        "gate | built",
        "gate passed",
    ]


def test_facts_of_a_workflow_run() -> None:
    ci = github.facts(
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": "octo/app",
            "GITHUB_RUN_ID": "7",
            "GITHUB_WORKFLOW": "publish",
            "GITHUB_SHA": "a" * 40,
            "GITHUB_ACTOR": "octocat",
        }
    )
    assert (ci.provider, ci.repository, ci.workflow) == ("github", "octo/app", "publish")
    assert ci.run_url == "https://github.example/octo/app/actions/runs/7"
    assert (ci.commit, ci.actor) == ("a" * 40, "octocat")
