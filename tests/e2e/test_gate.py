"""`opsgate gate`: what it decides, and that it says so everywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

import pytest

from tests.e2e.rig import ROLLBACK, Runtime, Site
from tests.ports import free_port

NOT_VALIDATED = "NOT VALIDATED"


def test_healthy_passes(site: Site) -> None:
    result = site.run("gate")
    assert result.headline == "prod is healthy for 200 ms on 1 target"
    record = site.record()
    assert (record["status"], record["status_reason"], record["exit_code"]) == (
        "passed",
        "all_probes_healthy",
        0,
    )
    gate = record["stages"]["gate"]
    assert gate["policy"] == {
        "deadline": 2.0, "soak": 0.2, "interval": 0.05, "attempt_timeout": 1.0, "successes": 2, "flaps": 2,
    }  # fmt: skip
    (target,) = gate["targets"]
    assert target["name"] == "api"
    assert (target["required"], target["healthy"], target["flaps"]) == (True, True, 0)
    assert set(target["attempts"][0]) == {
        "at_ms", "elapsed_ms", "ok", "kind", "status_code", "detail", "remote_ip", "bytes", "tls_not_after",
        "revision",
    }  # fmt: skip
    assert record["attempt_count"] == len(target["attempts"]) >= 2
    assert record["stages"]["rollback"] == {"status": "skipped"}
    assert record["stages"]["deploy"] == {"status": "skipped"}
    assert site.latest_env() == {
        "STATUS": "passed",
        "STATUS_REASON": "all_probes_healthy",
        "FAILED_URL_COUNT": "0",
        "ROLLBACK_ATTEMPTED": "false",
        "ROLLBACK_SUCCEEDED": "unknown",
        "ROLLBACK_EXIT_CODE": "None",
        "ATTEMPT_COUNT": str(record["attempt_count"]),
    }


def test_what_is_sent_says_who_asks_and_for_what(site: Site, runtime: Runtime) -> None:
    site.run("gate", RUNTIME_HEALTH_TOKEN="a-health-token")
    (sent, *_) = runtime.requests
    assert sent["Accept"] == "application/health+json, application/json;q=0.9, */*;q=0.5"
    assert re.match(r"opsgate/\d", sent["User-Agent"])
    assert sent["Authorization"] == "Bearer a-health-token"


def test_the_first_line_names_the_worst_case(site: Site) -> None:
    result = site.run("gate", "--deadline", "20s")
    told = re.search(r"verdict by (\d\d):(\d\d):(\d\d) UTC at the latest", result.err.splitlines()[0])
    assert told
    hour, minute, second = map(int, told.groups())
    gate = site.record()["stages"]["gate"]
    latest = datetime.fromisoformat(gate["started_at"]) + timedelta(seconds=20.5)
    # It is told before the gate begins, as a time of the day; in between may be a stall, or midnight.
    off = timedelta(hours=hour, minutes=minute, seconds=second) - (
        latest - datetime.combine(latest, time.min, UTC)
    )
    assert (off + timedelta(seconds=3)) % timedelta(days=1) <= timedelta(seconds=6)


def test_what_does_not_decide_keeps_the_deadline_too(site: Site, runtime: Runtime) -> None:
    runtime.becomes("hang")
    site.configure(urls=[site.url(required=False)])
    gate = site.run(
        "gate", "--deadline", "500ms", "--soak", "0", "--attempt-timeout", "20s", "--json"
    ).document["stages"]["gate"]  # fmt: skip
    assert gate["status_reason"] == "no_urls_configured"
    assert gate["targets"][0]["attempts"][0]["kind"] == "timeout"
    assert gate["duration_ms"] < 10_000


@pytest.mark.parametrize("state", ["down", "sick"])
def test_an_unhealthy_runtime_fails(site: Site, runtime: Runtime, state: str) -> None:
    runtime.becomes(state)
    result = site.run("gate", "--json", code=1)
    record = result.document
    assert record == site.record()
    assert (record["status"], record["status_reason"], record["exit_code"]) == ("failed", "probe_failures", 1)
    assert record["failed_urls"] == [runtime.url]
    kinds = {attempt["kind"] for attempt in record["stages"]["gate"]["targets"][0]["attempts"]}
    assert kinds == {{"down": "status", "sick": "health_document"}[state]}
    assert any("No rollback is configured" in step for step in record["next_steps"])
    assert site.latest_env()["FAILED_URL_COUNT"] == "1"
    assert site.latest_env()["STATUS"] == "failed"


def test_the_verdict_is_never_late(site: Site, runtime: Runtime) -> None:
    runtime.becomes("hang")
    record = site.run("gate", "--deadline", "1s", "--attempt-timeout", "30s", "--json", code=1).document
    assert record["stages"]["gate"]["duration_ms"] <= 5000


def test_flapping_is_unstable_at_once(site: Site, runtime: Runtime) -> None:
    runtime.becomes("flap")
    record = site.run("gate", "--soak", "5s", "--deadline", "20s", "--json", code=1).document
    assert record["status_reason"] == "unstable"
    assert record["stages"]["gate"]["targets"][0]["flaps"] == 3
    assert record["duration_ms"] < 10_000


def test_without_a_url_nothing_is_validated_and_every_output_says_so(site: Site) -> None:
    site.configure(urls=[])
    result = site.run("gate")
    assert NOT_VALIDATED in result.headline
    assert NOT_VALIDATED in result.err
    assert NOT_VALIDATED in " ".join(site.record()["next_steps"])
    assert site.latest_env()["STATUS"] == "skipped"
    assert site.latest_env()["STATUS_REASON"] == "no_urls_configured"
    as_json = site.run("gate", "--json")
    assert NOT_VALIDATED in as_json.out
    assert NOT_VALIDATED in as_json.err
    assert (as_json.document["status"], as_json.document["exit_code"]) == ("skipped", 0)
    assert as_json.document["stages"]["gate"]["policy"]["deadline"] == 2.0
    for form in ("text", "md", "html", "junit", "json"):
        assert NOT_VALIDATED in site.run("evidence", "--format", form).out, form
    assert site.run("gate", "--fail-on-skipped", "--json", code=1).document["status"] == "skipped"


def test_no_configuration_at_all_is_skipped_too(site: Site) -> None:
    (site.path / "opsgate.toml").unlink()
    assert NOT_VALIDATED in site.run("gate").out
    assert site.record()["environment"] == "default"


def test_targets_that_are_not_required_never_decide(site: Site, runtime: Runtime) -> None:
    optional = {"name": "extra", "url": f"http://127.0.0.1:{free_port()}/", "required": False}
    site.configure(urls=[site.url(), optional])
    record = site.run("gate", "--json").document
    assert record["status"] == "passed"
    assert [target["healthy"] for target in record["stages"]["gate"]["targets"]] == [True, False]
    assert record["failed_urls"] == []

    site.configure(urls=[optional])
    record = site.run("gate", "--json").document
    assert (record["status"], record["status_reason"]) == ("skipped", "no_urls_configured")
    assert [target["name"] for target in record["stages"]["gate"]["targets"]] == ["extra"]


def test_a_command_can_be_a_target(site: Site) -> None:
    site.configure(urls=[{"name": "inside", "command": "echo looked inside; exit 3"}])
    record = site.run("gate", "--json", code=1).document
    (target,) = record["stages"]["gate"]["targets"]
    assert (target["name"], target["url"]) == ("inside", None)
    assert target["attempts"][0]["kind"] == "exit"
    assert "looked inside" in target["attempts"][0]["detail"]
    assert record["failed_urls"] == ["inside"]


def test_urls_of_flag_and_variable_take_the_place_of_the_file(site: Site, runtime: Runtime) -> None:
    site.configure(urls=[site.url(json={"version": "v0"}), {"name": "dead", "url": "http://127.0.0.1:1/"}])
    record = site.run("gate", "--json", RUNTIME_HEALTH_URLS=f"{runtime.url}, {runtime.url}\n").document
    assert [target["name"] for target in record["stages"]["gate"]["targets"]] == ["api"]
    runtime.becomes("up", "v9")
    assert site.run("gate", "--url", runtime.url, "--json", code=1).document["failed_urls"] == [runtime.url]


def test_a_revision_is_judged_only_where_one_is_given(site: Site, runtime: Runtime) -> None:
    site.configure(urls=[site.url(revision="json:version")])
    runtime.becomes("up", "abcdef1")
    record = site.run("gate", "--json").document
    assert record["stages"]["gate"]["revision"] is None
    assert record["stages"]["gate"]["targets"][0]["attempts"][0]["revision"] == "abcdef1"
    assert site.run("gate", "--revision", "abcdef123456", "--json").document["revision"] == "abcdef123456"
    record = site.run("gate", "--json", code=1, OPSGATE_REVISION="0123456789ab").document
    assert (record["status_reason"], record["revision"]) == ("wrong_revision", "0123456789ab")
    assert "abcdef1" in site.run("evidence").headline


def test_an_observer_without_a_network_withholds_the_rollback(site: Site) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/"
    site.configure(
        urls=[{"name": "gone", "url": "http://runtime.invalid/"}], control_urls=[nowhere], rollback=ROLLBACK
    )
    record = site.run("gate", "--json", code=3).document
    assert (record["status_reason"], record["stages"]["rollback"]["withheld"]) == (
        "observer_offline",
        "observer_offline",
    )
    assert record["stages"]["gate"]["control"][0]["attempts"]
    assert record["stages"]["rollback"]["attempted"] is False
    assert record["next_steps"]


def test_a_control_url_that_answers_leaves_the_fault_with_the_target(site: Site, runtime: Runtime) -> None:
    runtime.becomes("down")
    site.configure(
        urls=[{"name": "gone", "url": "http://runtime.invalid/"}], control_urls=[runtime.url], rollback="true"
    )
    record = site.run("gate", "--json", code=3).document
    assert record["status_reason"] == "probe_failures"
    assert record["stages"]["rollback"]["attempted"] is True


def test_policy_by_flag_variable_file(site: Site) -> None:
    record = site.run("gate", "--soak", "100ms", "--json", OPSGATE_SOAK="150ms", OPSGATE_FLAPS="4").document
    policy = record["stages"]["gate"]["policy"]
    assert (policy["soak"], policy["flaps"], policy["successes"]) == (0.1, 4, 2)


def test_soak_may_be_nothing(site: Site) -> None:
    assert site.run("gate", "--soak", "0", "--json").document["status"] == "passed"
