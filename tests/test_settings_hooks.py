"""Settings: targets given on the spot, hooks, variables, secrets, and what a rollback tolerates."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsgate import settings
from opsgate.errors import ConfigurationError
from opsgate.settings import EVIDENCE_NEEDS, ROLLBACK_NEEDS, Flags, Settings
from opsgate.verdict.targets import Expectation, Policy


def load(cwd: Path, text: str | None = None, /, **flags: object) -> Settings:
    environ = flags.pop("environ", {})
    needs = flags.pop("needs", None)
    if text is not None:
        (cwd / "opsgate.toml").write_text(text)
    return settings.load(Flags(**flags), environ, cwd, needs=needs)  # type: ignore[arg-type]


def error(cwd: Path, text: str | None = None, /, **flags: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(cwd, text, **flags)
    return str(caught.value)


def urls(found: Settings) -> list[str | None]:
    return [target.url for target in found.targets]


# --- URLs -----------------------------------------------------------------------------------------


def test_urls_of_the_variable(tmp_path: Path) -> None:
    text = "http://a.example/x, http://b.example\nhttp://A.example:80/x\r\n\thttp://b.example/,"
    found = load(tmp_path, environ={"RUNTIME_HEALTH_URLS": text})
    assert urls(found) == ["http://a.example/x", "http://b.example"]
    assert all(target.required for target in found.targets)
    assert [target.name for target in found.targets] == urls(found)
    assert found.origins["urls"] == "RUNTIME_HEALTH_URLS"


def test_flag_replaces_variable_replaces_file(tmp_path: Path) -> None:
    text = '[environments.default]\nurls = ["http://file.example/", { command = "true" }]\n'
    environ = {"RUNTIME_HEALTH_URLS": "http://variable.example/"}
    assert urls(load(tmp_path, text)) == ["http://file.example/", None]
    assert urls(load(tmp_path, environ=environ)) == ["http://variable.example/"]
    assert urls(load(tmp_path, environ=environ, url=("http://flag.example/",))) == ["http://flag.example/"]


def test_a_comma_in_a_flag_is_part_of_the_url_unless_another_follows(tmp_path: Path) -> None:
    assert urls(load(tmp_path, url=("http://a.example/?q=1,2",))) == ["http://a.example/?q=1,2"]
    given = ("http://a.example/,https://b.example/", "http://c.example/ tcp://d.example:1")
    assert urls(load(tmp_path, url=given)) == [
        "http://a.example/", "https://b.example/", "http://c.example/", "tcp://d.example:1"
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["http://A.example", "http://a.example:80/", "HTTP://a.example/#top"])
def test_a_url_given_keeps_the_expectations_listed(tmp_path: Path, given: str) -> None:
    text = """
    [environments.default]
    urls = ["http://other.example/",
            { url = "http://a.example/", name = "api", status = 204, required = false }]
    """
    for found in (load(tmp_path, text, url=(given,)), load(tmp_path, environ={"RUNTIME_HEALTH_URLS": given})):
        (target,) = found.targets
        assert (target.name, target.expect) == ("api", Expectation(status=((204, 204),)))
        assert target.required is True


def test_another_environment_s_expectations_are_not_ours(tmp_path: Path) -> None:
    text = '[environments.default]\n[environments.b]\nurls = [{ url = "http://a.example/", status = 204 }]\n'
    (target,) = load(tmp_path, text, url=("http://a.example/",)).targets
    assert target.expect == Expectation()


def test_urls_that_look_alike_once_masked_have_names_of_their_own(tmp_path: Path) -> None:
    found = load(tmp_path, url=("http://a.example/?token=aaaaaa", "http://a.example/?token=bbbbbb"))
    assert [target.name for target in found.targets] == [
        "http://a.example/?token=***",
        "http://a.example/?token=*** (2)",
    ]


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        ("http://a.example/x#y", "http://a.example/x"),
        ("http://é.example/x", "http://xn--9ca.example/x"),
        ("http://u:p@é.example:81?q", "http://u:p@xn--9ca.example:81?q"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("http://back_end:8000", "http://back_end:8000"),
        ("https://a.example./", "https://a.example./"),
    ],
)
def test_urls_are_requested_as_written(tmp_path: Path, given: str, requested: str) -> None:
    assert urls(load(tmp_path, url=(given,))) == [requested]


@pytest.mark.parametrize(
    "given",
    [
        "http://root:hunter22secret@a..example/",
        "http://root:hunter22secret",
        "http://root:hunter22 secret@a.example/",
        "root:hunter22secret@a.example",
        "ftp://a.example/?x=hunter22secret",
        "http://a.example:99999/?token=hunter22secret",
        "http://root:hunter22secret@a.example:0/",
        "tcp://root:hunter22secret@a.example:1",
        "http://root:hunter22secret@é..example/",
        "http://root:hunter22secret@[::zz]/",
        "http://root:hunter22secret@[::1",
    ],
)
def test_no_message_shows_the_secret_part_of_a_url(tmp_path: Path, given: str) -> None:
    texts = [
        error(tmp_path, url=(given,)),
        error(tmp_path, environ={"RUNTIME_HEALTH_URLS": given}),
        error(tmp_path, environ={"RUNTIME_CONTROL_URLS": given}),
        error(tmp_path, f"[environments.default]\nurls = ['{given}']\n"),
    ]
    assert not [text for text in texts if "hunter22" in text]


def test_control_urls(tmp_path: Path) -> None:
    text = '[environments.default]\ncontrol_urls = ["http://a.example/"]\n'
    assert [target.url for target in load(tmp_path, text).control] == ["http://a.example/"]
    environ = {"RUNTIME_CONTROL_URLS": "http://b.example/ http://c.example,http://b.example"}
    found = load(tmp_path, environ=environ)
    assert [(target.url, target.required) for target in found.control] == [
        ("http://b.example/", False),
        ("http://c.example", False),
    ]
    assert error(tmp_path, environ={"RUNTIME_CONTROL_URLS": "tcp://b.example:1"}).startswith(
        'RUNTIME_CONTROL_URLS: "tcp://b.example:1" is not a URL with http:// or https://'
    )


# --- hooks ----------------------------------------------------------------------------------------


def test_each_hook_has_a_variable_that_wins(tmp_path: Path) -> None:
    text = """
    [publish]
    command = "fp"
    [environments.default]
    deploy = "fd"
    rollback = ["fr1", "fr2"]
    rollback_check = "fc"
    incident = "fi"
    """
    assert load(tmp_path, text).hooks == settings.Hooks(
        publish="fp", deploy="fd", rollback=("fr1", "fr2"), rollback_check="fc", incident="fi"
    )
    environ = {
        "RUNTIME_PUBLISH_COMMAND": "p", "RUNTIME_DEPLOY_COMMAND": "d", "RUNTIME_ROLLBACK_COMMAND": "r",
        "RUNTIME_ROLLBACK_CHECK_COMMAND": "c", "RUNTIME_INCIDENT_COMMAND": "i",
    }  # fmt: skip
    found = load(tmp_path, environ=environ)
    assert found.hooks == settings.Hooks(
        publish="p", deploy="d", rollback=("r",), rollback_check="c", incident="i"
    )
    assert found.origins["rollback"] == "RUNTIME_ROLLBACK_COMMAND"


def test_redeploy_and_compose_mean_something_in_the_file_only(tmp_path: Path) -> None:
    found = load(tmp_path, '[environments.default]\ndeploy = "compose"\nrollback = "redeploy"\n')
    assert found.hooks == settings.Hooks(deploy_compose=True, redeploy=True)
    assert found.hooks.deploys
    assert found.hooks.rolls_back
    words = {"RUNTIME_DEPLOY_COMMAND": "compose", "RUNTIME_ROLLBACK_COMMAND": "redeploy"}
    assert load(tmp_path, environ=words).hooks == settings.Hooks(deploy="compose", rollback=("redeploy",))


def test_redeploy_is_content_with_a_deploy_hook_of_the_variable(tmp_path: Path) -> None:
    text = '[environments.default]\nrollback = "redeploy"\n'
    assert load(tmp_path, text, environ={"RUNTIME_DEPLOY_COMMAND": "d"}).hooks.redeploy
    assert '"redeploy" runs the deploy hook, and none is configured' in error(tmp_path)


def test_one_command_and_an_empty_chain(tmp_path: Path) -> None:
    assert load(tmp_path, '[environments.default]\nrollback = "r"\n').hooks.rollback == ("r",)
    found = load(tmp_path, "[environments.default]\nrollback = []\n")
    assert not found.hooks.rolls_back


# --- variables ------------------------------------------------------------------------------------


def test_unknown_variables_are_warnings(tmp_path: Path) -> None:
    environ = {
        "OPSGATE_SOKE": "s3cret",
        "OPSGATE_ZZZZZZ": "1",
        "RUNTIME_HEALTH_URL": "x",
        "RUNTIME_OTHER": "y",
    }
    assert load(tmp_path, environ=environ).warnings == (
        "OPSGATE_SOKE: unknown variable; did you mean OPSGATE_SOAK?",
        "OPSGATE_ZZZZZZ: unknown variable; it has no effect",
        "RUNTIME_HEALTH_URL: unknown variable; did you mean RUNTIME_HEALTH_URLS?",
    )


def test_what_opsgate_gives_to_hooks_is_known(tmp_path: Path) -> None:
    names = ["RUN_ID", "ENV", "STAGE", "IMAGES", "PINS", "EVIDENCE", "OUTPUT", "TAG", "STATUS",
             "STATUS_REASON", "FAILED_URLS", "LAST_GOOD_REVISION",
             "LAST_GOOD_IMAGES", "LAST_GOOD_PINS"]  # fmt: skip
    assert load(tmp_path, environ={f"OPSGATE_{name}": "x" for name in names}).warnings == ()


# --- secrets --------------------------------------------------------------------------------------


def test_secrets_are_gathered_and_never_shown(tmp_path: Path) -> None:
    text = """
    [environments.default]
    [[environments.default.urls]]
    url = "https://user:pw-in-url@a.example/?api_key=key-in-query"
    request_headers = { Authorization = "Basic header-value", X-Other = "other-value" }
    """
    environ = {"RUNTIME_HEALTH_TOKEN": "the-token\n", "DB_PASSWORD": "variable-value"}
    found = load(tmp_path, text, environ=environ)
    assert found.token is not None
    assert found.token.reveal() == "the-token"
    planted = ["pw-in-url", "key-in-query", "header-value", "other-value", "the-token", "variable-value"]
    assert found.redactor.scrub(" ".join(planted)) == " ".join(["***"] * len(planted))
    shown = f"{found!r} {found} {found.origins} {settings.describe(found)}"
    assert not [secret for secret in planted if secret in shown]


def test_secrets_in_the_files_own_commands_are_known_too(tmp_path: Path) -> None:
    keys = {
        "deploy": "deploy --token deploy-token",
        "rollback_check": "curl -u user:check-password https://a.example",
        "incident": "page 'https://a.example/?key=incident-key'; true",
    }
    chain = '["ROLL_SECRET=first-secret roll", "curl https://user:second-secret@a.example"]'
    text = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    text = f"[environments.default]\n{text}rollback = {chain}\n"
    found = load(tmp_path, f'{text}[publish]\ncommand = "push --password=publish-password"\n')
    said = "deploy-token check-password incident-key first-secret second-secret publish-password"
    assert found.redactor.scrub(f"said: {said}") == "said: *** *** *** *** *** ***"


def test_a_long_value_is_not_quoted_in_part(tmp_path: Path) -> None:
    secret = "hunter2-" + "under-the-mat-" * 20
    environ = {"OPSGATE_DEADLINE": f"{'x' * 50} {secret}", "OPSGATE_REVISION": f"{'x' * 50} {secret}"}
    text = error(tmp_path, environ=environ, url=(f"http://someone:{secret}@a.example:{secret}/",))
    assert "hunter2" not in text
    assert '"(339 characters)" is not a duration' in text


def test_a_commands_name_is_masked_before_it_is_cut(tmp_path: Path) -> None:
    secret = "hunter2-under-the-mat-0123456789"
    text = f'[environments.default]\nurls = [{{ command = "{"x" * 180} {secret} {"y" * 300}" }}]\n'
    (target,) = load(tmp_path, text, environ={"DEPLOY_TOKEN": secret}).targets
    assert len(target.name) == 200
    assert target.name.startswith(f"{'x' * 180} *** yyy")


@pytest.mark.parametrize("token", ["two words", "a\nb", "é", "a\x00b"])
def test_a_token_that_no_header_can_carry(tmp_path: Path, token: str) -> None:
    text = error(tmp_path, environ={"RUNTIME_HEALTH_TOKEN": token})
    assert text.startswith("RUNTIME_HEALTH_TOKEN: holds a character that a header cannot carry")
    assert token not in text


# --- what a rollback tolerates --------------------------------------------------------------------

BROKEN = """
nonsense = 1
max_rollbacks_per_day = "many"
[gate]
soak = true
flaps = 7
[timeouts]
rollback = "soon"
[environments.production]
urls = ["http://a.example/", "ftp://b.example/"]
rollback = "way back"
incident = 5
[environments.other]
rollback = 5
"""


def test_a_rollback_takes_other_mistakes_as_warnings(tmp_path: Path) -> None:
    found = load(tmp_path, BROKEN, env="production", needs=ROLLBACK_NEEDS, environ={"OPSGATE_FLAPS": "x"})
    assert found.hooks.rollback == ("way back",)
    assert urls(found) == ["http://a.example/"]
    assert found.policy == Policy(flaps=7)
    assert (found.timeouts.rollback, found.max_rollbacks_per_day) == (240, 3)
    assert len(found.warnings) == 8
    assert any("environments.production.urls[1]" in warning for warning in found.warnings)
    with pytest.raises(ConfigurationError):
        load(tmp_path, env="production")


def test_a_rollback_needs_its_own_command(tmp_path: Path) -> None:
    text = "[environments.default]\nrollback = 5\n"
    assert error(tmp_path, text, needs=ROLLBACK_NEEDS).startswith(
        "opsgate.toml: environments.default.rollback: "
    )
    environ = {"RUNTIME_ROLLBACK_COMMAND": "way back"}
    assert load(tmp_path, needs=ROLLBACK_NEEDS, environ=environ).hooks.rollback == ("way back",)


def test_a_redeploy_needs_the_deploy_hook_and_the_evidence(tmp_path: Path) -> None:
    text = 'evidence_dir = 5\n[environments.default]\ndeploy = "d"\nrollback = "redeploy"\n'
    assert error(tmp_path, text, needs=ROLLBACK_NEEDS).startswith("opsgate.toml: evidence_dir: ")
    assert load(tmp_path, needs=ROLLBACK_NEEDS, evidence_dir="ev").evidence_dir == tmp_path / "ev"
    text = "[environments.default]\ndeploy = 5\nrollback = 'redeploy'\n"
    assert '"redeploy" runs the deploy hook' in error(tmp_path, text, needs=ROLLBACK_NEEDS)
    # A command of one's own finds the way without evidence.
    text = 'evidence_dir = 5\n[environments.default]\nrollback = "way back"\n'
    assert load(tmp_path, text, needs=ROLLBACK_NEEDS).evidence_dir == tmp_path / "artifacts" / "rollout"


def test_a_rollback_of_the_variable_survives_a_file_that_is_no_toml(tmp_path: Path) -> None:
    text = "[environments\n"
    assert error(tmp_path, text, needs=ROLLBACK_NEEDS).startswith("opsgate.toml: is not valid TOML: ")
    environ = {"RUNTIME_ROLLBACK_COMMAND": "way back"}
    found = load(tmp_path, needs=ROLLBACK_NEEDS, environ=environ, env="production")
    assert (found.hooks.rollback, found.environment) == (("way back",), "production")
    assert found.warnings[0].startswith("opsgate.toml: is not valid TOML: ")
    gone = environ | {"OPSGATE_CONFIG": "no.toml"}
    assert load(tmp_path, needs=ROLLBACK_NEEDS, environ=gone).hooks.rollback == ("way back",)


def test_where_a_variable_names_no_usable_url_a_rollback_checks_those_of_the_file(tmp_path: Path) -> None:
    text = (
        '[environments.production]\nrollback = "x"\n'
        'urls = ["http://a.example/"]\ncontrol_urls = ["http://c.example/"]\n'
    )
    environ = {"RUNTIME_HEALTH_URLS": "htp://b.example", "RUNTIME_CONTROL_URLS": "htp://d.example"}
    found = load(tmp_path, text, env="production", needs=ROLLBACK_NEEDS, environ=environ)
    assert [target.url for target in (*found.targets, *found.control)] == [
        "http://a.example/",
        "http://c.example/",
    ]
    assert found.origins["urls"] == "opsgate.toml [environments.production]"
    assert [warning.partition(":")[0] for warning in found.warnings] == list(environ)
    assert error(tmp_path, text, env="production", environ=environ).startswith("RUNTIME_HEALTH_URLS: ")


def test_mistakes_in_flags_and_in_the_environment_s_name_stay_errors(tmp_path: Path) -> None:
    assert error(tmp_path, BROKEN, env="production", needs=ROLLBACK_NEEDS, soak="x").startswith("--soak: ")
    assert error(tmp_path, env="prodution", needs=ROLLBACK_NEEDS).startswith("--env: ")
    assert error(tmp_path, env="production", needs=ROLLBACK_NEEDS, soak="3m").startswith("--soak: ")


def test_a_soak_that_is_too_long_is_a_warning_for_a_rollback(tmp_path: Path) -> None:
    text = '[gate]\nsoak = "3m"\nflaps = 5\n[environments.default]\nrollback = "r"\n'
    found = load(tmp_path, text, needs=ROLLBACK_NEEDS)
    assert found.policy == Policy(flaps=5)
    assert "must be shorter than the deadline" in found.warnings[0]


def test_looking_at_evidence_needs_its_directory_only(tmp_path: Path) -> None:
    assert load(tmp_path, BROKEN, env="other", needs=EVIDENCE_NEEDS).environment == "other"
    assert error(tmp_path, "evidence_dir = 5\n", needs=EVIDENCE_NEEDS).startswith(
        "opsgate.toml: evidence_dir: "
    )


# --- for people -----------------------------------------------------------------------------------


def test_the_rows_for_people(tmp_path: Path) -> None:
    text = """
    [publish]
    services = ["a"]
    [environments.default]
    production = true
    urls = [{ url = "http://a.example/", name = "api", required = false }, { command = "look" }]
    control_urls = ["http://c.example/"]
    deploy = "compose"
    rollback = ["one", "two"]
    """
    rows = [(row.key, row.value, row.origin) for row in settings.describe(load(tmp_path, text, soak="500ms"))]
    own = "opsgate.toml [environments.default]"
    assert ("environment", "default (production)", "default") in rows
    assert ("gate.soak", "500ms", "flag --soak") in rows
    assert ("gate.successes", "3", "default") in rows
    assert ("urls", "api: http://a.example/ (not required)", own) in rows
    assert ("urls", "look", own) in rows
    assert ("deploy", "docker compose up", own) in rows
    assert [row[1] for row in rows if row[0] == "rollback"] == ["one", "two"]
    assert ("publish.services", "a", "opsgate.toml [publish]") in rows
    assert ("timeouts.rollback", "4m", "default") in rows


def test_the_rows_say_that_nothing_is_configured(tmp_path: Path) -> None:
    rows = {row.key: row.value for row in settings.describe(load(tmp_path))}
    assert rows["urls"] == "none: nothing will be validated"
    assert (rows["rollback"], rows["deploy"], rows["token"]) == ("none", "none", "none")
